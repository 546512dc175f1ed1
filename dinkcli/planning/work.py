"""What a training will do, in numbers: rows, updates, rounds, passes, and bytes.

All of it follows from the sizes and the options, but for three counts that only the data decide:
rounds of swaps, rounds of breaths, and passes over all rows. For those there is what was seen.

Shapes: N rows, S rows of the sample, K clusters, D features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from dinkcli.data.dataset import BLOCK_BYTES, DataSet
from dinkcli.nearest.hardware import chunk_rows
from dinkcli.options import TrainOptions
from dinkcli.training.anneal import updates_per_report
from dinkcli.training.refine import JUDGES
from dinkcli.training.schedule import (
    MAX_PASSES,
    Effort,
    effort,
    most_axes,
    sample_size,
    seeding_size,
)


@dataclass(frozen=True)
class Range:
    """The least, the usual and the largest of what is to be expected."""

    low: float
    typical: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> Range:
        return cls(value, value, value)

    def __mul__(self, factor: float) -> Range:
        return Range(self.low * factor, self.typical * factor, self.high * factor)

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.typical + other.typical, self.high + other.high)

    def at_most(self, limit: float) -> Range:
        return Range(min(self.low, limit), min(self.typical, limit), min(self.high, limit))


NOTHING = Range.exactly(0)

# Seen in trainings of 18 data sets (docs/scale.md names them).
_SWAPS = {False: Range(1, 2, 4), True: Range(1, 5, 24)}  # with few clusters, with many
_MANY_CLUSTERS = 64
_MORE_BREATHS = Range(0, 2, 8)  # than the least that end the search
_PASSES = {False: Range(2, 3, 11), True: Range(2, 5, 16)}  # with all rows in the sample, or not
_ANY_MEMORY = 1 << 62
# What libraries allocate when they begin to work: threads, kernels, workspaces.
_WORKING = 20 << 20
_BLOCKS = 6  # of float32 rows that are read ahead, used, and on their way
_CHUNKS = 3  # of (rows, K) scores at once
_LABELS = 48  # bytes a row: two labels and two distances of two states
_PAIRS = 24  # bytes a row while pairs of clusters are counted
_COPIES = 11  # of (K, D) float32: centres, sums of them in float64, and steps in between
_SPLIT_SUMS = 8  # over the rows of each split cluster, one after the other


@dataclass(frozen=True)
class Work:
    """Sizes and counts of one training.

    Attributes:
        rows, features, clusters: N, D and K.
        held: whether the rows are held in memory, in ``itemsize`` bytes a number.
        sample: rows that centres are annealed and refined on.
        wanted_sample: rows that it would have if memory were no matter.
        seeding: rows of it that the first centres are drawn from.
        starts: trainings on the sample, of which the best goes on.
        updates, batch: of the annealing of one start: number, and rows of each.
        reports: updates after which the batch is looked at once more.
        swaps, breaths: rounds of the refinement of one start.
        breathing: rows that breaths work on.
        moves: centres that the first breaths move.
        passes: over all rows, to move the centres.
        readings: of all rows from the input.
        axes: coordinates of a row of the sample while annealing and refining; D at most.
    """

    rows: int
    features: int
    clusters: int
    itemsize: int
    held: bool
    sample: int
    wanted_sample: int
    seeding: int
    starts: int
    updates: int
    batch: int
    reports: int
    swaps: Range
    breaths: Range
    breathing: int
    moves: int
    passes: Range
    readings: Range
    axes: int

    @classmethod
    def of(cls, data: DataSet, options: TrainOptions, memory: int) -> Work:
        """For a data set of known length, of which ``memory`` bytes may be held."""
        n, d, k = data.known_rows, data.n_features, options.k
        held = data.held_bytes <= memory
        sample = sample_size(n, k, d, memory)
        how = effort(sample, k, d)
        batch = options.batch_size or how.annealing_batch
        # The last pass measures, beyond those that the limit counts.
        passes = _PASSES[sample < n].at_most(1 + (options.epochs or MAX_PASSES))
        refined = options.refine and k > 1
        return cls(
            rows=n,
            features=d,
            clusters=k,
            itemsize=data.dtype.itemsize,
            held=held,
            sample=sample,
            wanted_sample=sample_size(n, k, d, _ANY_MEMORY),
            seeding=seeding_size(sample, k),
            starts=options.n_init or how.n_init,
            updates=how.annealing_steps,
            batch=min(batch, sample),
            reports=how.annealing_steps // updates_per_report(how.annealing_steps),
            swaps=_SWAPS[k >= _MANY_CLUSTERS] if refined and k > 2 else NOTHING,
            breaths=_breaths(how) if refined else NOTHING,
            breathing=how.breathing_rows,
            moves=how.moves,
            passes=passes,
            readings=Range.exactly(1) if held else passes + Range.exactly(1),
            axes=most_axes(k, d) or d,
        )

    def shared(self, processes: int) -> Work:
        """The part of one of so many processes."""
        parts = {
            name: -(-getattr(self, name) // processes)
            for name in ("rows", "sample", "seeding", "batch", "breathing")
        }
        return replace(self, **parts)

    @property
    def held_bytes(self) -> int:
        """Of the rows in memory."""
        return self.rows * self.features * self.itemsize if self.held else 0

    @property
    def sample_bytes(self) -> int:
        return 4 * self.sample * self.features

    @property
    def center_bytes(self) -> int:
        return 4 * self.clusters * self.features

    @property
    def judged(self) -> int:
        """Rows that splits of clusters are judged by, in a round of swaps."""
        return min(self.sample, JUDGES * max(64, self.clusters // 2))

    @property
    def reduced_bytes(self) -> Range:
        """What processes sum over one another: centres and their like in float64 (half of it, in
        float32, while annealing on GPUs), and a byte for each row of the sample in a round of
        the refinement."""
        k, d = self.clusters, self.axes
        sums, on_axes = 2 * self.center_bytes, 8 * k * d
        # Numbers for each row that takes part: in the last of the draws all of them, in those
        # before a fourth, and so on.
        draws = 4 + math.log(max(1, k / 4), 1.25) if k <= 64 else 4 / 3 * math.log(4, 1.25)
        seeding = 4 * draws * self.seeding + 7 * sums
        fixed = self.starts * (seeding + self.updates * (on_axes + 8 * k))
        split = _SPLIT_SUMS * 8 * d
        swap = split * max(64, k // 2) + on_axes + self.sample
        breath = split * max(64, 2 * self.moves) + 2 * on_axes + self.breathing
        rounds = (self.swaps * swap + self.breaths * breath) * self.starts
        return Range.exactly(fixed) + rounds + self.passes * (sums + 16 * k)


def _breaths(how: Effort) -> Range:
    """Rounds when none helps, and some more."""
    if not how.breathing_rows:
        return NOTHING
    least, moves = 0, how.moves
    while moves:
        least, moves = least + how.patience, moves // 2
    return _MORE_BREATHS + Range.exactly(least)


@dataclass(frozen=True)
class Footprint:
    """Bytes of one process.

    Attributes:
        work: of this process.
        libraries: resident before any row is read.
        reading: resident for reading, besides the rows read.
        on_device: whether rows and centres live on a GPU.
    """

    work: Work
    libraries: int
    reading: int
    on_device: bool = False

    @property
    def host(self) -> int:
        """Resident at the largest."""
        if self.on_device:
            return self._base + max(self.work.held_bytes, self.work.sample_bytes)
        return self._base + self.device

    @property
    def device(self) -> int:
        """Of rows, sample and centres, wherever they live."""
        return self.work.held_bytes + self.centers + self._scratch + self._on_sample

    @property
    def assigning(self) -> int:
        return self._base + self._scratch + 4 * self.work.center_bytes

    @property
    def centers(self) -> int:
        return _COPIES * self.work.center_bytes

    @property
    def if_held(self) -> int:
        return replace(self, work=replace(self.work, held=True)).host

    def if_streamed(self, memory: int) -> int:
        """With rows that may take ``memory`` bytes, which is less than they do."""
        work = self.work
        sample = sample_size(work.rows, work.clusters, work.features, memory)
        return replace(self, work=replace(work, held=False, sample=sample)).host

    @property
    def _base(self) -> int:
        blocks = 1 if self.work.held else _BLOCKS
        queued = blocks * min(BLOCK_BYTES, 4 * self.work.features * self.work.rows)
        return self.libraries + _WORKING + self.reading + queued

    @property
    def _scratch(self) -> int:
        rows = min(self.work.rows, chunk_rows(self.work.clusters, self.work.features))
        return _CHUNKS * 4 * rows * self.work.clusters

    @property
    def _on_sample(self) -> int:
        """The sample, and the most that one step makes beside it."""
        work = self.work
        on_axes = 4 * work.sample * work.axes if work.axes < work.features else 0
        steps = (
            # The squares of all its numbers, or the numbers in float64 for their mean.
            work.sample_bytes * (1 if work.held else 2),
            2 * 4 * work.features * work.seeding,  # differences to centres
            2 * 4 * work.axes * work.judged + (_LABELS + _PAIRS) * work.sample,  # splits
        )
        return work.sample_bytes + on_axes + max(steps)


def resident_bytes() -> int:
    """Of this process, now."""
    import psutil

    return psutil.Process().memory_info().rss
