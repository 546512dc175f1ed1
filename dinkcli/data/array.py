"""An array in memory behind the reader protocol, for the Python API."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dinkcli.data.base import Block, Reader
from dinkcli.errors import InputError


class ArrayReader(Reader):
    """An (N, D) array of numbers."""

    path = format = "array"
    is_seekable = True

    def __init__(self, array: np.ndarray):
        if array.ndim != 2 or array.dtype.kind not in "fiu":
            raise InputError(
                f"array of shape {array.shape} and dtype {array.dtype}, "
                "expected 2-D (rows, features) of floats or integers"
            )
        self._array = array
        self.n_rows, self.n_features = array.shape
        self.dtype = array.dtype

    def blocks(self, rows: int, since: int = 0, until: int | None = None) -> Iterator[Block]:
        for start in range(since // rows * rows, len(self._array[:until]), rows):
            yield Block(start, self._array[start : start + rows])

    def rows(self, start: int, stop: int) -> np.ndarray:
        return self._array[start:stop]
