"""A run that goes on from a checkpoint ends with the same bytes as one that nobody stopped."""

import json
import random

import numpy as np
import pytest
import torch
from conftest import SAMPLES
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import dinkcli
from dinkcli.errors import ModelError, StoppedError, UsageError
from dinkcli.options import parse_seconds
from dinkcli.training.checkpoint import Checkpoints


class StopAfter(Checkpoints):
    """Asks to stop at the ``rests``-th place where the training can rest, or ``anywhere`` that it
    can stop."""

    def __init__(self, path, rests, anywhere=False):
        super().__init__(str(path))
        self.rests, self.anywhere = rests, anywhere

    def rest(self, trainer, checksums, new):
        self.rests -= new or self.anywhere
        if self.rests == 0:
            self.ask_to_stop()
        super().rest(trainer, checksums, new)


def stopped(z, k, path, rests, anywhere=False, **options):
    with pytest.raises(StoppedError):
        checkpoints = StopAfter(path, rests, anywhere)
        dinkcli.train(z, k, device="cpu", checkpoints=checkpoints, **options)


def in_pieces(z, k, folder, pieces, **options):
    """The model and the number of interruptions; ``pieces()`` gives the length of each piece."""
    path, resume, number = folder / "c.safetensors", None, 0
    while True:
        try:
            model = dinkcli.train(
                z,
                k,
                device="cpu",
                checkpoints=StopAfter(path, pieces()),
                resume=resume,
                **options,
            )
            return model, number
        except StoppedError:
            resume, number = path, number + 1


def saved(model, path):
    model.save(path)
    return path.read_bytes()


SLOW = pytest.mark.slow
LITERAL = {"temperature": np.inf, "memory": 1000, "batch_size": 300}


@pytest.mark.parametrize(
    ("longest", "options"),
    [
        (4, {}),
        pytest.param(5, {"n_init": 3, "metric": "cosine"}, marks=SLOW),
        pytest.param(3, {"n_init": 1, "metric": "learned"}, marks=SLOW),
        pytest.param(4, {"n_init": 1, "metric": "learned", "memory": 1000}, marks=SLOW),
        pytest.param(6, {"memory": 1000, "init": "random", "dilation": 0.1}, marks=SLOW),
        (3, {"temperature": 50.0, "epochs": 5}),
        pytest.param(1, LITERAL | {"epochs": 2}, marks=SLOW),
    ],
)
def test_resuming_is_exact(digits, tmp_path, longest, options):
    z = np.abs(digits[0]) + 0.01
    weights = np.random.default_rng(0).uniform(0.5, 2, len(z))
    options |= {"sample_weight": weights if "memory" in options else None}
    whole = saved(dinkcli.train(z, 10, device="cpu", **options), tmp_path / "whole")
    rng = random.Random(0)
    model, number = in_pieces(z, 10, tmp_path, lambda: rng.randint(1, longest), **options)
    assert number >= 2
    assert saved(model, tmp_path / "pieces") == whole


@pytest.mark.slow
def test_resuming_is_exact_at_every_single_rest(blobs, tmp_path):
    """One interruption after each round and pass: nothing may live outside the checkpoint."""
    whole = saved(dinkcli.train(blobs[0], 9, device="cpu", n_init=1), tmp_path / "whole")
    model, number = in_pieces(blobs[0], 9, tmp_path, lambda: 1, n_init=1)
    assert number > 8
    assert saved(model, tmp_path / "pieces") == whole


def test_a_pass_over_many_blocks_goes_on_inside(tmp_path, monkeypatch):
    monkeypatch.setattr("dinkcli.nearest.hardware._BLOCK_ROWS", 100)
    z = np.random.default_rng(0).normal(size=(1000, 4)).astype(np.float32)
    options = {"temperature": 0.0, "epochs": 3, "seed": 5}
    whole = saved(dinkcli.train(z, 4, device="cpu", **options), tmp_path / "whole")
    path = tmp_path / "c.safetensors"
    stopped(z, 4, path, 16, **options)
    values = json.loads(safe_open(path, "numpy").metadata()["dink"])["state"]["progress"]
    assert (values["passes"], values["blocks"]) == (1, 5)
    model, _ = in_pieces(z, 4, tmp_path, lambda: 7, **options)
    assert saved(model, tmp_path / "pieces") == whole


