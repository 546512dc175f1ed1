"""The processes that a launcher such as torchrun has started together, from the environment.

Needs no torch, so that commands can ask at their start.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

_NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")


@dataclass(frozen=True)
class World:
    """Which of how many processes this is, on all machines and on this one."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    def share(self, total: int) -> tuple[int, int]:
        """First and last + 1 of the part of ``total`` things that belongs to this process."""
        return total * self.rank // self.size, total * (self.rank + 1) // self.size


ALONE = World()


def world(environment: Mapping[str, str] = os.environ) -> World:
    """``ALONE`` unless all that a launcher sets is there and it has started several processes."""
    try:
        rank, size, local_rank = (int(environment[name]) for name in _NEEDED[:3])
        local_size = int(environment.get("LOCAL_WORLD_SIZE", size))
    except (KeyError, ValueError):
        return ALONE
    if _NEEDED[3] not in environment or not 0 <= rank < size or size == 1:
        return ALONE
    return World(rank, size, local_rank, local_size)
