"""From inputs to an output: rows are read, assigned and written in memory that stays flat."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import IO, Any

import numpy as np

from dinkcli.assigning.assigner import Assigner, Assignments, assign
from dinkcli.assigning.shards import Shard
from dinkcli.assigning.with_numpy import is_small
from dinkcli.assigning.writers import (
    Encoding,
    Layout,
    PartsWriter,
    Writer,
    open_writer,
    stream_writer,
)
from dinkcli.assigning.writers.base import Rows
from dinkcli.data.dataset import LABEL, SKIP, DataSet
from dinkcli.data.spool import is_stream
from dinkcli.models.matching import Matching, ids_of
from dinkcli.models.model import Model
from dinkcli.options import AssignOptions


@dataclass(frozen=True)
class Output:
    """Where assignments go.

    Attributes:
        path: a file, or a folder for parts.
        encoding: how they are written.
        rows_per_file: of the parts, or None for one file.
        resume: go on with the parts that are missing.
        shard: write only the parts of this share.
        stream: an open file, such as standard output, to write to instead; ``path`` is its name.
    """

    path: str
    encoding: Encoding
    rows_per_file: int | None = None
    resume: bool = False
    shard: Shard | None = None
    stream: IO[bytes] | None = None


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


@dataclass(frozen=True)
class Job:
    """A model, the data it is put to, and what is asked about each row.

    Attributes:
        model_name: what the output's metadata call the model.
        matching: ids of an older model for the clusters.
        names: of the n_ids ids, to be written beside them; None where they are not.
        parents: (n_ids,) int32 groups of the ids, by the column that each level goes to.
    """

    model: Model
    data: DataSet
    options: AssignOptions
    model_name: str = "model"
    matching: Matching | None = None
    names: tuple[str, ...] | None = None
    parents: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def temperature(self) -> float:
        """Of the probabilities."""
        asked = self.options.temperature
        return self.model.temperature if asked is None else asked

    @property
    def n_ids(self) -> int:
        return ids_of(self.matching, self.model.n_clusters)[1]

    @property
    def layout(self) -> Layout:
        metadata = metadata_of(self.model, self.model_name)
        if self.matching is not None:
            metadata["dink.match"] = self.matching.old
        return Layout(
            None if self.data.bad_rows == SKIP else self.data.n_rows,
            self.n_ids,
            self.options,
            self.data.columns.id,
            self.data.carried,
            metadata,
            self.names,
            self.parents,
        )

    @property
    def countable_rows(self) -> int | None:
        """N, bad rows included, of inputs that can be read from where one likes."""
        if any(is_stream(reader) for reader in self.data.readers):
            return None
        return self.data.n_rows

    @property
    def is_small(self) -> bool:
        """Whether NumPy is done before torch would be loaded; the same for all shares of a job."""
        return self.options.max_size is None and is_small(self.model, self.data)

    @property
    def identity(self) -> dict[str, Any]:
        """What the output depends on, as plain JSON: a run goes on only where it is the same."""
        return {
            "model": self.model.fingerprint,
            "match": None if self.matching is None else self.matching.old,
            "input": self.data.fingerprint(),
            "bad_rows": self.data.bad_rows,
            "columns": self.data.carried.names,
            "id_column": self.data.columns.id,
            **asdict(self.options),
            "temperature": self.temperature,
            **({} if self.names is None else {"names": list(self.names)}),
            **{name: groups.tolist() for name, groups in self.parents.items()},
            **self.data.beside_identity(),
        }


def metadata_of(model: Model, name: str) -> dict[str, str]:
    """What an output says of the model that it was made by."""
    # A name need not be text; metadata have to be.
    text = os.fsencode(os.path.basename(name)).decode("utf-8", "replace")
    return {"dink.model": text, "dink.fingerprint": model.fingerprint}


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
    chosen = None
    if not small:
        from dinkcli.processes.device import resolve_device

        where = resolve_device(device, 0 if output.shard is None else output.shard.local_rank)
    if job.options.max_size is not None:
        from dinkcli.assigning.limited import labels_of_all

        chosen = labels_of_all(Assigner(job.model, where), job.data, job.options.max_size)

    def rows_of(first: int, stop: int | None) -> Iterator[Assignments]:
        data = job.data if stop is None else job.data.part(first, stop)
        options, matching, on_bad = job.options, job.matching, counts.add_bad
        for rows in assign(job.model, data, where, options, matching, first, on_bad, chosen, small):
            counts.add(rows)
            yield rows

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
    size, resume, shard = output.rows_per_file, output.resume, output.shard
    return PartsWriter(output.path, layout, output.encoding, size, run, resume, n_rows, shard)
