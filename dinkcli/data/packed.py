"""Compressed files, and bytes that come once: opened as what is in them.

Text is unpacked as it is read. What has to be read from anywhere (npy, parquet) is unpacked to a
temporary file, and so is text from a pipe, which has to be read twice.
"""

from __future__ import annotations

import bz2
import lzma
import shutil
from typing import Any, BinaryIO

import pyarrow as pa

from dinkcli.data.base import reading
from dinkcli.data.files import LocalFile, Source, Temporary

_MAGICS = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bz2",
    b"\xfd7zXZ\0": "xz",
    b"\x04\x22\x4d\x18": "lz4",
}


def codec_of(head: bytes) -> str | None:
    """gzip, zstd, bz2, xz or lz4 by the first bytes, or None."""
    return next((name for magic, name in _MAGICS.items() if head.startswith(magic)), None)


def unpacked(file: BinaryIO, codec: str | None) -> Any:
    """A file with ``read`` of what is in a compressed one, streams after each other included."""
    if codec is None:
        return file
    if codec in ("xz", "bz2"):
        return _Xz(file) if codec == "xz" else _Bz2(file)
    return pa.CompressedInputStream(pa.PythonFile(file, "r"), codec)


class _ClosesBelow:
    """A compressed file that closes the file underneath as well."""

    def __init__(self, below: BinaryIO):
        self._below = below
        super().__init__(below)  # type: ignore[call-arg]

    def close(self) -> None:
        super().close()  # type: ignore[misc]
        self._below.close()


class _Xz(_ClosesBelow, lzma.LZMAFile):
    pass


class _Bz2(_ClosesBelow, bz2.BZ2File):
    pass


def unpacked_head(source: Source, codec: str, size: int) -> bytes:
    """The first bytes of what is in a compressed file."""
    with reading(source.name, codec), source.open() as raw, unpacked(raw, codec) as file:
        return bytes(file.read(size))


class Kept(LocalFile):
    """A temporary local copy of a source, under the name of the source. It goes when unused.

    Args:
        codec: what the source is compressed with.

    Raises:
        InputError: the source is cut off or damaged.
        OutputError: the folder of temporary files is full.
    """

    def __init__(self, source: Source, codec: str | None = None):
        self._origin = source
        copy = Temporary(".copy", f"unpacking {source.name}")
        with (
            reading(source.name, codec or "a stream"),
            source.open() as raw,
            unpacked(raw, codec) as packed,
        ):
            shutil.copyfileobj(packed, copy, 1 << 20)
        copy.flush()
        super().__init__(source.name, source.partition, copy.name, copy)

    def check_unchanged(self) -> None:
        self._origin.check_unchanged()
