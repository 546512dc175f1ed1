"""The processes of one training: which of them this is, as a launcher such as torchrun says by the
environment, and what it asks of the others. Needs no torch, which commands load later.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


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
        rank, size, local_rank = (
            int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        )
        local_size = int(environment.get("LOCAL_WORLD_SIZE", size))
    except (KeyError, ValueError):
        return ALONE
    if "MASTER_ADDR" not in environment or not 0 <= rank < size or size == 1:
        return ALONE
    return World(rank, size, local_rank, local_size)


class Group:
    """The processes of a training; this one is the only one.

    Attributes:
        world: which process this is, with its ``rank`` among ``size``.
        alone: it is the only one.
    """

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
