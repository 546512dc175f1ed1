"""Nearest centres in chunks: labels that do not depend on how the rows were batched.

Shapes: N rows, B rows of a chunk, K clusters, D features.

A float32 matrix product rounds differently for different batch shapes, and products of bfloat16
factors, twice as fast or more where the CPU has them, are off by more; so two centres at nearly the
same distance from a row could swap between runs. Rows whose two best scores are closer than the
rounding bound are therefore looked at again: after short products in float32, after those in
float64 from the coordinates. The label of a row is that of the float64 distances, whatever the
batch; an exact tie goes to the lowest index.

Scores are (K, B): reductions over centres then take many rows at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from dinkcli.objective import accumulation_dtype
from dinkcli.products import has_short_factors, has_short_products, products, rounding_error
from dinkcli.scores import BestTwo, Scratch, Two, limit_of, ties_of

_CHUNK_ROWS = 2048
_CHUNK_SCORES = 1 << 22
_MOST_SCORES = 1 << 24  # for the sake of aligned rows
# Where chunks of 2048 rows are small, what is done for each chunk costs more than they do.
_CACHED_NUMBERS = 3 << 18
# Products of a multiple of this many rows are a quarter faster.
_ALIGNED_ROWS = 64
_RESCORE_ELEMENTS = 1 << 22
# With less, conversion costs more than the faster product wins.
_SHORT_CLUSTERS = 48
_SHORT_CENTERS = 1 << 15  # numbers
_SHORT_ROWS = 64
# Centres are shifted when their mean is this many times as far from the origin as they are from it.
_FAR = 0.5
# More doubtful rows than this share, and short products are not worth their second look.
_MANY = 0.3
_BFLOAT16_ROUNDOFF = 2.0**-8


def chunk_rows(n_clusters: int, n_features: int) -> int:
    """Rows (of D features) whose scores against K centres are computed at once."""
    cached = _CACHED_NUMBERS // max(n_clusters, n_features)
    rows = min(max(_CHUNK_ROWS, cached), _CHUNK_SCORES // n_clusters)
    if rows < _ALIGNED_ROWS:
        return max(1, min(_ALIGNED_ROWS, _MOST_SCORES // n_clusters))
    return rows // _ALIGNED_ROWS * _ALIGNED_ROWS


class Nearest(NamedTuple):
    """The nearest centre of each row: index (N,) and squared distance (N,)."""

    labels: Tensor
    squared_distances: Tensor


class NearestTwo(NamedTuple):
    """The nearest and the second-nearest centre of each row: index (N,), squared distance (N,).

    With one centre, the second is that centre again, at an infinite distance. Which of two nearly
    equal centres is second is left to rounding.
    """

    labels: Tensor
    squared_distances: Tensor
    second_labels: Tensor
    second_squared_distances: Tensor


class _Ties(NamedTuple):
    """Rows (M,) with their scores (M, K) and what a score of the nearest centre is at most (M,)."""

    rows: Tensor
    scores: Tensor
    limit: Tensor


class CenterIndex:
    """Centres made ready for distance computations, norms at hand.

    Centres far from the origin, and the rows with them, are shifted to the mean centre, which
    keeps float32 digits. Half precision is computed in float32.
    """

    def __init__(self, cluster_centers: Tensor):
        centers = cluster_centers.detach()
        self.dtype = accumulation_dtype(centers.dtype)
        self.centers = centers.to(self.dtype)
        mean = self.centers.mean(0)
        spread = torch.linalg.vector_norm(self.centers - mean, dim=1).max()
        far = bool(torch.linalg.vector_norm(mean) > _FAR * spread)
        self.shift = mean if far else None
        self.shifted = self.centers - mean if far else self.centers
        self.half_norms = self.shifted.square().sum(1) / 2
        self.largest = (2 * self.half_norms.max()).sqrt()
        self._lost = rounding_error(self.shifted).max()
        device = centers.device
        self._find_two = BestTwo(len(centers), self.dtype, device)
        on_cpu = device.type == "cpu"
        available = has_short_factors() if on_cpu else has_short_products(device, self.dtype)
        large = len(centers) >= _SHORT_CLUSTERS and centers.numel() >= _SHORT_CENTERS
        self.short = available and large and self.dtype == torch.float32

    @property
    def n_clusters(self) -> int:
        return len(self.centers)

    def chunks(self, z: Tensor) -> Iterator[Tensor]:
        """The rows of ``z`` (N, D) in pieces whose (rows, K) scores stay small."""
        return iter(z.split(chunk_rows(*self.centers.shape)))

    def squared_distances(self, z: Tensor) -> Tensor:
        """||z_i - c_j||^2, (N, K), in one piece; never negative."""
        rows = self._shift(z, Scratch(z.device))
        with products(rows.device):
            scores = torch.addmm(self.half_norms, rows, self.shifted.T, alpha=-1)
        return scores.mul_(2).add_(rows.square().sum(1, keepdim=True)).clamp_(min=0)

    def labels(self, z: Tensor) -> Tensor:
        """Index of the nearest centre of each row of ``z`` (N, D), (N,) int64."""
        return self._search(z)[0]

    def nearest(self, z: Tensor) -> Nearest:
        """The nearest centre of each row of ``z`` (N, D), and how far it is."""
        labels, _, distances, _ = self._search(z, distances=True)
        return Nearest(labels, distances)

    def nearest_two(self, z: Tensor) -> NearestTwo:
        """The two nearest centres of each row of ``z`` (N, D), and how far they are."""
        labels, second, distances, second_distances = self._search(z, distances=True, two=True)
        if self.n_clusters == 1:
            second_distances.fill_(torch.inf)
        return NearestTwo(labels, distances, second, second_distances)

    def squared_distances_to(self, z: Tensor, labels: Tensor) -> Tensor:
        """How far each row of ``z`` (N, D) is from the centre of its label (N,), squared, (N,)."""
        scratch = Scratch(z.device)
        found = torch.empty(len(z), dtype=self.dtype, device=z.device)
        start = 0
        for chunk in self.chunks(z) if len(z) else ():
            where = slice(start, start + len(chunk))
            rows = self._shift(chunk, scratch)
            found[where] = self._squared_distances_to(rows, labels[where], scratch)
            start += len(chunk)
        return found

    def _search(
        self, z: Tensor, distances: bool = False, two: bool = False, exact: bool = False
    ) -> list[Tensor]:
        """Labels, second labels, and squared distances to both, each (N,), or (0,) where they are
        not asked for. ``exact`` rules out short products."""
        short = self.short and not exact and len(z) >= _SHORT_ROWS
        scratch = Scratch(z.device)
        found = [
            torch.empty(len(z) if asked else 0, dtype=dtype, device=z.device)
            for asked, dtype in (
                (True, torch.int64),
                (two, torch.int64),
                (distances, self.dtype),
                (distances and two, self.dtype),
            )
        ]
        doubtful: list[Tensor] = []
        ties: list[_Ties] = []
        start = 0
        for chunk in self.chunks(z) if len(z) else ():
            rows = self._shift(chunk, scratch)
            norms = torch.linalg.vector_norm(rows, dim=1)
            if short:
                scores, error = self._short_scores(rows, norms, scratch)
                near = self._best_two(scores, norms)
                where = ties_of(near, limit_of(near, error, _BFLOAT16_ROUNDOFF))
                short = len(where) <= _MANY * len(chunk)
                doubtful.append(where + start)
            else:
                near = self._best_two(self._scores(rows, scratch), norms)
                limit = limit_of(near, self._error(norms))
                where = ties_of(near, limit)
                if len(where):
                    ties.append(_Ties(where + start, near.of(where), limit[where]))
            self._put(found, slice(start, start + len(chunk)), rows, near.labels, near.seconds)
            if sum(some.scores.numel() for some in ties) > _CHUNK_SCORES:
                self._settle(z, ties, found)
                ties = []
            start += len(chunk)
        if ties:
            self._settle(z, ties, found)
        if doubtful:
            self._look_again(z, torch.cat(doubtful), found)
        return found

    def _look_again(self, z: Tensor, where: Tensor, found: list[Tensor]) -> None:
        """Replaces what short products have found about the rows ``where``."""
        _, second, distances, _ = found
        again = self._search(z[where], len(distances) > 0, len(second) > 0, exact=True)
        for values, right in zip(found, again, strict=True):
            if len(values):
                values[where] = right

    def _put(
        self,
        found: list[Tensor],
        where: slice | Tensor,
        rows: Tensor,
        labels: Tensor,
        seconds: Tensor,
    ) -> None:
        """Writes what ``_search`` gives about the shifted ``rows`` (B, D)."""
        scratch = Scratch(rows.device)
        for numbers, target, distances in zip((labels, seconds), found[:2], found[2:], strict=True):
            if len(target):
                target[where] = numbers
            if len(distances):
                distances[where] = self._squared_distances_to(rows, numbers, scratch)

    def _shift(self, z: Tensor, scratch: Scratch) -> Tensor:
        z = z.to(self.dtype)
        if self.shift is None:
            return z
        return torch.sub(z, self.shift, out=scratch("shifted", z.shape, self.dtype))

    def _scores(self, rows: Tensor, scratch: Scratch, short: bool = False) -> Tensor:
        """Half the squared distance less half the row's squared norm, (K, B)."""
        out = scratch("scores", (self.n_clusters, len(rows)), self.dtype)
        with products(rows.device, short):
            return torch.addmm(self.half_norms[:, None], self.shifted, rows.T, alpha=-1, out=out)

    def _short_scores(self, rows: Tensor, norms: Tensor, scratch: Scratch) -> tuple[Tensor, Tensor]:
        """Scores (K, B) from a short product, and the bound of their error (B,) before the last
        rounding.

        On CPUs the factors are bfloat16, and so is what comes out, which rounds it once more.
        Half the squared norms go in as two more columns each, so that it is half the squared
        distance: near centres, for which it is small, lose least by the rounding.
        """
        norms_c = norms + self.largest
        eps = torch.finfo(self.dtype).eps
        if rows.device.type != "cpu":
            lost = rounding_error(rows)
            error = lost.mul_(1.01 * self.largest).add_(norms * self._lost)
            error.add_(norms_c.mul_(eps * (rows.shape[1] + 2) * self.largest))
            return self._scores(rows, scratch, short=True), error
        n_rows, n_features = rows.shape
        factors = scratch("factors", (n_rows, n_features + 4), torch.bfloat16)
        factors[:, :n_features].copy_(rows)
        half = norms.square().div_(2)
        factors[:, n_features] = half
        factors[:, n_features + 1] = half - factors[:, n_features]
        factors[:, n_features + 2 :] = 1.0
        rounded = scratch("rows", rows.shape, self.dtype).copy_(factors[:, :n_features])
        # 1.01: the rounded centre may be longer than the centre.
        error = torch.linalg.vector_norm(rounded.sub_(rows), dim=1).mul_(1.01 * self.largest)
        # Two columns hold a norm to 2**-16.
        error.add_(norms * self._lost).add_(
            norms_c.square_().mul_(eps * (n_features + 6) + _BFLOAT16_ROUNDOFF**2)
        )
        product = scratch("product", (self.n_clusters, n_rows), torch.bfloat16)
        torch.mm(self._short_centers, factors.T, out=product)
        return scratch("scores", product.shape, self.dtype).copy_(product), error

    @cached_property
    def _short_centers(self) -> Tensor:
        """The factor (K, D + 4) that goes with the one of the rows."""
        rough = self.half_norms.bfloat16()
        one = torch.ones_like(rough)
        columns = one, one, rough, (self.half_norms - rough).bfloat16()
        return torch.cat([-self.shifted.bfloat16(), torch.stack(columns, dim=1)], dim=1)

    def _best_two(self, scores: Tensor, norms: Tensor) -> Two:
        """The two lowest of the ``scores`` (K, B) of rows with ``norms`` (B,)."""
        return self._find_two(scores, float((norms.max() + self.largest).square_()))

    def _error(self, norms: Tensor) -> Tensor:
        """Bound of the error of one score: D + 2 additions of products |z| |c| at most."""
        eps = torch.finfo(self.dtype).eps * (self.shifted.shape[1] + 2)
        return (norms + self.largest).mul_(eps * self.largest)

    def _settle(self, z: Tensor, ties: list[_Ties], found: list[Tensor]) -> None:
        """Puts labels right, by float64 distances to all centres that may be the nearest."""
        where, scores, limit = (torch.cat(parts) for parts in zip(*ties, strict=True))
        first = found[0][where]
        scores.scatter_(1, first[:, None], -torch.inf)
        counts = (scores <= limit[:, None]).sum(1)
        candidates = scores.topk(int(counts.max()), largest=False).indices
        exact = self._rescore(z[where], candidates, counts)
        seconds = torch.where(exact == first, found[1][where], first) if len(found[1]) else first
        self._put(found, where, self._shift(z[where], Scratch(z.device)), exact, seconds)

    def _squared_distances_to(self, rows: Tensor, labels: Tensor, scratch: Scratch) -> Tensor:
        """From the coordinates: no digits are lost to cancellation, as in scores they can be."""
        chosen = scratch("rows", rows.shape, self.dtype)
        torch.index_select(self.shifted, 0, labels, out=chosen)
        return torch.linalg.vector_norm(chosen.sub_(rows), dim=1).square_()

    def _rescore(self, z: Tensor, candidates: Tensor, counts: Tensor) -> Tensor:
        """Labels (M,) of the rows ``z`` (M, D) in float64, among the first ``counts`` (M,) of the
        ``candidates`` (M, C)."""
        listed = torch.arange(candidates.shape[1], device=z.device) < counts[:, None]
        row, position = listed.nonzero().unbind(1)
        center = candidates[row, position]
        exact_dtype = torch.float32 if z.device.type == "mps" else torch.float64  # MPS has no f64
        pairs = max(1, _RESCORE_ELEMENTS // z.shape[1])
        distances = torch.cat(
            [
                (z[r].to(exact_dtype) - self.centers[c].to(exact_dtype)).square().sum(1)
                for r, c in zip(row.split(pairs), center.split(pairs), strict=True)
            ]
        )
        least = distances.new_full((len(z),), torch.inf)
        least.scatter_reduce_(0, row, distances, "amin")
        label = torch.where(distances == least[row], center, self.n_clusters)
        result = torch.full((len(z),), self.n_clusters, dtype=torch.int64, device=z.device)
        return result.scatter_reduce_(0, row, label, "amin")
