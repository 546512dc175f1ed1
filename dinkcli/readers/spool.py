"""Temporary copies of inputs that cannot be read again, or not from anywhere.

A pipe comes once; a text does not know its rows; parquet cannot be read row by row. A copy is
rows of fixed size: float32, or float16 where the input is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from dinkcli.errors import OutputError
from dinkcli.readers.array import ArrayReader
from dinkcli.readers.base import Reader
from dinkcli.readers.dataset import DataSet
from dinkcli.readers.files import Stream
from dinkcli.readers.raw import RawLayout, RawReader, TemporaryReader


def repeatable(data: DataSet) -> DataSet:
    """The same rows in inputs of known length that can be read any number of times.

    Raises:
        InputError: as ``DataSet.blocks``.
        OutputError: the folder of temporary files is full.
    """
    return _copied(data, lambda reader: reader.n_rows is None or is_stream(reader))


def seekable(data: DataSet) -> DataSet:
    """The same rows in inputs that all have ``rows(start, stop)``."""
    return _copied(
        data,
        lambda reader: (
            not (
                isinstance(reader, ArrayReader)
                or (isinstance(reader, RawReader) and reader.source.path is not None)
            )
        ),
    )


def is_stream(reader: Reader) -> bool:
    return isinstance(getattr(reader, "source", None), Stream)


def _copied(data: DataSet, wanted: Callable[[Reader], bool]) -> DataSet:
    readers = [_copy(data, reader) if wanted(reader) else reader for reader in data.readers]
    return replace(data, readers=readers)


def _copy(data: DataSet, reader: Reader) -> Reader:
    dtype = np.dtype(np.float16 if reader.dtype == np.float16 else np.float32)
    n_rows = 0
    file = tempfile.NamedTemporaryFile(prefix="dink-", suffix=".rows")  # noqa: SIM115
    for block in replace(data, readers=[reader]).blocks(dtype=dtype):
        vectors = block.vectors
        if block.bad is not None:
            # Found bad once more when the copy is read.
            vectors = np.where(block.bad[:, None], dtype.type(np.nan), vectors)
        try:
            file.write(vectors.data)
        except OSError as error:
            raise OutputError(
                f"{file.name}: {error.strerror}, while copying {reader.path} for repeated "
                "reading; set TMPDIR to a folder with more space"
            ) from error
        n_rows += len(block)
    file.flush()
    layout = RawLayout(dtype, (n_rows, reader.n_features))
    return TemporaryReader(
        file, reader.path, reader.n_bytes, reader.format, layout, reader.column, reader
    )
