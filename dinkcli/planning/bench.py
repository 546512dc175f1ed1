"""The parts of a training, each timed on a few rows and scaled to what it will take.

They are the functions that training calls, with the K and D that it will have.
Shapes: N rows, K clusters, D features.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dinkcli.nearest.device import chunk_rows
from dinkcli.nearest.index import CenterIndex
from dinkcli.nearest.sums import full_pass
from dinkcli.planning.work import Work
from dinkcli.training.anneal import REPORT_ROWS, Annealing, anneal, updates_per_report
from dinkcli.training.refine import Refining, State, breathe
from dinkcli.training.sample import Sample
from dinkcli.training.schedule import effort, temperatures
from dinkcli.training.seeding import kmeans_plus_plus
from dinkcli.training.split import JUDGES, removal_costs, split
from dinkcli.training.subspace import Subspace, main_axes, number_of_axes

SECONDS = 0.05  # of one measurement
LEAST_ROWS = 64
_REPEATS = 5

Call = Callable[[], object]


class Bench:
    """Times the parts of a training on ``sample``, on as few of its rows as will do."""

    def __init__(self, sample: Sample, work: Work, device: torch.device):
        self.sample, self.work, self.device = sample, work, device
        self.generator = torch.Generator().manual_seed(0)
        self.centers = _centers(sample, work.clusters, self.generator)
        few = min(len(sample), chunk_rows(work.clusters, work.features))
        index = CenterIndex(self.centers)
        seconds = timed(lambda: index.nearest(sample.z[:few]), device)
        affordable = max(LEAST_ROWS, int(few * SECONDS / seconds))
        self.most = min(len(sample), affordable)
        self.axes = main_axes(sample, work.clusters)
        number = number_of_axes(sample, self.axes, self.centers)
        space = Subspace.on(sample, self.axes, number)
        self.on_axes, self.placed = space.sample, space.into(self.centers)
        self.annealing = Annealing.begin(self.on_axes[: self.most], self.placed)

    def _seconds(
        self, prepare: Callable[[Sample], Call], rows: int, sample: Sample | None = None
    ) -> float:
        """Of the call that ``prepare`` makes for a part of ``sample``, by default that on the
        axes, with that many rows.

        Beyond what is affordable it goes on along the line through two smaller samples.
        """
        sample = self.on_axes if sample is None else sample
        if rows <= self.most:
            return timed(prepare(sample[:rows]), self.device)
        many, few = self.most, self.most // 4
        more, less = (timed(prepare(sample[:n]), self.device) for n in (many, few))
        return more + max(0.0, more - less) / (many - few) * (rows - many)

    def seed(self) -> float:
        def drawing(part: Sample) -> Call:
            number = min(self.work.clusters, len(part))
            return lambda: kmeans_plus_plus(part, number, self.generator)

        # Beside the rows, k-means++ grows with the centres, and both are cut short alike.
        rows = min(self.most, self.work.seeding)
        scale = self.work.seeding / rows * self.work.clusters / min(self.work.clusters, rows)
        labels = self.on_axes[: self.most].labels(self.placed)
        return self._seconds(drawing, rows, self.sample) * scale + self._seconds(
            lambda part: lambda: Annealing.begin(part, self.placed, labels[: len(part)]),
            self.work.seeding,
        )

    def reduce(self) -> float:
        """Onto the axes, and back to means with all features."""
        if self.on_axes is self.sample:
            return 0.0
        number = self.placed.shape[1]

        def there_and_back(part: Sample) -> Call:
            labels = torch.arange(len(part), device=self.device) % self.work.clusters
            return lambda: Subspace.on(part, self.axes, number).means(self.placed, labels, False)

        once = timed(lambda: main_axes(self.sample, self.work.clusters), self.device)
        return once + self._seconds(there_and_back, self.work.sample, self.sample)

    def update(self) -> float:
        """The mean over the schedule, where hot updates may use shorter products than cold ones."""
        steps = self.work.updates
        start = self.annealing.start_temperature or 0.01 * self.on_axes.moments[1]
        schedule = temperatures(start, steps)
        if not schedule:  # all rows are one
            return 0.0
        n_short = sum(t >= self.annealing.short_above for t in schedule)
        every = updates_per_report(steps)
        total = 0.0
        for first, stop in ((0, n_short), (n_short, steps)):
            if stop > first:
                middle = (first + stop) // 2 // every * every  # the next one does not report
                total += (stop - first) * self._seconds(
                    self._updating(start, middle), self.work.batch
                )
        return total / steps

    def _updating(self, start: float, position: int) -> Callable[[Sample], Call]:
        def prepare(part: Sample) -> Call:
            shares, sums = torch.zeros_like(self.placed[:, 0]), torch.zeros_like(self.placed)
            hot, rough = self.annealing.short_above, self.annealing.rough
            at = Annealing(self.placed, shares, sums, start, hot, rough)
            updates = anneal(part, at, len(part), self.work.updates, 0.0)

            def update() -> None:
                at.done, at.centers = position, self.placed
                next(updates)

            return update

        return prepare

    def report(self) -> float:
        rows = min(REPORT_ROWS, self.work.batch)
        return self._seconds(lambda part: lambda: part.nearest(self.placed), rows)

    def swap(self) -> float:
        """A pass over the sample, and splits of many clusters, judged by some rows of each."""
        if not self.work.swaps.high:
            return 0.0
        k = self.work.clusters
        candidates = torch.arange(min(k, max(LEAST_ROWS, 2 * Refining.begin(self.placed).moves)))

        def looking(part: Sample) -> Call:
            def look() -> None:
                near = State.of(part, self.placed, self.annealing.rough).near
                sizes = part.cluster_weights(near.labels, k).to(self.placed)
                removal_costs(part, near, sizes)
                part.means(self.placed, near.labels)

            return look

        def splitting(part: Sample) -> Call:
            near = part.nearest_two(self.placed, self.annealing.rough)
            sizes = part.cluster_weights(near.labels, k).to(self.placed)
            where = candidates.to(sizes.device)
            return lambda: split(part, near, sizes, where, self.generator)

        judged = min(self.work.sample, JUDGES * k)
        return self._seconds(looking, self.work.sample) + self._seconds(splitting, judged)

    def breath(self) -> float:
        if not self.work.breaths.high:
            return 0.0
        how = effort(self.work.sample, self.work.clusters, self.work.features)

        def prepare(part: Sample) -> Call:
            best = State.of(part, self.placed, self.annealing.rough)
            # Those that move one centre are about as many as those that move many.
            at = Refining(self.placed, max(1, how.moves // 2), how.moves, swapping=False)
            return lambda: next(breathe(part, at, best, self.generator, how))

        return self._seconds(prepare, self.work.breathing)

    def pass_over(self, block: tuple[Tensor, Tensor | None]) -> object:
        return full_pass([block], self.centers)

    def full_pass(self) -> float:
        return self._on_all(lambda part: lambda: self.pass_over((part.z, None)))

    def labels(self) -> float:
        return self._on_all(lambda part: lambda: part.labels(self.centers))

    def _on_all(self, prepare: Callable[[Sample], Call]) -> float:
        rows = min(len(self.sample), self.work.rows)
        return self._seconds(prepare, rows, self.sample) / rows * self.work.rows


def _centers(sample: Sample, n_clusters: int, generator: torch.Generator) -> Tensor:
    """Centres (K, D) as training has them: the means of the rows nearest to some of the rows.

    With noise added to rows that are taken more than once.
    """
    z = sample.z[: max(LEAST_ROWS, 32 * n_clusters)]
    centers = z[torch.arange(n_clusters, device=z.device) % len(z)]
    noise = torch.randn(max(0, n_clusters - len(z)), z.shape[1], generator=generator).to(z)
    centers[len(z) :] += noise * z.std()
    return sample.project(centers)


def timed(call: Call, device: torch.device) -> float:
    """Seconds of a call: the median of some, after one to warm up; of one when that is slow."""
    found: list[float] = []
    while len(found) <= _REPEATS and sum(found) < 4 * SECONDS:
        started = time.perf_counter()
        call()
        wait(device)
        found.append(time.perf_counter() - started)
    return float(np.median(found[1:] or found))


def wait(device: torch.device) -> None:
    getattr(torch, device.type).synchronize()
