"""How much memory rows may take."""

from __future__ import annotations

import re

from dinkcli.data.dataset import DataSet
from dinkcli.errors import UsageError


def in_memory(data: DataSet, memory: int) -> bool:
    """Whether the rows are held rather than read anew for each pass."""
    return data.dtype.itemsize * data.known_rows * data.n_features <= memory


def machine_memory() -> int:
    """Bytes of memory that the machine has, or that a container may use of it."""
    import psutil  # not before it is needed: --help is to be quick

    limits = [psutil.virtual_memory().total]
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            limits.append(int(file.read()))
    except (OSError, ValueError):  # no container, or one without a limit
        pass
    return min(limits)


def default_memory() -> int:
    """A quarter of the machine's memory, or of what a container may use of it."""
    return machine_memory() // 4


def size_text(n_bytes: float) -> str:
    """Bytes for a reader, such as 1.54 GB."""
    units = ["B", "kB", "MB", "GB", "TB", "PB"]
    while n_bytes >= 1000 and len(units) > 1:
        n_bytes /= 1000
        units.pop(0)
    return f"{n_bytes:.3g} {units[0]}"


def parse_size(text: str) -> int:
    """Bytes in a text such as 500MB, 2GB, 1.5GiB or 1000000.

    Raises:
        UsageError: no size.
    """
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+) *([kmgt]?)(i?)b?", text.strip().lower())
    if match is None or float(match[1]) == 0:
        raise UsageError(f"--memory {text}: expected a size such as 500MB, 2GB or 1.5GiB")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** (" kmgt".index(match[2] or " ")))
