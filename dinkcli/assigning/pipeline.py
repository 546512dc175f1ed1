"""From inputs to an output: rows are read, assigned and written in memory that stays flat."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from dinkcli.assigning.assigner import Assigner, Assignments, assign
from dinkcli.assigning.job import Job
from dinkcli.assigning.writers.base import Layout, Rows, Writer
from dinkcli.assigning.writers.formats import Output, open_writer, stream_writer
from dinkcli.assigning.writers.parts import PartsWriter
from dinkcli.data.dataset import LABEL


@dataclass
class Written:
    """What was written by this run.

    Attributes:
        rows: written.
        rows_before: written by earlier runs, of those that this one was to write.
        parts: complete parts in the folder (of the share), or None without parts.
        complete: no part is missing in the folder, or None without parts.
    """

    rows: int = 0
    rows_before: int = 0
    parts: int | None = None
    complete: bool | None = None


@dataclass
class Counts:
    """What was assigned by this run.

    Attributes:
        outliers: rows with the label -1, bad ones not counted.
        bad: rows that were skipped or labelled -1 because they have no usable vector.
        sizes: (n_ids,) int64, rows of each cluster.
        certainty: sum of the probabilities that rows have of being in their own cluster.
        judged: rows of which it is the sum; 0 where probabilities were not asked for.
    """

    sizes: np.ndarray
    outliers: int = 0
    bad: int = 0
    certainty: float = 0.0
    judged: int = 0

    def add_bad(self, n_bad: int) -> None:
        self.bad += n_bad

    def add(self, rows: Assignments) -> None:
        # One bin more in front takes the label -1.
        found = np.bincount(rows.labels + 1, minlength=len(self.sizes) + 1)
        if rows.own is not None:
            self.certainty += float(np.nansum(rows.own, dtype=np.float64))
            self.judged += int(np.isfinite(rows.own).sum())
        self.outliers += int(found[0])
        self.sizes += found[1:]


def run(
    job: Job,
    output: Output,
    device: str = "auto",
    on_rows: Callable[[int], None] = lambda done: None,
) -> tuple[Counts, Written]:
    """Assigns all rows of a job and writes them.

    Args:
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        on_rows: called with the number of rows written so far, those of earlier runs included.

    Raises:
        DinkError: see ``dinkcli.errors``; the output is then what it was, or has all parts that
            were complete.
    """
    counts = Counts(np.zeros(job.n_ids, np.int64))
    small = device == "auto" and job.is_small
    where: Any = "cpu"
    if not small:
        from dinkcli.processes.device import resolve_device

        where = resolve_device(device, 0 if output.shard is None else output.shard.local_rank)
    assigner = Assigner(job.model, where, job.options, job.matching, small)
    if job.options.max_size is not None:
        from dinkcli.assigning.limited import labels_of_all

        assigner.chosen = labels_of_all(assigner, job.data)

    def rows_of(first: int, stop: int | None) -> Iterator[Rows]:
        data = job.data if stop is None else job.data.part(first, stop)
        for found in assign(assigner, data, first, counts.add_bad):
            counts.add(found)
            yield job.written(found)

    written = write_missing(output, job.layout, job.identity, job.countable_rows, rows_of, on_rows)
    if job.data.bad_rows == LABEL:
        counts.outliers -= counts.bad
    return counts, written


def write_missing(
    output: Output,
    layout: Layout,
    run: dict[str, Any],
    n_rows: int | None,
    rows_of: Callable[[int, int | None], Iterable[Rows]],
    on_rows: Callable[[int], None] = lambda done: None,
) -> Written:
    """Writes what is not there yet of an output.

    Args:
        run, n_rows: see ``PartsWriter``.
        rows_of: gives the rows from a first one to a last one + 1, or None for the end, in pieces.
        on_rows: called with the number of rows written so far, those of earlier runs included.
    """
    written = Written()
    with open_output(output, layout, run, n_rows) as writer:
        missing: list[tuple[int, int | None]] = [(0, None)]
        if isinstance(writer, PartsWriter):
            written.rows_before, missing = writer.rows_before, writer.missing
        for first, stop in missing:
            for rows in rows_of(first, stop):
                writer.write(rows)
                written.rows += len(rows)
                on_rows(written.rows_before + written.rows)
    if isinstance(writer, PartsWriter):
        written.parts, written.complete = writer.n_parts, writer.complete
    return written


def open_output(
    output: Output, layout: Layout, run: dict[str, Any], n_rows: int | None
) -> AbstractContextManager[Writer | PartsWriter]:
    """The writer of an output.

    Args:
        run, n_rows: see ``PartsWriter``.
    """
    if output.stream is not None:
        return stream_writer(output.stream, layout, output.encoding)
    if output.rows_per_file is None:
        return open_writer(output.path, layout, output.encoding)
    return PartsWriter(output, layout, run, n_rows)
