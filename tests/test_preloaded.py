"""A command that is forked from a process with loaded libraries is as one that starts afresh."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SAMPLES, environment
from preloaded import Preloaded

DIGITS = str(SAMPLES / "digits.npy")
TRAIN = ["train", DIGITS, "-k", "10", "-o", "m", "-q"]
ASCII = environment() | {"PYTHONIOENCODING": "ascii", "COLUMNS": "60"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="forked on Linux only"),
]


def afresh(arguments, **options):
    command = [sys.executable, "-m", "dinkcli", *arguments]
    return subprocess.run(command, capture_output=True, **options)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    assert afresh(TRAIN, cwd=folder, env=environment()).returncode == 0
    return str(folder / "m")


@pytest.mark.parametrize(
    ("arguments", "code", "options"),
    [
        (TRAIN, 0, {}),
        (["assign", "MODEL", DIGITS, "-o", "labels.parquet", "-q"], 0, {}),
        (["assign", "MODEL", "-", "--format", "csv"], 0, {"input": Path(DIGITS).read_bytes()}),
        (["inspect", "MODEL"], 0, {"env": ASCII}),
        (["inspect", "MODEL"], 0, {"env": ASCII | {"PYTHONIOENCODING": "latin-1:replace"}}),
        (["inspect", "MODEL"], 0, {"text": True}),
        (["info", "-"], 1, {"input": "öde", "text": True}),
        (["info", "-"], 1, {}),
        (["train", DIGITS, "-k", "2:"], 2, {}),
        (["train", "absent ö.npy", "-k", "3"], 2, {"env": ASCII}),
        ([], 2, {}),
        (["--version"], 0, {}),
    ],
)
def test_it_is_as_a_fresh_process(preloaded, model, tmp_path, arguments, code, options):
    arguments = [model if argument == "MODEL" else argument for argument in arguments]
    results = []
    for name, run in (("forked", preloaded.run), ("afresh", afresh)):
        (tmp_path / name).mkdir()
        found = run(arguments, **{"cwd": tmp_path / name, "env": environment(), **options})
        files = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        results.append((found.returncode, found.stdout, found.stderr, files))
    assert results[0] == results[1]
    assert results[0][0] == code


def test_standard_input_from_a_file(preloaded, model, tmp_path):
    results = []
    for run in (preloaded.run, afresh):
        with open(DIGITS, "rb") as stdin:
            results.append(
                run(["assign", model, "-"], cwd=tmp_path, env=environment(), stdin=stdin)
            )
    assert results[0].stdout == results[1].stdout != b""
    assert results[0].returncode == 0


def test_more_input_than_is_read(preloaded, tmp_path):
    found = preloaded.run(["info", "-"], cwd=tmp_path, env=environment(), input=bytes(1 << 22))
    assert found.returncode == 1


@pytest.fixture
def other(tmp_path):
    """A server whose dinkcli is that of the folder."""
    (tmp_path / "dinkcli" / "cli").mkdir(parents=True)
    for name in ("__init__.py", "cli/__init__.py"):
        (tmp_path / "dinkcli" / name).write_text("")
    server = Preloaded(environment() | {"PYTHONPATH": str(tmp_path)})
    yield server
    server.close()


def test_how_it_ends(other, tmp_path):
    """Exit codes, signals and last words are those of Python."""
    script = (
        "import os, signal, sys\n"
        "print(sys.argv[0], os.getcwd(), sys.path[0], __name__)\n"
        "print(sorted(os.environ), flush=True)\n"
        "exec(sys.argv[1])\n"
    )
    (tmp_path / "dinkcli" / "__main__.py").write_text(script)
    env = environment() | {"PYTHONPATH": str(tmp_path)}
    for line, code in (
        ("pass", 0),
        ("sys.exit(7)", 7),
        ("sys.exit('words')", 1),
        ("os._exit(3)", 3),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("1 / 0", 1),
        ("sys.stdout.close(); os.close(1)", 0),
        ("import atexit; atexit.register(print, 'end')", 0),
    ):
        forked = other.run([line], cwd=tmp_path, env=env)
        fresh = afresh([line], cwd=tmp_path, env=env)
        assert forked.returncode == fresh.returncode == code, line
        assert forked.stdout == fresh.stdout, line
        assert forked.stderr.splitlines()[-1:] == fresh.stderr.splitlines()[-1:]


def test_what_it_cannot_honour_starts_afresh():
    env = environment()  # libraries that other tests use may have added to it since
    preloaded = Preloaded(env)
    assert preloaded.takes({"env": env, "cwd": ".", "text": True, "input": ""})
    for name in ("COLUMNS", "PYTHONIOENCODING", "SHELL", "TRITON_INTERPRET"):
        assert preloaded.takes({"env": env | {name: "1"}})
    for name in ("OMP_NUM_THREADS", "PYTHONHASHSEED", "LC_ALL", "DINK_DEBUG"):
        assert not preloaded.takes({"env": env | {name: "7"}})
    assert not preloaded.takes({"env": env, "preexec_fn": os.getpid})
    preloaded.close()


def test_nothing_was_computed_before(preloaded, tmp_path):
    """No thread of torch, which a fork would lack."""
    preloaded.run(["--version"], cwd=tmp_path, env=environment())
    tasks = Path(f"/proc/{preloaded.server.pid}/task").iterdir()
    names = [(task / "comm").read_text().strip() for task in tasks]
    assert [name for name in names if name != "jemalloc_bg_thd"] == ["python"]
