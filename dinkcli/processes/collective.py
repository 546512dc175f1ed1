"""What processes that train one model together tell each other; nothing, for one alone.

Each has a part of the rows. Sums over rows are added up over all of them, after which every
process knows the same and decides the same. Rows stay where they are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from dinkcli.errors import LostError, RunError, UsageError
from dinkcli.processes.device import resolve_device
from dinkcli.processes.group import Group, World, world
from dinkcli.processes.watch import Watch

_ARRIVAL = timedelta(minutes=5)
# A process that is gone is noticed sooner; this one lives, and does not get on.
_PATIENCE = timedelta(hours=2)
_MESSAGE_ELEMENTS = 1 << 20


class Processes(Group):
    """Several processes over ``torch.distributed``: gloo on CPUs, nccl on CUDA devices.

    Args:
        device: on which the rows are.
        on_loss: see ``Watch``.

    Raises:
        RunError: the others have not come, or cannot be reached.
    """

    def __init__(self, world: World, device: torch.device, on_loss: Callable[[str | None], object]):
        super().__init__(world)
        self._device = device
        if device.type == "cuda":
            torch.cuda.set_device(device)
        try:
            rendezvous = dist.rendezvous("env://", world.rank, world.size, timeout=_ARRIVAL)
            store, rank, size = next(rendezvous)
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            store = dist.PrefixStore(f"dink/{attempt}", store)
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                store=dist.PrefixStore("group", store),
                rank=rank,
                world_size=size,
                timeout=_PATIENCE,
            )
            # A client of its own, so that no beat waits for another request.
            own = store.clone()  # type: ignore[attr-defined]  # its types lack it
            self._watch = Watch(own, rank, size, on_loss)
            self.total(1.0)  # connects; who is lost later is noticed
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise RunError(
                f"the {world.size} processes of this job have not found each other: {reason}"
            ) from error

    def sum_(self, *tensors: Tensor) -> None:
        self._reduce(tensors, dist.ReduceOp.SUM)

    def largest_(self, tensor: Tensor) -> None:
        self._reduce((tensor,), dist.ReduceOp.MAX)

    def largest(self, *values: float) -> list[float]:
        largest = torch.tensor(values, dtype=torch.float64)
        self.largest_(largest)
        return largest.tolist()

    def total(self, *values: float) -> list[float]:
        total = torch.tensor(values, dtype=torch.float64)
        self.sum_(total)
        return total.tolist()

    def before(self, number: int) -> int:
        return int(self.gather(torch.tensor([number]))[: self.rank].sum())

    def gather(self, tensor: Tensor) -> Tensor:
        lengths = torch.zeros(self.size, dtype=torch.int64)
        lengths[self.rank] = len(tensor)
        self.sum_(lengths)
        padded = tensor.new_zeros((int(lengths.max()), *tensor.shape[1:])).to(self._device)
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        with _connected():
            dist.all_gather(parts, padded)
        whole = [part[:n] for part, n in zip(parts, lengths.tolist(), strict=True)]
        return torch.cat(whole).to(tensor.device)

    def claim(self) -> bool:
        return self._watch.claim()

    def explain(self) -> str | None:
        return self._watch.broken()

    def close(self) -> None:
        self.total(1.0)
        self._watch.close()
        dist.destroy_process_group()

    def _reduce(self, tensors: tuple[Tensor, ...], operation: dist.ReduceOp.RedOpType) -> None:
        if len(tensors) > 1 and sum(tensor.numel() for tensor in tensors) <= _MESSAGE_ELEMENTS:
            # One message takes about as long as another, whatever little is in it.
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            self._reduce((flat,), operation)
            parts = flat.split([tensor.numel() for tensor in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))
            return
        moved = [tensor.to(self._device).contiguous() for tensor in tensors]
        with _connected():
            works = [dist.all_reduce(each, operation, async_op=True) for each in moved]
            for work in works:
                work.wait()
        for tensor, reduced in zip(tensors, moved, strict=True):
            if reduced is not tensor:
                tensor.copy_(reduced)


class Existing(Processes):
    """Over a process group that a launcher such as Ray Train has made, and looks after."""

    def __init__(self, world: World, device: torch.device):
        Group.__init__(self, world)
        self._device = device

    def claim(self) -> bool:
        return self.rank == 0

    def explain(self) -> str | None:
        return None

    def close(self) -> None:
        self.total(1.0)


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostError(f"a connection between processes broke: {error}") from error


def join(device: str, on_loss: Callable[[str | None], object]) -> Group:
    """The group of this process and those that a launcher has started with it.

    Args:
        device: name of the compute device.
        on_loss: see ``Watch``.

    Raises:
        UsageError: no such device, or one that several processes cannot use.
        RunError: the others have not come.
    """
    where = world()
    if device.startswith("cuda:") and where.local_size > 1:
        raise UsageError(
            f"`device` {device}: {where.local_size} processes cannot share one GPU; "
            "`device` cuda gives each its own"
        )
    resolved = resolve_device(device, where.local_rank)
    if resolved.type == "mps":
        raise UsageError("`device` mps: several processes train on cpu or cuda")
    if dist.is_initialized():
        return Existing(where, resolved)
    return Processes(where, resolved, on_loss)