def test_a_checkpoint_is_a_model(digits, tmp_path):
    z, path = digits[0], tmp_path / "c.safetensors"
    stopped(z, 10, path, 4, n_init=1)  # in the refinement of the only start
    model = dinkcli.load(path)
    assert model.state is not None
    labels = dinkcli.assign(model, z, device="cpu")
    np.testing.assert_array_equal(labels, dinkcli.assign(path, z, device="cpu"))
    assert np.abs(np.bincount(labels, minlength=10) - model.cluster_sizes).sum() < 40
    assert model.training["history"][-1]["inertia"] == model.training["metrics"]["inertia"]


def test_what_has_changed_is_named(blobs, tmp_path):
    z, path = blobs[0], tmp_path / "c.safetensors"
    np.save(tmp_path / "x.npy", z)
    x = tmp_path / "x.npy"
    stopped(x, 3, path, 2)

    def resume(data=x, k=3, **options):
        return dinkcli.train(data, k, device="cpu", resume=path, **options)

    with pytest.raises(UsageError, match=r"--tol 0.5 \(then 0.0001\); --seed 1 \(then 0\); make"):
        resume(seed=1, tol=0.5)
    with pytest.raises(UsageError, match=r"--n-clusters 4 \(then 3\); start again"):
        resume(k=4, force=True)
    with pytest.raises(UsageError, match=r"--metric cosine \(then euclidean\); start again"):
        resume(metric="cosine", force=True)
    np.save(tmp_path / "longer.npy", np.concatenate([z, z[:3]]))
    with pytest.raises(UsageError, match=r"input rows 303 \(then 300\); input files \['longer.npy"):
        resume(tmp_path / "longer.npy")
    z[17, 2] += 1
    np.save(x, z)
    with pytest.raises(UsageError, match="the rows have other values; make them the same, or use"):
        resume()
    with pytest.raises(UsageError, match="the sample weights have other values"):
        resume(sample_weight=np.ones(300))
    forced = resume(force=True, epochs=50, seed=3)
    assert forced.training["options"]["epochs"] == 50
    assert sorted(forced.cluster_sizes) == sorted(
        np.bincount(dinkcli.assign(forced, x, device="cpu"))
    )


def test_another_machine_is_told_apart(blobs, tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    stopped(blobs[0], 3, path, 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    with pytest.warns(UserWarning, match=r"may differ in its last digits: threads 77 \(then \d+\)"):
        dinkcli.train(blobs[0], 3, device="cpu", resume=path)


def test_a_finished_model_is_not_resumed(blobs, tmp_path):
    path = tmp_path / "m.safetensors"
    dinkcli.train(blobs[0], 3, device="cpu").save(path)
    with pytest.raises(UsageError, match=r"a finished model, and there is no checkpoint"):
        dinkcli.train(blobs[0], 3, device="cpu", resume=path)
    with pytest.raises(UsageError, match="no such model file"):
        dinkcli.train(blobs[0], 3, device="cpu", resume=tmp_path / "no.safetensors")


def progress(document):
    return document["state"]["progress"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, v: t.pop("state.generator"), "checkpoint is damaged, or of an older dink"),
        (lambda t, v: t["state.generator"].put(3, 7), "checkpoint is damaged"),
        (lambda t, v: t["state.counts"].put(0, np.nan), "checkpoint is damaged"),
        (lambda t, v: t.update({"state.x": np.zeros(3, np.float32)}), "checkpoint is damaged"),
        (lambda t, v: t["state.centers"].resize(3, 1), "checkpoint is damaged"),
        (lambda t, v: progress(v).update(start=2), "checkpoint is damaged"),
        (lambda t, v: progress(v).update({"refining.moves": "x"}), "checkpoint is damaged"),
        (lambda t, v: progress(v).pop("digest"), "checkpoint is damaged"),
        (lambda t, v: v["state"].update({"progress": 3}), r"damaged \(state.progress is 3\)"),
        (lambda t, v: v["state"].pop("checksums"), r"damaged \(state.checksums is None\)"),
        (lambda t, v: v.update({"state": [1]}), r"damaged \(state is \[1\]\)"),
    ],
)
def test_a_damaged_state_is_one_clear_error(blobs, tmp_path, change, message):
    path = tmp_path / "c.safetensors"
    stopped(blobs[0], 3, path, 2)
    document = json.loads(safe_open(path, "numpy").metadata()["dink"])
    tensors = {name: array.copy() for name, array in load_file(path).items()}
    change(tensors, document)
    save_file(tensors, path, {"dink": json.dumps(document)})
    with pytest.raises(ModelError, match=message):
        dinkcli.train(blobs[0], 3, device="cpu", resume=path)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5m", 300), ("1.5h", 5400), (" 5 m", 300), ("0.01s", 0.01)],
)
def test_intervals(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "m", "0s", "-1m", "5 years", "1e3s", "infs", "5m5", "100steps", "2epochs"]
)
def test_bad_intervals(text):
    with pytest.raises(UsageError, match="expected a time such as 30s, 5m or 2h"):
        parse_seconds(text)


