"""What all inputs with columns share: parquet, Arrow, csv and jsonl differ in their batches."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np
import pyarrow as pa

from dinkcli.data.base import Block, Columns, Reader, no_such_column, reading
from dinkcli.data.files import Source
from dinkcli.data.formats.columns import (
    BASE64,
    BYTES,
    LIST,
    NUMBERS,
    SPARK,
    TEXT,
    Place,
    bytes_dim,
    names_of,
    place_of,
    places_in,
    refuse_twice,
    vector_columns,
)
from dinkcli.data.formats.numerals import NULLS
from dinkcli.data.formats.types import plain, plain_schema, storage
from dinkcli.data.formats.vectors import lengths_of, vectors_of
from dinkcli.errors import InputError, UsageError

_PEEK_ROWS = 1024
_INDEX_NAME = r"__(index_level_\d+|null_dask_index)__"  # of pandas and Dask, in a file of others
_DTYPES = {BYTES: "u1", TEXT: "f4", BASE64: "f4", SPARK: "f8"}  # of bytes that are bits
Batches = Iterator[tuple[int, pa.RecordBatch]]  # each with the number of its first row


class TableReader(Reader):
    """An input with columns. A subclass gives its schema, its number of rows and its batches."""

    source: Source
    has_names = True  # of its columns, in the file
    needs_validation = False  # its buffers are the file's own: damaged, they point anywhere
    places: Sequence[Place] = ()  # of the vectors
    kind = ""  # of what is in them
    row_number: str | None = None  # the column that counts the rows, no feature unless named

    def __init__(self, source: Source, schema: pa.Schema, n_rows: int | None, wanted: Columns):
        self.source, self.path, self.n_bytes = source, source.name, source.n_bytes
        self.n_rows = n_rows
        self.schema = plain_schema(schema)
        self._is_plain = self.schema == schema
        schema = self.schema
        with reading(self.path, self.format):  # a damaged name is no text
            self.column_names: list[str] = schema.names
            list(places_in(schema))
        self.partition = {k: v for k, v in source.partition.items() if k not in schema.names}
        carried = wanted.carried.items()
        self._carriers = {name: self._carrier(name, parameter) for name, parameter in carried}
        fields = [
            pa.field(name, pa.string()) if place is None else self._carried_field(place)
            for name, place in self._carriers.items()
        ]
        self.carried = pa.schema(fields)
        if not self.has_names:
            wanted = replace(wanted, features=())
        candidates = _candidates(schema, wanted, self.row_number)
        chosen = vector_columns(self.path, candidates, wanted, self._texts)
        self.places, self.kind, self.about = chosen.places, chosen.kind, {"chosen": chosen.why}
        usual = wanted.usual if chosen.why in ("as in training", "as in the model") else None
        single = len(self.places) == 1
        if self.kind == NUMBERS and self.has_names:
            self.feature_names = [place.path for place in self.places]
        self.column = wanted.vectors or (self.places[0].path if single else usual)
        self.notes = [chosen.note] if chosen.note else []
        self.n_features, self.dtype = self._shape(wanted)

    def _all_batches(self, rows: int, names: list[str]) -> Iterator[pa.RecordBatch]:
        """All rows in order with (at least) these columns, for formats without a way to skip."""
        raise NotImplementedError

    def _batches(self, rows: int, names: list[str], since: int = 0) -> Batches:
        """Rows in order with (at least) these columns, and the number of the first of each batch.

        Cut into pieces of ``rows`` from their start, the batches that hold the row ``since`` and
        all later ones are the same whatever ``since`` is; what comes before them may be left out.
        """
        return counted(self._all_batches(rows, names))

    @property
    def needed(self) -> list[Place]:
        """The vectors and what travels along, once each."""
        carried = [place for place in self._carriers.values() if place is not None]
        return list({place.steps: place for place in [*self.places, *carried]}.values())

    def blocks(self, rows: int, since: int = 0, until: int | None = None) -> Iterator[Block]:
        names = list(dict.fromkeys(place.top for place in self.needed))
        end = 0
        self.source.check_unchanged()
        with reading(self.path, self.format):
            for first, batch in self._batches(rows, names, since):
                skipped = max(0, since - first) // rows * rows
                for start in range(first + skipped, first + len(batch), rows):
                    part = batch.slice(start - first, rows)
                    if start + len(part) <= since:
                        continue
                    if until is not None and start >= until:
                        self.source.check_unchanged()
                        return
                    yield self._block(self._sound(part), start)
                end = first + len(batch)
        self.source.check_unchanged()
        if self.n_rows is not None and end != self.n_rows:
            raise InputError(
                f"{self.path}: {self.n_rows} rows are promised, {end} could be read; "
                "write or copy the file again"
            )

    def _sound(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch as ``schema`` has it; pa.ArrowInvalid where its buffers do not fit together."""
        if self.needs_validation:
            batch.validate(full=True)
        if self._is_plain:
            return batch
        return pa.RecordBatch.from_arrays(list(map(plain, batch.columns)), batch.schema.names)

    def _block(self, batch: pa.RecordBatch, start: int) -> Block:
        vectors, faults = vectors_of(batch, self.places, self.kind, self.n_features, self.dtype)
        columns = [
            pa.repeat(pa.scalar(self.partition[name], pa.string()), len(batch))
            if place is None
            else _carried_values(batch, place, self.carried.field(name).type)
            for name, place in self._carriers.items()
        ]
        carried = pa.RecordBatch.from_arrays(columns, schema=self.carried) if columns else None
        return Block(start, vectors, carried, faults.mask, faults.problem)

    def _carrier(self, name: str, parameter: str) -> Place | None:
        """Where a column that travels along is; None where the name of a folder says it."""
        if name in self.partition:
            return None
        refuse_twice(self.path, self.schema, name)
        place = place_of(self.schema, name)
        if place is None:
            names = names_of([*self.schema.names, *self.partition])
            raise UsageError(f"{no_such_column(parameter, name)} in {self.path}; it has {names}")
        return place

    def _carried_field(self, place: Place) -> pa.Field:
        """The field under which the values of a place travel."""
        nested = pa.field(place.path, place.type)
        field = nested if place.nested else self.schema.field(place.top)
        return field.with_type(pa.string()) if _is_fixed_binary(place.type) else field

    def _shape(self, wanted: Columns) -> tuple[int, np.dtype]:
        """D, and the dtype of the vectors."""
        if self.kind == NUMBERS:
            types = [place.type.to_pandas_dtype() for place in self.places]
            return len(types), np.result_type(*types or [np.float32])
        place, type_ = self.places[0], storage(self.places[0].type)
        fixed = pa.types.is_fixed_size_list(type_)
        width = type_.list_size if fixed else self._first_length()
        if self.kind == LIST:
            value = type_.value_type
            dtype = "f8" if pa.types.is_decimal(value) else value.to_pandas_dtype()
            return width, np.dtype("u1" if pa.types.is_boolean(value) else dtype)
        if self.kind != BYTES or wanted.bits:
            return width, np.dtype(_DTYPES[self.kind])
        dim = wanted.dim or bytes_dim(self.schema.field(place.top))
        what = f"column {place.path!r}"
        if width and not dim:
            raise UsageError(
                f"{self.path}: {what} is {type_} of {width} bytes a row, without a dimension; give "
                f"it with `dim` (float32 would make `dim` {width // 4})"
            )
        if not width or not dim:
            return 0, np.dtype(np.float32)
        sizes = {dim: "i1", 2 * dim: "<f2", 4 * dim: "<f4", 8 * dim: "<f8"}
        if width not in sizes:
            raise UsageError(
                f"{self.path}: `dim` {dim}: {what} has {width} bytes a row, expected {4 * dim} "
                f"(float32; or {dim} int8, {2 * dim} float16, {8 * dim} float64)"
            )
        return dim, np.dtype(sizes[width])

    def _first_length(self) -> int:
        """D is the length of most vectors of the first batch that has any."""
        place, seen = self.places[0], 0
        for batch in self._peek([place.top]):
            lengths = lengths_of(batch, place, self.kind)
            if lengths.any():
                return Counter(lengths[lengths > 0].tolist()).most_common(1)[0][0]
            seen += len(batch)
        if seen:
            raise InputError(
                f"{self.path}: row 0 of column {place.path!r} is null or has no elements, "
                f"and so are all {seen} rows; expected vectors"
            )
        return 0

    def _texts(self, place: Place) -> list[str]:
        """The texts in the first rows of a column, lists of texts as one, without spelled nulls."""
        refuse_twice(self.path, self.schema, place.top)
        batch = next(self._peek([place.top]), None)
        cells = [] if batch is None else place.take(batch)[0].drop_null()[:_PEEK_ROWS].to_pylist()
        lists = [f"[{', '.join(map(str, c))}]" if isinstance(c, list) else c for c in cells]
        return [text for cell in lists if (text := str(cell).strip()) not in NULLS]

    def _peek(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        with reading(self.path, self.format):
            for _, batch in self._batches(_PEEK_ROWS, names):
                yield self._sound(batch)


def _candidates(schema: pa.Schema, wanted: Columns, row_number: str | None) -> pa.Schema:
    """The columns that vectors are looked for in, decimals as the numbers that they are read as,
    without an index of pandas, which names rows, unless ``Columns.vectors`` names it."""
    try:
        index = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))["index_columns"]
        index = {name for name in index if isinstance(name, str)}
    except (ValueError, KeyError, TypeError):
        index = set()
    fields = []
    for field in schema:
        if field.name in (*index, row_number) or re.fullmatch(_INDEX_NAME, field.name):
            named = fnmatchcase(field.name, wanted.vectors or "") or field.name in wanted.features
            if not named:
                continue
        if pa.types.is_decimal(field.type):
            is_int64 = field.type.scale == 0 and field.type.precision <= 18
            field = field.with_type(pa.int64() if is_int64 else pa.float64())
        fields.append(field)
    return pa.schema(fields, schema.metadata)


def counted(batches: Iterable[pa.RecordBatch], first: int = 0) -> Batches:
    """Each batch with the number of its first row, when that of the first of all is ``first``."""
    for batch in batches:
        yield first, batch
        first += len(batch)


def _carried_values(batch: pa.RecordBatch, place: Place, type_: pa.DataType) -> pa.Array:
    """The B values; bytes of fixed size, such as those of a UUID, as hexadecimal text."""
    values, _ = place.take(batch)
    if not _is_fixed_binary(values.type):
        return values if values.type == type_ else values.cast(type_)
    cells = values.to_pylist()  # a UUID of Python where Arrow knows that it is one
    texts = [cell.hex() if isinstance(cell, bytes) else cell and str(cell) for cell in cells]
    return pa.array(texts, pa.string())


def _is_fixed_binary(type_: pa.DataType) -> bool:
    return pa.types.is_fixed_size_binary(storage(type_))
