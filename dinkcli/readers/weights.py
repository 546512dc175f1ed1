"""Weights of rows, from a column of the inputs or from an array file."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dinkcli.errors import InputError, UsageError
from dinkcli.readers import DataSet
from dinkcli.readers.base import Reader
from dinkcli.readers.npy import NpyReader
from dinkcli.readers.parquet import ParquetReader


def read_weights(source: str, data: DataSet) -> np.ndarray:
    """(N,) float32 weights of the rows of ``data``.

    Args:
        source: name of a numeric column that every parquet input has, or path of an .npy file
            of shape (N,).

    Raises:
        UsageError: neither a file nor a column of that name.
        InputError: not one number for each row.
    """
    if os.path.exists(source):
        weights = NpyReader(source, dimensions=1).rows(0, data.n_rows + 1)
    else:
        weights = np.concatenate([_column(source, reader) for reader in data.readers])
    if len(weights) != data.n_rows:
        raise InputError(
            f"{source}: {len(weights)} weights for the {data.n_rows} rows of {data.name}"
        )
    return weights.astype(np.float32)


def _column(name: str, reader: Reader) -> np.ndarray:
    path = reader.path
    if not isinstance(reader, ParquetReader) or name not in reader.column_names:
        raise UsageError(f"--sample-weight {name}: no such file, and no such column in {path}")
    column = pq.read_table(path, columns=[name]).column(0)
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise InputError(f"{path}: column {name!r} is {column.type}, expected numbers")
    if column.null_count:
        row = int(column.is_null().to_numpy().argmax())
        raise InputError(f"{path}: row {row}: column {name!r} is null (counting from 0)")
    return column.to_numpy()
