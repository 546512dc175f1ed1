"""Processes with a part each of one training, or of the rows to assign: which of them this is, as a
launcher such as torchrun says by the environment, and what it asks of the others. Needs no torch,
which commands load later.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dinkcli.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class World:
    """Which of how many processes this is, on all machines and on this one."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    def __str__(self) -> str:
        return f"{self.rank + 1}/{self.size}"

    def share(self, total: int) -> tuple[int, int]:
        """First and last + 1 of the part of ``total`` things that belongs to this process."""
        return total * self.rank // self.size, total * (self.rank + 1) // self.size


ALONE = World()


def world(environment: Mapping[str, str] = os.environ) -> World:
    """``ALONE`` unless all that a launcher sets is there and it has started several processes."""
    try:
        rank, size, local_rank = (
            int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        )
        local_size = int(environment.get("LOCAL_WORLD_SIZE", size))
    except (KeyError, ValueError):
        return ALONE
    if "MASTER_ADDR" not in environment or not 0 <= rank < size or size == 1:
        return ALONE
    return World(rank, size, local_rank, local_size)


def launched(environment: Mapping[str, str] = os.environ) -> World | None:
    """As ``world``, of processes that do not talk, so that no address is needed; None alone."""
    rank = environment.get("RANK", "")
    here = world({"LOCAL_RANK": rank, "MASTER_ADDR": "", **environment})
    return None if here == ALONE else here


def parse_shard(text: str) -> World:
    """The process that takes the share which a text such as 2/3 names."""
    if (process := launched()) is not None:
        raise UsageError(
            f"`shard` {text}: a launcher has started {process.size} processes (WORLD_SIZE), which "
            "take a share each by themselves; leave `shard` out, or the launcher"
        )
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip(), re.ASCII)
    if match is None or int(match[2]) == 0:
        raise UsageError(f"`shard` {text}: expected one of N shares, such as 1/3, 2/3 or 3/3")
    number, count = int(match[1]), int(match[2])
    if not 1 <= number <= count:
        raise UsageError(
            f"`shard` {text}: shares are counted from 1, here 1/{count} to {count}/{count}; "
            f"a Slurm array that fits is --array=1-{count}"
        )
    return World(number - 1, count)


class Group:
    """The processes of a training; this one is the only one."""

    def __init__(self, world: World = ALONE):
        self.world, self.rank, self.size = world, world.rank, world.size
        self.alone = world.size == 1

    def sum_(self, *tensors: Tensor) -> None:
        """Adds up each tensor over all processes, in place; the same bits in every process."""

    def largest_(self, tensor: Tensor) -> None:
        """The largest of each element over all processes, in place."""

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors (n, ...) of all processes, one after the other by rank; n may differ."""
        return tensor

    def total(self, *values: float) -> list[float]:
        """The sum of each value over all processes."""
        return _with_numbers(self.sum_, values)

    def largest(self, *values: float) -> list[float]:
        """The largest of each value over all processes."""
        return _with_numbers(self.largest_, values)

    def any(self, flag: bool) -> bool:
        """Whether the flag is raised in any process."""
        return self.largest(flag)[0] > 0

    def claim(self) -> bool:
        """Whether this process is the one to say why the job fails. The others then end."""
        return True

    def explain(self) -> str | None:
        """Who is gone, if anybody; takes some seconds to find out."""
        return None

    def close(self) -> None:
        """Leaves the group, when all processes have come to this point."""


def _with_numbers(reduce: Callable[[Tensor], None], values: tuple[float, ...]) -> list[float]:
    import torch

    tensor = torch.tensor(values, dtype=torch.float64)
    reduce(tensor)
    return tensor.tolist()


SINGLE = Group()
