"""Temporary copies of inputs that cannot be read again, or not from anywhere.

A pipe comes once; a text does not know its rows; parquet cannot be read row by row. A copy is
rows of fixed size: float32, or float16 where the input is; what travels along is copied beside
them. Of a part only its rows are copied, to
where they would be in a copy of the whole: the file has a hole before them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from dinkcli.data.base import Reader
from dinkcli.data.beside import Beside, CopyReader
from dinkcli.data.dataset import DataSet
from dinkcli.data.files import Stream, Temporary
from dinkcli.data.formats.raw import RawLayout


def repeatable(data: DataSet) -> DataSet:
    """The same rows in inputs of known length that can be read any number of times.

    Raises:
        InputError: as ``DataSet.blocks``.
        OutputError: the folder of temporary files is full.
    """
    return _copied(data, lambda reader: reader.n_rows is None or is_stream(reader))


def seekable(data: DataSet) -> DataSet:
    """The same rows in inputs that all have ``rows(start, stop)``."""
    return _copied(data, lambda reader: not reader.is_seekable)


def is_stream(reader: Reader) -> bool:
    """Whether an input can be read only once."""
    return isinstance(reader.source, Stream)


def _copied(data: DataSet, wanted: Callable[[Reader], bool]) -> DataSet:
    readers = list(data.readers)
    plain = replace(data.whole, beside=None)
    ranges = {number: (first, end) for number, first, end in data.spans()}
    for number, reader in enumerate(readers):
        if reader.n_rows is None:
            readers[number] = _copy(replace(plain, readers=[reader]))
        elif number in ranges and wanted(reader):
            readers[number] = _copy(replace(plain, readers=[reader]).part(*ranges[number]))
    if data.beside is not None:
        data.beside.check(readers, [reader.n_rows for reader in readers])
    return replace(data, readers=readers)


def _copy(data: DataSet) -> Reader:
    """Of the rows of a data set with one reader."""
    reader = data.readers[0]
    dtype = np.dtype(np.float16 if reader.dtype == np.float16 else np.float32)
    n_rows = data.first
    doing = f"copying {reader.path} for repeated reading"
    file, beside = Temporary(".rows", doing), Beside(n_rows, data.carried, doing)
    file.seek(n_rows * data.n_features * dtype.itemsize)
    for block in data.blocks(dtype=dtype):
        vectors = block.vectors
        if block.bad is not None:
            # Found bad once more by whoever reads rows from anywhere.
            vectors = np.where(block.bad[:, None], dtype.type(np.nan), vectors)
        file.write(vectors.data)
        beside.add(block)
        n_rows += len(block)
    beside.end()
    n_rows = reader.n_rows or n_rows
    file.truncate(n_rows * data.n_features * dtype.itemsize)
    layout = RawLayout(dtype, (n_rows, reader.n_features))
    return CopyReader(file, layout, reader, beside)
