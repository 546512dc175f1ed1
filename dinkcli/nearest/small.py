"""Nearest centres in NumPy and float64, for work that is done before torch would be loaded; and
what that shares with the way by torch.

Labels are those of ``CenterIndex``, bit for bit: both are those of float64 distances from the
coordinates, which ``squares_between`` takes, and an exact tie goes to the lowest index. Distances
and probabilities are those of ``CenterIndex`` and ``Probabilities`` but for their rounding.

Shapes: B rows of a chunk, K clusters, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from dinkcli.options import LEAST_TEMPERATURE

# How much rounding may move an exponent: a probability then moves by a quarter of it at most.
TOLERANCE = 2e-4
# Exponents stay below that of the row's own centre by two units in the last place of a probability.
BELOW = {"float32": 2.0**-22, "float16": 2.0**-9}

_CHUNK_ROWS = 2048
CHUNK_SCORES = 1 << 21
_MOST_SCORES = 1 << 24  # for the sake of aligned rows
# Where chunks of 2048 rows are small, what is done for each chunk costs more than they do.
_CACHED_NUMBERS = 3 << 18
# Products of a multiple of this many rows are a quarter faster.
_ALIGNED_ROWS = 64
_CHUNK_NUMBERS = 1 << 18  # 2 MB of rows, and of distances, in float64


def chunk_rows(n_clusters: int, n_features: int) -> int:
    """Rows (of D features) whose scores against K centres are computed at once on a CPU."""
    cached = _CACHED_NUMBERS // max(n_clusters, n_features)
    rows = min(max(_CHUNK_ROWS, cached), CHUNK_SCORES // n_clusters)
    if rows < _ALIGNED_ROWS:
        return max(1, min(_ALIGNED_ROWS, _MOST_SCORES // n_clusters))
    return rows // _ALIGNED_ROWS * _ALIGNED_ROWS


def squares_between(a: Any, b: Any) -> Any:
    """||a_i - b_i||^2 (M,) of the rows of two arrays, or of two tensors, (M, D). Both give the same
    bits: what is added to what does not depend on the library."""
    values = a - b
    values = values * values
    while values.shape[1] > 1:
        half = values.shape[1] // 2
        folded = values[:, :half] + values[:, half : 2 * half]
        if values.shape[1] % 2:
            folded[:, 0] += values[:, -1]
        values = folded
    return values[:, 0]


class ChunkResult(NamedTuple):
    rows: np.ndarray  # (B, D) float64
    labels: np.ndarray  # (B,) of the nearest centres
    squares: np.ndarray  # (B, K) squared distances to all centres
    error: np.ndarray  # (B,) by which a product has rounded these at most


class SmallIndex:
    """Finds the nearest of K centres (K, D) float32; ``normalize`` scales rows to norm 1."""

    def __init__(self, cluster_centers: np.ndarray, normalize: bool = False):
        self.centers = cluster_centers.astype(np.float64)
        self._normalize = normalize
        # Of float32 numbers float64 holds the differences; a product keeps more of their digits.
        self._shift = self.centers.mean(0).astype(np.float32).astype(np.float64)
        self._shifted = self.centers - self._shift
        self._squares = np.einsum("kd,kd->k", self._shifted, self._shifted)

    def chunks(self, z: np.ndarray) -> Iterator[ChunkResult]:
        """What is known of the rows of ``z`` (N, D) float32, chunk by chunk."""
        step = max(1, _CHUNK_NUMBERS // max(self.centers.shape))
        for start in range(0, len(z), step):
            rows = z[start : start + step].astype(np.float64)
            if self._normalize:
                norms = np.sqrt(np.einsum("bd,bd->b", rows, rows))
                rows /= np.where(norms == 0, 1.0, norms)[:, None]
            yield self._result(rows)

    def seconds(self, chunk: ChunkResult) -> np.ndarray:
        """(B,) the second-nearest centres, but for rounding; with one centre, that."""
        others = chunk.squares.copy()
        np.put_along_axis(others, chunk.labels[:, None], np.inf, 1)
        return others.argmin(1)

    def distances(self, chunk: ChunkResult) -> np.ndarray:
        """(B,) to the nearest centre, from the coordinates."""
        return np.sqrt(squares_between(chunk.rows, self.centers[chunk.labels]))

    def exponents(self, chunk: ChunkResult, temperature: float, dtype: str) -> np.ndarray:
        """Those of ``Probabilities``, (B, K), for probabilities of that dtype."""
        temperature = max(temperature, LEAST_TEMPERATURE)
        squares = chunk.squares.copy()
        for row in np.flatnonzero(2 * chunk.error > TOLERANCE * temperature):
            squares[row] = squares_between(chunk.rows[row], self.centers)
        own = chunk.labels[:, None]
        exponents = (np.take_along_axis(squares, own, 1) - squares) / temperature
        exponents = np.minimum(exponents, -BELOW[dtype])
        np.put_along_axis(exponents, own, 0.0, 1)
        return exponents

    def _result(self, rows: np.ndarray) -> ChunkResult:
        shifted = rows - self._shift
        norms = np.einsum("bd,bd->b", shifted, shifted)
        squares = norms[:, None] + self._squares - 2 * (shifted @ self._shifted.T)
        # D + 4 additions of numbers that are no larger in all.
        error = (np.sqrt(norms) + np.sqrt(self._squares.max())) ** 2
        error *= np.finfo(np.float64).eps * (rows.shape[1] + 4)
        labels = squares.argmin(1)
        limit = np.take_along_axis(squares, labels[:, None], 1) + 2 * error[:, None]
        candidates = squares <= limit
        tied = np.flatnonzero(candidates.sum(1) > 1)
        if len(tied):
            row, center = np.nonzero(candidates[tied])
            exact = np.full((len(tied), len(self.centers)), np.inf)
            exact[row, center] = squares_between(rows[tied[row]], self.centers[center])
            labels[tied] = exact.argmin(1)
        return ChunkResult(rows, labels, squares, error)
