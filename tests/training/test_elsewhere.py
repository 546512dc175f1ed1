"""What a training can be asked for, and what is done with models, on the simulated device: as on a
GPU, and as on MPS, which has no float64 (see ``tests/simulated.py``)."""

import json
import threading
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from conftest import inertia_float64, nearest_float64
from simulated import NAME, K, clustered_rows, known_to_commands, simulated

import dinkcli
from dinkcli.data.array import ArrayReader
from dinkcli.data.dataset import DataSet
from dinkcli.data.inputs import open_inputs
from dinkcli.estimator import DinkClustering
from dinkcli.nearest import hardware as sizes
from dinkcli.options import TrainOptions
from dinkcli.processes.group import Group, World
from dinkcli.training.checkpoint import checkpoint_of, checksums, restore
from dinkcli.training.rows import RowSource
from dinkcli.training.sample import Sample
from dinkcli.training.trainer import Trainer


@pytest.fixture(params=["cuda", "mps"])
def there(request, monkeypatch):
    known_to_commands(monkeypatch)
    with simulated() as found:
        if request.param == "mps":
            monkeypatch.setattr(sizes, "_WITHOUT_FLOAT64", {NAME})
            found.has_float64 = False
        yield found


@pytest.fixture(scope="module")
def rows():
    return clustered_rows()


WEIGHTS = np.linspace(0.5, 2, 900).astype(np.float32)
# What is the same whatever the device, and what ends elsewhere as good.
SAME = {
    "paper": {"temperature": float("inf"), "dilation": 0.1, "epochs": 2, "batch_size": 128},
    "fixed": {"temperature": 0.8, "epochs": 3, "tol": 0.0},
    "cold, random": {"temperature": 0.0, "init": "random", "sample_weight": WEIGHTS},
    "cold, xavier, streamed": {"temperature": 0.0, "init": "xavier", "memory": 4000},
    "cosine, cold": {"temperature": 0.0, "metric": "cosine"},
    "limited": {"temperature": 0.0, "max_size": "1.1x"},
}
AS_GOOD = {
    "auto": {"n_init": 1},
    "starts, seed, dilation": {"n_init": 2, "seed": 7, "dilation": 0.2},
    "cosine, streamed, weights": {
        **{"metric": "cosine", "memory": 4000},
        **{"sample_weight": WEIGHTS, "n_init": 1},
    },
    "small batches": {"batch_size": 64, "refine": False, "n_init": 1},
    "limited": {"max_size": "1.1x", "n_init": 1},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAME)
def test_training(there, rows, name):
    options = SAME[name]
    found, expected = (dinkcli.train(rows, K, device=d, **options) for d in (NAME, "cpu"))
    assert there.n_operations
    np.testing.assert_allclose(found.cluster_centers, expected.cluster_centers, atol=3e-5)
    np.testing.assert_allclose(found.cluster_sizes, expected.cluster_sizes, rtol=1e-5)


ON_BOTH = ["auto", "cosine, streamed, weights"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "there, name",
    [("cuda", name) for name in AS_GOOD] + [("mps", name) for name in ON_BOTH],
    indirect=["there"],
)
def test_annealing(there, rows, name):
    options = AS_GOOD[name]
    found, expected = (dinkcli.train(rows, K, device=d, **options) for d in (NAME, "cpu"))
    z = rows / np.linalg.norm(rows, axis=1, keepdims=True) if "metric" in options else rows
    ends = [inertia_float64(z, model.cluster_centers) for model in (found, expected)]
    assert ends[0] == pytest.approx(ends[1], rel=0.01)


@pytest.mark.slow
def test_on_main_axes(there):
    rng = np.random.default_rng(2)
    wide = (6 * rng.normal(size=(20, 128)))[rng.integers(20, size=3000)]
    wide = (wide + rng.normal(size=wide.shape)).astype(np.float32)
    found, expected = (dinkcli.train(wide, 20, device=d) for d in (NAME, "cpu"))
    ends = [inertia_float64(wide, model.cluster_centers) for model in (found, expected)]
    assert ends[0] == pytest.approx(ends[1], rel=0.01)


@pytest.mark.slow
def test_clusters_that_follow_neighbours(there, rows):
    options = {"metric": "learned", "n_init": 1}
    found, expected = (dinkcli.train(rows, K, device=d, **options) for d in (NAME, "cpu"))
    labels = [dinkcli.assign(found, rows, device=d) for d in (NAME, "cpu")]
    np.testing.assert_array_equal(*labels)
    same = labels[0][:, None] == labels[0]
    other = dinkcli.assign(expected, rows, device="cpu")
    assert (same == (other[:, None] == other)).mean() > 0.99


