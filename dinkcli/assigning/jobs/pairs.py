"""All pairs of near-duplicates among the rows of a cluster and those that visit it.

Shapes: R residents (rows of the cluster), V visitors, M rows of all clusters by position.
"""

from __future__ import annotations

import mmap
import os

import numpy as np
import torch
from torch import Tensor

from dinkcli.assigning.jobs.border import SLACK
from dinkcli.assigning.jobs.closeness import Axes, Closeness
from dinkcli.assigning.jobs.groups import Groups
from dinkcli.assigning.jobs.shelves import Shelves

_BLOCK = 1024  # rows compared with as many at once: scores that a core keeps close
_FILL_BYTES = 32 << 20


class Pairs:
    """Compares rows exactly; what cannot be close on the axes is left out first.

    Args:
        path: of the file that ``write_on_axes`` writes.
        memory: bytes that rows on the axes may take at once.
    """

    def __init__(self, shelves: Shelves, closeness: Closeness, path: str, memory: int):
        self.shelves, self.closeness = shelves, closeness
        self._memory = memory
        # The file of a stopped run may have another number of axes than would be chosen now.
        width = os.path.getsize(path) // (4 * len(shelves))
        self._on = np.memmap(path, np.float32, "r", shape=(len(shelves), width))
        self._map: mmap.mmap = self._on._mmap  # type: ignore[attr-defined]
        # Of a pair at once; both rows, in float64, and once more to scale them.
        self._pairs = max(64, memory // 4 // (32 * shelves.n_features))
        self.compared = 0

    def within(self, residents: np.ndarray, visitors: np.ndarray) -> np.ndarray:
        """Which rows belong together through near-duplicates among the residents, or between
        residents and visitors: pairs (P, 2) of positions that connect what belongs together.

        Args:
            residents, visitors: positions.
        """
        positions = np.concatenate([residents, visitors])
        found = Groups(len(positions))
        held = None
        if 8 * len(positions) * self._on.shape[1] <= self._memory:
            held = self._load(positions)
        n_residents = len(residents)
        for first in range(0, n_residents, _BLOCK):
            here = slice(first, min(first + _BLOCK, n_residents))
            a = self._load(positions[here]) if held is None else held[here]
            for second in range(first, len(positions), _BLOCK):
                there = slice(second, second + _BLOCK)
                b = self._load(positions[there]) if held is None else held[there]
                self.compared += len(a) * len(b)
                self._join(found, positions, (first, second), _near(a, b, self.closeness.distance))
        return positions[found.connections()]

    def _load(self, positions: np.ndarray) -> Tensor:
        """Rows on the axes, (B, Q + 1), in memory of their own."""
        found = torch.from_numpy(self._on[positions])
        # Pages of the file count as this process's memory for as long as they are mapped.
        self._map.madvise(mmap.MADV_DONTNEED)
        return found

    def _join(
        self, found: Groups, positions: np.ndarray, corner: tuple[int, int], near: Tensor
    ) -> None:
        """Joins those of the pairs ``near`` (P, 2) that are close, looking at both rows."""
        pairs = near.numpy() + np.array(corner)
        pairs = pairs[pairs[:, 0] < pairs[:, 1]]
        while len(pairs):
            pairs = pairs[found.apart(pairs)]  # whatever is joined already need not be looked at
            some, pairs = pairs[: self._pairs], pairs[self._pairs :]
            if len(some):
                x, y = (self.shelves.at(positions[side]) for side in some.T)
                found.join(some[self.closeness.close(self.closeness.of(x, y))])


def write_on_axes(shelves: Shelves, axes: Axes, path: str) -> None:
    """Writes all rows on the axes to a file, float32."""
    step = max(1, _FILL_BYTES // (4 * shelves.n_features))
    with open(path, "wb") as file:
        for start in range(0, len(shelves), step):
            file.write(axes.on(shelves.at(slice(start, start + step))).data)


def _near(a: Tensor, b: Tensor, distance: float) -> Tensor:
    """Pairs (P, 2) of the rows of ``a`` and ``b`` that may be that close, given the rounding."""
    half_a, half_b = a.square().sum(1) / 2, b.square().sum(1) / 2
    largest = float(torch.maximum(half_a.max(), half_b.max()))
    least = -(distance**2) / 2 - SLACK * 2 * largest
    # Minus half of the squared distance.
    scores = torch.addmm(half_b, a, b.T, beta=-1)
    rows = (scores.amax(1) >= half_a + least).nonzero()[:, 0]
    if len(rows) == 0:
        return rows.new_empty(0, 2)
    near = (scores[rows] >= (half_a[rows] + least)[:, None]).nonzero()
    near[:, 0] = rows[near[:, 0]]
    return near
