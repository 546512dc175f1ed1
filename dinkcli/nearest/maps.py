"""Rows under a learned map: where distances follow neighbours.

Shapes: B rows, D features, Q coordinates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dinkcli.nearest.device import chunk_rows, wide

_ROWS = 4096


class RowMap:
    """z to (z - origin) W, in float64 and rounded once: the same bits whatever the batch, but for
    rows a hair's breadth from a rounding border. On a device without float64 in float32.

    Args:
        origin: (D,) what is subtracted first.
        matrix: (D, Q) W.
    """

    def __init__(self, origin: Tensor, matrix: Tensor):
        dtype = wide(matrix.device)
        self.origin, self.matrix = origin.to(dtype), matrix.to(dtype)

    def __call__(self, z: Tensor) -> Tensor:
        """Rows (B, D) of any floating dtype to (B, Q) float32."""
        found = torch.empty((len(z), self.matrix.shape[1]), device=z.device)
        size = _ROWS if z.device.type == "cpu" else chunk_rows(1, z.shape[1], device=z.device)
        for part, target in zip(z.split(size), found.split(size), strict=True):
            target.copy_((part.to(self.origin) - self.origin) @ self.matrix)
        return found
