"""Fixtures: the real command line in a process of its own, and small known data."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "sample_data"
Dink = Callable[..., subprocess.CompletedProcess]


def environment() -> dict[str, str]:
    # Whatever the developer's terminal sets must not change what is tested.
    drop = ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "DINK_DEBUG")
    return {key: value for key, value in os.environ.items() if key not in drop}


@pytest.fixture
def dink(tmp_path: Path) -> Dink:
    """``dink(*args, code=0)`` runs the command in an empty folder and checks the exit code."""

    def run(*args: object, code: int = 0, **options: object) -> subprocess.CompletedProcess:
        options = {"cwd": tmp_path, "text": True, "env": environment(), **options}
        result = subprocess.run(
            [sys.executable, "-m", "dinkcli", *map(str, args)], capture_output=True, **options
        )
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


def nearest_float64(z: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Labels by brute force in float64, one row at a time."""
    z, centers = z.astype(np.float64), centers.astype(np.float64)
    return np.array([((centers - row) ** 2).sum(1).argmin() for row in z])


def inertia_float64(z: np.ndarray, centers: np.ndarray) -> float:
    z, centers = z.astype(np.float64), centers.astype(np.float64)
    return sum(((centers - row) ** 2).sum(1).min() for row in z)
