"""Tables of binary formats: Arrow IPC files (Feather version 2) and streams (what Hugging Face
datasets keep on disk), Parquet, and HDF5 (nearest-neighbour benchmarks, Keras, AnnData's h5ad).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dinkcli.data.base import Columns, reading
from dinkcli.data.files import Source
from dinkcli.data.formats.raw import choose_member
from dinkcli.data.formats.table import Batches, TableReader, counted
from dinkcli.data.machine import require
from dinkcli.errors import InputError

_LARGE_BATCH = 64 << 20


class ArrowFileReader(TableReader):
    """One Arrow IPC file."""

    format = "arrow"
    needs_validation = True

    def __init__(self, source: Source, wanted: Columns):
        self.source = source
        with reading(source.name, self.format), self._open() as file:
            reader = pa.ipc.open_file(file)
            # The lengths stand in the headers of the batches; mapped, only those are touched.
            self._lengths = [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)]
            schema = reader.schema
        super().__init__(source, schema, sum(self._lengths), wanted)

    def _open(self) -> Any:
        path = self.source.path
        return self.source.open() if path is None else pa.memory_map(path)

    def _batches(self, rows: int, names: list[str], since: int = 0) -> Batches:
        fields = [self.schema.get_field_index(name) for name in names]
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        first = 0
        for index, length in enumerate(self._lengths):
            start = max(0, since - first) // rows * rows
            while start < length:
                # Mapped anew for each part, so that pages read before leave the process.
                with self._open() as file:
                    batch = pa.ipc.open_file(file, options=options).get_batch(index)
                    # A batch can be the whole file. Decompressed, it is in memory as a whole.
                    buffers = [each for column in batch.columns for each in column.buffers()]
                    size = length
                    if self.source.path and not any(each and each.is_mutable for each in buffers):
                        size = length * _LARGE_BATCH // max(1, batch.nbytes) // rows * rows
                    size = max(rows, size)
                    for offset in range(start, min(start + size, length), rows):
                        yield first + offset, batch.slice(offset, rows)
                start += size
                self.source.check_unchanged()
            first += length


class ArrowStreamReader(TableReader):
    """An Arrow IPC stream, from a file or from a pipe."""

    format = "arrow stream"
    needs_validation = True
    _is_open = False
    _pipe: Iterator[pa.RecordBatch] | None = None

    def __init__(self, source: Source, wanted: Columns):
        self.source, n_rows = source, None
        with reading(source.name, self.format):
            if source.path is None:
                self._pipe = stream = pa.ipc.open_stream(source.open())
                schema = stream.schema
            else:
                # Mapped, counting rows touches only the headers of the batches.
                with pa.memory_map(source.path) as file, pa.ipc.open_stream(file) as stream:
                    schema = stream.schema
                    n_rows = sum(batch.num_rows for batch in stream)
        super().__init__(source, schema, n_rows, wanted)
        self._is_open = True

    def _all_batches(self, rows: int, names: list[str]) -> Iterator[pa.RecordBatch]:
        if self._pipe is None:
            with pa.OSFile(self.source.path) as file, pa.ipc.open_stream(file) as stream:
                yield from stream
        else:
            batches = self._pipe
            if not self._is_open:  # what is looked at comes again in the one pass
                self._pipe, batches = itertools.tee(batches)
            yield from batches


class ParquetReader(TableReader):
    """One parquet file. Opened anew for each pass: there may be thousands of them."""

    format = "parquet"

    def __init__(self, source: Source, wanted: Columns):
        self.source = source
        with reading(source.name, self.format), self._open() as file:
            self.metadata = file.metadata
            schema = file.schema_arrow
        super().__init__(source, schema, self.metadata.num_rows, wanted)

    def _open(self, **options: Any) -> pq.ParquetFile:
        # Pages are read as they come; from afar, few large requests matter more.
        far = self.source.path is None
        file = self.source.open(exact=True) if far else self.source.path
        return pq.ParquetFile(file, pre_buffer=far, buffer_size=1 << 20, **options)

    def _batches(self, rows: int, names: list[str], since: int = 0) -> Batches:
        with self._open(metadata=self.metadata) as file:
            groups = range(file.num_row_groups)
            firsts = np.cumsum([0, *(self.metadata.row_group(g).num_rows for g in groups)])
            start = since // rows * rows
            group = int(np.searchsorted(firsts, start, "right")) - 1
            groups = groups[group:]
            # From afar, all that is asked for at once is fetched at once: one row group at a time.
            parts = [[g] for g in groups] if self.source.path is None else [groups]
            batches = (b for part in parts for b in file.iter_batches(rows, part, names))
            yield from counted(_cut(batches, start - int(firsts[group]), rows), start)


def _cut(batches: Iterator[pa.RecordBatch], skipped: int, rows: int) -> Iterator[pa.RecordBatch]:
    """Multiples of ``rows`` rows, and the rest at the end, without the first ``skipped`` of all."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch.slice(min(skipped, len(batch))))
        skipped -= len(batch) - len(held[-1])
        table = pa.Table.from_batches(held)
        if len(table) >= rows:
            end = len(table) // rows * rows
            yield from table.slice(0, end).combine_chunks().to_batches()
            held = table.slice(end).to_batches()
    if held:
        yield from pa.Table.from_batches(held).combine_chunks().to_batches()


