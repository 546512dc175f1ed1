"""Passes over all rows: each gives every cluster the mean of its rows, as Lloyd's algorithm does.

Shapes: N rows, K clusters, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from dinkcli.nearest.index import CenterIndex
from dinkcli.nearest.sums import (
    Statistics,
    farthest_rows,
    full_pass,
    tempered_statistics,
)
from dinkcli.options import TrainOptions
from dinkcli.processes.device import in_pieces
from dinkcli.training.progress import Passing, Progress
from dinkcli.training.rows import RowSource
from dinkcli.training.schedule import MAX_PASSES
from dinkcli.training.seeding import too_few_rows


@dataclass(frozen=True)
class Pass:
    """A finished pass: its number from 0, the most there will be, what it found, and how many empty
    clusters it gave new centres."""

    number: int
    limit: int
    found: Statistics
    reseeded: int = 0


class Passes:
    """Moves ``at`` on until the objective falls by less than ``tol`` of itself.

    The last pass measures the centres and leaves them as they are: true centroids of the partition
    before, and the statistics are exactly theirs.
    """

    def __init__(self, rows: RowSource, options: TrainOptions, at: Progress, temperature: float):
        self.rows, self.options, self.at, self.temperature = rows, options, at, temperature

    def run(self, loop: Passing) -> Iterator[Pass | None]:
        """Yields after each pass, and None where the training could rest as well."""
        at, options, limit = self.at, self.options, self.options.epochs or MAX_PASSES
        weight = 0.0 if options.temperature == "auto" else options.dilation_weight
        while not loop.finished:
            if not loop.under_way:
                if loop.done:
                    at.centers = self.rows.project(loop.statistics.means(at.centers, weight))
                loop.restart(at.centers)
            for _ in self._sum_rows(loop):
                yield None
            reseeded = 0
            if self.temperature == 0 and not loop.statistics.counts.all():
                loop.statistics, reseeded = self._fill_empty(loop.statistics)
            found = loop.statistics
            at.measured(found)
            loop.finished = loop.done >= limit or (
                loop.previous is not None
                and abs(loop.previous - found.shrink) <= options.tol * found.shrink
            )
            loop.previous = None if reseeded else found.shrink
            loop.under_way = False
            loop.done += 1
            yield Pass(loop.done - 1, limit, found, reseeded)

    def _sum_rows(self, loop: Passing) -> Iterator[None]:
        """The statistics of the rows from ``loop.blocks`` on.

        Several processes have blocks of their own: what one of them has summed is nothing to go
        on from, so a pass that they stop in begins once more.
        """
        index, group = CenterIndex(self.at.centers), self.rows.group
        found = loop.statistics if group.alone else Statistics.zeros(self.at.centers)
        number = loop.blocks
        blocks = self.rows.blocks(number)
        while group.any((block := next(blocks, None)) is not None):
            if block is not None:
                for part in self._statistics(*block, index):
                    found.add(part)
            number += 1
            if group.alone:
                loop.blocks += 1
            yield
        loop.statistics = found.over(group)

    def _statistics(
        self, z: Tensor, weights: Tensor | None, index: CenterIndex
    ) -> Iterator[Statistics]:
        """Of a block, in parts where the device is short of memory."""

        def of(where: slice) -> Statistics:
            part = None if weights is None else weights[where]
            return tempered_statistics(z[where], part, index, self.temperature)

        yield from in_pieces(of, len(z))

    def _fill_empty(self, found: Statistics) -> tuple[Statistics, int]:
        """Moves the centres of empty clusters onto far rows until no cluster is empty."""
        at, rows, reseeded = self.at, self.rows, 0
        while True:
            empty = (found.counts == 0).nonzero()[:, 0]
            if len(empty) == 0:
                return found, reseeded
            centers = at.centers.clone()
            far = farthest_rows(rows.blocks(), centers, len(empty), rows.group)
            if len(far) == 0:
                raise too_few_rows(len(centers) - len(empty), len(centers))
            # Each such row is now at distance 0 from a centre of its own, so the inertia falls
            # with every round and the loop ends.
            centers[empty[: len(far)]] = far
            reseeded += len(far)
            at.centers, before = centers, found.inertia
            found = full_pass(rows.blocks(), centers).over(rows.group)
            if not found.inertia < before:  # what is left is below the resolution of float32
                raise too_few_rows(len(centers) - len(empty), len(centers))
