"""What processes that train one model together, each on a part of the rows, tell each other: sums
over rows are added up over all of them, after which every process decides the same.
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
        watch: on the others; None where a launcher such as Ray Train looks after the processes.
    """

    def __init__(self, world: World, device: torch.device, watch: Watch | None = None):
        super().__init__(world)
        self._device, self._watch = device, watch

    def sum_(self, *tensors: Tensor) -> None:
        self._reduce(tensors, dist.ReduceOp.SUM)

    def largest_(self, tensor: Tensor) -> None:
        self._reduce((tensor,), dist.ReduceOp.MAX)

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
        return self.rank == 0 if self._watch is None else self._watch.claim()

    def explain(self) -> str | None:
        return None if self._watch is None else self._watch.broken()

    def close(self) -> None:
        self.total(1.0)
        if self._watch is not None:
            self._watch.close()
            dist.destroy_process_group()

    def _reduce(self, tensors: tuple[Tensor, ...], operation: dist.ReduceOp.RedOpType) -> None:
        lengths = [tensor.numel() for tensor in tensors]
        # One message takes about as long as another, whatever little is in it.
        joined = len(tensors) > 1 and sum(lengths) <= _MESSAGE_ELEMENTS
        parts = [torch.cat([t.reshape(-1) for t in tensors])] if joined else tensors
        sent = [part.to(self._device).contiguous() for part in parts]
        with _connected():
            for work in [dist.all_reduce(each, operation, async_op=True) for each in sent]:
                work.wait()
        for tensor, part in zip(tensors, sent[0].split(lengths) if joined else sent, strict=True):
            if part is not tensor:
                tensor.copy_(part.view(tensor.shape))


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostError(f"a connection between processes broke: {error}") from error


def join(device: str, on_loss: Callable[[str | None], object]) -> Group:
    """The group of this process and those that a launcher has started with it, on the device of
    that name; ``on_loss`` as for ``Watch``.

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
        return Processes(where, resolved)
    if resolved.type == "cuda":
        torch.cuda.set_device(resolved)
    try:
        rendezvous = dist.rendezvous("env://", where.rank, where.size, timeout=_ARRIVAL)
        store, rank, size = next(rendezvous)
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"dink/{attempt}", store)
        dist.init_process_group(
            "nccl" if resolved.type == "cuda" else "gloo",
            store=dist.PrefixStore("group", store),
            rank=rank,
            world_size=size,
            timeout=_PATIENCE,
        )
        # A client of its own, so that no beat waits for another request.
        own = store.clone()  # type: ignore[attr-defined]  # its types lack it
        group = Processes(where, resolved, Watch(own, rank, size, on_loss))
        group.total(1.0)  # connects; who is lost later is noticed
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RunError(
            f"the {where.size} processes of this job have not found each other: {reason}"
        ) from error
    return group
