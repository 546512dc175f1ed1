"""Responsibilities: how much each centre has to do with each row, at a temperature."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums over rows are taken: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def responsibilities(squared_distances: Tensor, temperature: float) -> Tensor:
    """softmax over centres of minus the squared distance over the temperature; (B, K) to (B, K).

    The temperature has the unit of a squared distance. 0 gives a one-hot row (the lowest index
    wins a tie), infinity gives 1/K everywhere.
    """
    if temperature == 0:
        nearest = squared_distances.argmin(1, keepdim=True)
        return torch.zeros_like(squared_distances).scatter_(1, nearest, 1.0)
    if math.isinf(temperature):
        return torch.full_like(squared_distances, 1.0 / squared_distances.shape[1])
    # Away from the nearest first, or a tiny temperature makes every quotient infinite.
    least = squared_distances.amin(1, keepdim=True)
    return torch.softmax((squared_distances - least) / -max(temperature, 1e-30), dim=1)
