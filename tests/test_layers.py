"""What may import what."""

import subprocess
import sys

import pytest
from conftest import loads_torch
from test_rooms import MODULES, room

CORE = [name for name in MODULES if room(name) not in ("__init__", "__main__", "cli")]


def modules_after(statement):
    code = f"{statement}; import sys; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


@pytest.mark.slow
def test_core_modules_leave_the_terminal_alone():
    imports = "; ".join(f"import dinkcli.{name}" for name in CORE)
    assert not {"typer", "rich", "dinkcli.cli"} & modules_after(imports)


@pytest.mark.parametrize("module", ["dinkcli", "dinkcli.cli", "dinkcli.options"])
def test_torch_and_pyarrow_wait_until_they_are_needed(module):
    assert not {"torch", "pyarrow", "numpy"} & modules_after(f"import {module}")


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (2, "train x.npy -k 0"),
        (2, "train no.npy -k 3"),
        (2, "assign no x.npy"),
        (2, "sweep no.npy"),
        (0, "-h"),
        (0, "train -h"),
        (0, "--help"),
    ],
)
def test_wrong_arguments_do_not_wait_for_torch(code, arguments):
    assert not loads_torch(*arguments.split(), code=code)


def test_readers_and_models_need_no_torch():
    names = "data.inputs models.file assigning.writers models.export models.matching "
    names += "insight.inspect insight.agreement"
    modules = ", ".join(f"dinkcli.{name}" for name in names.split())
    assert "torch" not in modules_after(f"import {modules}")


def test_arrow_loads_no_pandas_in_a_command():
    pytest.importorskip("pandas")
    code = (
        "import atexit, sys, importlib.util\n"
        "def say(): print('pandas' in sys.modules, importlib.util.find_spec('pandas') is None)\n"
        "atexit.register(say)\n"
        "sys.argv = ['dink', 'info', 'sample_data/stdlib.parquet']\n"
        "from dinkcli.cli import main\n"
        "main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "2719" in result.stdout and result.stdout.endswith("False False\n"), result.stderr


@pytest.mark.slow
def test_the_core_needs_no_extra():
    extras = {"sklearn", "umap", "pandas", "onnx", "faiss", "skops"}
    names = [name for name in CORE if name != "estimator"]
    assert not extras & modules_after("; ".join(f"import dinkcli.{name}" for name in names))


def test_public_names():
    import dinkcli

    for name in dinkcli.__all__:
        assert getattr(dinkcli, name).__doc__
        assert name in dir(dinkcli)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dinkcli.nothing
