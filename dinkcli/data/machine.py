"""What the machine has: memory for rows, and packages that only some formats need."""

from __future__ import annotations

import re
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dinkcli.errors import ExtraError, UsageError


def machine_memory() -> int:
    """Bytes of memory that the machine has, or that a container may use of it."""
    import psutil  # not before it is needed: help is to be quick

    total = psutil.virtual_memory().total
    with suppress(OSError, ValueError):  # no container, or one without a limit
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text("ascii")))
    return total


def default_memory() -> int:
    """A quarter of the machine's memory, which rows may take."""
    return machine_memory() // 4


def size_text(n_bytes: float) -> str:
    """Bytes for a reader, such as 1.54 GB."""
    units = ["B", "kB", "MB", "GB", "TB", "PB"]
    while n_bytes >= 1000 and len(units) > 1:
        n_bytes /= 1000
        units.pop(0)
    return f"{n_bytes:.3g} {units[0]}"


def parse_size(text: str | None) -> int | None:
    """Bytes in a text such as 500MB, 2GB, 1.5GiB or 1000000; None stays None. Raises UsageError for
    no size."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+) *([kmgt]?)(i?)b?", text.strip().lower())
    if match is None or float(match[1]) == 0:
        raise UsageError(f"`memory` {text}: expected a size such as 500MB, 2GB or 1.5GiB")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** (" kmgt".index(match[2] or " ")))


def install_line(extra: str) -> str:
    """The command that installs what an extra of dink asks for."""
    return f"pip install 'dinkcli[{extra}]'"


def require(module: str, extra: str, purpose: str) -> Any:
    """The module of that name, which ``purpose`` needs; raises ExtraError where it is missing, with
    the ``extra`` of dink that installs it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ExtraError(
            f"{purpose} needs the package {error.name}: {install_line(extra)}"
        ) from error


def check_installed(module: str, extra: str, purpose: str) -> None:
    """Raises UsageError, without the time that an import takes, where a module is missing."""
    with suppress(ValueError):  # it is set to None in sys.modules
        if find_spec(module) is not None:
            return
    raise UsageError(f"{purpose} needs the package {module}: {install_line(extra)}")
