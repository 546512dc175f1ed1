"""Clusters of limited size: passes that give each centre the mean of at most so many rows.

Shapes: N rows, K clusters, D features.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dinkcli.nearest.index import CenterIndex, Nearest
from dinkcli.nearest.limited import labels_within
from dinkcli.nearest.sums import Statistics, hard_statistics
from dinkcli.training.source import RowSource

MOST_PASSES = 20


class _Rows:
    """The rows of a source, as often as they are iterated over."""

    def __init__(self, rows: RowSource):
        self._rows = rows

    def __iter__(self) -> Iterator[Tensor]:
        return (z for z, _ in self._rows.blocks())


def limited_passes(
    rows: RowSource, centers: Tensor, limit: int, tol: float
) -> Iterator[tuple[Tensor, Statistics]]:
    """Centres (K, D) and the statistics of the best partition within the limit, at first of the
    given centres, then of the means of each, for as long as the inertia falls by ``tol`` of itself.
    """
    before: float | None = None
    for _ in range(MOST_PASSES):
        labels = torch.from_numpy(labels_within(_Rows(rows), centers, limit)).long()
        index, found, start = CenterIndex(centers), Statistics.zeros(centers), 0
        for z, weights in rows.blocks():
            own = labels[start : start + len(z)].to(z.device)
            start += len(z)
            near = Nearest(own, index.squared_distances_to(z, own))
            found.add(hard_statistics(z, weights, near, len(centers)))
        if before is not None and found.inertia > before:
            return  # the partition is optimal but for the least step of a price
        yield centers, found
        if before is not None and before - found.inertia <= tol * before:
            return
        before = found.inertia
        centers = rows.project(found.means(centers, 0.0))
