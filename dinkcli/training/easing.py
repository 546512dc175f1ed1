"""Centres that suit a limit of the size of clusters, by annealing under it on a part of the rows.

Centres of a free training, pushed apart by a limit, end in a poor optimum: what a large cluster
cannot hold pours over its border, one cluster after the other. Annealing once more lets whole
centres wander towards the crowd. Each cluster has a price that is added to squared distances; a
cluster that is too full raises its own, one that has room lowers it again.

Shapes: S rows, K clusters, D features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from dinkcli.nearest.index import CenterIndex
from dinkcli.nearest.products import products
from dinkcli.nearest.soft import responsibilities
from dinkcli.nearest.sums import Statistics
from dinkcli.training.sample import Sample

# First temperatures and the last one, of the mean squared distance. Which first one is best depends
# on how far centres have to wander; where it is hotter, centres meet and never part again.
_STARTS = (0.2, 0.4)
_END = 0.02
_COOLING = 0.9
_LARGEST_STEP = 1.0  # of a price, in temperatures


def easing_sizes(n_rows: int, n_clusters: int) -> tuple[int, int]:
    """Rows that centres are annealed on, and rows that tell which of them are the best."""
    return min(n_rows, max(4096, 100 * n_clusters)), min(n_rows, max(32768, 200 * n_clusters))


def eased_ways(sample: Sample, centers: Tensor, limit: float) -> Iterator[Tensor]:
    """Centres (K, D) annealed from the given ones under a limit of rows of the sample."""
    scale = sample.mean_inertia(centers)
    for start in _STARTS if scale > 0 else ():
        yield _eased(sample, centers, limit, start, scale)


def _eased(sample: Sample, centers: Tensor, limit: float, start: float, scale: float) -> Tensor:
    prices = torch.zeros_like(centers[:, 0])
    steps = math.ceil(math.log(_END / start) / math.log(_COOLING))
    for step in range(steps):
        temperature = start * scale * _COOLING**step
        # Prices that follow the centres before these move on: half of the excess it leaves else.
        for moving in (False, True):
            found = _priced(sample.z, centers, prices, temperature, moving)
            rise = (found.counts / limit).clamp(min=1e-30).log().to(prices)
            rise.clamp_(-_LARGEST_STEP, _LARGEST_STEP)
            prices = prices.add(rise, alpha=temperature).clamp_(min=0)
        centers = sample.project(found.means(centers, 0.0))
    return centers


def _priced(
    z: Tensor, centers: Tensor, prices: Tensor, temperature: float, moving: bool
) -> Statistics:
    """Counts, and with ``moving`` sums, of rows, each one whole whatever its weight, as the limit
    counts them."""
    index, found = CenterIndex(centers), Statistics.zeros(centers)
    for rows in index.chunks(z):
        r = responsibilities(index.squared_distances(rows).add_(prices), temperature)
        found.counts += r.sum(0)
        if moving:
            with products(rows.device):
                found.sums += r.T @ rows
    return found
