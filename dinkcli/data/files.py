"""Where bytes come from: local files, remote files, streams; and what a path on the command line
stands for.
"""

from __future__ import annotations

import io
import os
import select
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol
from urllib.parse import unquote

from dinkcli.errors import InputError, OutputError, UsageError

# Text is read from a folder only when nothing else is there: next to vectors it holds something
# about them.
HEAD_BYTES = 256 << 10  # that say what a file is
BINARY_SUFFIXES = (
    *(".npy", ".npz", ".parquet", ".pq", ".arrow", ".feather", ".ipc", ".arrows", ".safetensors"),
    *(".fvecs", ".bvecs", ".ivecs", ".h5", ".hdf5", ".h5ad"),
)
TEXT_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".vec")
_CODECS = (".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz", ".lz4")
_MODEL_SUFFIX = ".dink.safetensors"
_SIGNAL_SECONDS = 0.2
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


class Source(Protocol):
    """Some bytes.

    Attributes:
        name: what messages call them.
        path: the local file to map, if it is one.
        n_bytes: their number, 0 for a stream.
        partition: values that the folders ``name=value`` above a file give to all of its rows.
    """

    name: str
    n_bytes: int
    partition: Mapping[str, str | None]

    @property
    def path(self) -> str | None: ...

    def head(self, size: int) -> bytes:
        """The first bytes, which are then read again."""
        ...

    def open(self, exact: bool = False) -> BinaryIO:
        """``exact``: from afar, fetch what is asked for and nothing ahead of it."""
        ...

    def check_unchanged(self) -> None:
        """Raises InputError when the bytes are no longer those that were opened at first."""
        ...


@dataclass
class LocalFile:
    """A file on this machine; ``keeps`` is a temporary one, which goes when this does."""

    name: str
    partition: Mapping[str, str | None] = field(default_factory=dict)
    path: str = ""
    keeps: Temporary | None = None

    def __post_init__(self) -> None:
        self.path = self.path or self.name
        self._state = self._look()
        self.n_bytes = self._state[0]

    def _look(self) -> tuple[int, int]:
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise InputError(f"{self.name}: cannot be opened: {error.strerror}") from error
        return found.st_size, found.st_mtime_ns

    def head(self, size: int) -> bytes:
        with self.open() as file:
            return file.read(size)

    def open(self, exact: bool = False) -> BinaryIO:
        try:
            return open(self.path, "rb", buffering=0)
        except OSError as error:
            raise InputError(f"{self.name}: cannot be opened: {error.strerror}") from error

    def check_unchanged(self) -> None:
        now = self._look()
        if now != self._state:
            change = f"from {self.n_bytes} to {now[0]} bytes " if now[0] != self.n_bytes else ""
            raise InputError(
                f"{self.name}: changed {change}while dink was reading it; "
                "run again when nothing writes to it"
            )


class Temporary:
    """A file to write that goes when nothing refers to it any more.

    Args:
        doing: what it is written for, as it follows "while" in a message.
        named: it is to be opened by its name; without one, not even a killed process leaves it.
    """

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


class Stream:
    """Standard input, or another pipe: bytes that come once."""

    path: str | None = None
    n_bytes = 0

    def __init__(self, name: str, file: BinaryIO):
        self.name = name
        self.partition: Mapping[str, str | None] = {}
        self._file: Any = getattr(file, "raw", file)  # nothing is to wait in a buffer unseen
        self._head = b""
        self._taken = False

    def head(self, size: int) -> bytes:
        while len(self._head) < size and (more := self._file.read(size - len(self._head))):
            self._head += more
        return self._head[:size]

    def open(self, exact: bool = False) -> BinaryIO:
        if self._taken:
            raise InputError(f"{self.name}: a stream can be read only once; give a file")
        self._taken = True
        whole = _Rejoined(self._head, self._file)
        return io.BufferedReader(whole, 1 << 20)

    def check_unchanged(self) -> None:
        pass


class _Rejoined(io.RawIOBase):
    """A stream with the bytes that were looked at before it."""

    def __init__(self, head: bytes, file: Any):
        self._head, self._file = head, file
        try:
            self._waits = os.name == "posix" and file.fileno() >= 0
        except (AttributeError, OSError):
            self._waits = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._head:
            # A signal that comes just before a read that blocks would be seen only after it.
            while self._waits and not select.select([self._file], [], [], _SIGNAL_SECONDS)[0]:
                pass
            got: int = self._file.readinto(buffer)
            return got
        taken, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)


def without_codec(name: str) -> str:
    """A file's name without the suffix of a compression."""
    return name[: name.rindex(".")] if name.lower().endswith(_CODECS) else name


def chosen_names(names: list[str], where: str) -> list[str]:
    """Those of the files of a folder that hold data."""
    names = sorted(
        name
        for name in names
        if not name.endswith(_MODEL_SUFFIX)
        and not any(part.startswith((".", "_")) for part in name.split("/"))
    )
    # What is about the data is often json as well.
    for suffixes in (BINARY_SUFFIXES, TEXT_SUFFIXES, (".json",)):
        if chosen := [name for name in names if without_codec(name).lower().endswith(suffixes)]:
            return chosen
    raise UsageError(
        f"{where}: no {', '.join(BINARY_SUFFIXES + TEXT_SUFFIXES)} file in this folder"
    )


def partition_of(name: str) -> dict[str, str | None]:
    """The values in a hive path such as ``year=2024/lang=en/part-0.parquet``."""
    pairs = (map(unquote, part.partition("=")) for part in name.split("/")[:-1])
    return {
        key: None if value == _HIVE_NULL else value
        for key, equals, value in pairs
        if key and equals
    }


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
