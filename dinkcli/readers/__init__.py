"""Readers of embedding files, chosen by content, and several inputs as one data set."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from dinkcli.errors import InputError, UsageError
from dinkcli.readers import npy, parquet
from dinkcli.readers.base import ANY_COLUMNS, Block, Columns, Reader, finite_float32

FORMATS = (".npy", ".parquet")
_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True)
class DataSet:
    """Several files read one after the other as one (N, D) array of rows."""

    readers: Sequence[Reader]
    columns: Columns = ANY_COLUMNS

    @property
    def n_rows(self) -> int:
        return sum(reader.n_rows for reader in self.readers)

    @property
    def n_features(self) -> int:
        return self.readers[0].n_features

    @property
    def carried(self) -> pa.Schema:
        """Names and types of the columns that travel along with the rows."""
        return self.readers[0].carried

    @property
    def column(self) -> str | None:
        return self.readers[0].column

    @property
    def name(self) -> str:
        more = len(self.readers) - 1
        return self.readers[0].path + (f" and {more} more" if more else "")

    def blocks(self, rows: int | None = None, since: int = 0) -> Iterator[Block]:
        """All rows in order as float32 blocks of about 8 MB, starts counted over all files.

        Args:
            since: blocks that end before this row are left out, whole files without a look.

        Raises:
            InputError: at the first row that is not finite, null or ragged.
        """
        rows = rows or max(1, _BLOCK_BYTES // (4 * self.n_features))
        first = 0
        for reader in self.readers:
            if first + reader.n_rows > since:
                for block in reader.blocks(rows):
                    if first + block.start + len(block) > since:
                        vectors = finite_float32(block.vectors, reader.path, block.start)
                        yield Block(first + block.start, vectors, block.carried)
            first += reader.n_rows

    def load(self) -> np.ndarray:
        """All rows in memory, (N, D) float32."""
        result = np.empty((self.n_rows, self.n_features), np.float32)
        for block in self.blocks():
            result[block.start : block.start + len(block)] = block.vectors
        return result

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the data a model was trained on, without reading all of them."""
        return {
            "rows": self.n_rows,
            "features": self.n_features,
            "dtype": sorted({str(reader.dtype) for reader in self.readers}),
            "files": [os.path.basename(reader.path) for reader in self.readers],
            "bytes": sum(reader.n_bytes for reader in self.readers),
        }


def open_inputs(paths: Sequence[str], columns: Columns = ANY_COLUMNS) -> DataSet:
    """Opens and validates every input before any row is read.

    Args:
        paths: files, or directories that stand for the files of a known suffix inside, by name.
        columns: which to read from inputs that have columns.

    Raises:
        UsageError: a path that does not exist, a column that is missing or ambiguous.
        InputError: content that is neither format, a damaged file, no rows, unequal dimensions.
    """
    files = [file for path in paths for file in _files(path)]
    readers = [_open_file(file, columns) for file in files]
    first = readers[0]
    for reader in readers[1:]:
        if reader.n_features != first.n_features:
            raise InputError(
                f"{reader.path}: {reader.n_features} features per row, but {first.path} has "
                f"{first.n_features}; inputs of one run must agree"
            )
        for here, there in zip(reader.carried, first.carried, strict=True):
            if here.type != there.type:
                raise InputError(
                    f"{reader.path}: column {here.name!r} is {here.type}, but in {first.path} "
                    f"it is {there.type}; a column that travels along must have one type"
                )
    data = DataSet(readers, columns)
    if data.n_rows == 0 or data.n_features == 0:
        raise InputError(
            f"{data.name}: {data.n_rows} rows of {data.n_features} features; nothing to do"
        )
    return data


def _files(path: str) -> list[str]:
    if os.path.isdir(path):
        names = sorted(name for name in os.listdir(path) if name.endswith(FORMATS))
        if not names:
            raise UsageError(f"{path}: no {' or '.join(FORMATS)} file in this folder")
        return [os.path.join(path, name) for name in names]
    if not os.path.exists(path):
        raise UsageError(f"{path}: no such file or folder")
    return [path]


def _open_file(path: str, columns: Columns) -> Reader:
    try:
        with open(path, "rb") as file:
            start = file.read(8)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {error.strerror}") from error
    if start.startswith(npy.MAGIC):
        for option in columns.named.values():
            raise UsageError(f"{path}: {option} names a column, but an .npy file has none")
        return npy.NpyReader(path)
    if start.startswith(parquet.MAGIC):
        return parquet.ParquetReader(path, columns)
    found = f"it starts with {start!r}" if start else "it is empty"
    raise InputError(f"{path}: neither an .npy nor a parquet file ({found}); convert it to one")
