"""Which of a few centres is the nearest, in float64 from the coordinates: the last word on ties.

Shapes: M rows, C candidates, K clusters, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dinkcli.nearest.common import squares_between
from dinkcli.nearest.device import CPU, has_float64, pairs_at_once


def nearest_listed(z: Tensor, centers: Tensor, candidates: Tensor, counts: Tensor) -> Tensor:
    """The nearest (M,) int64 of the ``centers`` (K, D) to each row of ``z`` (M, D), among the first
    ``counts`` (M,) of its ``candidates`` (M, C); the lowest number of an exact tie."""
    listed = torch.arange(candidates.shape[1], device=z.device) < counts[:, None]
    row, position = listed.nonzero().unbind(1)
    center = candidates[row, position]
    # Few: where the device has no float64, the CPU has.
    there = z.device if has_float64(z.device) else CPU
    row, center = row.to(there), center.to(there)
    distances = squares_of_pairs(z.to(there), centers.to(there), row, center)
    least = distances.new_full((len(z),), torch.inf)
    least.scatter_reduce_(0, row, distances, "amin")
    label = torch.where(distances == least[row], center, len(centers))
    result = torch.full((len(z),), len(centers), dtype=torch.int64, device=there)
    return result.scatter_reduce_(0, row, label, "amin").to(z.device)


def squares_of_pairs(z: Tensor, centers: Tensor, row: Tensor, center: Tensor) -> Tensor:
    """Squared distances (P,) float64 of P pairs of a ``row`` of ``z`` and a ``center``."""
    pairs = max(1, pairs_at_once(z.device) // z.shape[1])
    parts = zip(row.split(pairs), center.split(pairs), strict=True)
    return torch.cat([squares_between(z[r].double(), centers[c].double()) for r, c in parts])
