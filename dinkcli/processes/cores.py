"""How many cores there are for this process. Needs no torch: it is asked before that is loaded."""

from __future__ import annotations

import math
import os
from itertools import accumulate


def usable_cores() -> int:
    """Cores that this process may use: those that it is bound to, and of these no more than the
    quotas of its containers (cgroups) are worth, rounded up."""
    bound = getattr(os, "sched_getaffinity", None)  # Linux has it
    cores = len(bound(0)) if bound else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, cpu_quota())))


def cpu_quota(own: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> float:
    """Cores' worth of time that containers grant this process; infinity where none says."""
    quota = math.inf
    for line in _text(own).splitlines():
        _, controllers, path = line.split(":", 2)
        # Its own group and those around it: each may set a limit.
        for group in accumulate(path.rstrip("/").split("/"), "{}/{}".format):
            if not controllers:  # version 2
                limit = _text(f"{root}{group}/cpu.max").split()
            elif "cpu" in controllers.split(","):
                name = f"{root}/cpu{group}/cpu.cfs"
                limit = [_text(f"{name}_quota_us"), _text(f"{name}_period_us")]
            else:
                continue
            if len(limit) == 2 and all(map(str.isdigit, limit)):
                quota = min(quota, int(limit[0]) / int(limit[1]))
    return quota


def cores_are_shared(loadavg: str = "/proc/loadavg") -> bool:
    """Whether others want a quarter of the machine's cores or more just now; no, where the system
    does not say."""
    fields = _text(loadavg).split()
    others = int(fields[3].partition("/")[0]) - 1 if fields else 0  # this one runs, too
    return 4 * others >= (os.cpu_count() or 1)


def _text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:  # another system, or another version
        return ""
