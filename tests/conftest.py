"""Fixtures: the real command line in a process of its own, and small known data."""

from __future__ import annotations

import atexit
import functools
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simulated
from preloaded import Preloaded
from typer.testing import CliRunner

from dinkcli.cli import app

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "sample_data"
Dink = Callable[..., subprocess.CompletedProcess]


def pytest_sessionstart() -> None:
    simulated.register()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the real command are slow, and so are those of a browser."""
    for item in items:
        if {"dink", "folder", "open_page"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


# Whatever the developer's terminal sets must not change what is tested, nor what libraries add to
# the environment of this process later.
_ENVIRONMENT = dict(os.environ)
for _name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "DINK_DEBUG"):
    _ENVIRONMENT.pop(_name, None)


def environment() -> dict[str, str]:
    return dict(_ENVIRONMENT)


@functools.cache
def preloaded() -> Preloaded:
    """A process that has loaded torch and the like, to be forked; Linux only."""
    server = Preloaded(environment())
    atexit.register(server.close)
    return server


def python() -> str:
    """The path of a Python that has loaded its libraries already, where such can be forked.

    For tests of whole processes: what it starts sees limits of the server, and a hash seed of its.
    """
    return preloaded().python if sys.platform == "linux" else sys.executable


def torchrun(processes: int, *options: str) -> list[str]:
    """The start of a command line whose processes train together, on a port that is free now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [python(), "-m", "torch.distributed.run", "--master-addr", "127.0.0.1"]
    launcher += ["--master-port", str(port), "--nproc-per-node", str(processes), *options]
    return [*launcher, "--no-python", python(), "-m", "dinkcli"]


@pytest.fixture
def dink(tmp_path: Path) -> Dink:
    """``dink(*args, code=0)`` runs the command in an empty folder and checks the exit code.

    ``fresh=True`` for a process that loads its libraries itself, with its own seed of hashes.
    """

    def run(
        *args: object, code: int = 0, fresh: bool = False, **options: Any
    ) -> subprocess.CompletedProcess:
        options = {"cwd": tmp_path, "text": True, "env": environment(), **options}
        command = [sys.executable if fresh else python(), "-m", "dinkcli", *map(str, args)]
        result = subprocess.run(command, capture_output=True, **options)
        assert result.returncode == code, (result.returncode, result.stdout, result.stderr)
        assert "Traceback" not in str(result.stderr)
        return result

    return run


@pytest.fixture
def digits() -> tuple[np.ndarray, np.ndarray]:
    return np.load(SAMPLES / "digits.npy"), np.load(SAMPLES / "digits_labels.npy")


@pytest.fixture
def blobs() -> tuple[np.ndarray, np.ndarray]:
    """300 rows in 3 well-separated clusters of 5 dimensions, and their true labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    centers = np.array([[0, 0, 0, 0, 0], [9, 0, 0, 9, 0], [0, 9, 0, 0, 9]])
    return (centers[labels] + rng.normal(size=(300, 5))).astype(np.float32), labels


@pytest.fixture
def one_thread():
    """Many fits of a few rows: a second thread only waits for the first."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def loads_torch(*arguments: object, code: int = 0) -> bool:
    """Whether the command, which ends with that exit code, has imported torch by its end."""
    script = (
        "import atexit, sys; from dinkcli.cli import main\n"
        f"sys.argv = {['dink', *map(str, arguments)]}\n"
        "atexit.register(lambda: print('torch' in sys.modules))\n"
        "main()"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == code, result
    answer = result.stdout.splitlines()[-1]
    assert answer in ("True", "False"), result
    return answer == "True"


def nearest_float64(z: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Labels by brute force in float64, one row at a time."""
    z, centers = z.astype(np.float64), centers.astype(np.float64)
    return np.array([((centers - row) ** 2).sum(1).argmin() for row in z])


def inertia_float64(z: np.ndarray, centers: np.ndarray) -> float:
    z, centers = z.astype(np.float64), centers.astype(np.float64)
    return sum(((centers - row) ** 2).sum(1).min() for row in z)


def distances_float64(z: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """(N, K) Euclidean distances by differences in float64."""
    z, centers = z.astype(np.float64), centers.astype(np.float64)
    return np.stack([np.sqrt(((centers - row) ** 2).sum(1)) for row in z])


def usual_temperature(centers: np.ndarray) -> float:
    """A seventh of the median squared distance of a centre to its nearest other one."""
    squares = distances_float64(centers, centers) ** 2
    np.fill_diagonal(squares, np.inf)
    return np.median(squares.min(1)) / 7


def softmax_float64(distances: np.ndarray, temperature: float) -> np.ndarray:
    """(N, K) probabilities from Euclidean distances (N, K)."""
    squares = distances**2
    weights = np.exp(-(squares - squares.min(1, keepdims=True)) / temperature)
    return weights / weights.sum(1, keepdims=True)


def usual_softmax(model: Any, distances: np.ndarray) -> np.ndarray:
    """(N, K) probabilities at the temperature that a model has by default."""
    return softmax_float64(distances, usual_temperature(model.cluster_centers))


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``invoke(*args, code=0)`` runs the command in this process, in the test's folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("FORCE_COLOR", "COLUMNS", "DINK_DEBUG"):
        monkeypatch.delenv(name, raising=False)

    def run(*args: object, code: int = 0) -> Any:
        result = CliRunner().invoke(app, list(map(str, args)))
        assert result.exit_code == code, (result.exit_code, result.stderr, result.exception)
        return result

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sample data and ``dink`` and ``python`` on the path that run this code."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(SAMPLES, folder / "sample_data")
    (folder / "bin").mkdir()
    for name, arguments in (("dink", "-m dinkcli"), ("python", "")):
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(python())} {arguments} "$@"\n')
        script.chmod(0o755)
    return folder


def shell(command: str, folder: Path) -> subprocess.CompletedProcess:
    env = environment()
    env["PATH"] = f"{folder / 'bin'}:{env['PATH']}"
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=env, text=True, capture_output=True
    )


# Lines that depend on how fast the machine is, and what does within a line.
PROGRESS = re.compile(
    r"(start \d+/\d+, )?(looking for clusters|moving centres|settling on all rows|assigning): "
)
TIMES = re.compile(r"\b\d+(\.\d+)? (s|min|h|rows/s)(?![\w/])")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


def assert_shows(found: str, expected: str) -> None:
    """Fails unless a page shows what a command printed: words and whole numbers as they are,
    fractions to 1 in 1000 (last digits differ between processors), times only as times."""
    here, there = (
        [TIMES.sub("(time)", line) for line in text.splitlines() if not PROGRESS.match(line)]
        for text in (found, expected)
    )
    assert [NUMBER.sub("#", line) for line in here] == [NUMBER.sub("#", line) for line in there]
    for line, other in zip(here, there, strict=True):
        for number, shown in zip(NUMBER.findall(line), NUMBER.findall(other), strict=True):
            if "." in shown:
                assert float(number) == pytest.approx(float(shown), rel=1e-3), (line, other)
            else:
                assert number == shown, (line, other)
