"""Joining the processes of one training."""

from __future__ import annotations

from collections.abc import Callable

from dinkcli.errors import UsageError
from dinkcli.processes.group import SINGLE, Group
from dinkcli.processes.launcher import world


def join(device: str, on_loss: Callable[[str | None], object]) -> Group:
    """The group of this process: with those that a launcher has started with it, or alone.

    Args:
        device: name of the compute device.
        on_loss: see ``Watch``.

    Raises:
        UsageError: no such device, or one that several processes cannot use.
        RunError: the others have not come.
    """
    here = world()
    if here.size == 1:
        return SINGLE
    # Only several processes need torch to know each other: wrong options do not wait for it.
    from dinkcli.processes.collective import Processes
    from dinkcli.processes.device import resolve_device

    if device.startswith("cuda:") and here.local_size > 1:
        raise UsageError(
            f"--device {device}: {here.local_size} processes cannot share one GPU; "
            "--device cuda gives each its own"
        )
    found = resolve_device(device, here.local_rank)
    if found.type == "mps":
        raise UsageError("--device mps: several processes train on cpu or cuda")
    return Processes(here, found, on_loss)
