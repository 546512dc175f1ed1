"""What all inputs with columns share: parquet, Arrow, csv and jsonl differ only in their batches.

Shapes: N rows, B rows in a batch, D features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from dinkcli.data.base import Block, Columns, reading
from dinkcli.data.files import Source
from dinkcli.data.formats.columns import (
    bytes_dim,
    is_bytes,
    is_list,
    is_number,
    is_spark_vector,
    names_of,
    storage,
    vector_columns,
)
from dinkcli.data.formats.vectors import lengths_of, vectors_of
from dinkcli.errors import InputError, UsageError

_PEEK_ROWS = 1024


class TableReader:
    """An input with columns. A subclass gives its schema, its number of rows and its batches.

    Args:
        wanted: the columns to read.
    """

    format = "table"

    def __init__(self, source: Source, schema: pa.Schema, n_rows: int | None, wanted: Columns):
        self.source, self.schema, self.n_rows = source, schema, n_rows
        self.path, self.n_bytes = source.name, source.n_bytes
        self.column_names: list[str] = schema.names
        self.partition = {
            name: value for name, value in source.partition.items() if name not in schema.names
        }
        self.carried = pa.schema(
            [self._carried_field(name, option) for name, option in wanted.carried.items()]
        )
        self.columns = vector_columns(self.path, schema, wanted)
        self.column = wanted.vectors or (
            self.columns[0] if len(self.columns) == 1 else wanted.usual
        )
        first = schema.field(self.columns[0])
        self.n_features, self.dtype = self._shape(first, storage(first.type), wanted.dim)

    def _batches(
        self, rows: int, names: list[str], since: int = 0
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Rows in order with (at least) these columns, and the number of the first of each batch.

        Cut into pieces of ``rows`` from their start, the batches that hold the row ``since`` and
        all later ones are the same whatever ``since`` is; what comes before them may be left out.
        """
        raise NotImplementedError

    def _validate(self, batch: pa.RecordBatch) -> None:
        """Raises pa.ArrowInvalid when the buffers of a batch do not fit together."""

    def blocks(self, rows: int, since: int = 0, until: int | None = None) -> Iterator[Block]:
        names = list(dict.fromkeys([*self.columns, *self.carried.names]))
        names = [name for name in names if name not in self.partition]
        end = 0
        with reading(self.path, self.format):
            for start, batch in self._checked_batches(rows, names, since):
                if until is not None and start >= until:
                    self.source.check_unchanged()
                    return
                end = start + len(batch)
                yield self._block(batch, start)
        if self.n_rows is not None and end != self.n_rows:
            raise InputError(
                f"{self.path}: {self.n_rows} rows are promised, {end} could be read; "
                "write or copy the file again"
            )

    def numbers(self, name: str) -> np.ndarray:
        """(N,) the values of a column of numbers.

        Raises:
            UsageError: no such column, or one of another type.
            InputError: a null among them.
        """
        if name not in self.schema.names or not is_number(self.schema.field(name).type):
            known = names_of([f.name for f in self.schema if is_number(f.type)])
            raise UsageError(f"{self.path}: no column {name!r} of numbers; it has {known}")
        parts = [np.empty(0)]
        for start, batch in self._checked_batches(1 << 16, [name]):
            values = batch.column(name)
            if values.null_count:
                row = start + int(values.is_null().to_numpy(zero_copy_only=False).argmax())
                raise InputError(
                    f"{self.path}: row {row}: column {name!r} is null (counting from 0)"
                )
            parts.append(values.to_numpy(zero_copy_only=False))
        return np.concatenate(parts)

    def _checked_batches(
        self, rows: int, names: list[str], since: int = 0
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Pieces of at most ``rows`` from the one with the row ``since`` on, and their starts."""
        self.source.check_unchanged()
        with reading(self.path, self.format):
            for first, batch in self._batches(rows, names, since):
                skipped = max(0, since - first) // rows * rows
                for start in range(skipped, len(batch), rows):
                    part = batch.slice(start, rows)
                    if first + start + len(part) > since:
                        self._validate(part)
                        yield first + start, part
        self.source.check_unchanged()

    def _block(self, batch: pa.RecordBatch, start: int) -> Block:
        arrays = [batch.column(name) for name in self.columns]
        vectors, faults = vectors_of(arrays, self.columns, self.n_features, self.dtype)
        return Block(start, vectors, self._carry(batch), faults.mask, faults.problem)

    def _carry(self, batch: pa.RecordBatch) -> pa.RecordBatch | None:
        if not self.carried.names:
            return None
        columns = [
            pa.repeat(pa.scalar(self.partition[name], pa.string()), len(batch))
            if name in self.partition
            else batch.column(name)
            for name in self.carried.names
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.carried)

    def _carried_field(self, name: str, option: str) -> pa.Field:
        if name in self.partition:
            return pa.field(name, pa.string())
        if self.schema.names.count(name) > 1:
            raise UsageError(f"{self.path}: several columns are named {name!r}")
        if name not in self.schema.names:
            known = names_of([*self.schema.names, *self.partition])
            raise UsageError(f"{self.path}: no column {name!r} for {option}; it has {known}")
        return self.schema.field(name)

    def _shape(self, field: pa.Field, type_: pa.DataType, dim: int | None) -> tuple[int, np.dtype]:
        """D, and the dtype of the vectors."""
        if is_bytes(type_):
            return self._bytes_shape(field, type_, dim)
        if is_spark_vector(type_):
            return self._first_length(), np.dtype(np.float64)
        if not is_list(type_):
            types = [self.schema.field(name).type.to_pandas_dtype() for name in self.columns]
            return len(self.columns), np.result_type(*types)
        dtype = np.dtype(type_.value_type.to_pandas_dtype())
        if pa.types.is_fixed_size_list(type_):
            return type_.list_size, dtype
        return self._first_length(), dtype

    def _bytes_shape(
        self, field: pa.Field, type_: pa.DataType, dim: int | None
    ) -> tuple[int, np.dtype]:
        width = self._first_length()
        dim = dim or bytes_dim(field)
        if width == 0:
            return 0, np.dtype(np.float32)
        if not dim:
            raise UsageError(
                f"{self.path}: column {field.name!r} is {type_} of {width} bytes a row, without "
                f"a dimension; give it with --dim (float32 would make --dim {width // 4})"
            )
        if width not in (2 * dim, 4 * dim, 8 * dim):
            raise UsageError(
                f"{self.path}: --dim {dim}: column {field.name!r} has {width} bytes a row, "
                f"expected {4 * dim} (float32; or {2 * dim} float16, {8 * dim} float64)"
            )
        return dim, np.dtype(f"<f{width // dim}")

    def _first_length(self) -> int:
        """D says the first row that is a vector at all; blocks compare all others with it."""
        seen = 0
        for batch in self._peek():
            lengths = lengths_of(batch.column(self.columns[0]))
            if lengths.any():
                return int(lengths[lengths > 0][0])
            seen += len(batch)
        if seen:
            raise InputError(
                f"{self.path}: row 0 of column {self.columns[0]!r} is null or has no elements, "
                f"and so are all {seen} rows; expected vectors"
            )
        return 0

    def _peek(self) -> Iterator[pa.RecordBatch]:
        with reading(self.path, self.format):
            for _, batch in self._batches(_PEEK_ROWS, self.columns):
                yield batch


def counted(
    batches: Iterable[pa.RecordBatch], first: int = 0
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Each batch with the number of its first row, when that of the first of all is ``first``."""
    for batch in batches:
        yield first, batch
        first += len(batch)
