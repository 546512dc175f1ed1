"""Matrix products of float32 tensors, exact to float32 or of low precision.

Processors with matrix units (AMX on CPUs, tensor cores on GPUs) multiply bfloat16 or TF32 numbers
several times faster than float32 ones and add up in float32. Such products of low precision are off
by the rounding of the factors, which ``rounding_error`` bounds; what needs better than that looks
again at the few entries for which it matters.

``DINK_LOW_PRECISION=0`` in the environment does without them, so that what a machine that has none
does can be tested and measured on one that has them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

# TF32 keeps 11 bits, and some units cut off the rest instead of rounding it.
_TF32_ROUNDOFF = 2.0**-10


def _settings(device: torch.device) -> Any:
    """Where torch keeps the precision of float32 products on such a device, if it has one."""
    backends = {"cpu": torch.backends.mkldnn, "cuda": torch.backends.cuda}
    return getattr(backends.get(device.type), "matmul", None)


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The dtype that numbers of ``dtype`` are computed with."""
    return torch.promote_types(dtype, torch.float32)


def has_low_precision(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this machine has them for matrices of ``dtype``."""
    if dtype != torch.float32 or _switched_off():
        return False
    return _cpu_has("_is_amx_tile_supported") if device.type == "cpu" else _has_tf32(device)


def _has_tf32(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices faster than float32 ones."""
    return _cpu_has("_is_amx_tile_supported", "_is_avx512_bf16_supported")


def _cpu_has(*units: str) -> bool:
    """Whether this CPU has one of the units that torch tells by these names, and torch uses it."""
    has_unit = any(getattr(torch.cpu, name)() for name in units)
    return has_unit and torch.backends.mkldnn.is_available() and not _switched_off()


def _switched_off() -> bool:
    return os.environ.get("DINK_LOW_PRECISION") == "0"


def rounding_error(z: Tensor) -> Tensor:
    """Norm of what each row of ``z`` (N, D) loses in such a product, or a bound of it, (N,)."""
    if z.device.type == "cpu":
        return torch.linalg.vector_norm(z - z.bfloat16().float(), dim=1)
    return torch.linalg.vector_norm(z, dim=1) * _TF32_ROUNDOFF


@contextmanager
def products(device: torch.device, low_precision: bool = False) -> Iterator[None]:
    """Inside, products of float32 tensors are exact to float32, or of low precision.

    The setting is global in torch, so whatever the program around has chosen comes back after; and
    what it, or a container's environment, has chosen may be TF32, so no product goes without this.
    Threads that work side by side need one such block around them all, and none of low precision.
    """
    settings = _settings(device)
    wanted = ("bf16" if device.type == "cpu" else "tf32") if low_precision else "ieee"
    if settings is None or (before := settings.fp32_precision) == wanted:
        yield
        return
    settings.fp32_precision = wanted
    try:
        yield
    finally:
        settings.fp32_precision = before