class Hdf5Reader(TableReader):
    """One (N, D) dataset, with the (N,) datasets beside it as columns that can travel along."""

    format = "hdf5"

    def __init__(self, source: Source, wanted: Columns):
        self.source = source
        self._h5py = require("h5py", "hdf5", f"{source.name}: HDF5")
        if wanted.vectors is not None:
            wanted = replace(wanted, vectors=wanted.vectors.strip("/"))
        with reading(source.name, self.format), self._open() as file:
            items: dict[str, Any] = {}
            file.visititems(items.__setitem__)
            arrays = {
                name: item
                for name, item in items.items()
                if len(getattr(item, "shape", None) or ()) == 2 and item.dtype.kind in "fiub"
            }
            if not arrays:
                raise InputError(
                    f"{source.name}: no dataset of shape (rows, features) in this HDF5 file"
                )
            column, _ = choose_member(source.name, arrays, wanted)
            n_rows, n_features = items[column].shape
            value = pa.from_numpy_dtype(items[column].dtype.newbyteorder("="))
            fields = [pa.field(column, pa.list_(value, n_features))]
            types = {name: _type_of(item, n_rows) for name, item in items.items()}
            fields += [pa.field(name, type_) for name, type_ in types.items() if type_ is not None]
        super().__init__(source, pa.schema(fields), n_rows, wanted)

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            with self._h5py.File(self.source.path or self.source.open(), "r") as file:
                yield file
        except (RuntimeError, KeyError, TypeError) as error:  # on damaged files too
            raise OSError(str(error)) from error

    def _batches(self, rows: int, names: list[str], since: int = 0) -> Batches:
        schema = pa.schema([self.schema.field(name) for name in names])
        with self._open() as file:
            for start in range(since // rows * rows, self.n_rows or 0, rows):
                arrays = [_values(file[f.name], start, start + rows, f.type) for f in schema]
                yield start, pa.RecordBatch.from_arrays(arrays, schema=schema)


def _type_of(item: Any, n_rows: int) -> pa.DataType | None:
    """The type of a column with N values, or None for what is none."""
    if {"codes", "categories"} <= set(getattr(item, "keys", tuple)()):
        shape = getattr(item["codes"], "shape", None)
        return pa.string() if shape == (n_rows,) else None
    if getattr(item, "shape", None) != (n_rows,):
        return None
    if item.dtype.kind in "fiub":
        return pa.from_numpy_dtype(item.dtype.newbyteorder("="))
    return pa.string() if item.dtype.kind in "SO" else None


def _values(item: Any, start: int, stop: int, type_: pa.DataType) -> pa.Array:
    if not hasattr(item, "dtype"):  # categories of AnnData and pandas
        codes = item["codes"][start:stop].astype(np.int64)
        names = _texts(item["categories"][:])
        return names.take(pa.array(codes, mask=codes < 0))
    values = item[start:stop]
    if pa.types.is_string(type_):
        return _texts(values)
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    if pa.types.is_fixed_size_list(type_):
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=type_)
    return pa.array(values, type_)


def _texts(values: np.ndarray) -> pa.Array:
    texts = (v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values)
    return pa.array(list(texts), pa.string())


READERS = {
    "arrow": ArrowFileReader,
    "arrow stream": ArrowStreamReader,
    "parquet": ParquetReader,
    "hdf5": Hdf5Reader,
}
