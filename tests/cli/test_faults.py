"""Disks that are full, files that change, outputs that nobody can write."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import environment, python

import dinkcli
from dinkcli.cli.console import printable, say
from dinkcli.cli.signals import error_boundary
from dinkcli.data.atomic import atomic_path
from dinkcli.data.inputs import open_data
from dinkcli.errors import InputError, OutputError, UsageError


@pytest.fixture
def folder(tmp_path, blobs):
    np.save(tmp_path / "x.npy", blobs[0])
    dinkcli.train(blobs[0], 3, device="cpu").save(tmp_path / "m.safetensors")
    return tmp_path


def shell(folder, script, **variables):
    """The exit code and standard error of a script in which ``dink`` is this code."""
    # Limits are those of a process itself, which forks would not see.
    program = sys.executable if "ulimit" in script else python()
    dink = f'dink() {{ "{program}" -m dinkcli "$@"; }}\n'
    result = subprocess.run(
        ["bash", "-c", dink + script],
        cwd=folder,
        capture_output=True,
        env=environment() | variables,
    )
    error = result.stderr.decode("utf-8", "backslashreplace")
    assert "Traceback" not in error and "Exception ignored" not in error
    return result.returncode, error


def test_a_full_disk(folder, blobs):
    """A limit on the size of files stands in for it; the kernel refuses the write half-way."""
    np.save(folder / "big.npy", np.repeat(blobs[0], 1000, 0))
    (folder / "y.csv").write_text("old")
    script = 'trap "" XFSZ; ulimit -f 64; dink assign m.safetensors big.npy -q -o y.csv'
    code, error = shell(folder, script)
    assert (code, error.splitlines()[-1]) == (1, "Error: y.csv: cannot be written: File too large")
    assert (folder / "y.csv").read_text() == "old"
    script = 'trap "" XFSZ; ulimit -f 1; dink train x.npy -k 3 -q -o new.safetensors'
    code, error = shell(folder, script)
    assert code == 1
    assert "Error: new.safetensors: cannot be written: " in error
    assert sorted(os.listdir(folder)) == ["big.npy", "m.safetensors", "x.npy", "y.csv"]


@pytest.fixture
def locked(folder, monkeypatch):
    (folder / "locked").mkdir(mode=0o555)
    monkeypatch.chdir(folder)


@pytest.fixture
def not_root(folder):
    """Root may write everywhere: it becomes nobody for as long as the test lasts."""
    if os.geteuid() != 0:
        yield
        return
    folder.chmod(0o755)
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def test_a_read_only_folder(locked, not_root):
    with pytest.raises(UsageError, match="no permission to write in"), atomic_path("locked/y"):
        pass


def test_a_file_that_shrinks_or_goes_while_it_is_read(folder, blobs):
    np.save(folder / "big.npy", np.repeat(blobs[0], 10_000, 0))
    data = open_data([str(folder / "big.npy")])
    blocks = data.blocks()
    next(blocks)
    os.truncate(folder / "big.npy", 10_000_000)
    with pytest.raises(InputError, match=r"big\.npy: .*(shorter|truncated|changed)"):
        list(blocks)
    np.save(folder / "big.npy", np.repeat(blobs[0], 10_000, 0))
    data = open_data([str(folder / "big.npy")])
    os.remove(folder / "big.npy")
    with pytest.raises((InputError, UsageError, FileNotFoundError), match=r"big\.npy"):
        list(data.blocks())


def test_an_output_that_is_an_input(folder):
    os.link(folder / "x.npy", folder / "same.safetensors")
    code, error = shell(folder, "dink train x.npy -k 3 -o same.safetensors")
    assert (code, "same.safetensors: is an input of this run" in error) == (2, True)
    os.rename(folder / "same.safetensors", folder / "y.checkpoint.safetensors")
    code, error = shell(folder, "dink train x.npy -k 3 -o y.safetensors")
    assert (code, "y.checkpoint.safetensors: is an input of this run" in error) == (2, True)


def test_the_same_output_by_many_runs_at_once(tmp_path):
    """The last one wins, and what is there is always one of them, whole."""
    path = str(tmp_path / "out")
    wrong = []

    def write(letter):
        for _ in range(20):
            with atomic_path(path) as temporary, open(temporary, "w") as file:
                file.write(letter * 100_000)
            with open(path) as file:
                found = file.read()
            if len(found) != 100_000 or len(set(found)) != 1:
                wrong.append(found)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert os.listdir(tmp_path) == ["out"]


def test_an_unwritable_standard_output(folder):
    full = "Error: standard output: No space left on device"
    code, error = shell(folder, "dink assign m.safetensors x.npy > /dev/full")
    assert (code, error.splitlines()[-1]) == (1, full)
    code, error = shell(folder, "dink --help > /dev/full")
    assert (code, error.splitlines()[-1]) == (1, full)
    code, error = shell(folder, "dink assign m.safetensors x.npy >&-")
    assert (code, "standard output is closed; write to a file with -o" in error) == (1, True)
    code, _ = shell(folder, "dink train x.npy -k 3 2> /dev/full >&-")
    assert code == 0


def test_no_locale_and_names_of_all_kinds(folder, blobs):
    name = os.fsencode(folder) + b'/it\'s "n\xc3\xa4me" \xff $(touch hacked) ; #.npy'
    with open(name, "wb") as file:
        np.save(file, blobs[0])
    for locale in ("C", "POSIX"):
        code, error = shell(
            folder,
            'for f in it*; do dink assign "$(dink train "$f" -k 3)" "$f" -o y.csv; done',
            LC_ALL=locale,
            PYTHONUTF8="0",
            PYTHONCOERCECLOCALE="0",
        )
        assert code == 0, error
        assert "\\udcff" in error or "\\xff" in error
        assert (folder / "y.csv").read_text().count("\n") == 301
    assert not (folder / "hacked").exists()


def test_no_message_reaches_the_terminal_with_control_characters(capsys):
    hostile = "a\x1b[31m\x07\x9b2J\r\n\u202e\udcff"
    say(hostile)
    assert capsys.readouterr().err == "a\\x1b[31m\\x07\\x9b2J\\r\\n\\u202e\\udcff\n"
    assert printable("gr\u00fcn \u4e2d") == "gr\u00fcn \u4e2d"


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (MemoryError(), 1, "Error: out of memory; use fewer clusters"),
        (RuntimeError("CUDA out of memory. Tried"), 1, "Error: out of memory; use fewer clusters"),
        (RuntimeError("[enforce fail] can't allocate memory: you tried"), 1, "out of memory"),
        (OutputError("y: full"), 1, "Error: y: full"),
        (OSError(5, "Input/output error", "/data/x"), 1, "/data/x: Input/output error"),
        (OSError(28, "No space left on device"), 1, "standard output: No space left"),
        (ZeroDivisionError("x"), 1, "ZeroDivisionError: x (this should not happen"),
    ],
)
def test_every_failure_is_one_line(capsys, error, code, text):
    import typer

    with capsys.disabled(), pytest.raises(typer.Exit) as caught, open(os.devnull, "w") as nothing:
        old, sys.stdout = sys.stdout, nothing
        lines = []
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("dinkcli.cli.signals.say", lambda line, whole: lines.append(line))
                with error_boundary():
                    raise error
        finally:
            sys.stdout = old
    assert caught.value.exit_code == code
    assert len(lines) == 1 and text in lines[0]


def test_nothing_in_dink_unpickles_evaluates_or_calls_a_shell():
    import ast
    from pathlib import Path

    forbidden = {"eval", "exec", "pickle", "system", "popen", "subprocess", "marshal", "shelve"}
    for path in Path(dinkcli.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = {
                getattr(node, "id", None),
                getattr(node, "attr", None),
                getattr(node, "module", None),
                *(alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")),
            }
            used = names & forbidden
            # Tensors and modules have a harmless method eval.
            assert not used or (used == {"eval"} and isinstance(node, ast.Attribute)), (path, used)
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "load":
                keywords = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
                assert keywords.get("allow_pickle", False) is False, path
