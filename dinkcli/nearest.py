"""Nearest centres in chunks: labels that do not depend on how the rows were batched.

Shapes: N rows, K clusters, D features.

A float32 matrix product rounds differently for different batch shapes, and the short products of
matrix units are off by more (see ``products``), so two centres at nearly the same distance from a
row could swap between runs. Rows whose two best scores are closer than the rounding bound are
therefore scored again in float64 from the coordinates: a few in a hundred with short products. The
label of a row is that of the float64 distances, whatever the batch; an exact tie goes to the
lowest index.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from dinkcli.objective import accumulation_dtype
from dinkcli.products import has_short_products, products, rounding_error

# 1024 to 4096 rows measured alike at K from 20 to 1000; many centres get fewer rows so that a chunk
# of scores stays near 16 MB.
_CHUNK_ROWS = 2048
_CHUNK_SCORES = 1 << 22
_RESCORE_ELEMENTS = 1 << 22
# With fewer centres the products are too small a part of the work to win anything.
_SHORT_CLUSTERS = 128
# Centres are shifted when their mean is this many times as far from the origin as they are from it.
_FAR = 0.5
# One distance taken in float64 costs about as much as this many scores by a float32 product.
_RESCORE_COST = 256


def chunk_rows(n_clusters: int) -> int:
    """Rows whose scores against K centres are computed at once."""
    return max(1, min(_CHUNK_ROWS, _CHUNK_SCORES // n_clusters))


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
        self._largest = (2 * self.half_norms.max()).sqrt()
        self._lost = rounding_error(self.shifted).max()
        self.short = len(centers) >= _SHORT_CLUSTERS and has_short_products(
            centers.device, self.dtype
        )

    @property
    def n_clusters(self) -> int:
        return len(self.centers)

    def chunks(self, z: Tensor) -> Iterator[Tensor]:
        """The rows of ``z`` (N, D) in pieces whose (rows, K) scores stay small."""
        return iter(z.split(chunk_rows(self.n_clusters)))

    def squared_distances(self, z: Tensor) -> Tensor:
        """||z_i - c_j||^2, (N, K), in one piece; never negative."""
        rows = self._shift(z)
        scores = self._scores(rows, short=False)
        return scores.mul_(2).add_(rows.square().sum(1, keepdim=True)).clamp_(min=0)

    def labels(self, z: Tensor) -> Tensor:
        """Index of the nearest centre of each row of ``z`` (N, D), (N,) int64."""
        labels = _empty(z, torch.int64)
        for rows, label in zip(self.chunks(z), self.chunks(labels), strict=True):
            label.copy_(self._search(rows, self._shift(rows))[0])
        return labels

    def nearest(self, z: Tensor) -> Nearest:
        """The nearest centre of each row of ``z`` (N, D), and how far it is."""
        found = Nearest(_empty(z, torch.int64), _empty(z, self.dtype))
        for chunk, *results in zip(self.chunks(z), *map(self.chunks, found), strict=True):
            rows = self._shift(chunk)
            labels = self._search(chunk, rows)[0]
            _fill(results, labels, self._squared_distances_to(rows, labels))
        return found

    def nearest_two(self, z: Tensor) -> NearestTwo:
        """The two nearest centres of each row of ``z`` (N, D), and how far they are."""
        found = NearestTwo(*[_empty(z, dtype) for dtype in (torch.int64, self.dtype) * 2])
        for chunk, *results in zip(self.chunks(z), *map(self.chunks, found), strict=True):
            rows = self._shift(chunk)
            labels, second = self._search(chunk, rows, two=True)
            assert second is not None
            distances = [self._squared_distances_to(rows, each) for each in (labels, second)]
            if self.n_clusters == 1:
                distances[1] = torch.full_like(distances[1], torch.inf)
            _fill(results, labels, distances[0], second, distances[1])
        return found

    def _shift(self, z: Tensor) -> Tensor:
        z = z.to(self.dtype)
        return z if self.shift is None else z - self.shift

    def _scores(self, rows: Tensor, short: bool) -> Tensor:
        """Half the squared distance less half the row's squared norm, (N, K)."""
        with products(rows.device, short):
            return torch.addmm(self.half_norms, rows, self.shifted.T, alpha=-1)

    def _squared_distances_to(self, rows: Tensor, labels: Tensor) -> Tensor:
        """From the coordinates: no digits are lost to cancellation, as in scores they can be."""
        difference = self.shifted.index_select(0, labels).sub_(rows)
        return torch.linalg.vector_norm(difference, dim=1).square_()

    def _search(
        self, z: Tensor, rows: Tensor, two: bool = False, short: bool | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The nearest centres of a chunk (N,), and the second ones when asked for ``two``.

        ``rows`` is ``z`` shifted.
        """
        if short is None:
            short = self.short
        scores = self._scores(rows, short)
        best, labels = scores.min(1)
        # Hiding the best score costs less than a top-2 search, and its column is known.
        scores.scatter_(1, labels[:, None], torch.inf)
        second_labels = None
        if two:
            second, second_labels = scores.min(1)
        else:
            second = scores.amin(1)
        limit = best + self._rounding_bound(rows, short)
        ties = (second <= limit).nonzero()[:, 0]
        if len(ties) == 0:
            return labels, second_labels
        first = labels[ties]
        scores = scores[ties].scatter_(1, first[:, None], -torch.inf)
        counts = (scores <= limit[ties, None]).sum(1)
        if short and _RESCORE_COST * int(counts.sum()) > len(z) * self.n_clusters:
            return self._search(z, rows, two, short=False)
        candidates = scores.topk(int(counts.max()), largest=False).indices
        exact = self._rescore(z[ties], candidates, counts)
        labels[ties] = exact
        if second_labels is not None:
            second_labels[ties] = torch.where(exact == first, second_labels[ties], first)
        return labels, second_labels

    def _rounding_bound(self, rows: Tensor, short: bool) -> Tensor:
        """Twice the error of one score: D + 2 additions of products |z| |c| at most, and in short
        products what rounding both factors loses."""
        norms = torch.linalg.vector_norm(rows, dim=1)
        eps = torch.finfo(self.dtype).eps * 2 * (rows.shape[1] + 2)
        bound = (norms + self._largest).mul_(eps * self._largest)
        if short:
            # 1.01: the rounded centre may be longer than the centre.
            lost = rounding_error(rows).mul_(1.01 * self._largest)
            bound += lost.add_(norms.mul_(self._lost)).mul_(2)
        return bound

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


def _empty(z: Tensor, dtype: torch.dtype) -> Tensor:
    """(N,). Made before the chunks: small results that outlive the scores of their chunk keep
    the allocator from using that place again, which came to hundreds of MB."""
    return torch.empty(len(z), dtype=dtype, device=z.device)


def _fill(results: list[Tensor], *found: Tensor) -> None:
    for result, values in zip(results, found, strict=True):
        result.copy_(values)
