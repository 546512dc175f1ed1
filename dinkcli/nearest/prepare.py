"""Rows before their distances are taken: numbers that float32 can hold, norm 1, a learned map.

Shapes: B rows, D features, Q coordinates under the map.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dinkcli.errors import InputError
from dinkcli.nearest.hardware import accumulator_dtype, chunk_rows

# Norms between these have squares, and sums of millions of squares, that float32 can hold.
SMALLEST_NORM, LARGEST_NORM = 1e-15, 1e18
LARGEST_WEIGHT = 1e12
_MAPPED = 4096  # at once, on a CPU


def refuse_overflow(rows: Tensor, name: str, start: int = 0) -> None:
    """Raises InputError at the first of the ``rows`` (B, D), away from the point that distances are
    taken around, whose squared norm float32 cannot hold."""
    limit = LARGEST_NORM / rows.shape[1] ** 0.5
    if largest_value(rows) <= limit:
        return
    row = int((rows.abs().amax(1) > limit).nonzero()[0, 0])
    raise InputError(
        f"{name}: row {start + row} is {float(rows[row].abs().max()):.3g} away from the mean "
        f"(counting from 0), squared distances would overflow float32 (limit {limit:.3g}); "
        "scale the data down, or repair the row"
    )


def largest_value(rows: Tensor) -> float:
    """The largest absolute value in ``rows`` (B, D); 0 without any."""
    if not rows.numel():
        return 0.0
    return max(map(abs, torch.stack(torch.aminmax(rows)).tolist()))  # a GPU is asked once


def refuse_underflow(largest: float, name: str) -> None:
    """Raises InputError for rows that are not all one, and whose ``largest`` absolute value away
    from their mean is so small that their squared distances would be zero."""
    if 0 < largest < SMALLEST_NORM:
        raise InputError(
            f"{name}: rows are at most {largest:.3g} away from the mean, squared distances would "
            f"vanish in float32 (limit {SMALLEST_NORM:.0e}); scale the data up"
        )


def normalize_(rows: Tensor) -> Tensor:
    """Scales ``rows`` (B, D) to norm 1 in place, but for rows of zeros; returns their norms (B, 1),
    in float64 where float32 could not hold the squares of some."""
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    extreme = ((norms < SMALLEST_NORM) | ~(norms < LARGEST_NORM))[:, 0].nonzero()[:, 0]
    if len(extreme) == 0:
        rows /= norms
        return norms
    dtype = accumulator_dtype(rows.device)
    exact = norms.to(dtype)
    exact[extreme] = torch.linalg.vector_norm(rows[extreme].to(dtype), dim=1, keepdim=True)
    rows.copy_(rows.to(dtype) / exact.masked_fill(exact == 0, 1.0))
    return exact


class RowMap:
    """z to (z - ``origin``) ``matrix``, (D,) and (D, Q), in float64 and rounded once: the same bits
    whatever the batch, but for rows a hair's breadth from a rounding border. On a device without
    float64 in float32."""

    def __init__(self, origin: Tensor, matrix: Tensor):
        dtype = accumulator_dtype(matrix.device)
        self.origin, self.matrix = origin.to(dtype), matrix.to(dtype)

    def __call__(self, z: Tensor) -> Tensor:
        """Rows (B, D) of any floating dtype to (B, Q) float32."""
        mapped = torch.empty((len(z), self.matrix.shape[1]), device=z.device)
        size = _MAPPED if z.device.type == "cpu" else chunk_rows(1, z.shape[1], device=z.device)
        for part, target in zip(z.split(size), mapped.split(size), strict=True):
            target.copy_((part.to(self.origin) - self.origin) @ self.matrix)
        return mapped
