"""How long the parts of a training take here: each is run on a few rows and scaled.

On the first rows of the input; ``bench`` times the parts that need rows in memory alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass

import numpy as np
import torch

from dinkcli.assigning.assigner import Assigner, assign
from dinkcli.data.array import ArrayReader
from dinkcli.data.dataset import BLOCK_BYTES, DataSet
from dinkcli.models.model import Model
from dinkcli.planning.bench import LEAST_ROWS, Bench, timed, wait
from dinkcli.planning.footprint import resident_bytes
from dinkcli.planning.work import Work
from dinkcli.training.rows import open_rows

_READING_SECONDS = 0.4  # in which reading is measured at most
_BYTES = 64 << 20  # of rows to measure with
_ALL = 1 << 62


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
    loading = timed(lambda: open_rows(held, metric, device, memory=_ALL), device)
    source = open_rows(held, metric, device, memory=_ALL)
    generator = torch.Generator().manual_seed(0)
    drawing = timed(lambda: source.sample(len(rows), generator), device)
    sample = source.sample(len(rows), generator)
    bench = Bench(sample, work, device)
    a_pass, labels = bench.full_pass(), bench.labels()
    # The first blocks of the input serve where they are a matter of moments.
    share = min(1.0, BLOCK_BYTES / (4 * work.features * work.rows))
    if work.held:
        again = source
        read = (reading + loading / len(rows)) * work.rows
        draw = drawing * work.sample / len(rows)
    else:
        again = open_rows(data, metric, device, memory=0, shift=source.shift)
        read, draw = 0.0, _each(again.blocks(), lambda block: None, device) * work.rows
        a_pass = max(a_pass, draw)
    if a_pass * share < _READING_SECONDS:
        a_pass = _each(again.blocks(), bench.pass_over, device) * work.rows
    if labels * share < _READING_SECONDS:
        centers = bench.centers.cpu().numpy() + source.shift.numpy()
        model = Model(centers, np.ones(len(centers)), metric, data.column)
        parts = ((part, None) for part in assign(Assigner(model, device), data))
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


def _first_rows(data: DataSet, work: Work) -> tuple[np.ndarray, float, int]:
    """Rows to measure with, the seconds that reading one takes, and what it leaves resident."""
    before = resident_bytes()
    most = max(LEAST_ROWS, _BYTES // (4 * work.features))
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
        wait(device)
        done += len(block[0])
        now = time.perf_counter()
        if number == 0:
            started, first = now, done
        elif done >= most or (number > 2 and now - started > _READING_SECONDS):
            break
    if done == first:
        started, first = begun, 0
    return (time.perf_counter() - started) / (done - first)
