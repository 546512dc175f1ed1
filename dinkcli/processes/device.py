"""Names of compute devices, checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from dinkcli.errors import FULL_DEVICE, RunError, UsageError

T = TypeVar("T")

_LEAST_ROWS = 64
_NAME = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def resolve_device(name: str = "auto", number: int = 0) -> torch.device:
    """The device of that name; ``auto`` is the first of cuda, mps and cpu that is there. To process
    ``number`` of this machine, ``auto`` and ``cuda`` give a GPU of its own.

    Raises:
        UsageError: no such device, or one that this torch cannot use.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"`device` {name}: expected auto, cpu, cuda, cuda:N or mps")
    present = _present()
    n_gpus = sum(each.startswith("cuda") for each in present)
    if name in ("auto", "cuda") and number and n_gpus:
        if number >= n_gpus:
            raise UsageError(
                f"`device` {name}: process {number} (counting from 0) finds {n_gpus} GPUs on this "
                "machine; start one process for each GPU, or use `device` cpu"
            )
        name = f"cuda:{number}"
    elif name == "auto":
        name = present[0]
    elif name not in (*present, "cuda" if n_gpus else None):
        lacks = name.startswith("cuda") and not (torch.version.cuda or torch.version.hip)
        without = " (this torch is built without CUDA)" if lacks else ""
        raise UsageError(
            f"`device` {name}: not on this machine, which has {', '.join(present)}{without}"
        )
    device = torch.device(name)
    if device.type == "cuda":
        try:  # a driver can be too old for this torch, and a card too old or too new
            float(torch.ones(1, device=device) + 1)
        except Exception as error:
            if is_out_of_memory(error):
                return device  # which says so itself, when it matters
            reason = str(error).strip().partition("\n")[0]
            raise UsageError(
                f"`device` {name}: torch {torch.__version__} cannot compute there ({reason}); "
                "use `device` cpu, or a torch made for this driver and card"
            ) from error
    return device


def _present() -> list[str]:
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return cuda + ["mps"] * torch.backends.mps.is_available() + ["cpu"]


def in_pieces(work: Callable[[slice], T], n_rows: int) -> Iterator[T]:
    """Results of ``work`` on all rows at once; on ever smaller pieces, in order, when the device
    runs out of memory. RunError when it does even for a few rows."""
    start, size = 0, n_rows
    while start < n_rows:
        full = False
        try:
            result = work(slice(start, min(start + size, n_rows)))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if size <= _LEAST_ROWS:
                raise RunError(
                    f"the device is out of memory even for {size} rows at a time; free some, "
                    "use fewer clusters, or `device` cpu"
                ) from error
            full = True
        if full:  # not before the error has let go of what the work had made
            torch.cuda.empty_cache()
            size //= 2
            continue
        yield result
        start += size


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device had no memory left. cuBLAS, Triton and MPS do not know torch's own error."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in FULL_DEVICE)
