"""Where bytes come from: files, folders, patterns, URLs and standard input, compressed or not.

s3:// and gs:// are read by pyarrow, all else from elsewhere by fsspec, and only what is needed.
"""

from __future__ import annotations

import bz2
import glob
import io
import lzma
import os
import re
import select
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any, BinaryIO
from urllib.parse import unquote

import pyarrow as pa

from dinkcli.data.base import reading
from dinkcli.data.formats.foreign import named_folder
from dinkcli.data.machine import install_line, require
from dinkcli.errors import DinkError, ExtraError, InputError, OutputError, UsageError

HEAD_BYTES = 256 << 10  # that say what a file is
# Text is read from a folder only when nothing else is there: next to vectors it holds something
# about them. What is about the data is often json as well.
BINARY_SUFFIXES = (
    *(".npy", ".npz", ".parquet", ".pq", ".arrow", ".feather", ".ipc", ".arrows", ".safetensors"),
    *(".fvecs", ".bvecs", ".ivecs", ".h5", ".hdf5", ".h5ad"),
)
TEXT_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".vec")
_CODEC_SUFFIXES = (".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz", ".lz4")
_CODECS = {
    **{b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"},
    **{b"\xfd7zXZ\0": "xz", b"\x04\x22\x4d\x18": "lz4"},
}
# Files whose parts have to be read from anywhere, or that say what they are.
_KINDS = {
    **{b"\x93NUMPY": "npy", b"PK\x03\x04": "npz", b"PAR1": "parquet", b"ARROW1": "arrow"},
    **{b"\xff\xff\xff\xff": "arrow stream", b"\x89HDF\r\n\x1a\n": "hdf5"},
}
_LARGEST_HEADER = 100 << 20  # of safetensors, as its own library has it
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_SIGNAL_SECONDS = 0.2
_CHANGE_MARKS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "generation")
Partition = Mapping[str, str | None]


class Source:
    """Some bytes that messages call ``name``. This one has none; a subclass opens them.
    ``partition`` has values that the folders ``name=value`` above a file give to all of its rows.
    """

    path: str | None = None  # the local file to read, if it is one
    comes_once = False  # can be read only once
    n_bytes: int  # 0 for a stream

    def __init__(self, name: str, partition: Partition = MappingProxyType({})):
        self.name, self.partition = name, partition
        self._state = self._look()
        self.n_bytes = self._state[0]

    def _look(self) -> tuple[int, Any]:
        """The number of bytes, and what else changes when they do."""
        return 0, None

    def open(self, exact: bool = False) -> BinaryIO:
        """``exact``: from afar, fetch what is asked for and nothing ahead of it."""
        raise NotImplementedError

    def head(self, size: int) -> bytes:
        """The first bytes, which are then read again."""
        with self.open() as file:
            return file.read(size)

    def check_unchanged(self) -> None:
        """Raises InputError when the bytes are no longer those that were opened at first."""
        now = self._look()
        if now != self._state:
            change = f"from {self.n_bytes} to {now[0]} bytes " if now[0] != self.n_bytes else ""
            raise InputError(
                f"{self.name}: changed {change}while dink was reading it; "
                "run again when nothing writes to it"
            )


class LocalFile(Source):
    """A file on this machine; ``keeps`` is a temporary one, which goes when this does."""

    def __init__(
        self, name: str, partition: Partition = MappingProxyType({}), keeps: Temporary | None = None
    ):
        self.path: str = name if keeps is None else keeps.name
        self._keeps = keeps
        super().__init__(name, partition)

    def _look(self) -> tuple[int, Any]:
        with _opening(self.name):
            status = os.stat(self.path)
        return status.st_size, status.st_mtime_ns

    def open(self, exact: bool = False) -> BinaryIO:
        with _opening(self.name):
            return open(self.path, "rb", buffering=0)


@contextmanager
def _opening(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{name}: cannot be opened: {error.strerror}") from error


class Temporary:
    """A file to write that goes when nothing refers to it any more; without a name even that of a
    killed process. ``doing`` follows "while" in a message."""

    def __init__(self, suffix: str, doing: str, named: bool = True):
        make = tempfile.NamedTemporaryFile if named else tempfile.TemporaryFile
        self._file = make(prefix="dink-", suffix=suffix)
        self._doing = doing
        weakref.finalize(self, self._file.close)  # also where an error still refers to this

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: Any) -> int:
        """Raises OutputError where the folder of temporary files is full."""
        try:
            return self._file.write(data)
        except OSError as error:
            raise OutputError(
                f"{tempfile.gettempdir()}: {error.strerror}, while {self._doing}; set TMPDIR to a "
                "folder with more space"
            ) from error


def copied(source: Source, content: Any) -> LocalFile:
    """A temporary copy of the ``content`` of a source, under its name."""
    copy = Temporary(".copy", f"unpacking {source.name}")
    shutil.copyfileobj(content, copy, 1 << 20)
    copy.flush()
    return LocalFile(source.name, source.partition, copy)


