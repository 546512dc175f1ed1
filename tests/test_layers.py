"""What may import what."""

import subprocess
import sys

import pytest

CORE = [
    "agreement",
    "api",
    "assigner",
    "atomic",
    "estimator",
    "evaluate",
    "exemplars",
    "export",
    "head",
    "lloyd",
    "model",
    "nearest",
    "objective",
    "overview",
    "quality",
    "readers",
    "refine",
    "report",
    "rows",
    "seeding",
    "survey",
    "sweeper",
    "terms",
    "trainer",
    "writers",
]


def modules_after(statement):
    code = f"{statement}; import sys; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_core_modules_leave_the_terminal_alone():
    imports = "; ".join(f"import dinkcli.{name}" for name in CORE)
    assert not {"typer", "rich", "dinkcli.cli"} & modules_after(imports)


@pytest.mark.parametrize("module", ["dinkcli", "dinkcli.cli", "dinkcli.options"])
def test_torch_and_pyarrow_wait_until_they_are_needed(module):
    assert not {"torch", "pyarrow", "numpy"} & modules_after(f"import {module}")


def test_readers_and_models_need_no_torch():
    modules = "dinkcli.readers, dinkcli.model, dinkcli.writers, dinkcli.overview, dinkcli.agreement"
    assert "torch" not in modules_after(f"import {modules}")


def test_the_core_needs_no_extra():
    extras = {"sklearn", "scipy", "bokeh", "umap", "pandas"}
    names = [name for name in CORE if name != "estimator"]
    assert not extras & modules_after("; ".join(f"import dinkcli.{name}" for name in names))


def test_public_names():
    import dinkcli

    for name in dinkcli.__all__:
        assert getattr(dinkcli, name).__doc__
        assert name in dir(dinkcli)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dinkcli.nothing
