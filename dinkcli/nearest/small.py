"""Nearest centres in NumPy and float64, for work that is done before torch would be loaded.

Labels are those of ``CenterIndex``, bit for bit: both are those of float64 distances from the
coordinates, which ``squares_between`` takes, and an exact tie goes to the lowest index. Distances
and probabilities are those of ``CenterIndex`` and ``Probabilities`` but for their rounding.

Shapes: B rows of a chunk, K clusters, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dinkcli.nearest.common import BELOW, LEAST_TEMPERATURE, TOLERANCE, squares_between

_CHUNK_NUMBERS = 1 << 18  # 2 MB of rows, and of distances


class Seen(NamedTuple):
    """Rows of a chunk (B, D) in float64, their nearest centres (B,), and the squared distances to
    all centres (B, K), which a product has rounded by no more than ``error`` (B,)."""

    rows: np.ndarray
    labels: np.ndarray
    squares: np.ndarray
    error: np.ndarray


class SmallIndex:
    """Finds the nearest of K centres.

    Args:
        cluster_centers: (K, D) float32.
        normalize: whether rows are to be of norm 1.
    """

    def __init__(self, cluster_centers: np.ndarray, normalize: bool = False):
        self.centers = cluster_centers.astype(np.float64)
        self._normalize = normalize
        # Of float32 numbers float64 holds the differences; a product keeps more of their digits.
        self._shift = self.centers.mean(0).astype(np.float32).astype(np.float64)
        self._shifted = self.centers - self._shift
        self._squares = np.einsum("kd,kd->k", self._shifted, self._shifted)

    def look(self, z: np.ndarray) -> Iterator[Seen]:
        """At the rows of ``z`` (N, D) float32, chunk by chunk."""
        step = max(1, _CHUNK_NUMBERS // max(self.centers.shape))
        for start in range(0, len(z), step):
            rows = z[start : start + step].astype(np.float64)
            if self._normalize:
                norms = np.sqrt(np.einsum("bd,bd->b", rows, rows))
                rows /= np.where(norms == 0, 1.0, norms)[:, None]
            yield self._seen(rows)

    def seconds(self, seen: Seen) -> np.ndarray:
        """(B,) the second-nearest centres; with one centre, that. Which of two nearly equal ones is
        second is left to rounding."""
        others = seen.squares.copy()
        np.put_along_axis(others, seen.labels[:, None], np.inf, 1)
        return others.argmin(1)

    def distances(self, seen: Seen) -> np.ndarray:
        """(B,) to the nearest centre, from the coordinates."""
        return np.sqrt(squares_between(seen.rows, self.centers[seen.labels]))

    def exponents(self, seen: Seen, temperature: float, dtype: str) -> np.ndarray:
        """Those of ``Probabilities``, (B, K), for probabilities of that dtype."""
        temperature = max(temperature, LEAST_TEMPERATURE)
        squares = seen.squares.copy()
        for row in np.flatnonzero(2 * seen.error > TOLERANCE * temperature):
            squares[row] = squares_between(seen.rows[row], self.centers)
        own = seen.labels[:, None]
        found = (np.take_along_axis(squares, own, 1) - squares) / temperature
        found = np.minimum(found, -BELOW[dtype])
        np.put_along_axis(found, own, 0.0, 1)
        return found

    def _seen(self, rows: np.ndarray) -> Seen:
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
        return Seen(rows, labels, squares, error)
