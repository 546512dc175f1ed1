"""Scores of rows against centres, and how far off they can be.

The score of a centre is half its squared distance from the row, less half the row's squared norm
unless the product is a short one of a CPU.

Shapes: B rows of a chunk, K clusters, D features. Scores are (K, B): reductions over centres then
take many rows at once.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from dinkcli.nearest.best import Best, Two, limit_of, scratch
from dinkcli.nearest.device import chunk_rows
from dinkcli.nearest.fused import fused_two, why_not
from dinkcli.nearest.products import (
    has_short_factors,
    has_short_products,
    products,
    rounding_error,
)
from dinkcli.nearest.soft import accumulation_dtype

# With less, conversion costs more than the faster product wins.
_SHORT_CLUSTERS = 48
_SHORT_CENTERS = 1 << 15  # numbers
# Centres are shifted when their mean is this many times as far from the origin as they are from it.
_FAR = 0.5
_BFLOAT16_ROUNDOFF = 2.0**-8
# Scores of up to this many times the usual size leave the usual ones digits enough.
_MOST_REACH = 64.0


class Scorer:
    """Centres made ready for products with rows, norms at hand.

    Centres far from the origin, and the rows with them, are shifted to the mean centre, which
    keeps float32 digits. Half precision is computed in float32.

    Attributes:
        dtype: of the products.
        centers: (K, D) in that.
        shift: (D,) what is subtracted from them and from the rows, or None.
        largest: norm of the longest centre, after the shift.
        has_short: whether short products find the nearest centre faster.
        has_rough: whether there are some on a CPU, however few the centres.
    """

    _signed = False  # whether short scores may be negative

    def __init__(self, cluster_centers: Tensor):
        centers = cluster_centers.detach()
        self.dtype = accumulation_dtype(centers.dtype)
        self.centers = centers.to(self.dtype)
        self._prepare()
        self._choose_products()

    def _prepare(self) -> None:
        """Sets ``shift``, the factors and half norms that scores are made of, and ``largest``."""
        mean = self.centers.mean(0)
        spread = torch.linalg.vector_norm(self.centers - mean, dim=1).max()
        far = bool(torch.linalg.vector_norm(mean) > _FAR * spread)
        self.shift = mean if far else None
        self._shifted = self.centers - mean if far else self.centers
        self._half_norms = self._shifted.square().sum(1) / 2
        self._norms = (2 * self._half_norms).sqrt()
        self.largest = self._norms.max()

    def _choose_products(self) -> None:
        centers, device = self.centers, self.centers.device
        self._best = Best(len(centers), self.dtype, device)
        self._on_cpu = device.type == "cpu"
        available = has_short_factors() if self._on_cpu else has_short_products(device, self.dtype)
        available = available and self.dtype == torch.float32
        large = len(centers) >= _SHORT_CLUSTERS and centers.numel() >= _SHORT_CENTERS
        self.has_short = available and large
        self._fused = not self._on_cpu and why_not(device, self.dtype) is None
        self.has_rough = available and self._on_cpu

    def shifted(self, z: Tensor) -> Tensor:
        """Rows (B, D) as the other methods want them."""
        z = z.to(self.dtype)
        if self.shift is None:
            return z
        return torch.sub(z, self.shift, out=scratch("shifted", z, z.shape, self.dtype))

    def two(self, rows: Tensor) -> tuple[Two, Tensor]:
        """The two best centres of each row, and what the score of the nearest is at most (B,)."""
        norms = torch.linalg.vector_norm(rows, dim=1)
        scores, reach = self._scores(rows), self._reach(norms)
        usual = self._usual_reach(norms) if reach < math.inf else reach
        if reach <= _MOST_REACH * usual:
            near = self._best.two(scores, reach)
            return near, limit_of(near, self._error(norms, near.labels))
        # One far row or centre must not take the digits of all others: what it is not for is cut
        # off, and far rows are looked at again.
        near = self._best.two(scores.clamp_(-usual / 2, usual / 2), usual)
        limit = limit_of(near, self._error(norms, near.labels))
        return near, limit.masked_fill_(4 * norms.square() > usual, torch.inf)

    def short_two(self, rows: Tensor) -> tuple[Two, Tensor]:
        """The same by a short product, on a CPU that has them."""
        norms = torch.linalg.vector_norm(rows, dim=1)
        product, factors = self._short_product(rows, norms)
        near = self._best.short_two(product, self._signed)
        error = self._short_error(rows, norms, factors, near.labels)
        return near, limit_of(near, error, _BFLOAT16_ROUNDOFF)

    def device_two(self, rows: Tensor, short: bool) -> tuple[Two, Tensor]:
        """The same away from the CPU, where nothing makes the host wait."""
        norms = torch.linalg.vector_norm(rows, dim=1)

        def limit(near: Two) -> Tensor:
            error = self._error(norms, near.labels)
            if short:
                longest = self._longest(norms, near.labels)
                error += rounding_error(rows).mul_(1.01 * longest).add_(norms * self._lost)
            return limit_of(near, error)

        if self._fused:
            near = fused_two(rows, self._shifted, self._half_norms, short)
            if near is not None:
                found = Two(*near, near.best)
                return found, limit(found)
            self._fused = False  # and so many scores do not fit
        parts = [
            self._best.two(self._scores(part, short), math.inf)[:4]
            for part in rows.split(self.rows_at_once(rows))
        ]
        best, labels, second, seconds = map(torch.cat, zip(*parts, strict=True))
        found = Two(best, labels, second, seconds, best)
        return found, limit(found)

    def rows_at_once(self, z: Tensor) -> int:
        """Rows (N, D) that ``device_two`` takes: all scores are in memory unless it is fused."""
        n_clusters = 1 if self._fused else len(self.centers)
        return chunk_rows(n_clusters, z.shape[1], device=z.device)

    def rough(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The nearest centre of each row and its squared distance, from the scores of a short
        product on a CPU alone; and below which such a distance may as well be 0; each (B,)."""
        norms = torch.linalg.vector_norm(rows, dim=1)
        product, _ = self._short_product(rows, norms)
        near = self._best.short_two(product)
        return near.labels, 2 * near.best, norms.square_().mul_(4 * _BFLOAT16_ROUNDOFF)

    def few(self, rows: Tensor, number: int) -> Tensor:
        """The ``number`` nearest centres (M, B), the nearest first, but for rounding; the same ones
        whatever the other rows."""
        half_norms = torch.linalg.vecdot(rows, rows).div_(2)
        return self._best.few(self._scores(rows), half_norms, number)

    def short_few(self, rows: Tensor, number: int) -> Tensor:
        """The same by a short product on a CPU."""
        norms = torch.linalg.vector_norm(rows, dim=1)
        product, _ = self._short_product(rows, norms)
        return self._best.short_few(product, number)

    def squared_distances(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """||z_i - c_j||^2, (B, K), in one piece, never negative; and the squared norms of the rows
        as they are computed with, (B,)."""
        rows = self.shifted(z)
        squares = torch.linalg.vecdot(rows, rows)
        with products(rows.device):
            scores = torch.addmm(self._half_norms, rows, self._shifted.T, alpha=-1)
        return scores.mul_(2).add_(squares[:, None]).clamp_(min=0), squares

    def squared_distances_to(self, rows: Tensor, labels: Tensor) -> Tensor:
        """From ``rows`` (B, D) to the centres ``labels`` (B,), from the coordinates as they came:
        no digits are lost to cancellation, as in scores they can be, nor to a shift."""
        chosen = scratch("rows", rows, rows.shape, self.dtype)
        torch.index_select(self.centers, 0, labels, out=chosen)
        return torch.linalg.vector_norm(chosen.sub_(rows), dim=1).square_()

    def _scores(self, rows: Tensor, short: bool = False) -> Tensor:
        out = scratch("scores", rows, (len(self.centers), len(rows)), self.dtype)
        with products(rows.device, short):
            half_norms = self._half_norms[:, None]
            return torch.addmm(half_norms, self._shifted, rows.T, alpha=-1, out=out)

    def _reach(self, norms: Tensor) -> float:
        """Twice the largest score of rows with ``norms`` (B,), or more."""
        if not self._on_cpu:  # nobody asks there
            return math.inf
        return float(self._magnitude(norms.max(), self.largest))

    def _magnitude(self, norms: Tensor, longest: Tensor) -> Tensor:
        """Twice the largest score of rows with ``norms``, or more, of the same shape, and of
        centres that are no longer than ``longest``."""
        return (norms + longest).square_()

    def _usual_reach(self, norms: Tensor) -> float:
        """Twice the largest score of the nearest centre, or more, of all rows with ``norms`` (B,)
        but a few."""
        usual = norms.kthvalue(1 + (len(norms) - 1) * 63 // 64).values
        return float(4 * (usual + self._norms.min()).square())

    def _longest(self, norms: Tensor, labels: Tensor) -> Tensor:
        """The norm that the nearest centre has at most (B,), where that of ``labels`` is about as
        near: no farther from the row, and so from the origin, than that one is."""
        if not self._on_cpu:  # where each operation counts
            return self.largest
        return (2 * norms + self._norms[labels]).clamp_(max=self.largest)

    def _short_offset(self, norms: Tensor) -> Tensor:
        """What is added to the short scores of rows with ``norms`` (B,), (B,)."""
        return norms.square().div_(2)

    def _error(self, norms: Tensor, labels: Tensor) -> Tensor:
        """Bound (B,) of the error of the score of the nearest centre, and of that of ``labels``:
        D + 2 additions of products |z| |c| at most."""
        eps = torch.finfo(self.dtype).eps * (self.centers.shape[1] + 2)
        longest = self._longest(norms, labels)
        return (norms + longest).mul_(longest).mul_(eps)

    def _short_product(self, rows: Tensor, norms: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (K, B) in bfloat16, and the factor (B, D + 4) that went in for the rows.

        Half the squared norms go in as two more columns each, so that it is half the squared
        distance: near centres, for which it is small, lose least by the last rounding.
        """
        n_rows, n_features = rows.shape
        factors = scratch("factors", rows, (n_rows, n_features + 4), torch.bfloat16)
        factors[:, :n_features].copy_(rows)
        half = self._short_offset(norms)
        factors[:, n_features] = half
        factors[:, n_features + 1] = half - factors[:, n_features]
        factors[:, n_features + 2 :] = 1.0
        product = scratch("product", rows, (len(self.centers), n_rows), torch.bfloat16)
        return torch.mm(self._short_centers, factors.T, out=product), factors

    def _short_error(self, rows: Tensor, norms: Tensor, factors: Tensor, labels: Tensor) -> Tensor:
        """Bound (B,) of the error of such scores before the last rounding."""
        n_features = rows.shape[1]
        rounded = scratch("rows", rows, rows.shape, self.dtype).copy_(factors[:, :n_features])
        # 1.01: the rounded centre may be longer than the centre.
        longest = self._longest(norms, labels)
        error = torch.linalg.vector_norm(rounded.sub_(rows), dim=1).mul_(1.01 * longest)
        # Two columns hold a norm to 2**-16.
        eps = torch.finfo(self.dtype).eps * (n_features + 6) + _BFLOAT16_ROUNDOFF**2
        lost = torch.minimum(longest * _BFLOAT16_ROUNDOFF, self._lost)
        return error.add_(norms * lost).add_(self._magnitude(norms, longest).mul_(eps))

    @cached_property
    def _lost(self) -> Tensor:
        """The norm of what a centre loses in a short product, at most."""
        return rounding_error(self._shifted).max()

    @cached_property
    def _short_centers(self) -> Tensor:
        """The factor (K, D + 4) that goes with the one of the rows."""
        rough = self._half_norms.bfloat16()
        one = torch.ones_like(rough)
        columns = one, one, rough, (self._half_norms - rough).bfloat16()
        return torch.cat([-self._shifted.bfloat16(), torch.stack(columns, dim=1)], dim=1)
