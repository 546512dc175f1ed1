"""Signals and kills of the real command: what stays, and what is said."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import textwrap
import time
import weakref

import numpy as np
import pytest
from conftest import environment, python

import dinkcli
from dinkcli.cli.signals import NOTHING_WRITTEN, Interrupted, interruptible

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path):
    z = np.random.default_rng(0).normal(size=(40_000, 32)).astype(np.float32)
    np.save(tmp_path / "x.npy", z)
    return tmp_path


def test_a_signal_inside_of_a_callback_is_not_lost(capfd):
    class Thing:
        pass

    thing = Thing()
    callback = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Interrupted) as stopped, interruptible() as received:
        del thing
        time.sleep(20)
    assert stopped.value.exit_code == 143 and received == [signal.SIGTERM] * 2
    assert callback() is None and capfd.readouterr().err == ""


def start(folder, *arguments, program=None):
    return subprocess.Popen(
        [program or python(), "-m", "dinkcli", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


TRAIN = ("train", "x.npy", "-k", "100", "--device", "cpu")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on(folder, dink, number, code):
    process = start(folder, *TRAIN, "--no-refine")
    assert "looking for clusters" in process.stderr.readline()
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (code, "")
    where, how = stderr.splitlines()[-2:]
    assert where == (
        "Interrupted; the training so far is in x.dink.checkpoint.safetensors. Go on with"
    )
    assert sorted(os.listdir(folder)) == ["x.dink.checkpoint.safetensors", "x.npy"]
    result = dink("assign", "x.dink.checkpoint.safetensors", "x.npy", "-o", "y.npy")
    assert "Warning: x.dink.checkpoint.safetensors: the training of this model is not finished" in (
        result.stderr
    )
    if number == signal.SIGTERM:
        return
    command = shlex.split(how)
    assert command[0] == "dink"
    assert dink(*command[1:]).stdout == "x.dink.safetensors\n"
    assert sorted(os.listdir(folder)) == ["x.dink.safetensors", "x.npy", "y.npy"]
    resumed = (folder / "x.dink.safetensors").read_bytes()
    dink(*TRAIN, "--no-refine", "-q", "--resume")  # no checkpoint is left: from the start
    assert (folder / "x.dink.safetensors").read_bytes() == resumed


def test_a_second_signal_stops_at_once_and_leaves_the_last_checkpoint(folder):
    """The step that is under way never ends here; only the second signal does."""
    script = """
import sys, time, dinkcli.training.rows as module
def forever(*arguments):
    print("now", file=sys.stderr, flush=True)
    while True:
        time.sleep(0.01)
module.tempered_statistics = forever
from dinkcli.cli import main
sys.argv = ["dink", "train", "x.npy", "-k", "20", "--checkpoint-every", "0.001s", "-q"]
main()
"""
    process = subprocess.Popen(
        [python(), "-c", script],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stderr.readline() == "now\n"
    before = (folder / "x.dink.checkpoint.safetensors").read_bytes()
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 143
    assert "Go on with" in stderr
    assert (folder / "x.dink.checkpoint.safetensors").read_bytes() == before
    assert sorted(os.listdir(folder)) == ["x.dink.checkpoint.safetensors", "x.npy"]


def waiting(folder, function, *arguments):
    """A process of dink in which a function of it never ends, once it has been called."""
    module, name = function.rsplit(".", 1)
    script = f"""
import sys, time, {module} as module
def forever(*arguments, **options):
    print("now", file=sys.stderr, flush=True)
    while True:
        time.sleep(0.01)
module.{name} = forever
from dinkcli.cli import main
sys.argv = {["dink", *arguments]}
main()
"""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([python(), "-c", script], cwd=folder, env=environment(), **pipes)
    while process.stderr.readline() not in ("now\n", ""):
        pass
    return process


NAMES, IDS = "names (dink name gives them)", "ids of --match (dink assign --match)"
FINISHING = [
    ("dinkcli.insight.naming.name", ("--texts", "t.txt"), NAMES),
    ("dinkcli.insight.naming.name", ("--texts", "t.txt", "--match", "old"), f"{NAMES} or {IDS}"),
    ("dinkcli.assigning.assigner.match_on", ("--texts", "t.txt", "--match", "old"), IDS),
]


@pytest.mark.parametrize(("function", "arguments", "missing"), FINISHING)
def test_a_signal_after_the_training_leaves_the_model(folder, function, arguments, missing):
    (folder / "t.txt").write_text("some words\n" * 40_000)
    dinkcli.train(np.load(folder / "x.npy")[:200], 4, device="cpu").save(folder / "old")
    process = waiting(folder, function, *TRAIN[:3], "4", "--no-refine", *arguments)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (143, "")
    assert stderr.splitlines()[-1] == (
        f"Interrupted; x.dink.safetensors is trained and written, without {missing}."
    )
    model = dinkcli.load(folder / "x.dink.safetensors")
    assert (model.n_clusters, bool(model.names)) == (4, NAMES not in missing)
    assert sorted(os.listdir(folder)) == ["old", "t.txt", "x.dink.safetensors", "x.npy"]


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("dinkcli.api.sweep", ("sweep", "x.npy")),
        ("dinkcli.api.sweep", ("train", "x.npy", "-k", "auto")),
        (
            "dinkcli.assigning.update.update",
            ("update", "m.safetensors", "x.npy", "-o", "m.safetensors"),
        ),
    ],
)
def test_what_cannot_go_on_says_so_and_leaves_what_there_was(folder, function, arguments):
    dinkcli.train(np.load(folder / "x.npy")[:200], 3, device="cpu").save(folder / "m.safetensors")
    before = (folder / "m.safetensors").read_bytes()
    for as_json in ((), ("--json",)):
        process = waiting(folder, function, *arguments, *as_json)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=60)
        assert (process.returncode, stdout) == (143, "")
        last = stderr.splitlines()[-1]
        said = json.loads(last) if as_json else {"error": last, "exit_code": 143}
        assert said == {"error": NOTHING_WRITTEN, "exit_code": 143}
    assert (folder / "m.safetensors").read_bytes() == before
    assert sorted(os.listdir(folder)) == ["m.safetensors", "x.npy"]


def test_a_signal_before_the_first_step_writes_nothing(folder):
    process = start(folder, *TRAIN, program=sys.executable)
    time.sleep(0.5)  # still importing
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode in (143, -signal.SIGTERM)  # before Python listens, the latter
    assert "Traceback" not in stderr
    assert os.listdir(folder) == ["x.npy"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_work_is_too_late(tmp_path, number):
    """Python takes itself apart: the output is whole, and so is what has been said."""
    code = f"""
