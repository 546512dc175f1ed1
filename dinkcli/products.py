"""Matrix products of float32 tensors, exact to float32 or in the short format of matrix units.

Processors with matrix units (AMX on CPUs, tensor cores on GPUs) multiply short floats several times
faster than float32 ones and add up in float32. The products are then off by the rounding of the
factors, which ``unit_roundoff`` bounds; what needs better than that looks again at the few entries
for which it matters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# bfloat16 keeps 8 bits and is rounded to nearest; TF32 keeps 11, and some units cut the rest off.
_SHORT = {"cpu": ("bf16", 2.0**-8), "cuda": ("tf32", 2.0**-10)}


def _settings(device: torch.device) -> Any:
    """Where this torch keeps the precision of float32 products, from 2.9 on."""
    backends = {"cpu": torch.backends.mkldnn, "cuda": torch.backends.cuda}
    found = getattr(backends.get(device.type), "matmul", None)
    return found if hasattr(found, "fp32_precision") else None


def unit_roundoff(device: torch.device, dtype: torch.dtype) -> float | None:
    """Relative error of a factor in short products, or None where they are not to be had."""
    if dtype != torch.float32 or _settings(device) is None:
        return None
    if device.type == "cpu":
        has_unit = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
        return _SHORT["cpu"][1] if has_unit and torch.backends.mkldnn.is_available() else None
    return _SHORT["cuda"][1] if torch.cuda.get_device_capability(device) >= (8, 0) else None


@contextmanager
def products(device: torch.device, short: bool = False) -> Iterator[None]:
    """Inside, products of float32 tensors are exact to float32, or short ones.

    The setting is global in torch, so whatever the program around has chosen comes back after.
    """
    settings = _settings(device)
    if settings is None:
        yield
        return
    before = settings.fp32_precision
    settings.fp32_precision = _SHORT[device.type][0] if short else "ieee"
    try:
        yield
    finally:
        settings.fp32_precision = before
