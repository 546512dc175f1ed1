"""NumPy .npy files. Never unpickles."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Literal

import numpy as np

from dinkcli.errors import InputError
from dinkcli.readers.base import NOTHING_CARRIED, Block

MAGIC = b"\x93NUMPY"


class NpyReader:
    """A 2-D .npy array of numbers, format 1 to 3, any byte order, C or Fortran order.

    ``dimensions=1`` takes a 1-D array instead, as one feature.
    """

    column: str | None = None
    carried = NOTHING_CARRIED

    def __init__(self, path: str, dimensions: int = 2):
        self.path = path
        shape, fortran_order, self.dtype, offset = _read_header(path)
        if self.dtype.hasobject:
            raise InputError(
                f"{path}: the array holds Python objects (a pickle), which dink never loads; "
                "save it as a plain 2-D array of floats"
            )
        if self.dtype.kind not in "fiu":
            raise InputError(f"{path}: the array holds {self.dtype}, expected floats or integers")
        if len(shape) != dimensions:
            expected = "2-D (rows, features)" if dimensions == 2 else "1-D (rows,)"
            raise InputError(f"{path}: the array has shape {shape}, expected {expected}")
        self._shape = shape
        self.n_rows, self.n_features = (*shape, 1)[:2]
        self.n_bytes = os.path.getsize(path)
        needed = offset + self.dtype.itemsize * self.n_rows * self.n_features
        if self.n_bytes < needed:
            raise InputError(
                f"{path}: truncated: shape {shape} of {self.dtype} needs {needed} bytes, "
                f"the file has {self.n_bytes}; write or copy it again"
            )
        self._offset = offset
        self._order: Literal["C", "F"] = "F" if fortran_order else "C"

    def blocks(self, rows: int) -> Iterator[Block]:
        for start in range(0, self.n_rows, rows):
            yield Block(start, self.rows(start, start + rows))

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop), (B, D), or (B,) for one dimension.

        Read, not mapped: a mapped file that shrinks kills the process.
        """
        count = max(0, min(stop, self.n_rows) - start)
        shape = (count, *self._shape[1:])
        if self._order == "C" or len(shape) == 1:
            return self._read(start * self.n_features, count * self.n_features).reshape(shape)
        columns = [self._read(d * self.n_rows + start, count) for d in range(self.n_features)]
        return np.stack(columns, axis=1)

    def _read(self, first: int, count: int) -> np.ndarray:
        """``count`` numbers from number ``first`` on, as the file has them."""
        offset = self._offset + first * self.dtype.itemsize
        try:
            found = np.fromfile(self.path, self.dtype, count, offset=offset)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read: {error.strerror}") from error
        if len(found) < count:
            raise InputError(f"{self.path}: became shorter while it was read; write it again")
        return found


def _read_header(path: str) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """(shape, fortran_order, dtype, offset of the data)."""
    with open(path, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            # Versions 2 and 3 differ only in how names of structured fields are encoded.
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, fortran_order, dtype = read(file)
        except ValueError as error:
            raise InputError(f"{path}: damaged .npy header: {error}; write it again") from error
        return shape, fortran_order, dtype, file.tell()
