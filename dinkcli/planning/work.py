"""What a training will do, in numbers: rows, updates, rounds and passes.

All of it follows from the sizes and the options, but for three counts that only the data decide:
rounds of swaps, rounds of breaths, and passes over all rows. For those there is what was seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from dinkcli.data.dataset import DataSet
from dinkcli.data.memory import in_memory
from dinkcli.options import TrainOptions
from dinkcli.training.anneal import updates_per_report
from dinkcli.training.schedule import MAX_PASSES, Effort, effort, sample_size, seeding_size


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
        n, d, k = data.known_rows, data.n_features, options.n_clusters
        held = in_memory(data, memory)
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
            axes=d,
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
    def on_axes_bytes(self) -> int:
        """Of the sample on fewer axes, beside the whole one."""
        return 4 * self.sample * self.axes if self.axes < self.features else 0

    @property
    def center_bytes(self) -> int:
        return 4 * self.clusters * self.features

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
