"""Passes over all rows: each gives every cluster the mean of its rows, as Lloyd's algorithm does;
or, for the paper's literal objective, shrink + w * dilation (Eq. 5 and 6), steps of Adam.

Shapes: K clusters, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from dinkcli.head.head import DinkClusterHead
from dinkcli.nearest.sums import Statistics, farthest_rows
from dinkcli.options import TrainOptions
from dinkcli.training.checkpoint import SearchState
from dinkcli.training.rows import RowSource
from dinkcli.training.schedule import MAX_PASSES, annealing_batch
from dinkcli.training.seeding import too_few_rows

_EPOCHS = 50  # of gradient descent
_LEARNING_RATE = 1e-3


class Pass(NamedTuple):
    """A finished pass: its number from 0, the most there will be, what it found, and how many empty
    clusters it gave new centres."""

    number: int
    limit: int
    statistics: Statistics
    reseeded: int = 0


def lloyd(
    rows: RowSource,
    options: TrainOptions,
    state: SearchState,
    temperature: float,
    rest: Callable[[bool], None],
) -> Iterator[Pass]:
    """Moves the centres until the objective falls by less than ``tol`` of itself.

    The last pass measures the centres and leaves them as they are: true centroids of the partition
    before, and the statistics are exactly theirs. ``rest`` is called wherever the training can go
    on from ``state``, after a pass and after each block of rows, and with False where it can stop.
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
    """Moves the centres of empty clusters onto far rows until no cluster is empty; returns centres,
    statistics, and how many were moved."""
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