def _kept(source: Source, codec: str | None) -> LocalFile:
    """A temporary copy of all that is in a source, unpacked."""
    what = codec or "a stream"
    with reading(source.name, what), source.open() as file, unpacked(file, codec) as content:
        copy = copied(source, content)
    source.check_unchanged()
    return copy


class Stream(Source, io.RawIOBase):
    """Standard input, or another pipe: bytes that come once, those of its head again."""

    comes_once = True
    _taken = _waits = False

    def __init__(self, name: str, file: BinaryIO):
        super().__init__(name)
        self._file: Any = getattr(file, "raw", file)  # nothing is to wait in a buffer unseen
        self._head = b""
        with suppress(AttributeError, OSError):  # no file of the system, as in tests
            self._waits = os.name == "posix" and self._file.fileno() >= 0

    def head(self, size: int) -> bytes:
        while len(self._head) < size and (more := self._file.read(size - len(self._head))):
            self._head += more
        return self._head[:size]

    def open(self, exact: bool = False) -> BinaryIO:
        if self._taken:
            raise InputError(f"{self.name}: a stream can be read only once; give a file")
        self._taken = True
        return io.BufferedReader(self, 1 << 20)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._head:
            # A signal that comes just before a read that blocks would be seen only after it.
            while self._waits and not select.select([self._file], [], [], _SIGNAL_SECONDS)[0]:
                pass
            return int(self._file.readinto(buffer))
        taken, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)


class RemoteFile(Source):
    """A file called ``key`` on a file system, with fsspec's interface and, if there is one, that of
    pyarrow."""

    def __init__(self, name: str, partition: Partition, key: str, files: Any, arrow: Any):
        self._key, self._files, self._arrow = key, files, arrow
        super().__init__(name, partition)

    def _look(self) -> tuple[int, Any]:
        with _reaching(self.name):
            facts = self._files.info(self._key)
        if facts.get("size") is None:
            raise InputError(
                f"{self.name}: the server does not tell the size of this file; fetch it first"
            )
        return facts["size"], [facts[mark] for mark in _CHANGE_MARKS if mark in facts]

    def head(self, size: int) -> bytes:
        with _reaching(self.name):
            return super().head(size)

    def open(self, exact: bool = False) -> BinaryIO:
        with _reaching(self.name):
            if self._arrow is not None:
                return self._arrow.open_input_file(self._key)
            cache = "none" if exact else "readahead"
            return self._files.open(self._key, "rb", block_size=1 << 20, cache_type=cache)


def sources(path: str) -> Iterator[Source]:
    """The files that one argument stands for, in order of their names; raises UsageError where
    nothing is, InputError where nothing can be opened or reached."""
    if path == "-":
        yield Stream("standard input", sys.stdin.buffer)
    elif is_remote(path):
        yield from _remote(path)
    else:
        paths = [path] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))
        paths = [each for each in paths if os.path.exists(each)]  # no link that leads nowhere
        if not paths:
            pattern = glob.has_magic(path)
            what = "no file matches this pattern" if pattern else "no such file or folder"
            raise UsageError(f"{path}: {what}")
        for each in paths:
            if os.path.isdir(each):
                yield from _folder(each)
            elif os.path.isfile(each):
                yield LocalFile(each, _partition(each.replace(os.sep, "/")))
            else:
                with _opening(each):
                    stream = Stream(each, io.FileIO(each))
                yield stream


def is_remote(path: str) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]+://", path) is not None


def _folder(path: str) -> Iterator[Source]:
    if what := named_folder(path):
        raise InputError(f"{path}: {what}")
    found = (os.path.join(folder, name) for folder, _, files in os.walk(path) for name in files)
    names = [os.path.relpath(each, path).replace(os.sep, "/") for each in found]
    for name in _chosen(names, path):
        yield LocalFile(os.path.join(path, name), _partition(name))


def _remote(url: str) -> Iterator[Source]:
    """The files behind a URL of a file, a folder or a pattern."""
    fsspec = require("fsspec", "remote", url)
    scheme = url.partition("://")[0] + "://"
    is_web = scheme.startswith("http")  # which lists no folders, and has ? in names
    arrow = None
    with _reaching(url):
        if scheme in ("s3://", "gs://", "gcs://"):
            import pyarrow.fs  # takes a while to load
            from fsspec.implementations.arrow import ArrowFSWrapper

            arrow, key = pyarrow.fs.FileSystem.from_uri(url)
            files = ArrowFSWrapper(arrow)
        else:
            files, key = fsspec.core.url_to_fs(url)
        keys = {key: key}  # and what partitions are read from
        if not is_web and any(mark in key for mark in "*?["):
            keys = {each: each for each in sorted(files.glob(key)) if files.isfile(each)}
        elif not is_web and files.isdir(key):
            folder = key.rstrip("/") + "/"
            names = _chosen([name[len(folder) :] for name in files.find(key)], url)
            keys = {folder + name: name for name in names}
        if not keys:
            raise UsageError(f"{url}: no file matches this pattern")
    for key, name in keys.items():
        shown = url if len(keys) == 1 else scheme + key.removeprefix(scheme)
        yield RemoteFile(shown, _partition(name), key, files, arrow)


