"""Temporary copies of inputs that cannot be read again.

A pipe comes once; a text does not know its rows. A copy is rows of fixed size: float32, or float16
or wider numbers where the input has such; what travels along is copied beside them. Of a part only
its rows are copied, to where they would be in a copy of the whole: the file has a hole before them.
Shapes: N rows, B rows in a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from dinkcli.data.base import ANY_COLUMNS, Block, Reader, is_wide
from dinkcli.data.dataset import DataSet
from dinkcli.data.files import LocalFile, Stream, Temporary
from dinkcli.data.formats.raw import RawLayout, RawReader


def repeatable(data: DataSet) -> DataSet:
    """The same rows in inputs of known length that can be read any number of times.

    Raises:
        InputError: as ``DataSet.blocks``.
        OutputError: the folder of temporary files is full.
    """
    readers = list(data.readers)
    plain = replace(data.whole, beside=None, columns=ANY_COLUMNS)
    ranges = {number: (first, end) for number, first, end in data.spans()}
    for number, reader in enumerate(readers):
        if reader.n_rows is None:
            readers[number] = _copy(replace(plain, readers=[reader]))
        elif number in ranges and is_stream(reader):
            readers[number] = _copy(replace(plain, readers=[reader]).part(*ranges[number]))
    if data.beside is not None:
        data.beside.check(readers, [reader.n_rows for reader in readers])
    return replace(data, readers=readers)


def is_stream(reader: Reader) -> bool:
    """Whether an input can be read only once."""
    return isinstance(reader.source, Stream)


def _copy(data: DataSet) -> Reader:
    """Of the rows of a data set with one reader."""
    reader = data.readers[0]
    doing = f"copying {reader.path} for repeated reading"
    file = Temporary(".rows", doing)
    keeps = reader.dtype == np.float16 or is_wide(reader.dtype)
    dtype = reader.dtype.newbyteorder("=") if keeps else np.dtype(np.float32)
    n_rows = data.first
    columns = ColumnsFile(doing) if data.carried.names else None
    bad: list[np.ndarray] = []
    problems: dict[int, str] = {}
    file.seek(n_rows * data.n_features * dtype.itemsize)
    for block in data.blocks(dtype=dtype, nonzero=None):
        vectors = block.vectors
        if block.bad is not None:
            bad.append(block.start + np.flatnonzero(block.bad))
            problems[int(bad[-1][0])] = block.problem
            if dtype.kind == "f":
                vectors = np.where(block.bad[:, None], dtype.type(np.nan), vectors)
        file.write(vectors.data)
        if columns is not None and block.carried is not None:
            columns.add(block.carried)
        n_rows += len(block)
    n_rows = reader.n_rows or n_rows
    file.truncate(n_rows * data.n_features * dtype.itemsize)
    layout = RawLayout(dtype, (n_rows, reader.n_features))
    bad_rows = np.concatenate([np.empty(0, np.int64), *bad])
    return CopyReader(file, layout, reader, data.first, columns, bad_rows, problems)


class CopyReader(RawReader):
    """The rows of another reader, copied to where they can be read again.

    Args:
        file: with the rows.
        origin: the other reader.
        first: number of the first row that was copied.
        columns: what travels along with the rows from there.
        bad_rows: numbers of those without a usable vector, ascending.
        problems: what is wrong with some of them, by number.
    """

    def __init__(
        self,
        file: Temporary,
        layout: RawLayout,
        origin: Reader,
        first: int,
        columns: ColumnsFile | None,
        bad_rows: np.ndarray,
        problems: dict[int, str],
    ):
        copy = LocalFile(origin.path, path=file.name, keeps=file)
        super().__init__(copy, origin.format, layout, origin.column, origin.about)
        self.origin, self.feature_names = origin, origin.feature_names
        self._first, self._columns = first, columns
        self._bad_rows, self._problems = bad_rows, problems
        self.carried, self.n_bytes, self.notes = origin.carried, origin.n_bytes, origin.notes

    def blocks(self, rows: int, since: int = 0, until: int | None = None) -> Iterator[Block]:
        table = None if self._columns is None else self._columns.table()
        for block in super().blocks(rows, since, until):
            carried = None
            if table is not None:
                part = table.slice(block.start - self._first, len(block)).combine_chunks()
                empty = pa.RecordBatch.from_pylist([], self.carried)
                carried = next(iter(part.to_batches()), empty)
            low, high = np.searchsorted(self._bad_rows, (block.start, block.start + len(block)))
            if low == high:
                yield replace(block, carried=carried)
                continue
            bad = np.zeros(len(block), bool)
            bad[self._bad_rows[low:high] - block.start] = True
            problem = self._problems.get(int(self._bad_rows[low]), " has no usable vector")
            yield replace(block, carried=carried, bad=bad, problem=problem)


class ColumnsFile:
    """Batches of columns in a temporary file, mapped from there; ``doing`` as for ``Temporary``."""

    def __init__(self, doing: str):
        self._doing = doing
        self._file: Any = None
        self._writer: Any = None

    def add(self, batch: pa.RecordBatch) -> None:
        if self._file is None:
            self._file = Temporary(".columns", self._doing)
            self._writer = pa.ipc.new_stream(self._file, batch.schema)
        self._writer.write_batch(batch)

    def table(self) -> pa.Table:
        """All batches, of which there is one at least; none can be added any more."""
        if self._writer is not None:
            self._writer.close()
            self._file.flush()
            self._writer = None
        return pa.ipc.open_stream(pa.memory_map(self._file.name)).read_all()
