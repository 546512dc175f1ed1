"""Scores of rows under a map, without mapping them.

For rows y = (z - o) W half the squared distance to a centre c, less half the squared norm of y, is
||c||^2 / 2 - <z - o, W c>: the map goes into the centres, and a row costs what it costs without
one. Nearly equal scores are settled by the mapped rows, so that labels are those of these.

Shapes: B rows of a chunk, K clusters, D features, Q coordinates under the map.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dinkcli.nearest.maps import RowMap
from dinkcli.nearest.products import products
from dinkcli.nearest.scorer import Scorer

_SQUARINGS = 3


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
        longest = (2 * half_norms.max()).sqrt()
        # Rows are shifted where that keeps digits; else the shift is in the scores too.
        far = bool(torch.linalg.vector_norm(origin) > longest)
        self.shift = origin.to(self.dtype) if far else None
        self._shifted = factors.to(self.dtype)
        self._half_norms = (half_norms if far else half_norms + factors @ origin).to(self.dtype)
        self._highest = self._half_norms.abs().max()
        self.largest = torch.linalg.vector_norm(self._shifted, dim=1).max()
        # The rows that labels are those of are rounded: each by a part of its length at most.
        self._rate = self.largest + (stretch * longest).to(self.dtype)

    def _magnitude(self, norms: Tensor, longest: Tensor) -> Tensor:
        return (norms * self._rate).add_(self._highest).mul_(2)

    def _short_offset(self, norms: Tensor) -> Tensor:
        return torch.zeros_like(norms)

    def _longest(self, norms: Tensor, labels: Tensor) -> Tensor:
        return self.largest

    def _usual_reach(self, norms: Tensor) -> float:
        return math.inf  # what the others lose by a far one is not made good here

    def _error(self, norms: Tensor, labels: Tensor) -> Tensor:
        eps = torch.finfo(self.dtype).eps * (self._shifted.shape[1] + 4)
        return self._magnitude(norms, self.largest).mul_(eps / 2)


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
