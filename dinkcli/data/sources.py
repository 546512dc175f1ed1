"""The files that one argument of a command stands for."""

from __future__ import annotations

import glob
import os
import re
import stat
import sys
from collections.abc import Iterator

from dinkcli.data.files import LocalFile, Source, Stream, chosen_names, partition_of
from dinkcli.data.formats.foreign import named_folder
from dinkcli.errors import InputError, UsageError


def sources(path: str) -> Iterator[Source]:
    """The files that one argument stands for, in order of their names.

    Raises:
        UsageError: nothing is there.
    """
    if path == "-":
        yield Stream("standard input", sys.stdin.buffer)
    elif is_remote(path):
        from dinkcli.data.remote import remote_sources

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