@contextmanager
def _reaching(name: str) -> Iterator[None]:
    """Turns whatever a file system raises into one line: each has exceptions of its own."""
    try:
        yield
    except (DinkError, MemoryError):
        raise
    except ImportError as error:
        raise ExtraError(f"{name}: {error}: {install_line('remote')}") from error
    except FileNotFoundError as error:
        raise UsageError(f"{name}: no such file or folder") from error
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{name}: cannot be reached: {lines[0]}") from error


def _chosen(names: list[str], where: str) -> list[str]:
    """Those of the files of a folder that hold data."""
    names = sorted(name for name in names if not re.search(r"(^|/)[._]|\.dink\.safetensors$", name))
    for suffixes in (BINARY_SUFFIXES, TEXT_SUFFIXES, (".json",)):
        if chosen := [name for name in names if without_codec(name).lower().endswith(suffixes)]:
            return chosen
    raise UsageError(
        f"{where}: no {', '.join(BINARY_SUFFIXES + TEXT_SUFFIXES)} file in this folder"
    )


def _partition(name: str) -> dict[str, str | None]:
    """The values in a hive path such as ``year=2024/lang=en/part-0.parquet``."""
    pairs = [map(unquote, part.partition("=")) for part in name.split("/")[:-1]]
    values = {key: value for key, equals, value in pairs if key and equals}
    return {key: None if value == _HIVE_NULL else value for key, value in values.items()}


def without_codec(name: str) -> str:
    """A file's name without the suffix of a compression."""
    return name[: name.rindex(".")] if name.lower().endswith(_CODEC_SUFFIXES) else name


def suffix_of(name: str) -> str:
    """Such as ``.csv``, also of a compressed file."""
    return os.path.splitext(without_codec(name))[1].lower()


def codec_of(head: bytes) -> str | None:
    """gzip, zstd, bz2, xz or lz4 by the first bytes, or None."""
    return next((name for magic, name in _CODECS.items() if head.startswith(magic)), None)


def unpacked(file: BinaryIO, codec: str | None) -> Any:
    """A file with ``read`` of what is in a compressed one, streams after each other included."""
    if codec is None:
        return file
    kind = {"xz": lzma.LZMAFile, "bz2": bz2.BZ2File}.get(codec)
    if kind is None:
        return pa.CompressedInputStream(pa.PythonFile(file, "r"), codec)
    content = kind(file)
    weakref.finalize(content, file.close)
    return content


def unpacked_head(source: Source, codec: str, size: int) -> bytes:
    """The first bytes of what is in a compressed file."""
    with reading(source.name, codec), source.open() as file, unpacked(file, codec) as content:
        return bytes(content.read(size))


def look(source: Source, streamed: Sequence[str] = ()) -> tuple[Source, str | None, bytes]:
    """The source, or a copy of it where it is compressed or comes once, and cannot be read in order
    (``streamed`` kinds can); its kind, None for a text or what nobody knows; its first bytes,
    unpacked."""
    head = source.head(HEAD_BYTES)
    codec = codec_of(head)
    if source.comes_once:
        if head and (codec is not None or _kind(source.name, head) not in streamed):
            source = _kept(source, codec)
            head = source.head(HEAD_BYTES)
    elif codec is not None:
        head = unpacked_head(source, codec, HEAD_BYTES)
        if _kind(source.name, head) is not None:
            source = _kept(source, codec)
    if codec is not None and not head:
        raise InputError(f"{source.name}: nothing is in this {codec} file")
    return source, _kind(source.name, head), head


def _kind(name: str, head: bytes) -> str | None:
    """What a file is by its first bytes, or else by its name."""
    for magic, kind in _KINDS.items():
        if head.startswith(magic):
            return kind
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LARGEST_HEADER:
        return "safetensors"
    suffix = suffix_of(name)[1:]
    return suffix if head and suffix in ("fvecs", "bvecs", "ivecs") else None


def read_exactly(file: BinaryIO, buffer: Any, name: str) -> None:
    """Fills ``buffer``; raises InputError when the bytes end before."""
    view = memoryview(buffer).cast("B")
    done = 0
    while done < len(view):
        got = file.readinto(view[done:])  # type: ignore[attr-defined]
        if not got:
            raise InputError(
                f"{name}: ended {len(view) - done} bytes early (truncated, or shortened while "
                "dink was reading it); write or copy it again"
            )
        done += got
