"""Weights of rows, from a column of the inputs or from an array file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from dinkcli.data.base import Reader
from dinkcli.data.beside import CopyReader
from dinkcli.data.dataset import DataSet
from dinkcli.data.files import LocalFile
from dinkcli.data.formats.npy import open_npy
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


def weight_column(source: str | None) -> str | None:
    """The column that --sample-weight names, unless it is a file."""
    return None if source is None or os.path.exists(source) else source


def read_numbers(name: str, data: DataSet, option: str) -> np.ndarray:
    """(N,) float64, a column of numbers that every input has.

    Raises:
        UsageError: no such column.
    """
    return np.concatenate([_column(name, reader, option) for reader in data.readers])


def _column(name: str, reader: Reader, option: str) -> np.ndarray:
    """(N,) float64."""
    if isinstance(reader, CopyReader) and name not in reader.carried.names:
        reader = reader.origin
    if name in reader.carried.names:
        blocks = reader.blocks(1 << 16)
        batches: Iterator[tuple[int, pa.Array]] = (
            (b.start, b.carried.column(name)) for b in blocks if b.carried is not None
        )
    elif isinstance(reader, TableReader) and name in reader.column_names:
        batches = reader.numbers(name)
    else:
        raise UsageError(f"{option} {name}: no such file, and no such column in {reader.path}")
    parts = [_numbers(name, reader.path, start, values) for start, values in batches]
    return np.concatenate([np.empty(0), *parts])


def _numbers(name: str, path: str, start: int, values: pa.Array) -> np.ndarray:
    """(B,) the values of a column from the row ``start`` on."""
    try:
        numbers = values.cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        numbers = pa.array(map(_number, values.to_pylist()), pa.float64())
    if numbers.null_count:
        row = int(numbers.is_null().to_numpy(zero_copy_only=False).argmax())
        value = values[row].as_py()
        found = "is null" if value is None else f"holds {str(value)[:40]!r}, expected a number"
        raise InputError(f"{path}: row {start + row}: column {name!r} {found} (counting from 0)")
    return numbers.to_numpy(zero_copy_only=False)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
