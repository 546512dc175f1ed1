"""A command that is forked from a process with loaded libraries is as one that starts afresh."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SAMPLES, environment, preloaded, python
from preloaded import Preloaded

DIGITS = str(SAMPLES / "digits.npy")
TRAIN = ["train", DIGITS, "-k", "10", "-o", "m", "-q"]
ASCII = environment() | {"PYTHONIOENCODING": "ascii", "COLUMNS": "60"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="forked on Linux only"),
]


def run(program, arguments, **options):
    command = [program, "-m", "dinkcli", *arguments]
    return subprocess.run(command, capture_output=True, **options)


def afresh(arguments, **options):
    return run(sys.executable, arguments, **options)


def is_forked(program, **options):
    """Whether that is a process which has loaded torch before it began."""
    command = [program, "-c", "import sys; print('torch' in sys.modules)"]
    return subprocess.run(command, capture_output=True, **options).stdout == b"True\n"


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
def test_it_is_as_a_fresh_process(model, tmp_path, arguments, code, options):
    arguments = [model if argument == "MODEL" else argument for argument in arguments]
    results = []
    for name, program in (("forked", python()), ("afresh", sys.executable)):
        (tmp_path / name).mkdir()
        found = run(program, arguments, **{"cwd": tmp_path / name, "env": environment(), **options})
        files = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        results.append((found.returncode, found.stdout, found.stderr, files))
    assert results[0] == results[1]
    assert results[0][0] == code


def test_standard_input_from_a_file(model, tmp_path):
    results = []
    for program in (python(), sys.executable):
        with open(DIGITS, "rb") as stdin:
            found = run(
                program, ["assign", model, "-"], cwd=tmp_path, env=environment(), stdin=stdin
            )
        results.append(found)
    assert results[0].stdout == results[1].stdout != b""
    assert results[0].returncode == 0


def test_more_input_than_is_read(tmp_path):
    found = run(python(), ["info", "-"], cwd=tmp_path, env=environment(), input=bytes(1 << 22))
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
        forked = run(other.python, [line], cwd=tmp_path, env=env)
        fresh = afresh([line], cwd=tmp_path, env=env)
        assert forked.returncode == fresh.returncode == code, line
        assert forked.stdout == fresh.stdout, line
        assert forked.stderr.splitlines()[-1:] == fresh.stderr.splitlines()[-1:]


def test_what_it_cannot_honour_starts_afresh():
    env = environment()
    assert is_forked(python(), env=env)
    for name in ("COLUMNS", "PYTHONIOENCODING", "SHELL", "TRITON_INTERPRET", "TORCHELASTIC_X"):
        assert is_forked(python(), env=env | {name: "ascii"})
    for name in ("OMP_NUM_THREADS", "PYTHONHASHSEED", "DINK_DEBUG", "TORCH_X"):
        assert not is_forked(python(), env=env | {name: "7"})
    with open(os.devnull) as file:
        assert not is_forked(python(), env=env, pass_fds=[file.fileno()])
    for arguments in (["-V"], ["-W", "error", "-c", "print(1)"]):
        found = subprocess.run([python(), *arguments], capture_output=True, env=env)
        expected = subprocess.run([sys.executable, *arguments], capture_output=True, env=env)
        assert found.stdout == expected.stdout != b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals_reach_it(number):
    """And what is killed in its place takes it along."""
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with subprocess.Popen(
        [python(), "-c", code], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert int(process.stdout.readline()) > 0
        process.send_signal(number)
        assert process.stdout.read() == b""  # the end, which comes when nobody can write any more
    assert process.returncode == -number


def test_several_at_once():
    """A pipe of two, and what one says when nobody reads."""
    program = python()
    line = f"yes | {program} -c 'import sys; [print(x) for x in sys.stdin]' 2> /dev/null | "
    line += f"{program} -c 'print(input())'; echo ${{PIPESTATUS[1]}}"
    found = subprocess.run(["bash", "-c", line], capture_output=True, env=environment())
    assert found.stdout == b"y\n1\n"


def test_nothing_was_computed_before(tmp_path):
    """No thread of torch, which a fork would lack."""
    run(python(), ["--version"], cwd=tmp_path, env=environment())
    tasks = Path(f"/proc/{preloaded().server.pid}/task").iterdir()
    names = [(task / "comm").read_text().strip() for task in tasks]
    assert [name for name in names if name != "jemalloc_bg_thd"] == ["python"]
