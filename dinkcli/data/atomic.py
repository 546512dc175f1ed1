"""Files that appear whole or not at all, and the formats that their names stand for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from dinkcli.errors import OutputError, UsageError


def check_target(path: str) -> None:
    """Raises UsageError for a target that cannot be written, before any work is done."""
    file = _behind_links(path)
    folder = os.path.dirname(file) or "."
    problem = None
    if os.path.islink(file):
        problem = "a symbolic link that leads back to itself; name another file"
    elif not os.path.isdir(folder):
        problem = f"no such folder: {folder}; make it first"
    elif os.path.isdir(file):
        problem = "is a folder, expected the name of a file to write"
    elif os.path.exists(file) and not os.path.isfile(file):
        # Renaming a finished file onto /dev/null would take the device away.
        problem = "is no regular file; for a pipe use standard output (no -o)"
    elif not os.access(folder, os.W_OK):
        problem = f"no permission to write in {folder}"
    if problem is not None:
        raise UsageError(f"{path}: {problem}")


@contextmanager
def atomic_path(target: str, replace: bool = True) -> Iterator[str]:
    """A temporary path that replaces the target when the block ends well, file and folder synced.

    A symbolic link stays, and the file that it leads to is the target. Without ``replace``, the
    first of several processes wins: a target that is there stays. Raises OutputError where the
    operating system refuses (disk full, no permission).
    """
    check_target(target)
    named, target = target, _behind_links(target)
    folder, name = os.path.split(os.path.abspath(target))
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=folder)
        os.close(handle)
        yield temporary
        _sync(temporary)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp makes files that only the owner reads
        with suppress(OSError):  # where there are no links, the last process wins
            if not replace:
                os.link(temporary, target)
        if replace or not os.path.exists(target):
            os.replace(temporary, target)
        _sync(folder)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{named}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None and os.path.lexists(temporary):
            os.unlink(temporary)


def _behind_links(path: str) -> str:
    """The file that a symbolic link leads to, which need not be there; any other path as it is."""
    return os.path.realpath(path) if os.path.islink(path) else path


def _sync(path: str) -> None:
    try:
        handle = os.open(path, os.O_RDWR if os.path.isfile(path) else os.O_RDONLY)
    except PermissionError:
        return  # Windows opens no folder
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def by_suffix(path: str, formats: Mapping[str, str], advice: str = "; or name a `format`") -> str:
    """The format that the suffix of ``path`` stands for, of ``formats`` by suffix without the dot;
    raises UsageError, with ``advice``, for another one."""
    suffix = os.path.splitext(path)[1].removeprefix(".").lower()
    if suffix not in formats:
        found = f"suffix .{suffix}" if suffix else "no suffix"
        expected = f".{', .'.join(formats)}"
        raise UsageError(f"{path}: {found}, expected one of {expected}{advice}")
    return formats[suffix]
