"""Compressed files, and bytes that come once: opened as what is in them.

Text is unpacked as it is read. What has to be read from anywhere (npy, parquet) is unpacked to a
temporary file, and so is text from a pipe, which has to be read twice.
"""

from __future__ import annotations

import bz2
import lzma
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any, BinaryIO

import pyarrow as pa

from dinkcli.data.base import reading
from dinkcli.data.files import LocalFile, Source
from dinkcli.errors import OutputError

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


def unpacked(file: BinaryIO, codec: str) -> Any:
    """A file with ``read`` of what is in a compressed one, streams after each other included."""
    if codec in ("xz", "bz2"):
        return _Closing(lzma.open(file) if codec == "xz" else bz2.open(file), file)
    return pa.CompressedInputStream(pa.PythonFile(file, "r"), codec)


class _Closing:
    """A reader that closes the file underneath as well."""

    def __init__(self, file: Any, below: BinaryIO):
        self._file, self._below = file, below

    def read(self, size: int = -1) -> bytes:
        return bytes(self._file.read(size))

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)

    def close(self) -> None:
        self._file.close()
        self._below.close()

    def __enter__(self) -> _Closing:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def unpacked_head(source: Source, codec: str, size: int) -> bytes:
    """The first bytes of what is in a compressed file."""
    with reading(source.name, codec):
        if source.n_bytes:
            with source.open() as raw, unpacked(raw, codec) as file:
                return bytes(file.read(size))
    return b""


class Kept:
    """A temporary local copy of a source, under the name of the source. It goes when unused.

    Args:
        codec: what the source is compressed with.

    Raises:
        InputError: the source is cut off or damaged.
        OutputError: the folder of temporary files is full.
    """

    def __init__(self, source: Source, codec: str | None = None):
        self._origin = source
        self._file = tempfile.NamedTemporaryFile(prefix="dink-", suffix=".copy")  # noqa: SIM115
        with reading(source.name, codec or "a stream"), source.open() as raw:
            packed = raw if codec is None else unpacked(raw, codec)
            try:
                shutil.copyfileobj(packed, _Target(self._file, source.name), 1 << 20)
            finally:
                if packed is not raw:
                    packed.close()
        self._file.flush()
        self._copy = LocalFile(self._file.name)
        self.name = source.name
        self.path: str | None = self._copy.path
        self.n_bytes = self._copy.n_bytes
        self.partition: Mapping[str, str] = source.partition

    def head(self, size: int) -> bytes:
        return self._copy.head(size)

    def open(self, exact: bool = False) -> BinaryIO:
        return self._copy.open(exact)

    def check_unchanged(self) -> None:
        self._origin.check_unchanged()


class _Target:
    """A file that says what could not be written."""

    def __init__(self, file: Any, origin: str):
        self._file, self._origin = file, origin

    def write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise OutputError(
                f"{self._file.name}: {error.strerror}, while unpacking {self._origin}; "
                "set TMPDIR to a folder with more space"
            ) from error
