"""What a training would take, before it is begun: time, memory, passes, and what to do where that
is too much.

A few reads, products and sums are timed on the first rows; the rest is arithmetic, right to about a
half.

Shapes: N rows, K clusters, D features.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass
from typing import Any

import numpy as np
import torch

from dinkcli.data.dataset import DataSet
from dinkcli.data.inputs import open_inputs
from dinkcli.data.machine import default_memory, machine_memory, size_text
from dinkcli.errors import UsageError
from dinkcli.nearest.hardware import chunk_rows
from dinkcli.nearest.index import CenterIndex
from dinkcli.nearest.sums import segment_sums
from dinkcli.nearest.tempered import TemperedSums
from dinkcli.options import LEARNED, TrainOptions
from dinkcli.planning.work import NOTHING, Footprint, Range, Work, resident_bytes
from dinkcli.processes.device import resolve_device
from dinkcli.results import Result, Sheet, duration

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
_UPDATE_CALLS = 3e-4  # seconds of an update, however few the rows


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
    """One part of the work.

    Attributes:
        name: "start", "read", "sample", "seed", "anneal", "refine", "passes" or "save".
        rounds: how often.
        rows: that each round works on, those of all processes.
        seconds: of all rounds.
    """

    name: str
    rounds: Range
    rows: int
    seconds: Range


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
        exchanged: bytes that each process sends, and as many that it receives.
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
    exchanged: Range
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
        how = "held in memory" if self.held else f"read {_between(self.readings)} times"
        each = "" if self.processes == 1 else f" in each of {self.processes} processes"
        lines = [
            ("input", f"{self.name}: {self.rows} rows x {self.features} features"),
            ("rows", f"{size_text(self.held_bytes)} of {self.dtype}, {how}"),
            ("sample", f"{self.sample} rows, {size_text(self.sample_bytes)}"),
            ("", ""),
        ]
        for phase in self.phases:
            if phase.rounds.high:
                what = _WHAT[phase.name].format(rounds=_between(phase.rounds), rows=phase.rows)
                lines.append((phase.name, f"{_between(phase.seconds, duration):22} {what}"))
        train, assign = _between(self.seconds, duration), duration(self.assign_seconds)
        lines += [
            ("", ""),
            ("train", f"{train:22} {size_text(self.memory)} of memory{each}"),
            ("assign", f"{assign:22} {size_text(self.assign_memory)} of memory{each}"),
        ]
        if self.device_memory is not None:
            lines.append((self.device, f"{size_text(self.device_memory)} of its memory"))
        if self.processes > 1:
            sent = f"{_between(self.exchanged, size_text)} sent by each process"
            lines.append(("network", f"{sent}; its time is not counted"))
        return lines

    def sheets(self) -> list[Sheet]:
        (sheet,) = super().sheets()
        sheet.notes += self.warnings
        return [sheet]


def _between(amount: Range, text: Callable[[float], str] = "{:g}".format) -> str:
    low, typical, high = map(text, astuple(amount))
    return typical if low == high else f"{typical} ({low} to {high})"


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
        options = TrainOptions(
            options,
            metric=metric,
            refine=refine,
            n_init=n_init,
            epochs=epochs,
            batch_size=batch_size,
        )
    if processes < 1:
        raise UsageError(f"`processes` {processes}: expected at least 1")
    where = resolve_device(device)
    data = open_inputs(inputs, column, bad_rows).repeatable()
    options.check_rows(data.known_rows, data.name)
    memory = default_memory() if memory is None else memory
    machine = machine_memory() if machine is None else machine
    startup *= 1 + _ENDING
    libraries = resident_bytes()
    work = Work.of(data, options, memory * processes)
    mine = work.shared(processes)
    measured = measure(data, mine, where)
    needs = Footprint(mine, libraries, measured.reading_bytes, on_device=where.type == "cuda")
    phases = _phases(work, mine, measured, startup)
    total = sum((phase.seconds for phase in phases), NOTHING)
    device_total = torch.cuda.mem_get_info(where)[1] if needs.on_device else None
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
        held_bytes=work.rows * work.features * work.itemsize,
        readings=work.readings,
        sample=work.sample,
        sample_bytes=work.sample_bytes,
        batch=work.batch,
        phases=phases,
        seconds=Range(total.low * (1 - _SPREAD), total.typical, total.high * (1 + _SPREAD)),
        memory=needs.host,
        device_memory=needs.device if device_total else None,
        exchanged=work.reduced_bytes * (2 * (processes - 1) / processes),
        assign_seconds=startup + mine.rows * (measured.read + measured.search),
        assign_memory=needs.assigning,
        machine=machine,
        device_total=device_total,
        warnings=[],
    )
    result.warnings.extend(_warnings(result, work, options, memory, needs))
    return result


def _phases(work: Work, mine: Work, m: Measured, startup: float) -> list[Phase]:
    """One after the other, each with the seconds of all its rounds."""
    once, starts = Range.exactly(1), Range.exactly(work.starts)
    updates = Range.exactly(work.updates * work.starts)
    passing = m.search + m.sum + (0.0 if work.held else m.read)
    # A product of the sample and the axes, and means with all features.
    width = work.axes / work.clusters if work.axes < work.features else 0.0
    drawing = mine.sample * (m.sum + width * m.search) + (0.0 if work.held else mine.rows * m.read)
    seeding = mine.seeding * (_SEED_SEARCHES * m.search + _SEED_SUMS * m.axes_sum)
    annealing = work.updates * m.update + work.reports * min(mine.batch, 2048) * m.axes_search
    swap = mine.sample * (_SWAP_SEARCHES * m.axes_search + _SWAP_SUMS * m.axes_sum)
    swap += mine.judged * _SPLIT_SUMS * m.axes_sum
    breath = mine.breathing * (_BREATH_SEARCHES * m.axes_search + _BREATH_SUMS * m.axes_sum)
    first_look = Range.exactly(1 if work.swaps.high else 0)
    refining = (work.swaps + first_look) * (swap + _ROUND_CALLS)
    refining += work.breaths * (breath + _ROUND_CALLS)
    rounds = (work.swaps + work.breaths) * work.starts
    reading = mine.rows * (m.read + m.sum / 2)
    return [
        Phase("start", once, 0, Range.exactly(startup)),
        Phase("read", once * work.held, work.rows, Range.exactly(reading) * work.held),
        Phase("sample", once, work.sample, Range.exactly(drawing)),
        Phase("seed", starts, work.seeding, starts * seeding),
        Phase("anneal", updates, work.batch, starts * annealing),
        Phase("refine", rounds, work.sample, refining * work.starts),
        Phase("passes", work.passes, work.rows, work.passes * (mine.rows * passing)),
    ]


@dataclass(frozen=True)
class Measured:
    """Seconds: of each row, to read it, to find its nearest centre and to add it up, with all
    features and on the axes; of one update of the annealing. And bytes that are resident for
    reading, besides the rows read."""

    read: float
    search: float
    sum: float
    axes_search: float
    axes_sum: float
    update: float
    reading_bytes: int


def measure(data: DataSet, work: Work, device: torch.device) -> Measured:
    """Times the parts of a training on the first rows, in a second or two.

    Raises:
        InputError: bad rows among the first ones.
    """
    rows, read, reading_bytes = _first_rows(data, work)
    z = torch.from_numpy(rows).float().to(device)
    z -= z.mean(0)
    generator = torch.Generator().manual_seed(0)
    number = torch.randint(len(z), (work.clusters,), generator=generator).to(device)
    noise = torch.randn(work.clusters, work.features, generator=generator).to(device)
    centers = z[number] + noise * z.std(correction=0) / 4
    search, summing = _search_and_sum(z, centers, device)
    on_axes, few = z[:, : work.axes].contiguous(), centers[:, : work.axes].contiguous()
    whole = work.axes == work.features
    axes = (search, summing) if whole else _search_and_sum(on_axes, few, device)
    # As a training has it half way: the nearest centres alone matter.
    temperature = max(float(z.square().sum(1).mean()) / 50, 1e-30)
    sums = TemperedSums(few, work.batch, (1.0, 1.0), (1.0, 1.0))
    batch = on_axes[: work.batch]
    update = timed(lambda: sums(batch, None, few, temperature, False, True), device)
    update *= work.batch / len(batch)
    return Measured(read, search, summing, *axes, update + _UPDATE_CALLS, reading_bytes)


def _search_and_sum(
    z: torch.Tensor, centers: torch.Tensor, device: torch.device
) -> tuple[float, float]:
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


def _first_rows(data: DataSet, work: Work) -> tuple[np.ndarray, float, int]:
    """Rows to measure with, the seconds that reading one takes, and what it leaves resident."""
    before, begun = resident_bytes(), time.perf_counter()
    parts: list[np.ndarray] = []
    first = started = begun
    for block in data.blocks(dtype=data.dtype if work.held else np.float32):
        parts.append(block.vectors.copy() if block.bad is None else block.vectors[~block.bad])
        if len(parts) == 1:  # it opens files and starts threads
            first = started = time.perf_counter()
        size = sum(part.nbytes for part in parts)
        if size > _BYTES or (len(parts) > 3 and time.perf_counter() - started > _READING_SECONDS):
            break
    seconds, timed_rows = time.perf_counter() - first, sum(map(len, parts[1:]))
    if not timed_rows:
        seconds, timed_rows = time.perf_counter() - begun, max(1, len(parts[0]))
    left = resident_bytes() - before - sum(part.nbytes for part in parts)
    return np.concatenate(parts), seconds / timed_rows, max(0, left)


def _warnings(
    plan: Plan, work: Work, options: TrainOptions, memory: int, needs: Footprint
) -> list[str]:
    warnings = []
    if plan.memory > plan.machine:
        warnings.append(
            f"a process needs about {size_text(plan.memory)} of memory, the machine has "
            f"{size_text(plan.machine)}; {_remedy(plan, needs)}"
        )
    if plan.device_total and plan.device_memory and plan.device_memory > plan.device_total:
        warnings.append(
            f"{plan.device} needs about {size_text(plan.device_memory)} of memory and has "
            f"{size_text(plan.device_total)}; use float16 input, fewer clusters, or more processes"
        )
    if not plan.held:
        times = f"{plan.readings.low:g} to {plan.readings.high:g} times"
        text = (
            f"the rows take {size_text(plan.held_bytes / plan.processes)} and may take "
            f"{size_text(memory)} (`memory`): they are read {times}"
        )
        if needs.if_held <= plan.machine * 0.9:
            text += f"; `memory` {size_option(plan.held_bytes / plan.processes)} would hold them"
        warnings.append(text)
    if work.sample < work.wanted_sample:
        warnings.append(
            f"`memory` cuts the sample to {work.sample} rows of {work.wanted_sample}, which may "
            f"cost quality; it takes `memory` {size_option(4 * work.wanted_sample * work.features)}"
        )
    if options.metric == LEARNED:
        warnings.append(
            "this is the time of `metric` euclidean; `metric` learned then follows the neighbours "
            "of up to 100,000 rows, which takes about a tenth of a second for each thousand"
        )
    return warnings


def _remedy(plan: Plan, needs: Footprint) -> str:
    """What makes it fit."""
    ways = []
    limit = plan.machine // 8
    if plan.held and needs.if_streamed(limit) <= plan.machine:
        ways.append(f"`memory` {size_option(limit)} reads the rows anew for each pass")
    if plan.held and plan.dtype == "float32":
        ways.append("rows stored as float16 take half")
    if needs.centers > plan.machine / 4:
        ways.append("fewer clusters (-k) need less")
    more = math.ceil(plan.processes * plan.memory / plan.machine) + 1
    ways.append(f"or share the rows among more machines (`processes` {more})")
    return ", ".join(ways)


def size_option(n_bytes: float) -> str:
    """Bytes as `memory` takes them, rounded up: 1.6GB."""
    scale = 10 ** max(0, len(str(int(n_bytes))) - 2)
    return size_text(math.ceil(n_bytes / scale) * scale).replace(" ", "")
