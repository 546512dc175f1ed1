"""What the parts of a training that run in several processes ask of the others; alone, nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dinkcli.processes.launcher import ALONE, World

if TYPE_CHECKING:
    from torch import Tensor


class Group:
    """The processes of a training; this one is the only one.

    Attributes:
        world: which process this is.
    """

    def __init__(self, world: World = ALONE):
        self.world = world

    @property
    def rank(self) -> int:
        return self.world.rank

    @property
    def size(self) -> int:
        return self.world.size

    @property
    def alone(self) -> bool:
        return self.world.size == 1

    def sum_(self, *tensors: Tensor) -> None:
        """Adds up each tensor over all processes, in place; the same bits in every process."""

    def largest_(self, tensor: Tensor) -> None:
        """The largest of each element over all processes, in place."""

    def largest(self, *values: float) -> list[float]:
        """The largest of each value over all processes."""
        return list(values)

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors (n, ...) of all processes, one after the other by rank; n may differ."""
        return tensor

    def total(self, *values: float) -> list[float]:
        """The sum of each value over all processes."""
        return list(values)

    def before(self, number: int) -> int:
        """The sum of the numbers of the processes before this one."""
        return 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is raised in any process."""
        return self.largest(float(flag))[0] > 0

    def claim(self) -> bool:
        """Whether this process is the one to say why the job fails. The others then end."""
        return True

    def explain(self) -> str | None:
        """Who is gone, if anybody; takes some seconds to find out."""
        return None

    def close(self) -> None:
        """Leaves the group, when all processes have come to this point."""


SINGLE = Group()
