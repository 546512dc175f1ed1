"""Clusters of limited size: passes that give each centre the mean of at most so many rows.

Shapes: N rows, K clusters, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from dinkcli.nearest.index import CenterIndex, Nearest
from dinkcli.nearest.limited import labels_within
from dinkcli.nearest.sums import Statistics, hard_statistics
from dinkcli.training.easing import eased_ways, easing_sizes
from dinkcli.training.sample import Sample
from dinkcli.training.source import Block, RowSource

MOST_PASSES = 20


class _Source(Protocol):
    """Rows that can be read again, and what maps means to allowed centres."""

    project: Callable[[Tensor], Tensor]

    def blocks(self) -> Iterator[Block]: ...


class _Part:
    """The rows of a sample."""

    def __init__(self, sample: Sample):
        self._sample, self.project = sample, sample.project

    def blocks(self) -> Iterator[Block]:
        yield self._sample.z, self._sample.weights


class _Rows:
    """The rows of a source, as often as they are iterated over."""

    def __init__(self, rows: _Source):
        self._rows = rows

    def __iter__(self) -> Iterator[Tensor]:
        return (z for z, _ in self._rows.blocks())


def limited_start(rows: RowSource, centers: Tensor, limit: int, seed: int, tol: float) -> Tensor:
    """Centres (K, D) to begin the passes under the limit with: the best on a part of the rows, of
    the given ones and of those that annealing makes of them."""
    few, size = easing_sizes(rows.n_rows, len(centers))
    sample = rows.sample(size, torch.Generator().manual_seed(seed))
    share = limit / rows.n_rows
    most = math.ceil(share * len(sample))
    best, least = centers, math.inf
    for start in (centers, *eased_ways(sample[:few], centers, share * few)):
        # Where the sample is all there is, the passes begin where this ends, and are two.
        for last in limited_passes(_Part(sample), start, most, tol):
            if last[1].inertia < least:
                best, least = last[0], last[1].inertia
    return best


def limited_passes(
    rows: _Source, centers: Tensor, limit: int, tol: float
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