import atexit, os
from dinkcli.cli import main
atexit.register(os.kill, os.getpid(), {int(number)})
main()
"""
    np.save(tmp_path / "x.npy", np.eye(4, dtype=np.float32))
    run = [sys.executable, "-c", code, "info", "x.npy"]
    options = {"cwd": tmp_path, "env": environment(), "capture_output": True, "timeout": 60}
    done = subprocess.run(run, **options)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_signal_while_torch_loads_raises_nothing_inside_it(tmp_path):
    """C++ that calls Python as it loads aborts on an exception."""
    fake = """
        import os, signal
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException:
            os._exit(99)
    """
    (tmp_path / "torch.py").write_text(textwrap.dedent(fake))
    code = "from dinkcli.cli.signals import interruptible\nwith interruptible(): import torch"
    with_fake = {**os.environ, "PYTHONPATH": str(tmp_path)}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, env=with_fake, capture_output=True, text=True, timeout=60)
    assert done.returncode == 143
    assert done.stderr == NOTHING_WRITTEN + "\n"


def test_assign_ends_at_once_and_leaves_nothing(folder):
    z = np.load(folder / "x.npy")
    dinkcli.train(z[:2000], 300, device="cpu").save(folder / "m.safetensors")
    (folder / "y.csv").write_text("old")
    np.save(folder / "big.npy", np.concatenate([z] * 20))
    process = start(folder, "assign", "m.safetensors", "big.npy", "-o", "y.csv")
    assert process.stderr.readline().startswith("assigning: ")
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143
    assert stderr.splitlines()[-1] == NOTHING_WRITTEN
    assert sorted(os.listdir(folder)) == ["big.npy", "m.safetensors", "x.npy", "y.csv"]
    assert (folder / "y.csv").read_text() == "old"


def test_kills_at_random_moments(tmp_path, digits):
    """The real thing in small; benchmarks/kill.py does it a hundred times."""
    np.save(tmp_path / "x.npy", digits[0])
    command = ["train", "x.npy", "-k", "40", "--device", "cpu", "-q", "--n-init", "4"]
    whole = subprocess.run(
        [python(), "-m", "dinkcli", *command, "-o", "whole.safetensors"],
        cwd=tmp_path,
        env=environment(),
    )
    assert whole.returncode == 0
    command += ["--checkpoint-every", "0.001s", "--resume"]
    left = tmp_path / "x.dink.checkpoint.safetensors"
    rng, kills, before = random.Random(0), 0, None
    for _ in range(4):
        process = start(tmp_path, *command)
        while process.poll() is None and (not left.exists() or left.stat().st_mtime_ns == before):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.1))
        kills += process.poll() is None
        process.kill()
        process.communicate()
        if not left.exists():
            break
        before = left.stat().st_mtime_ns
        assert dinkcli.load(left).state is not None
    process = start(tmp_path, *command)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert kills > 0
    model = tmp_path / "x.dink.safetensors"
    assert model.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    # What a kill leaves in the middle of a write is the temporary file of no finished one.
    rest = set(os.listdir(tmp_path)) - {"x.npy", "whole.safetensors", "x.dink.safetensors"}
    assert all(name.startswith(".x.dink.") and name.endswith(".tmp") for name in rest)


def test_the_command_to_go_on_has_one_resume(monkeypatch):
    from dinkcli.cli.train import how_to_resume

    monkeypatch.setattr(sys, "argv", ["dink", "train", "a b.npy", "--resume", "-k", "3"])
    assert how_to_resume("c.safetensors")[1] == "  dink train 'a b.npy' -k 3 --resume"
