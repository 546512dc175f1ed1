"""Tables of what a job finds, for the writers of ``assigning``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from dinkcli.assigning.writers.base import Layout, rows_at
from dinkcli.data.dataset import DataSet

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

    def __getitem__(self, where: slice | np.ndarray) -> Found:
        """The rows of a slice, or at positions."""
        columns = {name: values[where] for name, values in self.columns.items()}
        others = (rows_at(values, where) for values in (self.carried, self.numbers))
        return Found(self.rows[where], columns, *others)


@dataclass(frozen=True)
class Table(Layout):
    """A layout with columns of a job's own between the id and what travels along.

    Attributes:
        found: names and types of these columns.
    """

    found: pa.Schema = field(default_factory=lambda: pa.schema([]))

    def _fields(self, flat: bool) -> list[pa.Field]:
        return list(self.found)

    def _numbers(self, rows: Found) -> np.ndarray:
        return rows.shown

    def _columns(self, rows: Found, schema: pa.Schema) -> list[Any]:
        return [pa.array(rows.columns[name]) for name in self.found.names]

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


def kept_rows(
    data: DataSet, columns: dict[str, np.ndarray], keep: np.ndarray, first: int, stop: int | None
) -> Iterator[Found]:
    """What was found about the rows [first, stop) of ``data`` that are kept, in their order; inputs
    are read once more only for columns that travel along.

    Args:
        columns: (N,) each, by name.
        keep: (N,) bool, rows to be written.
        stop: None for N.
    """
    stop = len(keep) if stop is None else stop

    def at(start: int, end: int, carried: pa.RecordBatch | None) -> Found:
        values = {name: column[start:end] for name, column in columns.items()}
        whole = Found(np.arange(start, end), values, carried)
        return whole[np.flatnonzero(keep[start:end])]

    if not data.carried.names:
        for start in range(first, stop, _ROWS):
            yield at(start, min(stop, start + _ROWS), None)
        return
    for block in data.blocks(since=first, until=stop):
        start, end = max(first, block.start), min(stop, block.start + len(block))
        yield at(start, end, block[start - block.start : end - block.start].carried)
