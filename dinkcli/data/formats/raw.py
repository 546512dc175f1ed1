"""Rows of fixed size somewhere in a file: what npy, safetensors, fvecs and stored npz come to.

Read, not mapped: a mapped file that shrinks kills the process, and mapped pages count as memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from dinkcli.data.base import NOTHING_SAID, Block, Reader, reading
from dinkcli.data.files import Source, read_exactly
from dinkcli.errors import InputError


@dataclass(frozen=True)
class RawLayout:
    """Where the (N, D) numbers are.

    Attributes:
        record: dtype of a stored row: a number in an (N, D) array, or a structure with the
            vector in its field "v" and its dimension in "d".
        offset: of the first byte.
        fortran: stored column by column.
        bfloat16: the record's uint16 are the upper halves of float32.
    """

    record: np.dtype
    shape: tuple[int, int]
    offset: int = 0
    fortran: bool = False
    bfloat16: bool = False

    @property
    def n_bytes(self) -> int:
        n_rows, n_features = self.shape
        return n_rows * self.record.itemsize * (1 if self.record.names else n_features)


class RawReader(Reader):
    """Rows of fixed size, one after the other.

    Args:
        is_whole: nothing else is in the file.

    Raises:
        InputError: fewer bytes than the layout needs, or more.
    """

    source: Source

    def __init__(
        self,
        source: Source,
        format: str,
        layout: RawLayout,
        column: str | None = None,
        about: Mapping[str, str] = NOTHING_SAID,
        is_whole: bool = False,
    ):
        self.source, self.format, self.layout, self.column = source, format, layout, column
        self.path, self.n_bytes, self.about = source.name, source.n_bytes, about
        self.n_rows, self.n_features = layout.shape
        number = layout.record["v"].base if layout.record.names else layout.record
        self.dtype = np.dtype(np.float32) if layout.bfloat16 else number
        needed = layout.offset + layout.n_bytes
        if source.n_bytes and source.n_bytes < needed:
            raise InputError(
                f"{self.path}: truncated: shape {layout.shape} of {self.dtype} needs {needed} "
                f"bytes, the file has {source.n_bytes}; write or copy it again"
            )
        self._is_whole = is_whole
        if is_whole and source.n_bytes:
            refuse_more(self.path, layout, source.n_bytes)

    def blocks(self, rows: int, since: int = 0, until: int | None = None) -> Iterator[Block]:
        self.source.check_unchanged()
        n_rows = self.layout.shape[0]
        with reading(self.path, self.format), self.source.open() as file:
            start = since // rows * rows
            if self.source.n_bytes:
                self._seek(file, start)
            else:
                read_exactly(file, bytearray(self.layout.offset), self.path)
                start = 0
            for begin in range(start, n_rows if until is None else min(until, n_rows), rows):
                block = Block(begin, self._read(file, begin, min(n_rows, begin + rows)))
                if begin + rows > since:  # a stream has no other way to come there
                    yield block
            if self._is_whole and until is None and not self.source.n_bytes and file.read(1):
                refuse_more(self.path, self.layout, None)
        self.source.check_unchanged()

    def _seek(self, file: BinaryIO, row: int) -> None:
        layout = self.layout
        if not layout.fortran:
            width = 1 if layout.record.names else self.n_features
            file.seek(layout.offset + row * width * layout.record.itemsize)

    def _read(self, file: BinaryIO, start: int, stop: int) -> np.ndarray:
        layout = self.layout
        if layout.fortran:
            return self._read_columns(file, start, stop)
        if layout.record.names:
            records = np.empty(stop - start, layout.record)
            read_exactly(file, records, self.path)
            if (records["d"] != self.n_features).any():
                row = int((records["d"] != self.n_features).argmax())
                raise InputError(
                    f"{self.path}: row {start + row} has {records['d'][row]} elements, expected "
                    f"{self.n_features} as in row 0 (counting from 0); "
                    "all vectors must have one length"
                )
            return records["v"]
        values = np.empty((stop - start, self.n_features), layout.record)
        read_exactly(file, values, self.path)
        if layout.bfloat16:
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values

    def _read_columns(self, file: BinaryIO, start: int, stop: int) -> np.ndarray:
        layout = self.layout
        values = np.empty((self.n_features, stop - start), layout.record)
        for feature, column in enumerate(values):
            position = feature * layout.shape[0] + start
            file.seek(layout.offset + position * layout.record.itemsize)
            read_exactly(file, column, self.path)
        return values.T


def refuse_more(name: str, layout: RawLayout, n_bytes: int | None) -> None:
    """Raises InputError where a file has more than its array; ``n_bytes`` is None for a stream
    that goes on after it."""
    more = None if n_bytes is None else n_bytes - layout.offset - layout.n_bytes
    if more is None or more > 0:
        raise InputError(
            f"{name}: {'more' if more is None else more} bytes come after the array of shape "
            f"{layout.shape}; of several arrays in one file only the first would be read: save "
            "one, made with np.concatenate"
        )
