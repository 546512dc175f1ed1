"""Clusters of limited size: passes that give each centre the mean of at most so many rows.

Centres of a free training, pushed apart by a limit, end in a poor optimum. Annealing once more lets
whole centres wander towards the crowd. Each cluster has a price that is added to squared distances;
one that is too full raises its own, one that has room lowers it again.

Shapes: N rows, S of them in a sample, K clusters, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from dinkcli.nearest.capacity import labels_within
from dinkcli.nearest.hardware import products
from dinkcli.nearest.index import CenterIndex, Nearest
from dinkcli.nearest.probabilities import responsibilities
from dinkcli.nearest.sums import Statistics, hard_statistics
from dinkcli.training.rows import Block, RowSource
from dinkcli.training.sample import Sample

MOST_PASSES = 20
# First temperatures and the last one, of the mean squared distance. Which first one is best depends
# on how far centres have to wander; where it is hotter, centres meet and never part again.
_STARTS = (0.2, 0.4)
_END = 0.02
_COOLING = 0.9
_LARGEST_STEP = 1.0  # of a price, in temperatures


def limited_start(rows: RowSource, centers: Tensor, limit: int, seed: int, tol: float) -> Tensor:
    """Centres (K, D) to begin the passes under the limit with: the best on a part of the rows, of
    the given ones and of those that annealing makes of them."""
    n, k = rows.n_rows, len(centers)
    sample = rows.sample(max(32768, 200 * k), torch.Generator().manual_seed(seed))
    few = sample[: max(4096, 100 * k)]
    scale = few.mean_inertia(centers)
    eased = (
        _eased(few, centers, limit / n * len(few), heat, scale) for heat in _STARTS if scale > 0
    )
    part = [(sample.z, sample.weights)]
    most = math.ceil(limit / n * len(sample))
    best, least = centers, math.inf
    for start in (centers, *eased):
        # Where the sample is all there is, the passes begin where this ends, and are two.
        for last, statistics in limited_passes(lambda: part, rows.project, start, most, tol):
            if statistics.inertia < least:
                best, least = last, statistics.inertia
    return best


def limited_passes(
    blocks: Callable[[], Iterable[Block]],
    project: Callable[[Tensor], Tensor],
    centers: Tensor,
    limit: int,
    tol: float,
) -> Iterator[tuple[Tensor, Statistics]]:
    """Centres (K, D) and the statistics of the best partition of ``blocks()`` within the limit, at
    first of the given centres, then of the means of each, while the inertia falls by ``tol`` of it.
    """
    before = math.inf
    for _ in range(MOST_PASSES):
        labels = labels_within(lambda: (z for z, _ in blocks()), centers, limit)
        index, total, start = CenterIndex(centers), Statistics.zeros(centers), 0
        for z, weights in blocks():
            own = torch.from_numpy(labels[start : start + len(z)]).long().to(z.device)
            start += len(z)
            near = Nearest(own, index.squared_distances_to(z, own))
            total.add(hard_statistics(z, weights, near, len(centers)))
        if total.inertia > before:
            return  # the partition is optimal but for the least step of a price
        yield centers, total
        if before < math.inf and before - total.inertia <= tol * before:
            return
        before = total.inertia
        centers = project(total.means(centers))


def _eased(sample: Sample, centers: Tensor, limit: float, start: float, scale: float) -> Tensor:
    """Centres (K, D) annealed from the given ones under a limit of rows of the sample."""
    prices = torch.zeros_like(centers[:, 0])
    steps = math.ceil(math.log(_END / start) / math.log(_COOLING))
    for step in range(steps):
        temperature = start * scale * _COOLING**step
        # Prices that follow the centres before these move on: half of the excess it leaves else.
        for moving in (False, True):
            statistics = _priced(sample.z, centers, prices, temperature, moving)
            rise = (statistics.counts / limit).clamp(min=1e-30).log().to(prices)
            rise.clamp_(-_LARGEST_STEP, _LARGEST_STEP)
            prices = prices.add(rise, alpha=temperature).clamp_(min=0)
        centers = sample.project(statistics.means(centers))
    return centers


def _priced(
    z: Tensor, centers: Tensor, prices: Tensor, temperature: float, moving: bool
) -> Statistics:
    """Counts, and with ``moving`` sums, of rows without their weights, as the limit counts them."""
    index, total = CenterIndex(centers), Statistics.zeros(centers)
    for rows in index.chunks(z):
        r = responsibilities(index.squared_distances(rows).add_(prices), temperature)
        total.counts += r.sum(0)
        if moving:
            with products(rows.device):
                total.sums += r.T @ rows
    return total
