"""What a path of the caller stands for: files, folders, patterns, standard input; and files from
elsewhere, s3:// and gs:// by pyarrow, everything else (https, hf, az, ...) by fsspec.

Of a remote file only the parts that are needed are fetched: of parquet the columns, of npy the
rows.
"""

from __future__ import annotations

import glob
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

from dinkcli.data.extras import install_line, require
from dinkcli.data.files import LocalFile, Source, Stream, chosen_names, partition_of
from dinkcli.data.formats.foreign import named_folder
from dinkcli.errors import DinkError, ExtraError, InputError, UsageError

_BY_PYARROW = ("s3://", "gs://", "gcs://")
_BLOCK_BYTES = 1 << 20


def sources(path: str) -> Iterator[Source]:
    """The files that one argument stands for, in order of their names.

    Raises:
        UsageError: nothing is there.
    """
    if path == "-":
        yield Stream("standard input", sys.stdin.buffer)
    elif is_remote(path):
        yield from remote_sources(path)
    elif os.path.isdir(path):
        yield from _folder(path)
    elif os.path.exists(path):
        yield _file(path)
    else:
        found = sorted(glob.glob(path, recursive=True))
        if not found:
            what = (
                "no file matches this pattern" if glob.has_magic(path) else "no such file or folder"
            )
            raise UsageError(f"{path}: {what}")
        for each in found:
            yield from _folder(each) if os.path.isdir(each) else [_file(each)]


def is_remote(path: str) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]+://", path) is not None


def _folder(path: str) -> Iterator[Source]:
    if what := named_folder(path):
        raise InputError(f"{path}: {what}")
    names = [
        os.path.relpath(os.path.join(folder, name), path).replace(os.sep, "/")
        for folder, _, files in os.walk(path)
        for name in files
    ]
    for name in chosen_names(names, path):
        yield LocalFile(os.path.join(path, name), partition_of(name))


def _file(path: str) -> Source:
    if stat.S_ISREG(os.stat(path).st_mode):
        return LocalFile(path, partition_of(path.replace(os.sep, "/")))
    try:
        return Stream(path, open(path, "rb", buffering=0))
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {error.strerror}") from error


@dataclass
class RemoteFile:
    """A file on a file system.

    Attributes:
        key: its name there.
        files: fsspec's interface to the file system.
        reader: opens a key for random access.
    """

    name: str
    key: str
    files: Any
    reader: Callable[[str, bool], BinaryIO]
    partition: Mapping[str, str | None]
    path: str | None = None

    def __post_init__(self) -> None:
        with _reaching(self.name):
            self._state = self._look()
        self.n_bytes: int = self._state[0]

    def _look(self) -> tuple[int, Any]:
        found = self.files.info(self.key)
        if found.get("size") is None:
            raise InputError(
                f"{self.name}: the server does not tell the size of this file; fetch it first"
            )
        marks = ("ETag", "etag", "mtime", "LastModified", "last_modified", "generation")
        return found["size"], [found[mark] for mark in marks if mark in found]

    def head(self, size: int) -> bytes:
        with _reaching(self.name), self.open() as file:
            return file.read(size)

    def open(self, exact: bool = False) -> BinaryIO:
        with _reaching(self.name):
            return self.reader(self.key, exact)

    def check_unchanged(self) -> None:
        with _reaching(self.name):
            changed = self._look() != self._state
        if changed:
            raise InputError(f"{self.name}: changed while dink was reading it; run again")


def remote_sources(url: str) -> Iterator[RemoteFile]:
    """The files behind a URL of a file, a folder or a pattern.

    Raises:
        ExtraError: fsspec, or its package for this kind of URL, is not installed.
        UsageError: nothing is there, or no such kind of URL.
        InputError: it cannot be reached.
    """
    fsspec = require("fsspec", "remote", url)
    scheme = url.partition("://")[0] + "://"
    with _reaching(url):
        if url.startswith(_BY_PYARROW):
            files, key, reader = _by_pyarrow(url)
        else:
            files, key = fsspec.core.url_to_fs(url)
            reader = partial(_open_by_fsspec, files)
        if any(mark in key for mark in "*?[") and not scheme.startswith("http"):
            keys = sorted(files.glob(key))
            names = {found: partition_of(found) for found in keys if files.isfile(found)}
        elif not scheme.startswith("http") and files.isdir(key):
            start = len(key.rstrip("/")) + 1
            found = chosen_names([name[start:] for name in files.find(key)], url)
            names = {key.rstrip("/") + "/" + name: partition_of(name) for name in found}
        else:
            names = {key: partition_of(key)}
        if not names:
            raise UsageError(f"{url}: no file matches this pattern")
    for name, partition in names.items():
        shown = url if len(names) == 1 else scheme + name.removeprefix(scheme)
        yield RemoteFile(shown, name, files, reader, partition)


def _by_pyarrow(url: str) -> tuple[Any, str, Callable[[str, bool], BinaryIO]]:
    import pyarrow.fs  # takes a while to load
    from fsspec.implementations.arrow import ArrowFSWrapper

    found, key = pyarrow.fs.FileSystem.from_uri(url)
    return ArrowFSWrapper(found), key, lambda key, exact: found.open_input_file(key)


def _open_by_fsspec(files: Any, key: str, exact: bool) -> BinaryIO:
    cache = "none" if exact else "readahead"
    return files.open(key, "rb", block_size=_BLOCK_BYTES, cache_type=cache)


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
