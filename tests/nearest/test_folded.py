"""Labels of rows under a map, found without mapping them: those of the mapped rows."""

import numpy as np
import pytest
import torch

from dinkcli.nearest.index import CenterIndex
from dinkcli.nearest.prepare import RowMap


def reference(z, centers, origin, matrix):
    """The definition in NumPy: rows mapped in float64 and rounded, distances in float64."""
    wide = [part.astype(np.float64) for part in (z, origin, matrix, centers)]
    mapped = ((wide[0] - wide[1]) @ wide[2]).astype(np.float32).astype(np.float64)
    squares = [((row - wide[3]) ** 2).sum(1) for row in mapped]
    return np.argmin(squares, axis=1), np.stack(squares)


def nasty(seed):
    """Rows, centres and a map: any scale, offset and shape, close and equal centres."""
    rng = np.random.default_rng(seed)
    d, k = int(rng.choice([1, 2, 17, 96, 400])), int(rng.choice([2, 9, 60, 300]))
    scale, far = 10.0 ** rng.integers(-4, 5), rng.choice([0.0, 1.0, 300.0])
    kinds = rng.normal(size=(max(2, k // 2), d))
    z = kinds[rng.integers(len(kinds), size=600)] + 0.3 * rng.normal(size=(600, d))
    offset = far * rng.normal(size=d)
    z = ((z + offset) * scale).astype(np.float32)
    origin = z.mean(0) if rng.random() < 0.7 else np.zeros(d, np.float32)
    axes = np.linalg.qr(rng.normal(size=(d, d)))[0]
    matrix = ((axes * 10 ** rng.uniform(-1.5, 0.5, d)) @ axes.T).astype(np.float32)
    centers = (z[rng.integers(600, size=k)] - origin) @ matrix
    close = rng.integers(k, size=k // 4)
    centers[close] = centers[rng.integers(k, size=k // 4)]
    centers[close[::2]] *= 1 + 1e-6
    return z, centers.astype(np.float32), origin, matrix


@pytest.mark.parametrize("short", ["1", "0"])
@pytest.mark.slow
def test_labels_are_those_of_mapped_rows(short, monkeypatch):
    monkeypatch.setenv("DINK_LOW_PRECISION", short)
    for seed in range(60):
        z, centers, origin, matrix = nasty(seed)
        row_map = RowMap(torch.from_numpy(origin), torch.from_numpy(matrix))
        index = CenterIndex(torch.from_numpy(centers), row_map)
        labels = index.labels(torch.from_numpy(z)).numpy()
        expected, squares = reference(z, centers, origin, matrix)
        wrong = np.flatnonzero(labels != expected)
        # A mapped row a hair's breadth from a rounding border may round the other way here.
        gap = squares[wrong, labels[wrong]] - squares[wrong, expected[wrong]]
        size = np.linalg.norm((z[wrong] - origin).astype(np.float64) @ matrix, axis=1)
        assert (gap <= 1e-7 * size * np.sqrt(squares[wrong, expected[wrong]]) * 4).all(), seed
        assert len(wrong) <= 1, seed


@pytest.mark.parametrize("far", [1e3, 1e6])
@pytest.mark.parametrize("among", ["rows", "centres", "both"])
@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_a_far_row_costs_the_others_no_digits(far, among, offset):
    """Labels are those of float64, and nearly all from the first look."""
    rng = np.random.default_rng(0)
    z = (rng.normal(size=(1500, 64)) + offset).astype(np.float32)
    origin, axes = z.mean(0), np.linalg.qr(rng.normal(size=(64, 64)))[0]
    matrix = ((axes * rng.uniform(0.2, 1, 64)) @ axes.T).astype(np.float32)
    centers = (rng.normal(size=(200, 64)) @ matrix).astype(np.float32)
    if among in ("rows", "both"):
        z[7] += far
    if among in ("centres", "both"):
        centers[7] = far
    row_map = RowMap(torch.from_numpy(origin), torch.from_numpy(matrix))
    index = CenterIndex(torch.from_numpy(centers), row_map)
    expected, _ = reference(z, centers, origin, matrix)
    np.testing.assert_array_equal(index.labels(torch.from_numpy(z)).numpy(), expected)
    near, limit = index.scorer.two(index.scorer.shifted(torch.from_numpy(z)))
    assert (near.second <= limit).sum() < 60
