"""Parquet files: a list column of vectors, or one numeric column per dimension.

No loop over rows anywhere: a list column becomes an array by its flat values and its offsets.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dinkcli.errors import InputError, UsageError
from dinkcli.readers.base import ANY_COLUMNS, Block, Columns

MAGIC = b"PAR1"
_LISTS = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)


class ParquetReader:
    """One parquet file.

    Args:
        wanted: the columns to read.
    """

    def __init__(self, path: str, wanted: Columns = ANY_COLUMNS):
        self.path = path
        try:
            # Without pre-buffering one row group at a time is held, not the whole file.
            self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error
        schema = self._file.schema_arrow
        self.column_names = schema.names
        for name, option in wanted.carried.items():
            if name not in schema.names:
                raise UsageError(
                    f"{path}: no column {name!r} for {option}; it has {_names(schema.names)}"
                )
        self.carried = pa.schema([schema.field(name) for name in wanted.carried])
        self.n_bytes = os.path.getsize(path)
        column = wanted.vectors
        if column is None and wanted.usual in schema.names:
            column = wanted.usual
        self.columns = _vector_columns(path, schema, column, wanted)
        self.column = column or (self.columns[0] if len(self.columns) == 1 else None)
        self.n_rows = self._file.metadata.num_rows
        first = _storage(schema.field(self.columns[0]).type)
        self._is_list = _is_list(first)
        value_type = first.value_type if self._is_list else first
        self.dtype = np.dtype(value_type.to_pandas_dtype())
        self.n_features = self._count_features(first)

    def blocks(self, rows: int) -> Iterator[Block]:
        start = 0
        for batch in self._batches(rows):
            vectors = self._vectors(batch, start)
            carried = batch.select(self.carried.names) if self.carried.names else None
            yield Block(start, vectors, carried)
            start += batch.num_rows
        if start != self.n_rows:
            raise InputError(
                f"{self.path}: the footer promises {self.n_rows} rows, {start} could be read; "
                "write or copy the file again"
            )

    def _batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        columns = list(dict.fromkeys([*self.columns, *self.carried.names]))
        try:
            yield from self._file.iter_batches(rows, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> InputError:
        reason = str(error).strip().splitlines()[0]
        return InputError(
            f"{self.path}: cannot be read as parquet (truncated or damaged): {reason}; "
            "write or copy it again"
        )

    def _count_features(self, first: pa.DataType) -> int:
        if not self._is_list:
            return len(self.columns)
        if pa.types.is_fixed_size_list(first):
            n_features = first.list_size
        else:
            # Lists of any length: the first row says what all of them must have.
            batch = next(self._batches(1), None)
            n_features = 0 if batch is None else len(_list_array(batch.column(0)).flatten())
        if n_features == 0 and self.n_rows > 0:
            raise InputError(
                f"{self.path}: row 0 of column {self.columns[0]!r} is null or has no elements; "
                "expected a vector: remove such rows"
            )
        return n_features

    def _vectors(self, batch: pa.RecordBatch, start: int) -> np.ndarray:
        if self._is_list:
            return self._from_lists(_list_array(batch.column(self.columns[0])), start)
        columns = [batch.column(name) for name in self.columns]
        for name, values in zip(self.columns, columns, strict=True):
            self._refuse_nulls(values, start, 1, f"column {name!r} is null")
        return np.stack([values.to_numpy(zero_copy_only=False) for values in columns], axis=1)

    def _from_lists(self, lists: pa.Array, start: int) -> np.ndarray:
        name, size = self.columns[0], self.n_features
        self._refuse_nulls(lists, start, 1, f"column {name!r} is null, expected a vector")
        if pa.types.is_fixed_size_list(lists.type):
            values = lists.values.slice(lists.offset * size, len(lists) * size)
        else:
            offsets = lists.offsets.to_numpy()
            lengths = np.diff(offsets)
            ragged = lengths != size
            if ragged.any():
                row = int(ragged.argmax())
                raise InputError(
                    f"{self.path}: row {start + row} of column {name!r} has {lengths[row]} "
                    f"elements, expected {size} as in row 0 (counting from 0); "
                    "all vectors must have one length"
                )
            values = lists.values.slice(offsets[0], offsets[-1] - offsets[0])
        self._refuse_nulls(values, start, size, f"column {name!r} has a null element")
        return values.to_numpy(zero_copy_only=False).reshape(len(lists), size)

    def _refuse_nulls(self, values: pa.Array, start: int, per_row: int, what: str) -> None:
        if values.null_count == 0:
            return
        null = values.is_null().to_numpy(zero_copy_only=False)
        row = start + int(null.argmax()) // per_row
        raise InputError(
            f"{self.path}: row {row}: {what} (counting from 0); remove or fill such rows"
        )


def _storage(type_: pa.DataType) -> pa.DataType:
    return type_.storage_type if isinstance(type_, pa.BaseExtensionType) else type_


def _list_array(array: pa.Array) -> pa.Array:
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def _is_list(type_: pa.DataType) -> bool:
    return any(check(type_) for check in _LISTS)


def _is_vector(type_: pa.DataType, is_number: Callable[[pa.DataType], bool]) -> bool:
    type_ = _storage(type_)
    return _is_list(type_) and is_number(type_.value_type)


def _is_number(type_: pa.DataType) -> bool:
    return pa.types.is_floating(type_) or pa.types.is_integer(type_)


def _names(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _vector_columns(path: str, schema: pa.Schema, column: str | None, wanted: Columns) -> list[str]:
    """The column, or the columns in order of dimension, that hold the vectors.

    Ids are no candidates, nor are numbers that travel along; carried vectors still are.
    """
    fields = [
        field
        for field in schema
        if field.name != wanted.id
        and (field.name not in wanted.carried or _is_vector(field.type, _is_number))
    ]
    if column is not None:
        return _named_columns(path, fields, column)
    for is_number in (pa.types.is_floating, pa.types.is_integer):
        lists = [field.name for field in fields if _is_vector(field.type, is_number)]
        if len(lists) == 1:
            return lists
        if lists:
            raise UsageError(
                f"{path}: {len(lists)} columns could hold the embeddings: {_names(lists)}; "
                f"choose one with --column {lists[0]}"
            )
    floats = [field.name for field in fields if pa.types.is_floating(field.type)]
    numbered = _numbered(floats)
    if len(numbered) > 1:
        patterns = [f"{prefix}*" for prefix in numbered]
        raise UsageError(
            f"{path}: {len(patterns)} sets of columns could hold the embeddings: "
            f"{_names(patterns)}; choose one with --column '{patterns[0]}'"
        )
    chosen = next(iter(numbered.values()), floats)
    if not chosen:
        raise InputError(
            f"{path}: no column of vectors: expected a list column of floats, or one float "
            f"column per dimension; it has {_names([f'{f.name}: {f.type}' for f in schema])}"
        )
    return chosen


def _named_columns(path: str, fields: list[pa.Field], column: str) -> list[str]:
    exact = [field for field in fields if field.name == column]
    matching = exact or [f for f in fields if fnmatchcase(f.name, column) and _is_number(f.type)]
    if not matching:
        raise UsageError(
            f"{path}: no column {column!r}; it has {_names([field.name for field in fields])}"
        )
    first = matching[0].type
    if len(matching) == 1 and not (_is_number(first) or _is_vector(first, _is_number)):
        raise InputError(
            f"{path}: column {column!r} is {first}, expected a list of floats or a number"
        )
    return sorted((field.name for field in matching), key=_natural)


def _numbered(names: list[str]) -> dict[str, list[str]]:
    """Columns such as dim_0, dim_1, ... by prefix, each in the order of its numbers."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names, key=_natural):
        if match := re.fullmatch(r"(.*?)\d+", name):
            groups.setdefault(match[1], []).append(name)
    return {prefix: group for prefix, group in groups.items() if len(group) > 1}


def _natural(name: str) -> list[tuple[int, str | int]]:
    """Sorts dim_2 before dim_10."""
    return [(1, int(part)) if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]
