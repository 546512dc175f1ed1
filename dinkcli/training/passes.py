"""Passes over all rows: each gives every cluster the mean of its rows, as Lloyd's algorithm does,
or of at most so many rows; or, for the paper's literal objective, shrink + w * dilation (Eq. 5 and
6), steps of Adam.

Shapes: N rows, S of them in a sample, K clusters, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from dinkcli.head.head import DinkClusterHead
from dinkcli.nearest.capacity import labels_within
from dinkcli.nearest.hardware import products
from dinkcli.nearest.index import CenterIndex, Nearest
from dinkcli.nearest.probabilities import responsibilities
from dinkcli.nearest.sums import Statistics, farthest_rows, hard_statistics
from dinkcli.options import TrainOptions
from dinkcli.training.checkpoint import SearchState
from dinkcli.training.rows import Block, RowSource
from dinkcli.training.sample import Sample
from dinkcli.training.schedule import MAX_PASSES, annealing_batch
from dinkcli.training.seeding import too_few_rows

_EPOCHS = 50  # of gradient descent
_LEARNING_RATE = 1e-3
_MOST_LIMITED = 20  # passes under a limit
# First temperatures and the last one, of the mean squared distance. Which first one is best depends
# on how far centres have to wander; where it is hotter, centres meet and never part again.
_STARTS = (0.2, 0.4)
_END = 0.02
_COOLING = 0.9
_LARGEST_STEP = 1.0  # of a price, in temperatures


class Pass(NamedTuple):
    """A finished pass."""

    number: int  # from 0
    limit: int  # the most there will be
    statistics: Statistics
    reseeded: int = 0  # empty clusters that it gave new centres


def lloyd(
    rows: RowSource,
    options: TrainOptions,
    state: SearchState,
    temperature: float,
    rest: Callable[[bool], None],
) -> Iterator[Pass]:
    """Moves the centres until the objective falls by less than ``tol`` of itself.

    The last pass measures the centres and leaves them as they are. ``rest`` is called wherever the
    training can go on from ``state``, after each pass and block, and with False where it can stop.
    """
    limit = options.epochs or MAX_PASSES
    weight = 0.0 if options.temperature == "auto" else options.dilation_weight

    def after_block(number: int, statistics: Statistics | None) -> None:
        state.blocks, state.statistics = number, statistics
        rest(statistics is not None)

    while True:
        statistics = rows.full_pass(
            state.centers, temperature, state.blocks, state.statistics, after_block
        )
        number, before, reseeded = state.passes or 0, state.objective, 0
        if temperature == 0 and not statistics.counts.all():
            state.centers, statistics, reseeded = _fill_empty(rows, state.centers, statistics)
        objective = statistics.shrink
        yield Pass(number, limit, statistics, reseeded)
        settled = before is not None and abs(before - objective) <= options.tol * objective
        if settled or number >= limit:
            return
        state.centers = rows.project(statistics.means(state.centers, weight))
        state.objective = None if reseeded else objective
        state.passes, state.blocks, state.statistics = number + 1, 0, None
        rest(True)


def _fill_empty(
    rows: RowSource, centers: Tensor, statistics: Statistics
) -> tuple[Tensor, Statistics, int]:
    """Moves the centres of empty clusters onto far rows until none is empty, and counts these."""
    reseeded = 0
    while len(empty := (statistics.counts == 0).nonzero()[:, 0]):
        centers = centers.clone()
        far = farthest_rows(rows.blocks(), centers, len(empty), rows.group)
        # Each such row is then at distance 0 from a centre of its own, so the inertia falls with
        # every round and the loop ends.
        centers[empty[: len(far)]] = far
        reseeded += len(far)
        before, statistics = statistics.inertia, rows.full_pass(centers)
        # Without far rows, or when what is left is below the resolution of float32:
        if len(far) == 0 or not statistics.inertia < before:
            raise too_few_rows(len(centers) - len(empty), len(centers))
    return centers, statistics, reseeded


def descend(
    rows: RowSource, options: TrainOptions, state: SearchState, rest: Callable[[bool], None]
) -> Iterator[Pass]:
    """Moves the centres by gradient descent, epoch by epoch; yields what they are worth before the
    first and after each. ``rest`` as for ``lloyd``, after an epoch."""
    limit = options.epochs or _EPOCHS
    size = options.batch_size or annealing_batch(rows.n_rows, len(state.centers))
    if state.adam is None:
        zeros = torch.zeros_like(state.centers)
        state.adam = torch.stack([state.centers, zeros, zeros])
    centers, *moments = state.adam.clone()
    head = DinkClusterHead(*centers.shape).to(centers.device)
    head.reset_cluster_centers(centers)
    parameter = head.cluster_centers
    optimizer = torch.optim.Adam([parameter], lr=_LEARNING_RATE)
    step = torch.tensor(float(state.updates))
    optimizer.state[parameter] = dict(step=step, exp_avg=moments[0], exp_avg_sq=moments[1])
    for epoch in range(state.passes or 0, limit + 1):
        for batch in rows.batches(size, options.seed, epoch) if epoch else ():
            dilation, shrink = head(batch)
            optimizer.zero_grad()
            (shrink + options.dilation_weight * dilation).backward()
            optimizer.step()
            state.updates += 1
            rest(False)
        state.adam = torch.stack([parameter.detach(), *moments])
        state.centers = rows.project(state.adam[0])
        state.passes = epoch + 1
        yield Pass(epoch, limit, rows.full_pass(state.centers))
        rest(True)


def limited(
    rows: RowSource, options: TrainOptions, state: SearchState, limit: int
) -> Iterator[Pass]:
    """Passes in which no cluster has more than ``limit`` rows. A training that is saved among them
    begins them once more.

    Centres of a free training, pushed apart by a limit, end in a poor optimum. Annealing once more
    lets whole centres wander towards the crowd. Each cluster has a price that is added to squared
    distances; one that is too full raises its own, one that has room lowers it again.
    """
    if rows.weights is not None or float(state.counts.max()) > limit:
        state.centers = _limited_start(rows, state.centers, limit, options.seed, options.tol)
    passes = _limited_passes(rows.blocks, rows.project, state.centers, limit, options.tol)
    for number, (centers, statistics) in enumerate(passes):
        state.centers = centers
        yield Pass(number, _MOST_LIMITED, statistics)


def _limited_start(rows: RowSource, centers: Tensor, limit: int, seed: int, tol: float) -> Tensor:
    """The best centres (K, D) on a part of the rows: as given, or as annealed."""
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
        for last, statistics in _limited_passes(lambda: part, rows.project, start, most, tol):
            if statistics.inertia < least:
                best, least = last, statistics.inertia
    return best


def _limited_passes(
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
    for _ in range(_MOST_LIMITED):
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
