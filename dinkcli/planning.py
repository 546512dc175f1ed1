"""What a training would take, before it is begun: time, memory, passes, and what to do where that
is too much.

Counts and bytes follow from sizes and options, but for rounds of the refinement and passes over all
rows, for which there is what was seen. A few reads, products and sums are timed on the first rows;
the seconds are arithmetic from these, right to about a half.

Shapes: N rows, K clusters, D features.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dinkcli.data.base import BLOCK_BYTES
from dinkcli.data.dataset import DataSet
from dinkcli.data.inputs import open_inputs
from dinkcli.data.machine import default_memory, machine_memory, size_text
from dinkcli.errors import UsageError
from dinkcli.nearest.hardware import chunk_rows
from dinkcli.nearest.index import CenterIndex
from dinkcli.nearest.sums import segment_sums
from dinkcli.options import LEARNED, TrainOptions
from dinkcli.processes.device import resolve_device
from dinkcli.results import Result, Sheet, duration
from dinkcli.training import schedule
from dinkcli.training.refine import JUDGES
from dinkcli.training.sample import Averages, Sample


@dataclass(frozen=True)
class Range:
    """The least, the usual and the largest of what is to be expected."""

    low: float
    typical: float
    high: float

    @classmethod
    def of(cls, values: ArrayLike) -> Range:
        """Of these three, or of one number that is certain."""
        return cls(*np.broadcast_to(values, 3).tolist())

    def text(self, of: Callable[[float], str] = "{:g}".format) -> str:
        low, typical, high = map(of, astuple(self))
        return typical if low == high else f"{typical} ({low} to {high})"


# Low, typical and high, as seen in trainings of 18 data sets (docs/scale.md names them).
_FEW_SWAPS, _MANY_SWAPS = np.array([(1, 2, 4), (1, 5, 24)])  # with few clusters, with many
_MANY_CLUSTERS = 64
_MORE_BREATHS = np.array([0, 2, 8])  # than the least that end the search
_PASSES_HELD, _PASSES = (2, 3, 11), (2, 5, 16)  # with all rows in the sample, or not
_ENDING = 0.35  # of what starting takes: the interpreter takes the libraries down again
_SPREAD = 0.15  # of what is measured in a moment against what happens later
_READING_SECONDS = 0.4  # in which reading is measured at most
_BYTES = 64 << 20  # of rows to measure with
_REPEATS = 5
# Of a search for the nearest centres and sums over the same rows, what else takes that long (see
# docs/LOG.md, "plan by formulas").
_SEED_SEARCHES, _SEED_SUMS = 1.5, 12
_SWAP_SEARCHES, _SWAP_SUMS, _SPLIT_SUMS = 1.1, 1, 12
_BREATH_SEARCHES, _BREATH_SUMS = 2.0, 10
_ROUND_CALLS = 6e-3  # seconds of a round, however few the rows
# Bytes: what libraries allocate when they begin to work, and of a row two labels and two distances
# of two states, and pairs of clusters while they are counted.
_WORKING, _LABELS = 20 << 20, 72
_BLOCKS = 6  # of float32 rows that are read ahead, used, and on their way
_CHUNKS = 3  # of (rows, K) scores at once
_COPIES = 11  # of (K, D) float32: centres, sums of them in float64, and steps in between
_WHAT = {
    "start": "libraries, and their end",
    "read": "all rows into memory",
    "sample": "drawing {rows} rows",
    "seed": "first centres from {rows} rows",
    "anneal": "{rounds} updates on {rows} rows each",
    "refine": "{rounds} rounds on up to {rows} rows each",
    "passes": "{rounds} passes over {rows} rows",
}


@dataclass(frozen=True)
class Phase:
    """One part of the work."""

    name: str  # "start", "read", "sample", "seed", "anneal", "refine" or "passes"
    rounds: Range  # how often
    rows: int  # that each round works on, those of all processes
    seconds: Range  # of all rounds


@dataclass(frozen=True)
class Plan(Result):
    """What training K clusters on N rows takes, and assigning all rows to them afterwards.

    Attributes:
        name, rows, features, dtype, n_bytes: of the input; bytes of its files.
        clusters, device, processes: what it is planned for.
        held: whether the rows are held in memory, or read anew for each pass.
        held_bytes: of all rows in the type that memory holds them in.
        readings: how often all rows are read from the input.
        sample, sample_bytes: rows that centres are annealed and refined on.
        batch: rows of each update of the annealing.
        phases: of the training, in order.
        seconds: of the training, without the exchange between processes.
        memory: resident bytes of each process at its largest.
        device_memory: bytes on the GPU at the most; None without one.
        assign_seconds, assign_memory: of assigning all rows to the clusters.
        machine, device_total: bytes of memory that there are.
        warnings: what does not fit or costs much, and what to do about it.
    """

    name: str
    rows: int
    features: int
    dtype: str
    n_bytes: int
    clusters: int
    device: str
    processes: int
    held: bool
    held_bytes: int
    readings: Range
    sample: int
    sample_bytes: int
    batch: int
    phases: list[Phase]
    seconds: Range
    memory: int
    device_memory: int | None
    assign_seconds: float
    assign_memory: int
    machine: int
    device_total: int | None
    warnings: list[str]

    _records = "phases"
    indent = 9

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; ranges become {"low": .., "typical": .., "high": ..}."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        how = "held in memory" if self.held else f"read {self.readings.text()} times"
        each = "" if self.processes == 1 else f" in each of {self.processes} processes"
        lines = [
            ("input", f"{self.name}: {self.rows} rows x {self.features} features"),
            ("rows", f"{size_text(self.held_bytes)} of {self.dtype}, {how}"),
            ("sample", f"{self.sample} rows, {size_text(self.sample_bytes)}"),
            ("", ""),
        ]
        for phase in self.phases:
            if phase.rounds.high:
                what = _WHAT[phase.name].format(rounds=phase.rounds.text(), rows=phase.rows)
                lines.append((phase.name, f"{phase.seconds.text(duration):22} {what}"))
        train, assign = self.seconds.text(duration), duration(self.assign_seconds)
        lines += [
            ("", ""),
            ("train", f"{train:22} {size_text(self.memory)} of memory{each}"),
            ("assign", f"{assign:22} {size_text(self.assign_memory)} of memory{each}"),
        ]
        if self.device_memory is not None:
            lines.append((self.device, f"{size_text(self.device_memory)} of its memory"))
        return lines

    def sheets(self) -> list[Sheet]:
        (sheet,) = super().sheets()
        sheet.notes += self.warnings
        return [sheet]


def plan(
    inputs: Any,
    n_clusters: int | TrainOptions,
    *,
    metric: str = "euclidean",
    refine: bool = True,
    n_init: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    column: str | None = None,
    bad_rows: str = "stop",
    device: str = "auto",
    memory: int | None = None,
    processes: int = 1,
    startup: float = 0.0,
    machine: int | None = None,
) -> Plan:
    """What training on N rows would take: reads the first, measures parts of a training on them,
    and adds up.

    Args:
        inputs, metric, refine, n_init, epochs, batch_size, column, bad_rows, device: as for
            ``train``.
        n_clusters: K; or all options at once, as for ``train``.
        memory: bytes that the rows of a process may take; a quarter of the machine's without it.
        processes: that share the rows, each with the power and the memory of this machine.
        startup: seconds before a command reads its first row.
        machine: bytes of memory in the machine; what this one has without it.

    Raises:
        UsageError: more clusters than rows, less than one process.
        InputError: a damaged input, or bad rows among the first.
    """
    options = n_clusters
    if not isinstance(options, TrainOptions):
        limits: dict[str, Any] = {"n_init": n_init, "epochs": epochs, "batch_size": batch_size}
        options = TrainOptions(options, metric=metric, refine=refine, **limits)
    if processes < 1:
        raise UsageError(f"`processes` {processes}: expected at least 1")
    where = resolve_device(device)
    data = open_inputs(inputs, column, bad_rows).repeatable()
    options.check_rows(data.known_rows, data.name)
    memory = default_memory() if memory is None else memory
    libraries, startup = _resident_bytes(), startup * (1 + _ENDING)
    work = Work.of(data, options, memory * processes, processes)
    measured = measure(data, work, where)
    on_gpu, resident = where.type == "cuda", libraries + measured.reading_bytes
    in_memory, there, assigning = _footprint(work, resident, on_gpu)
    phases = _phases(work, options, measured, startup)
    total = np.sum([astuple(phase.seconds) for phase in phases], axis=0)
    passes = np.array(astuple(phases[-1].rounds))
    result = Plan(
        name=data.name,
        rows=work.rows,
        features=work.features,
        dtype=str(data.dtype),
        n_bytes=sum(reader.n_bytes for reader in data.readers),
        clusters=work.clusters,
        device=str(where),
        processes=processes,
        held=work.held,
        held_bytes=work.rows * work.features * data.dtype.itemsize,
        readings=Range.of(1 if work.held else 1 + passes),
        sample=work.sample,
        sample_bytes=4 * work.sample * work.features,
        batch=work.batch,
        phases=phases,
        seconds=Range.of(total * (1 - _SPREAD, 1, 1 + _SPREAD)),
        memory=in_memory,
        device_memory=there if on_gpu else None,
        assign_seconds=startup + work.rows / processes * (measured.read + measured.search),
        assign_memory=assigning,
        machine=machine_memory() if machine is None else machine,
        device_total=torch.cuda.mem_get_info(where)[1] if on_gpu else None,
        warnings=[],
    )
    result.warnings.extend(_warnings(result, options, memory))
    return result


class Work(NamedTuple):
    """Sizes of one training."""

    rows: int
    features: int
    clusters: int
    held: bool  # whether rows are held in memory, with so many bytes for each number
    itemsize: int
    sample: int  # rows that centres are annealed and refined on
    seeding: int  # rows of it that the first centres are drawn from
    judged: float  # rows of a process that splits are judged by, in a round of swaps
    batch: int  # rows of each update of the annealing
    axes: int  # coordinates of a row of the sample while annealing and refining; D at most
    processes: int  # that share the rows
    how: schedule.Effort

    @classmethod
    def of(cls, data: DataSet, options: TrainOptions, memory: int, processes: int) -> Work:
        """For a data set of known length, of which ``memory`` bytes may be held."""
        n, d, k = data.known_rows, data.n_features, options.k
        sample = schedule.sample_size(n, k, d, memory)
        how = schedule.effort(sample, k, d)
        held, itemsize = data.held_bytes <= memory, data.dtype.itemsize
        batch = min(options.batch_size or how.annealing_batch, sample)
        axes, seeding = schedule.most_axes(k, d) or d, schedule.seeding_size(sample, k)
        judged = min(sample / processes, JUDGES * max(64, k // 2))
        return cls(n, d, k, held, itemsize, sample, seeding, judged, batch, axes, processes, how)


def _phases(work: Work, options: TrainOptions, m: Measured, startup: float) -> list[Phase]:
    """One after the other, each with the seconds of all its rounds."""
    k, how = work.clusters, work.how
    totals = work.rows, work.sample, work.seeding, how.breathing_rows
    rows, sample, seeding, breathing = (total / work.processes for total in totals)
    usual = options.n_init or min(2, how.n_init)  # two that end alike are enough
    starts = np.array([usual, usual, options.n_init or how.n_init])
    swaps = breaths = np.zeros(3, int)
    if options.refine and k > 2:
        swaps = _MANY_SWAPS if k >= _MANY_CLUSTERS else _FEW_SWAPS
    if options.refine and k > 1 and breathing:
        # The moves of a breath are halved until none is left.
        breaths = _MORE_BREATHS + how.moves.bit_length() * how.patience
    # The last pass measures, beyond those that the limit counts.
    limit = 1 + (options.epochs or schedule.MAX_PASSES)
    passes = np.minimum(_PASSES if work.sample < work.rows else _PASSES_HELD, limit)

    read = 0.0 if work.held else m.read
    reading = rows * (m.read + m.sum / 2) if work.held else 0.0
    width = work.axes / k if work.axes < work.features else 0.0  # of the product with the axes
    drawing = sample * (m.sum + width * m.search) + rows * read
    first = seeding * (_SEED_SEARCHES * m.search + _SEED_SUMS * m.axes_sum)
    swap = sample * (_SWAP_SEARCHES * m.axes_search + _SWAP_SUMS * m.axes_sum)
    swap += work.judged * _SPLIT_SUMS * m.axes_sum + _ROUND_CALLS
    breath = breathing * (_BREATH_SEARCHES * m.axes_search + _BREATH_SUMS * m.axes_sum)
    # Before the first swap all splits are judged once.
    refining = (swaps + (swaps > 0)) * swap + breaths * (breath + _ROUND_CALLS)
    steps = how.annealing_steps
    phases: list[tuple[str, ArrayLike, int, ArrayLike]] = [
        ("start", 1, 0, startup),
        ("read", int(work.held), work.rows, reading),
        ("sample", 1, work.sample, drawing),
        ("seed", starts, work.seeding, starts * first),
        ("anneal", steps, work.batch, starts * (steps * m.update)),
        ("refine", (swaps + breaths) * starts, work.sample, refining * starts),
        ("passes", passes, work.rows, passes * (rows * (read + m.search + m.sum))),
    ]
    return [Phase(name, Range.of(n), size, Range.of(each)) for name, n, size, each in phases]


def _footprint(work: Work, resident: int, on_gpu: bool) -> tuple[int, int, int]:
    """Bytes of one process, beside what is ``resident`` of libraries and for reading: in memory at
    the largest; of rows, sample and centres, wherever they live; in memory while assigning."""
    d, k = work.features, work.clusters
    rows, sample = work.rows / work.processes, work.sample / work.processes
    held = rows * d * work.itemsize if work.held else 0
    center_bytes, sample_bytes = 4 * k * d, 4 * sample * d
    queued = (1 if work.held else _BLOCKS) * min(BLOCK_BYTES, 4 * d * rows)
    base = resident + _WORKING + queued
    scratch = _CHUNKS * 4 * k * min(rows, chunk_rows(k, d))
    # The most that one step makes beside the sample.
    beside = max(
        # The squares of all its numbers, or the numbers in float64 for their mean.
        sample_bytes * (1 if work.held else 2),
        2 * 4 * d * work.seeding / work.processes,  # differences to centres
        2 * 4 * work.axes * work.judged + _LABELS * sample,  # splits
    )
    on_axes = 4 * sample * work.axes if work.axes < d else 0
    there = held + _COPIES * center_bytes + scratch + sample_bytes + on_axes + beside
    host = base + (max(held, sample_bytes) if on_gpu else there)
    return int(host), int(there), int(base + scratch + 4 * center_bytes)


class Measured(NamedTuple):
    """Seconds of a row, if nothing else is said."""

    read: float
    search: float  # for its nearest centre
    sum: float  # with the others of its cluster
    axes_search: float  # the same on the axes
    axes_sum: float
    update: float  # one, of the annealing
    reading_bytes: int  # resident for reading, besides the rows read


def measure(data: DataSet, work: Work, device: torch.device) -> Measured:
    """Times the parts of a training on the first rows, in a second or two."""
    rows, read, reading_bytes = _first_rows(data, work.held)
    z = torch.from_numpy(rows).float().to(device)
    z -= z.mean(0)
    generator = torch.Generator().manual_seed(0)
    number = torch.randint(len(z), (work.clusters,), generator=generator).to(device)
    noise = torch.randn(work.clusters, work.features, generator=generator).to(device)
    centers = z[number] + noise * z.std(correction=0) / 4
    costs = on_axes = _search_and_sum(z, centers, device)
    if work.axes < work.features:
        z, centers = z[:, : work.axes].contiguous(), centers[:, : work.axes].contiguous()
        on_axes = _search_and_sum(z, centers, device)
    # As a training has it half way: the nearest centres alone matter.
    temperature = max(float(z.square().sum(1).mean()) / 50, 1e-30)
    batch = min(len(z), -(-work.batch // work.processes))
    averages = Averages(Sample(z, None, lambda means: means), centers, batch, True)
    starts = itertools.cycle(range(0, len(z) - batch + 1, batch))  # other rows each time, as there

    def update() -> None:
        averages.update(next(starts), centers, temperature, 0.5)
        averages.means(centers, 0.0)

    updating = timed(update, device) * work.batch / work.processes / batch
    return Measured(read, *costs, *on_axes, updating, reading_bytes)


def _search_and_sum(z: Tensor, centers: Tensor, device: torch.device) -> tuple[float, float]:
    """Seconds of each row (N, D) to find its nearest centre, and to add it to the others there."""
    index, k = CenterIndex(centers), len(centers)
    z = z[: max(64, 4 * chunk_rows(*centers.shape, device=device))]
    labels = index.labels(z)
    search = timed(lambda: index.nearest(z), device)
    return search / len(z), timed(lambda: segment_sums(z, labels, k), device) / len(z)


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call: the median of some, after one to warm up; of one when that is slow."""
    seconds: list[float] = []
    while len(seconds) <= _REPEATS and sum(seconds) < 0.2:
        started = time.perf_counter()
        call()
        getattr(torch, device.type).synchronize()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:] or seconds))


