"""Weights of rows, from a column of the inputs or from an array file."""

from __future__ import annotations

import os

import numpy as np

from dinkcli.data.base import Reader
from dinkcli.data.dataset import DataSet
from dinkcli.data.files import LocalFile
from dinkcli.data.formats.npy import open_npy
from dinkcli.data.formats.raw import TemporaryReader
from dinkcli.data.formats.table import TableReader
from dinkcli.errors import InputError, UsageError


def read_weights(source: str, data: DataSet) -> np.ndarray:
    """(N,) float32 weights of the rows of ``data``.

    Args:
        source: name of a numeric column that every input has, or path of an .npy file of shape
            (N,).

    Raises:
        UsageError: neither a file nor a column of that name.
        InputError: not one number for each row.
    """
    if os.path.exists(source):
        blocks = open_npy(LocalFile(source), dimensions=1).blocks(1 << 20)
        weights = np.concatenate([np.empty(0), *(block.vectors[:, 0] for block in blocks)])
    else:
        weights = read_numbers(source, data, "--sample-weight")
    if len(weights) != data.n_rows:
        raise InputError(
            f"{source}: {len(weights)} weights for the {data.n_rows} rows of {data.name}"
        )
    return weights.astype(np.float32)


def read_numbers(name: str, data: DataSet, option: str) -> np.ndarray:
    """(N,) float64, a column of numbers that every input has.

    Raises:
        UsageError: no such column.
    """
    return np.concatenate([_column(name, reader, option) for reader in data.readers])


def _column(name: str, reader: Reader, option: str) -> np.ndarray:
    if isinstance(reader, TemporaryReader) and reader.origin is not None:
        reader = reader.origin
    if not isinstance(reader, TableReader) or name not in reader.column_names:
        raise UsageError(f"{option} {name}: no such file, and no such column in {reader.path}")
    return reader.numbers(name)
