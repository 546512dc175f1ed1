"""What an output holds: rows with their columns, as record batches or as arrays.

Shapes: B rows in a batch, K clusters, M clusters of a list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from dinkcli.data.base import NOTHING_CARRIED
from dinkcli.errors import UsageError

# In formats without lists each element has a column of its own, of this name and its number.
_SINGLE = {"clusters": "cluster", "probabilities": "probability"}


@dataclass(frozen=True)
class Rows:
    """What is written of some rows."""

    rows: np.ndarray  # (B,) int64, their numbers, by which they go to parts, ascending there
    columns: Mapping[str, Any]  # (B,) or, for lists, (B, M); texts as an Arrow dictionary
    carried: pa.RecordBatch | None = None  # the B values of columns that travel along
    n_bad: int = 0  # bad ones among them, or left out

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, where: slice | np.ndarray) -> Rows:
        """The rows of a slice, or at positions."""
        columns = {name: rows_at(values, where) for name, values in self.columns.items()}
        return Rows(self.rows[where], columns, rows_at(self.carried, where))


@dataclass(frozen=True)
class Layout:
    """What the output will hold, known before the first row. Raises UsageError where two columns
    would have one name."""

    n_rows: int | None  # that will be written; None where only the end of the input tells
    columns: pa.Schema  # what is written about each row
    id_name: str | None = None  # without one the row number is written as ``row``
    carried: pa.Schema = NOTHING_CARRIED  # of the input, the ids among them
    metadata: dict[str, str] = field(default_factory=dict)  # of the schema and of ``columns``
    # Of a row in an array, where it is not the number and all columns; without names it is that of
    # the last column alone.
    row_type: np.dtype | None = None

    def __post_init__(self) -> None:
        twice = [name for name, count in Counter(self.schema().names).items() if count > 1]
        if twice:
            raise UsageError(
                f"column {twice[0]!r} of the input cannot travel along: the output has a column "
                "of that name itself; leave it out or rename it"
            )

    def schema(self, flat: bool = False) -> pa.Schema:
        """Id or row, ``columns``, then those that travel along.

        ``flat`` gives each element of a list a column of its own, for formats without lists: of
        all clusters by their numbers, from 0; of the best ones by rank, from 1.
        """
        first = 1 if "clusters" in self.columns.names else 0
        columns: list[pa.Field] = []
        for each in self.columns:
            if flat and pa.types.is_fixed_size_list(each.type):
                numbers = range(first, first + each.type.list_size)
                names = [f"{_SINGLE[each.name]}_{j}" for j in numbers]
                columns += without_nulls(dict.fromkeys(names, each.type.value_type))
            else:
                columns.append(each)
        if self.metadata:
            columns = [each.with_metadata(self.metadata) for each in columns]
        ids = self.carried.field(self.id_name) if self.id_name else _ROW
        others = [each for each in self.carried if each.name != self.id_name]
        return pa.schema([ids, *columns, *others], metadata=self.metadata or None)

    def record_batch(self, rows: Rows, schema: pa.Schema) -> pa.RecordBatch:
        """``rows`` as a record batch of ``schema``."""
        named: dict[str | None, Any] = {}
        if rows.carried is not None:
            named |= zip(rows.carried.schema.names, rows.carried.columns, strict=True)
        columns = [named.pop(self.id_name, rows.rows)]
        for each in self.columns:
            values = rows.columns[each.name]
            if isinstance(values, pa.DictionaryArray):
                columns.append(values.dictionary_decode())
            elif values.ndim == 1:
                columns.append(values)
            elif each.name in schema.names:
                flat = as_arrow(values.reshape(-1))
                columns.append(pa.FixedSizeListArray.from_arrays(flat, type=each.type))
            else:
                columns += list(values.T)
        arrays = map(as_arrow, (*columns, *named.values()))
        return pa.RecordBatch.from_arrays(list(arrays), schema=schema)

    @property
    def array_type(self) -> np.dtype:
        return row_type([_ROW, *self.columns]) if self.row_type is None else self.row_type

    def array(self, rows: Rows) -> np.ndarray:
        kind = self.array_type
        if not kind.names:
            return rows.columns[self.columns.names[-1]]
        values = np.empty(len(rows), kind)
        for name in kind.names:
            column = rows.columns.get(name, rows.rows)
            if isinstance(column, pa.DictionaryArray):
                column = np.array(column.dictionary.to_pylist())[column.indices.to_numpy()]
            values[name] = column
        return values


def table_of(layout: Layout, rows: Iterable[Rows]) -> pa.Table:
    schema = layout.schema()
    return pa.Table.from_batches([layout.record_batch(each, schema) for each in rows], schema)


def without_nulls(types: Mapping[str, pa.DataType]) -> pa.Schema:
    return pa.schema([pa.field(name, type_, nullable=False) for name, type_ in types.items()])


_ROW = without_nulls({"row": pa.int64()}).field(0)


def row_type(columns: list[pa.Field] | pa.Schema, characters: int = 1) -> np.dtype:
    """Of one row in an array with these columns, whose texts have so many characters at most."""
    fields: list[tuple] = []
    for column in columns:
        if pa.types.is_fixed_size_list(column.type):
            element = column.type.value_type.to_pandas_dtype()
            fields.append((column.name, element, (column.type.list_size,)))
        elif pa.types.is_string(column.type):
            fields.append((column.name, f"<U{characters}"))
        else:
            fields.append((column.name, column.type.to_pandas_dtype()))
    return np.dtype(fields)


def as_arrow(values: np.ndarray | pa.Array) -> pa.Array:
    """Numbers (B,) without nulls. ``pa.array`` would load pandas where that is installed, which
    takes longer than all of a small run."""
    if isinstance(values, pa.Array):
        return values
    if values.dtype == bool:  # Arrow has a bit for each
        return pa.array(values)
    values = np.ascontiguousarray(values)
    type_ = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(type_, len(values), [None, pa.py_buffer(values)])


def rows_at(values: Any, where: slice | np.ndarray) -> Any:
    """The rows of an array, of NumPy or Arrow, or of a record batch: in a slice, without a copy, or
    at positions; None stays."""
    if isinstance(values, (pa.Array, pa.RecordBatch)) and isinstance(where, np.ndarray):
        return values.take(as_arrow(where))
    return None if values is None else values[where]