def test_checkpoints_come_as_often_as_asked(digits, tmp_path, monkeypatch):
    """By a clock that ticks once at each rest, and once when a checkpoint is written."""
    written, rests, ticks = [], 0, iter(range(1000))
    monkeypatch.setattr("time.monotonic", lambda: next(ticks))

    class Counting(Checkpoints):
        def rest(self, trainer, checksums, new):
            nonlocal rests
            rests += new
            self.written = False
            super().rest(trainer, checksums, new)
            written.extend([rests] * self.written)

    checkpoints = Counting(str(tmp_path / "c"), 3.0)
    dinkcli.train(digits[0], 10, device="cpu", n_init=1, checkpoints=checkpoints)
    assert rests > 6 and written == list(range(3, rests + 1, 3))


def test_time_is_measured_without_the_clock_of_the_wall(tmp_path, blobs, monkeypatch):
    """A wrong or jumping clock changes nothing: no model and no checkpoint holds a time."""
    import time

    first = saved(dinkcli.train(blobs[0], 3, device="cpu"), tmp_path / "a")
    monkeypatch.setattr(time, "time", lambda: -1e9)
    checkpoints = Checkpoints(str(tmp_path / "c"), 0.0)
    second = dinkcli.train(blobs[0], 3, device="cpu", checkpoints=checkpoints)
    assert saved(second, tmp_path / "b") == first


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_training(tmp_path, blobs):
    told = []
    checkpoints = Checkpoints(str(tmp_path / "gone" / "c"), 0.0, told.append)
    model = dinkcli.train(blobs[0], 3, device="cpu", checkpoints=checkpoints)
    assert model.state is None
    assert told and all("no checkpoint" in text and "no such folder" in text for text in told)


@pytest.mark.slow
def test_the_history_in_a_file_is_bounded(tmp_path, blobs):
    model = dinkcli.train(SAMPLES / "digits.npy", 10, device="cpu")
    step = model.training["history"][-1]
    model.training["history"] = [{**step, "done": i} for i in range(100_001)]
    model.save(tmp_path / "m")
    kept = dinkcli.load(tmp_path / "m").training["history"]
    assert len(kept) <= 50_000
    assert kept[-1]["done"] == 100_000


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"n_init": 2, "batch_size": 64}, marks=SLOW),
        {"temperature": 0.0, "max_size": "1.1x", "tol": 0.0},
    ],
)
def test_stopped_anywhere_it_goes_on_from_the_last_rest(blobs, tmp_path, options):
    """Between rests, annealing or limiting sizes, too; no step is in the history twice."""
    model = dinkcli.train(blobs[0], 7, device="cpu", **options)
    whole, path = saved(model, tmp_path / "whole"), tmp_path / "c"
    for rests in range(1, 100):
        checkpoints = StopAfter(path, rests, anywhere=True)
        try:
            dinkcli.train(blobs[0], 7, device="cpu", checkpoints=checkpoints, **options)
            break
        except StoppedError:
            again = dinkcli.train(blobs[0], 7, device="cpu", resume=path, **options)
            assert saved(again, tmp_path / "again") == whole
    assert rests > len(model.training["history"])
