"""What processes that train one model together, each on a part of the rows, tell each other: sums
over rows are added up over all of them, after which every process decides the same; and signs of
life.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dinkcli.errors import LostError, RunError, UsageError
from dinkcli.processes.device import resolve_device
from dinkcli.processes.group import Group, World, world

_ARRIVAL = timedelta(minutes=5)
# A process that is gone is noticed sooner; this one lives, and does not get on.
_PATIENCE = timedelta(hours=2)
_MESSAGE_ELEMENTS = 1 << 20
_BEAT_SECONDS = 1.0
_SILENT_SECONDS = 16.0
# When a connection broke, somebody has gone just now: a few beats tell who.
_SUSPECT_SECONDS = 3.5
_TOLD = "told"


class Watch:
    """Signs of life: each process counts up a number in the launcher's store and looks at those of
    the others, on a thread. A collective operation cannot be left once it waits, so a loss that is
    found out here ends the process.

    Args:
        store: of the launcher; only ``add``, ``set``, ``get`` and ``check`` are used.
        on_loss: called on the thread with one line for the user, or None when another process
            tells it. It has to end the process.
    """

    def __init__(self, store: Any, rank: int, size: int, on_loss: Callable[[str | None], object]):
        self._store, self._rank, self._size, self._on_loss = store, rank, size, on_loss
        self._stop = threading.Event()
        self._mine = False
        self._held_by_launcher = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        store.set(f"host/{rank}", socket.gethostname())
        self._thread = threading.Thread(target=self._run, name="dink-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=2 * _BEAT_SECONDS)

    def claim(self) -> bool:
        """Whether this process is the one of all that tells the user why the job ends."""
        if not self._mine:
            try:
                self._mine = self._store.add(_TOLD, 1) == 1
            except RuntimeError:  # the store is gone with the process that held it
                self._mine = self._rank == (0 if self._held_by_launcher else 1)
        return self._mine

    def broken(self) -> str | None:
        """Who is gone, after a connection broke, in words; None when everybody is still there."""
        before = self._look()
        time.sleep(_SUSPECT_SECONDS)
        now = self._look()
        if before is None or now is None:
            return self._store_is_gone()
        lost = [r for r in range(self._size) if r != self._rank and now[r] == before[r]]
        return self._sentence(lost, "its connection broke") if lost else None

    def _run(self) -> None:
        last = time.monotonic()
        counts, since = [0] * self._size, [last] * self._size
        while not self._stop.wait(_BEAT_SECONDS):
            now = time.monotonic()
            if now - last > _SILENT_SECONDS / 2:  # this process itself was stopped
                since = [now] * self._size
            last, before, counts = now, counts, self._look() or []
            if self._stop.is_set() or self._mine:
                continue
            if not counts:
                self._end(self._store_is_gone())
            elif self._store.check([_TOLD]):
                self._stop.wait(_BEAT_SECONDS)  # its line comes first
                self._end(None)
            else:
                beats = zip(counts, before, since, strict=True)
                since = [then if count == old else now for count, old, then in beats]
                lost = [r for r in range(self._size) if now - since[r] > _SILENT_SECONDS]
                if lost:
                    self._end(self._sentence(lost, f"no sign of life for {_SILENT_SECONDS:.0f} s"))

    def _look(self) -> list[int] | None:
        """Counts this process up; the numbers of all. None when the store does not answer."""
        try:
            return [
                self._store.add(f"beat/{rank}", int(rank == self._rank))
                for rank in range(self._size)
            ]
        except RuntimeError:
            return None

    def _sentence(self, lost: list[int], why: str) -> str:
        names = ", ".join(f"{rank} on {self._host(rank)}" for rank in lost[:3])
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        return f"rank {names}{more} of {self._size} {'are' if lost[1:] else 'is'} gone ({why})"

    def _host(self, rank: int) -> str:
        try:
            if self._store.check([f"host/{rank}"]):
                return self._store.get(f"host/{rank}").decode()
        except RuntimeError:
            pass
        return "a machine unknown"

    def _store_is_gone(self) -> str:
        if self._held_by_launcher:
            return "the launcher of this job is gone"
        return f"rank 0 of {self._size} is gone (its store does not answer)"

    def _end(self, sentence: str | None) -> None:
        self._on_loss(sentence if sentence is not None and self.claim() else None)


class Processes(Group):
    """Several processes over ``torch.distributed``: gloo on CPUs, nccl on CUDA devices. No watch
    where a launcher such as Ray Train looks after them."""

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