def _first_rows(data: DataSet, as_held: bool) -> tuple[np.ndarray, float, int]:
    """Rows to measure with, the seconds that reading one takes, and what it leaves resident."""
    before, times = _resident_bytes(), [time.perf_counter()]
    parts: list[np.ndarray] = []
    for block in data.blocks(dtype=data.dtype if as_held else np.float32):
        parts.append(block.vectors.copy() if block.bad is None else block.vectors[~block.bad])
        times.append(time.perf_counter())
        size = sum(part.nbytes for part in parts)
        if size > _BYTES or (len(parts) > 3 and times[-1] - times[1] > _READING_SECONDS):
            break
    first = int(len(parts) > 1)  # the block before it opens files and starts threads
    rows = max(1, sum(map(len, parts[first:])))
    left = _resident_bytes() - before - sum(part.nbytes for part in parts)
    return np.concatenate(parts), (times[-1] - times[first]) / rows, max(0, left)


def _resident_bytes() -> int:
    return psutil.Process().memory_info().rss


def _warnings(plan: Plan, options: TrainOptions, memory: int) -> list[str]:
    warnings = []
    held_bytes = plan.held_bytes / plan.processes  # of a process
    if plan.memory > plan.machine:
        ways = []
        if plan.held and plan.memory - held_bytes <= plan.machine:
            limit = size_option(plan.machine // 8)
            ways.append(f"`memory` {limit} reads the rows anew for each pass")
        if plan.held and plan.dtype == "float32":
            ways.append("rows stored as float16 take half")
        if _COPIES * 4 * plan.clusters * plan.features > plan.machine / 4:
            ways.append("fewer clusters (-k) need less")
        more = math.ceil(plan.processes * plan.memory / plan.machine) + 1
        ways.append(f"or share the rows among more machines (`processes` {more})")
        warnings.append(
            f"a process needs about {size_text(plan.memory)} of memory, the machine has "
            f"{size_text(plan.machine)}; {', '.join(ways)}"
        )
    if plan.device_total and plan.device_memory and plan.device_memory > plan.device_total:
        warnings.append(
            f"{plan.device} needs about {size_text(plan.device_memory)} of memory and has "
            f"{size_text(plan.device_total)}; use float16 input, fewer clusters, or more processes"
        )
    if not plan.held:
        text = (
            f"the rows take {size_text(held_bytes)} and may take {size_text(memory)} (`memory`): "
            f"they are read {plan.readings.low:g} to {plan.readings.high:g} times"
        )
        if plan.memory + held_bytes <= plan.machine * 0.9:
            text += f"; `memory` {size_option(held_bytes)} would hold them"
        warnings.append(text)
    wanted = schedule.sample_size(plan.rows, plan.clusters, plan.features, memory=1 << 62)
    if plan.sample < wanted:
        warnings.append(
            f"`memory` cuts the sample to {plan.sample} rows of {wanted}, which may cost quality; "
            f"it takes `memory` {size_option(4 * wanted * plan.features)}"
        )
    if options.metric == LEARNED:
        warnings.append(
            "this is the time of `metric` euclidean; `metric` learned then follows the neighbours "
            "of up to 100,000 rows, which takes about a tenth of a second for each thousand"
        )
    return warnings


def size_option(n_bytes: float) -> str:
    """Bytes as `memory` takes them, rounded up: 1.6GB."""
    scale = 10 ** max(0, len(str(int(n_bytes))) - 2)
    return size_text(math.ceil(n_bytes / scale) * scale).replace(" ", "")