@pytest.mark.slow
def test_commands(there, rows, invoke, tmp_path):
    """From a training that is stopped and goes on to a report."""
    np.save(tmp_path / "x.npy", rows)
    on = "--device", NAME
    train = "train", "x.npy", "-k", K, *on, "--temperature", 0
    invoke(*train, "-o", "whole.safetensors", "--epochs", 5)
    invoke(*train, "-o", "m.safetensors", "--epochs", 5, "--checkpoint-every", "1s")
    invoke("train", "x.npy", "-k", K, *on, "--init", "m.safetensors", "-o", "n.safetensors")
    whole, model = (dinkcli.load(tmp_path / f"{n}.safetensors") for n in ("whole", "m"))
    assert whole.cluster_centers.tobytes() == model.cluster_centers.tobytes()
    for command in (
        ("assign", "m.safetensors", "x.npy", "-o", "y.npy"),
        ("assign", "m.safetensors", "x.npy", "-o", "l.npy", "--max-size", "1.2x"),
        ("assign", "m.safetensors", "x.npy", "-o", "s.npy", "--soft"),
        ("assign", "m.safetensors", "x.npy", "-o", "t.parquet", "--top", 2, "--distance"),
        ("sample", "m.safetensors", "x.npy", "-n", 40, "-o", "sample.npy"),
        ("dedup", "m.safetensors", "x.npy", "--max-distance", 0.5, "-o", "d.parquet"),
        ("evaluate", "m.safetensors", "x.npy", "--json"),
        ("inspect", "m.safetensors", "x.npy", "--json"),
        ("report", "m.safetensors", "x.npy", "-o", "r.html"),
    ):
        there.restart()
        invoke(*command, *on)
        assert there.n_operations, command
    found = np.load(tmp_path / "y.npy")
    np.testing.assert_array_equal(found, nearest_float64(rows, model.cluster_centers))
    assert np.bincount(np.load(tmp_path / "l.npy")).max() <= 180
    swept = invoke("sweep", "x.npy", "-k", "3,6", "--json", *on)
    assert json.loads(swept.stdout)


@pytest.mark.slow
def test_estimator(there, rows):
    found = DinkClustering(K, temperature=0.0, device=NAME).fit(rows.astype(np.float64))
    np.testing.assert_array_equal(
        found.predict(rows), nearest_float64(rows, found.cluster_centers_)
    )


@pytest.mark.slow
def test_a_training_goes_on_where_it_was(there, rows):
    """From what a checkpoint holds, bit for bit; on MPS too, where float64 goes in as float32."""
    data = DataSet([ArrayReader(rows)])
    options = TrainOptions(K, n_init=2)

    def trainer():
        return Trainer(RowSource(data, "euclidean", torch.device(NAME)), options)

    whole, kept = trainer(), []
    sums = checksums(whole)
    whole.on_rest = lambda new: new and kept.append(checkpoint_of(whole, sums))
    for _ in whole.steps():
        pass
    # After annealing, refining, in the second start, and in the passes.
    assert [kept[i].state.values["progress"]["start"] for i in (0, 1, -4)] == [1, 1, 2]
    for checkpoint in (kept[0], kept[1], kept[-4], kept[-2]):
        second = trainer()
        assert not restore(second, checkpoint, checksums(second), "", False)
        for _ in second.steps():
            pass
        assert torch.equal(second.cluster_centers, whole.cluster_centers)
        assert second.history == whole.history


class Threads(Group):
    """Two processes that are threads; what they tell each other goes by the CPU."""

    def __init__(self, rank: int, table: list, barrier: threading.Barrier):
        super().__init__(World(rank, 2, rank, 2))
        self._table, self._barrier = table, barrier

    def _all(self, value):
        self._table[self.rank] = value
        self._barrier.wait(30)
        both = list(self._table)
        self._barrier.wait(30)
        return both

    def sum_(self, *tensors):
        for tensor in tensors:
            one, other = self._all(tensor.cpu().clone())
            tensor.copy_(one + other)

    def largest_(self, tensor):
        tensor.copy_(torch.maximum(*self._all(tensor.cpu().clone())))

    def largest(self, *values):
        return [max(pair) for pair in zip(*self._all(values), strict=True)]

    def total(self, *values):
        return [sum(pair) for pair in zip(*self._all(values), strict=True)]

    def gather(self, tensor):
        return torch.cat(self._all(tensor.cpu().clone())).to(tensor.device)

    def before(self, number):
        return sum(self._all(number)[: self.rank])

    def any(self, flag):
        return any(self._all(flag))


@pytest.mark.slow
@pytest.mark.parametrize("memory", [None, 4000], ids=["held", "streamed"])
@pytest.mark.parametrize("temperature", ["auto", 0.0])
def test_several_processes(rows, memory, temperature, monkeypatch):
    for owner, name in ((Trainer, "sample"), (Sample, "total_weight"), (Sample, "moments")):
        kept = owner.__dict__[name]
        if hasattr(kept, "lock"):  # which threads share before Python 3.12, and processes never do
            monkeypatch.setattr(kept, "lock", nullcontext())
    table, barrier, found, failed = [None, None], threading.Barrier(2), {}, []
    options = TrainOptions(K, temperature=temperature, n_init=1 if temperature == "auto" else None)

    def work(rank):
        try:
            with simulated() as there:
                group = Threads(rank, table, barrier)
                source = RowSource(
                    open_inputs(rows, sample_weight=WEIGHTS),
                    "euclidean",
                    torch.device(NAME),
                    memory,
                    group=group,
                )
                trainer = Trainer(source, options)
                for _ in trainer.steps():
                    pass
                found[rank] = trainer.cluster_centers.numpy()
                assert there.n_operations
        except BaseException as error:
            failed.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed
    np.testing.assert_array_equal(found[0], found[1])
    alone = dinkcli.train(
        rows, K, device="cpu", temperature=temperature, sample_weight=WEIGHTS, memory=memory
    )
    ends = [inertia_float64(rows, centers) for centers in (found[0], alone.cluster_centers)]
    assert ends[0] == pytest.approx(ends[1], rel=0.01)
