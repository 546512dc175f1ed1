"""Files that appear whole or not at all, and the formats that their names stand for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dinkcli.errors import OutputError, UsageError


def check_target(path: str) -> None:
    """Refuses a target that cannot be written, before any work is done.

    Raises:
        UsageError: the folder does not exist, or the path is a folder, a device or a pipe.
    """
    named, path = path, _behind_links(path)
    if os.path.islink(path):
        raise UsageError(f"{named}: a symbolic link that leads back to itself; name another file")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise UsageError(f"{named}: no such folder: {folder}; make it first")
    if os.path.isdir(path):
        raise UsageError(f"{named}: is a folder, expected the name of a file to write")
    if os.path.exists(path) and not os.path.isfile(path):
        # Renaming a finished file onto /dev/null would take the device away.
        raise UsageError(f"{named}: is no regular file; for a pipe use standard output (no -o)")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{named}: no permission to write in {folder}")


@contextmanager
def atomic_path(target: str, replace: bool = True) -> Iterator[str]:
    """A temporary path in the target's folder that replaces the target when the block ends well.

    A symbolic link stays, and the file that it leads to is the target. Without ``replace``, the
    first of several processes wins: a target that is there stays.

    The file and then the folder are synced; on any exception the temporary file is removed and
    the target is what it was before.

    Raises:
        OutputError: the operating system refused (disk full, no permission).
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
        if replace or not _link(temporary, target):
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


def _link(path: str, target: str) -> bool:
    """Gives the file at ``path`` a second name unless that exists; False where links do not."""
    try:
        os.link(path, target)
    except OSError:
        return os.path.exists(target)
    return True


def _sync(path: str) -> None:
    try:
        handle = os.open(path, os.O_RDWR if os.path.isfile(path) else os.O_RDONLY)
    except PermissionError:
        return  # Windows opens no folder
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def by_suffix(path: str, formats: Mapping[str, str]) -> str:
    """The format that the suffix of ``path`` stands for.

    Args:
        formats: names of formats by suffix, without the dot.

    Raises:
        UsageError: an unknown suffix.
    """
    suffix = os.path.splitext(path)[1].removeprefix(".").lower()
    if suffix not in formats:
        found = f"suffix .{suffix}" if suffix else "no suffix"
        expected = f".{', .'.join(formats)}"
        raise UsageError(f"{path}: {found}, expected one of {expected}; or name a `format`")
    return formats[suffix]
