"""Names of compute devices, checked."""

from __future__ import annotations

import re

import torch

from dinkcli.errors import UsageError

_NAME = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def resolve_device(name: str = "auto") -> torch.device:
    """The device of that name; ``auto`` is the first of cuda, mps and cpu that is there.

    Raises:
        UsageError: a name that is not one, or a device this machine (or this torch) lacks.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"--device {name}: expected auto, cpu, cuda, cuda:N or mps")
    present = _present()
    if name == "auto":
        return torch.device(present[0])
    if name not in (*present, "cuda" if "cuda:0" in present else None):
        raise UsageError(f"--device {name}: not on this machine, which has {', '.join(present)}")
    return torch.device(name)


def _present() -> list[str]:
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return cuda + ["mps"] * torch.backends.mps.is_available() + ["cpu"]
