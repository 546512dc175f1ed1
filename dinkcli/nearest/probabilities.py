"""Probabilities of clusters: a softmax over centres of minus how far they are, over a temperature.

Where centres lie close beside the norms of the rows, a float32 product cannot tell how much farther
one of them is than the other. Rows for which its rounding could move an exponent are computed again
in float64; those for which that is not enough either, with distances from the coordinates to all
centres that could matter. The cluster of a row is always its most probable one.

Shapes: B rows of a chunk, K clusters, D features.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from dinkcli.nearest.hardware import has_float64
from dinkcli.nearest.index import CenterIndex, squares_of_pairs
from dinkcli.nearest.scorer import Scorer
from dinkcli.nearest.small import BELOW, TOLERANCE
from dinkcli.options import LEAST_TEMPERATURE

# A centre whose exponent lies farther below the best has a probability below 1e-6.
_MATTERS = 14.0


def responsibilities(squared_distances: Tensor, temperature: float) -> Tensor:
    """softmax over centres of minus the squared distance over the temperature; (B, K) to (B, K).
    0 gives a one-hot row (the lowest index wins a tie), infinity gives 1/K everywhere."""
    if temperature == 0:
        nearest = squared_distances.argmin(1, keepdim=True)
        return torch.zeros_like(squared_distances).scatter_(1, nearest, 1.0)
    if math.isinf(temperature):
        return torch.full_like(squared_distances, 1.0 / squared_distances.shape[1])
    # Away from the nearest first, or a tiny temperature makes every quotient infinite.
    least = squared_distances.amin(1, keepdim=True)
    temperature = max(temperature, LEAST_TEMPERATURE)
    return torch.softmax((squared_distances - least) / -temperature, dim=1)


class Probabilities:
    """softmax_j(-||z_i - c_j||^2 / T), or without ``squared`` softmax_j(-||z_i - c_j|| / T), of the
    centres of an index; at T = 0 the nearest has it all. ``dtype`` is what probabilities are wanted
    in, float32 or float16."""

    def __init__(
        self,
        index: CenterIndex,
        temperature: float,
        squared: bool = True,
        dtype: torch.dtype = torch.float32,
    ):
        self._index = index
        self._temperature = max(temperature, LEAST_TEMPERATURE)
        self._squared = squared
        self._below = BELOW.get(str(dtype).removeprefix("torch."), 0.0)

    def __call__(self, z: Tensor, labels: Tensor) -> Tensor:
        """(B, K) of the rows ``z`` (B, D), whose nearest centres are ``labels`` (B,)."""
        return torch.softmax(self.exponents(z, labels), dim=1)

    def exponents(self, z: Tensor, labels: Tensor) -> Tensor:
        """What the softmax is of, (B, K), away from the exponent of the row's own cluster, which is
        0 and the largest."""
        own = labels[:, None]
        squares, moved = self._squares(self._index.scorer, z, own)
        exponents = self._relative(squares, own)
        if has_float64(z.device):
            doubtful = (moved > TOLERANCE).nonzero()[:, 0]
            if len(doubtful):
                again = self._in_float64(z[doubtful], own[doubtful])
                exponents[doubtful] = again.to(exponents.dtype)
        return exponents.clamp_(max=-self._below).scatter_(1, own, 0.0)

    def _squares(self, scorer: Scorer, z: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distances (B, K), and by how much their rounding may move an exponent, (B,)."""
        squares, row_squares = scorer.squared_distances(z)
        # The D products of a score add up in several lanes, and their errors like a random walk: at
        # most 0.8 of this was seen (docs/LOG.md).
        terms = 2 + self._index.centers.shape[1] ** 0.5 / 16
        error = (row_squares.sqrt() + self._index.scorer.largest.to(row_squares)).square_()
        error.mul_(terms * torch.finfo(error.dtype).eps)
        if not self._squared:
            # sqrt(d2 + e) - sqrt(d2) is e / (2 sqrt(d2)) at most, and sqrt(e) near 0.
            nearest = squares.gather(1, own)[:, 0]
            error = torch.minimum(error.sqrt(), error / (2 * nearest.sqrt()).clamp(min=1e-30))
        return squares, error / self._temperature

    def _relative(self, squares: Tensor, own: Tensor) -> Tensor:
        """Exponents from squared distances (B, K), in their memory."""
        far = squares if self._squared else squares.sqrt_()
        return far.sub_(far.gather(1, own)).div_(-self._temperature)

    @cached_property
    def _in_double(self) -> Scorer:
        return Scorer(self._index.centers.double())

    def _in_float64(self, z: Tensor, own: Tensor) -> Tensor:
        """Exponents (B, K) in float64."""
        squares, moved = self._squares(self._in_double, z, own)
        doubtful = (moved > TOLERANCE).nonzero()[:, 0]
        again = squares[doubtful]
        exponents = self._relative(squares, own)
        if len(doubtful):
            reach = -(_MATTERS + 2 * moved[doubtful])
            matters = exponents[doubtful] > reach[:, None]
            matters.scatter_(1, own[doubtful], True)
            row, center = matters.nonzero().unbind(1)
            again[row, center] = squares_of_pairs(z[doubtful], self._index.centers, row, center)
            exponents[doubtful] = self._relative(again, own[doubtful])
        return exponents
