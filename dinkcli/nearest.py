"""Nearest centres in chunks: labels that do not depend on how the rows were batched.

Shapes: N rows, K clusters, D features.

A float32 matrix product rounds differently for different batch shapes, so two centres at nearly
the same distance from a row could swap between runs. Rows whose two best scores are closer than
the rounding bound are therefore scored again in float64 from the coordinates. The label of a row
is that of the float64 distances, whatever the batch; an exact tie goes to the lowest index.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from dinkcli.objective import accumulation_dtype

# 4096 rows measured best at K from 10 to 1000; many centres get fewer rows so that a chunk of
# scores stays near 32 MB.
_CHUNK_ROWS = 4096
_CHUNK_SCORES = 1 << 23
_RESCORE_ELEMENTS = 1 << 22


def chunk_rows(n_clusters: int) -> int:
    """Rows whose scores against K centres are computed at once."""
    return max(1, min(_CHUNK_ROWS, _CHUNK_SCORES // n_clusters))


class Nearest(NamedTuple):
    """The nearest and the second-nearest centre of each row: index (N,), squared distance (N,).

    With one centre, the second is that centre again, at an infinite distance.
    """

    labels: Tensor
    squared_distances: Tensor
    second_labels: Tensor
    second_squared_distances: Tensor


class CenterIndex:
    """Centres made ready for distance computations: shifted to their mean, norms at hand.

    The shift keeps float32 digits when the data lie far from the origin; ``centered=True`` leaves
    it out for data that lie around the origin already. Half precision is computed in float32.
    """

    def __init__(self, cluster_centers: Tensor, centered: bool = False):
        centers = cluster_centers.detach()
        self.dtype = accumulation_dtype(centers.dtype)
        self.centers = centers.to(self.dtype)
        self.shift: Tensor | None = None
        self.shifted = self.centers
        if not centered:
            self.shift = self.centers.mean(0)
            self.shifted = self.centers - self.shift
        self.half_norms = self.shifted.square().sum(1) / 2

    @property
    def n_clusters(self) -> int:
        return len(self.centers)

    def chunks(self, z: Tensor) -> Iterator[Tensor]:
        """The rows of ``z`` (N, D) in pieces whose (rows, K) scores stay small."""
        return iter(z.split(chunk_rows(self.n_clusters)))

    def squared_distances(self, z: Tensor) -> Tensor:
        """||z_i - c_j||^2, (N, K), in one piece; never negative."""
        rows = self._shift(z)
        scores = torch.addmm(self.half_norms, rows, self.shifted.T, alpha=-1)
        return scores.mul_(2).add_(rows.square().sum(1, keepdim=True)).clamp_(min=0)

    def nearest(self, z: Tensor, exact: bool = True) -> Nearest:
        """The nearest centre of each row of ``z`` (N, D).

        ``exact=False`` leaves out the float64 pass over near-ties (training does not need it).
        """
        parts = [self._nearest_in_chunk(rows, exact) for rows in self.chunks(z)]
        return parts[0] if len(parts) == 1 else Nearest(*map(torch.cat, zip(*parts, strict=True)))

    def _shift(self, z: Tensor) -> Tensor:
        z = z.to(self.dtype)
        return z if self.shift is None else z - self.shift

    def _nearest_in_chunk(self, z: Tensor, exact: bool) -> Nearest:
        rows = self._shift(z)
        scores = torch.addmm(self.half_norms, rows, self.shifted.T, alpha=-1)
        best, labels = scores.min(1)
        # Hiding the best score costs less than a top-2 search, and its column is known.
        scores.scatter_(1, labels[:, None], torch.inf)
        second, second_labels = scores.min(1)
        norms = rows.square().sum(1)
        if exact:
            limit = best + self._rounding_bound(norms)
            ties = (second <= limit).nonzero()[:, 0]
            if len(ties):
                candidates = scores[ties] <= limit[ties, None]
                candidates[torch.arange(len(ties), device=z.device), labels[ties]] = True
                labels[ties] = self._rescore(z[ties], candidates)
        best, second = (score.mul_(2).add_(norms).clamp_(min=0) for score in (best, second))
        return Nearest(labels, best, second_labels, second)

    def _rounding_bound(self, squared_norms: Tensor) -> Tensor:
        """Twice the rounding error of one score: D + 2 additions of products |z| |c| at most."""
        eps = torch.finfo(self.dtype).eps * 2 * (self.shifted.shape[1] + 2)
        largest = (2 * self.half_norms.max()).sqrt()
        return eps * largest * (squared_norms.sqrt() + largest)

    def _rescore(self, z: Tensor, candidates: Tensor) -> Tensor:
        """Labels of the rows ``z`` (M, D) among ``candidates`` (M, K) bool, in float64."""
        pairs = candidates.nonzero()  # by row, then by centre: the first of a row is its lowest
        exact_dtype = torch.float32 if z.device.type == "mps" else torch.float64  # MPS has no f64
        distances = torch.cat(
            [
                (z[row].to(exact_dtype) - self.centers[center].to(exact_dtype)).square().sum(1)
                for row, center in (
                    part.unbind(1) for part in pairs.split(max(1, _RESCORE_ELEMENTS // z.shape[1]))
                )
            ]
        )
        row, center = pairs.unbind(1)
        least = distances.new_full((len(z),), torch.inf)
        least.scatter_reduce_(0, row, distances, "amin")
        label = torch.where(distances == least[row], center, self.n_clusters)
        result = torch.full((len(z),), self.n_clusters, dtype=torch.int64, device=z.device)
        return result.scatter_reduce_(0, row, label, "amin")
