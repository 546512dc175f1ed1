"""Clusters of limited size: passes that give each centre the mean of at most so many rows.

Shapes: N rows, K clusters, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from dinkcli.nearest.index import CenterIndex, Nearest
from dinkcli.nearest.limited import labels_within
from dinkcli.nearest.sums import Statistics, hard_statistics
from dinkcli.training.easing import eased_ways, easing_sizes
from dinkcli.training.source import Block, RowSource

MOST_PASSES = 20


def limited_start(rows: RowSource, centers: Tensor, limit: int, seed: int, tol: float) -> Tensor:
    """Centres (K, D) to begin the passes under the limit with: the best on a part of the rows, of
    the given ones and of those that annealing makes of them."""
    few, size = easing_sizes(rows.n_rows, len(centers))
    sample = rows.sample(size, torch.Generator().manual_seed(seed))
    share = limit / rows.n_rows
    most = math.ceil(share * len(sample))
    part = [(sample.z, sample.weights)]
    best, least = centers, math.inf
    for start in (centers, *eased_ways(sample[:few], centers, share * few)):
        # Where the sample is all there is, the passes begin where this ends, and are two.
        for last in limited_passes(lambda: part, rows.project, start, most, tol):
            if last[1].inertia < least:
                best, least = last[0], last[1].inertia
    return best


def limited_passes(
    blocks: Callable[[], Iterable[Block]],
    project: Callable[[Tensor], Tensor],
    centers: Tensor,
    limit: int,
    tol: float,
) -> Iterator[tuple[Tensor, Statistics]]:
    """Centres (K, D) and the statistics of the best partition within the limit, at first of the
    given centres, then of the means of each, for as long as the inertia falls by ``tol`` of itself.

    Args:
        blocks: gives the rows from the first one on, as often as it is called.
        project: maps means to allowed centres.
    """
    before: float | None = None
    for _ in range(MOST_PASSES):
        labels = labels_within(lambda: (z for z, _ in blocks()), centers, limit)
        index, found, start = CenterIndex(centers), Statistics.zeros(centers), 0
        for z, weights in blocks():
            own = torch.from_numpy(labels[start : start + len(z)]).long().to(z.device)
            start += len(z)
            near = Nearest(own, index.squared_distances_to(z, own))
            found.add(hard_statistics(z, weights, near, len(centers)))
        if before is not None and found.inertia > before:
            return  # the partition is optimal but for the least step of a price
        yield centers, found
        if before is not None and before - found.inertia <= tol * before:
            return
        before = found.inertia
        centers = project(found.means(centers, 0.0))
