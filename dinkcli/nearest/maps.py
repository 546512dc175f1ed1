"""Rows under a learned map, where distances follow neighbours; and their labels without mapping
them.

For rows y = (z - o) W half the squared distance to a centre c, less half the squared norm of y, is
||c||^2 / 2 - <z - o, W c>: the map goes into the centres, and a row costs what it costs without
one. Nearly equal scores are settled by the mapped rows, so that labels are those of these.

Shapes: B rows, K clusters, D features, Q coordinates under the map.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dinkcli.nearest.device import accumulator_dtype, chunk_rows
from dinkcli.nearest.products import products
from dinkcli.nearest.scorer import Scorer

_ROWS = 4096
_SQUARINGS = 3


class RowMap:
    """z to (z - origin) W, in float64 and rounded once: the same bits whatever the batch, but for
    rows a hair's breadth from a rounding border. On a device without float64 in float32.

    Args:
        origin: (D,) what is subtracted first.
        matrix: (D, Q) W.
    """

    def __init__(self, origin: Tensor, matrix: Tensor):
        dtype = accumulator_dtype(matrix.device)
        self.origin, self.matrix = origin.to(dtype), matrix.to(dtype)

    def __call__(self, z: Tensor) -> Tensor:
        """Rows (B, D) of any floating dtype to (B, Q) float32."""
        mapped = torch.empty((len(z), self.matrix.shape[1]), device=z.device)
        size = _ROWS if z.device.type == "cpu" else chunk_rows(1, z.shape[1], device=z.device)
        for part, target in zip(z.split(size), mapped.split(size), strict=True):
            target.copy_((part.to(self.origin) - self.origin) @ self.matrix)
        return mapped


class FoldedScorer(Scorer):
    """Scores that find the nearest of centres (K, Q), from rows (B, D) as they are given; for
    labels alone: distances are those of mapped rows.

    Args:
        row_map: of the rows.
    """

    _signed = True

    def __init__(self, cluster_centers: Tensor, row_map: RowMap):
        self._map = row_map
        super().__init__(cluster_centers)

    def _prepare(self) -> None:
        origin, matrix = self._map.origin, self._map.matrix
        centers = self.centers.to(matrix)
        with products(matrix.device):
            factors, stretch = centers @ matrix.T, _stretch(matrix)
        half_norms = centers.square().sum(1) / 2
        norms = (2 * half_norms).sqrt()
        # Rows are shifted where that keeps digits; else the shift is in the scores too.
        offset = torch.linalg.vector_norm(origin)
        far = bool(offset > norms.median())
        self.shift = origin.to(self.dtype) if far else None
        self._shifted = factors.to(self.dtype)
        self._half_norms = (half_norms if far else half_norms + factors @ origin).to(self.dtype)
        self._norms, self.largest = norms.to(self.dtype), norms.max().to(self.dtype)
        self._highest = self._half_norms.abs().max()
        self._largest_factor = torch.linalg.vector_norm(self._shifted, dim=1).max()
        self._stretch = stretch.to(self.dtype)
        self._offset = torch.zeros_like(self._stretch) if far else offset.to(self.dtype)

    def _mapped_norm(self, norms: Tensor) -> Tensor:
        return (norms + self._offset) * self._stretch

    def _factor_norm(self, longest: Tensor) -> Tensor:
        return (longest * self._stretch).clamp_(max=self._largest_factor)

    def _magnitude(self, norms: Tensor, longest: Tensor) -> Tensor:
        # The rows that labels are those of are rounded: each by a part of its length at most.
        rate = self._factor_norm(longest) + longest * self._stretch
        half_norm = longest.square() / 2 + longest * self._stretch * self._offset
        return (norms * rate + half_norm.clamp_(max=self._highest)).mul_(2)

    def _bfloat16_offset(self, norms: Tensor) -> Tensor:
        return torch.zeros_like(norms)

    def _error(self, norms: Tensor, labels: Tensor) -> Tensor:
        eps = torch.finfo(self.dtype).eps * (self._shifted.shape[1] + 4)
        return self._magnitude(norms, self._longest(norms, labels)).mul_(eps / 2)


def _stretch(matrix: Tensor) -> Tensor:
    """The factor by which rows get longer under the map (D, Q) at most, and no more than a few
    tenths above that: the root of a high power's Frobenius norm. float32 holds that to a
    hundredth."""
    size = torch.linalg.matrix_norm(matrix)
    unit = (matrix / size).float()
    power = unit.T @ unit
    for _ in range(_SQUARINGS):
        power = power @ power
    return 1.01 * size * torch.linalg.matrix_norm(power) ** (0.5 ** (_SQUARINGS + 1))
