"""How long the parts of a training take here: each is run on a few rows and scaled.

They are the functions that training calls, with the K and D that it will have, on the first rows
of the input. Shapes: N rows, K clusters, D features.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dinkcli.assigning.assigner import assign
from dinkcli.data.array import ArrayReader
from dinkcli.data.dataset import BLOCK_BYTES, DataSet
from dinkcli.models.model import Model
from dinkcli.nearest.index import CenterIndex, chunk_rows
from dinkcli.nearest.sums import full_pass
from dinkcli.planning.footprint import resident_bytes
from dinkcli.planning.work import Work
from dinkcli.training.anneal import REPORT_ROWS, Annealing, anneal, updates_per_report
from dinkcli.training.refine import Refining, State, breathe
from dinkcli.training.rows import RowSource
from dinkcli.training.sample import Sample
from dinkcli.training.schedule import effort, temperatures
from dinkcli.training.seeding import kmeans_plus_plus
from dinkcli.training.split import JUDGES, removal_costs, split
from dinkcli.training.subspace import Subspace, main_axes, number_of_axes

_SECONDS = 0.05  # of one measurement
_READING_SECONDS = 0.4
_BYTES = 64 << 20  # of rows to measure with
_LEAST_ROWS = 64
_REPEATS = 5
_ALL = 1 << 62

Call = Callable[[], object]


@dataclass(frozen=True)
class Measured:
    """Seconds of each part of a training, on all the rows that it takes.

    Attributes:
        read: getting the rows into memory; 0 when they are read anew for each pass.
        draw: drawing the sample, and reducing it to its main axes; all rows are read for it when
            they are not in memory.
        seed: the first centres of one start.
        update, report: one update of the annealing, and one report of it.
        swap, breath: one round of the refinement.
        full_pass: one pass over all rows.
        assign: the labels of all rows.
        reading_bytes: that are resident for reading, besides the rows read.
        axes: coordinates of a row while annealing and refining.
    """

    read: float
    draw: float
    seed: float
    update: float
    report: float
    swap: float
    breath: float
    full_pass: float
    assign: float
    reading_bytes: int
    axes: int


def calibrate(data: DataSet, work: Work, metric: str, device: torch.device) -> Measured:
    """Measures all parts, in a few seconds.

    Raises:
        InputError: bad rows among the first ones.
    """
    rows, reading, reading_bytes = _first_rows(data, work)
    held = DataSet([ArrayReader(rows)], bad_rows=data.bad_rows)
    loading = _timed(lambda: RowSource(held, metric, device, memory=_ALL), device)
    source = RowSource(held, metric, device, memory=_ALL)
    generator = torch.Generator().manual_seed(0)
    drawing = _timed(lambda: source.sample(len(rows), generator), device)
    sample = source.sample(len(rows), generator)
    bench = _Bench(sample, work, device)
    a_pass, labels = bench.full_pass(), bench.labels()
    # The first blocks of the input serve where they are a matter of moments.
    share = min(1.0, BLOCK_BYTES / (4 * work.features * work.rows))
    if work.held:
        again = source
        read = (reading + loading / len(rows)) * work.rows
        draw = drawing * work.sample / len(rows)
    else:
        again = RowSource(data, metric, device, memory=0, shift=source.shift)
        read, draw = 0.0, _each(again.blocks(), lambda block: None, device) * work.rows
        a_pass = max(a_pass, draw)
    if a_pass * share < _READING_SECONDS:
        a_pass = _each(again.blocks(), bench.pass_over, device) * work.rows
    if labels * share < _READING_SECONDS:
        centers = bench.centers.cpu().numpy() + source.shift.numpy()
        model = Model(centers, np.ones(len(centers)), metric, data.column)
        parts = ((part, None) for part in assign(model, data, device))
        labels = _each(parts, lambda part: None, device) * work.rows
    else:
        labels += reading * work.rows
    return Measured(
        read=read,
        draw=draw + bench.reduce(),
        seed=bench.seed(),
        update=bench.update(),
        report=bench.report(),
        swap=bench.swap(),
        breath=bench.breath(),
        full_pass=a_pass,
        assign=labels,
        reading_bytes=reading_bytes,
        axes=bench.on_axes.z.shape[1],
    )


class _Bench:
    """Times the parts of a training on ``sample``, on as few of its rows as will do."""

    def __init__(self, sample: Sample, work: Work, device: torch.device):
        self.sample, self.work, self.device = sample, work, device
        self.generator = torch.Generator().manual_seed(0)
        self.centers = _centers(sample, work.clusters, self.generator)
        few = min(len(sample), chunk_rows(work.clusters, work.features))
        index = CenterIndex(self.centers)
        seconds = _timed(lambda: index.nearest(sample.z[:few]), device)
        affordable = max(_LEAST_ROWS, int(few * _SECONDS / seconds))
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
            return _timed(prepare(sample[:rows]), self.device)
        many, few = self.most, self.most // 4
        more, less = (_timed(prepare(sample[:n]), self.device) for n in (many, few))
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

        once = _timed(lambda: main_axes(self.sample, self.work.clusters), self.device)
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
        candidates = torch.arange(min(k, max(_LEAST_ROWS, 2 * Refining.begin(self.placed).moves)))

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
        rows = min(len(self.sample), self.work.rows)
        seconds = self._seconds(
            lambda part: lambda: self.pass_over((part.z, None)), rows, self.sample
        )
        return seconds / rows * self.work.rows

    def labels(self) -> float:
        rows = min(len(self.sample), self.work.rows)
        seconds = self._seconds(lambda part: lambda: part.labels(self.centers), rows, self.sample)
        return seconds / rows * self.work.rows


def _centers(sample: Sample, n_clusters: int, generator: torch.Generator) -> Tensor:
    """Centres (K, D) as training has them: the means of the rows nearest to some of the rows.

    With noise added to rows that are taken more than once.
    """
    z = sample.z[: max(_LEAST_ROWS, 32 * n_clusters)]
    centers = z[torch.arange(n_clusters, device=z.device) % len(z)]
    noise = torch.randn(max(0, n_clusters - len(z)), z.shape[1], generator=generator).to(z)
    centers[len(z) :] += noise * z.std()
    return sample.project(centers)


def _first_rows(data: DataSet, work: Work) -> tuple[np.ndarray, float, int]:
    """Rows to measure with, the seconds that reading one takes, and what it leaves resident."""
    before = resident_bytes()
    most = max(_LEAST_ROWS, _BYTES // (4 * work.features))
    parts: list[np.ndarray] = []
    blocks = data.blocks(dtype=data.dtype if work.held else np.float32)
    good = ((b.vectors.copy() if b.bad is None else b.vectors[~b.bad], None) for b in blocks)
    seconds = _each(good, lambda block: parts.append(block[0]), torch.device("cpu"), most)
    resident = resident_bytes() - before - sum(part.nbytes for part in parts)
    return np.concatenate(parts)[:most], seconds, max(0, resident)


def _each(
    blocks: Iterable[tuple[Sized, object]],
    work: Callable[..., object],
    device: torch.device,
    most: int = _ALL,
) -> float:
    """Seconds for each row of ``work`` on the first blocks, up to ``most`` rows or for a while.

    The first block of many is no part of that: it opens files and starts threads.
    """
    begun = started = time.perf_counter()
    done = first = 0
    for number, block in enumerate(blocks):
        work(block)
        _wait(device)
        done += len(block[0])
        now = time.perf_counter()
        if number == 0:
            started, first = now, done
        elif done >= most or (number > 2 and now - started > _READING_SECONDS):
            break
    if done == first:
        started, first = begun, 0
    return (time.perf_counter() - started) / (done - first)


def _timed(call: Call, device: torch.device) -> float:
    """Seconds of a call: the median of some, after one to warm up; of one when that is slow."""
    found: list[float] = []
    while len(found) <= _REPEATS and sum(found) < 4 * _SECONDS:
        started = time.perf_counter()
        call()
        _wait(device)
        found.append(time.perf_counter() - started)
    return float(np.median(found[1:] or found))


def _wait(device: torch.device) -> None:
    getattr(torch, device.type).synchronize()
