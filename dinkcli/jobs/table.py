"""Tables of what a job finds, for the writers of ``assigning``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from dinkcli.assigning.pipeline import Output, open_output
from dinkcli.assigning.writers import Layout, PartsWriter
from dinkcli.data.dataset import DataSet
from dinkcli.jobs.survey import OnStep

_ROWS = 1 << 18


@dataclass(frozen=True)
class Found:
    """What a job has found about some rows.

    Attributes:
        rows: (B,) int64, numbers of the rows, by which they go to parts.
        columns: (B,) each, by name.
        carried: the B values of each carried column, or None without such columns.
        numbers: (B,) int64, what is written as their numbers, where that is something else.
    """

    rows: np.ndarray
    columns: dict[str, np.ndarray]
    carried: pa.RecordBatch | None = None
    numbers: np.ndarray | None = None

    @property
    def shown(self) -> np.ndarray:
        return self.rows if self.numbers is None else self.numbers

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, where: slice) -> Found:
        start, stop, _ = where.indices(len(self))
        carried = None if self.carried is None else self.carried.slice(start, stop - start)
        columns = {name: values[where] for name, values in self.columns.items()}
        numbers = None if self.numbers is None else self.numbers[where]
        return Found(self.rows[where], columns, carried, numbers)

    def at(self, where: np.ndarray) -> Found:
        """The rows of these positions, or of this mask (B,)."""
        where = np.flatnonzero(where) if where.dtype == bool else where
        carried = None if self.carried is None else self.carried.take(pa.array(where))
        columns = {name: values[where] for name, values in self.columns.items()}
        numbers = None if self.numbers is None else self.numbers[where]
        return Found(self.rows[where], columns, carried, numbers)


@dataclass(frozen=True)
class Written:
    """What was written by this run; see ``assigning.pipeline.Counts``."""

    rows: int
    parts: int | None = None
    complete: bool | None = None


@dataclass(frozen=True)
class Table(Layout):
    """A layout with columns of a job's own between the id and what travels along.

    Attributes:
        found: names and types of these columns.
    """

    found: pa.Schema = field(default_factory=lambda: pa.schema([]))

    def schema(self, flat: bool = False) -> pa.Schema:
        row = pa.field("row", pa.int64(), nullable=False)
        ids = self.carried.field(self.id_name) if self.id_name else row
        fields = [f.with_metadata(self.metadata) if self.metadata else f for f in self.found]
        others = [f for f in self.carried if f.name != self.id_name]
        return pa.schema([ids, *fields, *others], metadata=self.metadata or None)

    def record_batch(self, rows: Found, schema: pa.Schema) -> pa.RecordBatch:
        carried = rows.carried
        columns = [
            rows.shown if self.id_name is None or carried is None else carried.column(self.id_name)
        ]
        columns += [rows.columns[f.name] for f in self.found]
        if carried is not None:
            columns += [carried.column(f.name) for f in carried.schema if f.name != self.id_name]
        arrays = [c if isinstance(c, pa.Array) else pa.array(c) for c in columns]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    @property
    def array_type(self) -> np.dtype:
        return np.dtype([(f.name, f.type.to_pandas_dtype()) for f in self._plain])

    def array(self, rows: Found) -> np.ndarray:
        values = np.empty(len(rows), self.array_type)
        for f in self._plain:
            values[f.name] = rows.shown if f.name == "row" else rows.columns[f.name]
        return values

    @property
    def _plain(self) -> list[pa.Field]:
        """The columns of an npy file, which holds no ids but the number of the row."""
        return [pa.field("row", pa.int64()), *self.found]


def write_table(
    output: Output,
    table: Table,
    run: dict[str, Any],
    data: DataSet,
    columns: dict[str, np.ndarray],
    keep: np.ndarray,
    on_step: OnStep,
) -> Written:
    """Writes what was found about the rows of ``data``, in their order.

    Args:
        run: plain JSON that says what the output depends on.
        columns: (N,) each, by name.
        keep: (N,) bool, rows to be written.
    """
    rows = 0
    with open_output(output, table, run, len(keep)) as writer:
        missing: list[tuple[int, int | None]] = [(0, None)]
        if isinstance(writer, PartsWriter):
            missing = writer.missing
        for first, stop in missing:
            for found in _found(data, columns, first, len(keep) if stop is None else stop):
                found = found.at(keep[found.rows])
                writer.write(found)
                rows += len(found)
                on_step("write", first + rows, len(keep))
    if isinstance(writer, PartsWriter):
        return Written(rows, writer.n_parts, writer.complete)
    return Written(rows)


def _found(data: DataSet, columns: dict[str, np.ndarray], first: int, stop: int) -> Iterator[Found]:
    """The rows [first, stop); inputs are read once more only for columns that travel along."""

    def at(start: int, end: int, carried: pa.RecordBatch | None) -> Found:
        values = {name: column[start:end] for name, column in columns.items()}
        return Found(np.arange(start, end), values, carried)

    if not data.carried.names:
        for start in range(first, stop, _ROWS):
            yield at(start, min(stop, start + _ROWS), None)
        return
    for block in data.blocks(since=first, until=stop):
        start, end = max(first, block.start), min(stop, block.start + len(block))
        yield at(start, end, block[start - block.start : end - block.start].carried)
