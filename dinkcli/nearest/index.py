"""Nearest centres in chunks: labels that do not depend on how the rows were batched.

A float32 matrix product rounds differently for different batch shapes, and products of bfloat16
factors, twice as fast or more where the CPU has them, are off by more; so two centres at nearly the
same distance from a row could swap between runs. Rows whose two best scores are closer than the
rounding bound are therefore looked at again: after products of low precision in float32, after
those in float64 from the coordinates. The label of a row is that of the float64 distances,
whatever the batch; an exact tie goes to the lowest index.

Shapes: N rows, B rows of a chunk, K clusters, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dinkcli.nearest.hardware import (
    chunk_rows,
    has_bfloat16,
    has_float64,
    numbers_at_once,
    products,
)
from dinkcli.nearest.prepare import RowMap
from dinkcli.nearest.scorer import Scorer
from dinkcli.nearest.small import CHUNK_SCORES, squares_between

_LEAST_ROWS = 64  # for which products of low precision pay
_MANY = 0.3  # More doubtful rows than this share, and they are not worth their second look.
# Coordinates of pairs of a row and a centre that are looked at together in float64, on a CPU.
_CACHED_PAIRS = 1 << 22
_MANY_SEEDS = 48  # for which bfloat16 products, where a CPU has them, are faster


class Nearest(NamedTuple):
    """The nearest centre of each row: index (N,) and squared distance (N,)."""

    labels: Tensor
    squared_distances: Tensor


class NearestTwo(NamedTuple):
    """The nearest and the second-nearest centre of each row (N,). With one centre, the second is
    that again, at an infinite distance. Which of two nearly equal centres is second is left to
    rounding."""

    labels: Tensor
    squared_distances: Tensor
    second_labels: Tensor
    second_squared_distances: Tensor


class CenterIndex:
    """Finds the nearest of K centres.

    Args:
        cluster_centers: (K, D), of any floating dtype.
        row_map: where it is given, the centres are among rows under it, and ``labels`` takes rows
            (N, D) as they are. The other methods do not serve then.
    """

    def __init__(self, cluster_centers: Tensor, row_map: RowMap | None = None):
        self._map = row_map
        self.scorer = Scorer(cluster_centers, row_map)
        self.centers, self.n_clusters = self.scorer.centers, len(self.scorer.centers)
        self._on_cpu = self.centers.device.type == "cpu"

    def chunks(self, z: Tensor) -> Iterator[Tensor]:
        """The rows of ``z`` (N, D) in pieces whose (rows, K) scores stay small."""
        return iter(z.split(chunk_rows(*self.centers.shape, device=z.device)))

    def squared_distances(self, z: Tensor) -> Tensor:
        """||z_i - c_j||^2, (N, K), in one piece; never negative."""
        return self.scorer.squared_distances(z)[0]

    def squared_distances_to(self, z: Tensor, labels: Tensor) -> Tensor:
        """How far each row of ``z`` (N, D) is from the centre of its label (N,), squared, (N,)."""
        parts = zip(self.chunks(z), self.chunks(labels), strict=True)
        return torch.cat([self.scorer.squared_distances_to(*part) for part in parts])

    def labels(self, z: Tensor) -> Tensor:
        """Index of the nearest centre of each row of ``z`` (N, D), (N,) int64."""
        return self._two(z)[0]

    def nearest(self, z: Tensor) -> Nearest:
        """The nearest centre of each row of ``z`` (N, D), and how far it is."""
        labels = self.labels(z)
        return Nearest(labels, self.squared_distances_to(z, labels))

    def nearest_two(self, z: Tensor, approximate: bool = False) -> NearestTwo:
        """The two nearest centres of each row of ``z`` (N, D), the nearer one first; with
        ``approximate``, where a CPU is faster for it, any of the centres about as near."""
        if approximate and self._on_cpu and self.scorer.low_precision_pays:
            (a, b), (near, far) = self.nearest_few(z, 2, True)
            turned = far < near
            labels, seconds = torch.where(turned, b, a), torch.where(turned, a, b)
            return NearestTwo(labels, torch.minimum(near, far), seconds, torch.maximum(near, far))
        labels, seconds = self._two(z)
        near, far = (self.squared_distances_to(z, each) for each in (labels, seconds))
        if self.n_clusters == 1:
            far.fill_(torch.inf)
        return NearestTwo(labels, near, seconds, far)

    def nearest_approximate(self, z: Tensor) -> Nearest:
        """Like ``nearest``, but where a CPU is faster for it, any of the centres about as near is
        taken, and distances are off by the rounding of bfloat16, but for those near 0."""
        if not (self._on_cpu and self.scorer.low_precision_pays):
            return self.nearest(z)
        parts = [self.scorer.bfloat16_nearest(self.scorer.shifted(rows)) for rows in self.chunks(z)]
        labels, distances, noise = map(torch.cat, zip(*parts, strict=True))
        again = (distances <= noise).nonzero()[:, 0]
        labels[again], distances[again] = self.nearest(z[again])
        return Nearest(labels, distances)

    def nearest_few(self, z: Tensor, number: int, approximate: bool) -> tuple[Tensor, Tensor]:
        """The ``number`` M <= K nearest centres of each row of ``z`` (N, D), the nearest first:
        indices (M, N) and squared distances (M, N), exact to float32.

        Which they are, and their order, is left to the rounding of products (of bfloat16 numbers
        with ``approximate``, where a CPU has them) and to 2**-13 or so of a distance.
        """
        parts = []
        for rows in self.chunks(z):
            labels = self.scorer.few(self.scorer.shifted(rows), number, approximate)
            squares = [self.scorer.squared_distances_to(rows, label) for label in labels]
            parts.append((labels, torch.stack(squares)))
        labels, distances = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        return labels, distances

    def _two(self, z: Tensor, low_precision: bool = True) -> Tensor:
        """The nearest and the second-nearest centre, (2, N) int64: by products of low precision
        where they pay, then by float32 ones where these leave doubt, then in float64."""
        result = torch.empty((2, len(z)), dtype=torch.int64, device=z.device)
        low_precision &= self.scorer.low_precision_pays and len(z) >= _LEAST_ROWS
        doubtful: list[Tensor] = []
        # Rows (M,), their scores (M, K), and what a score of the nearest centre is at most (M,).
        ties: list[tuple[Tensor, Tensor, Tensor]] = []
        start = 0
        for rows in self.chunks(z) if len(z) else ():
            near, limit = self.scorer.two(self.scorer.shifted(rows), low_precision)
            result[0, start : start + len(rows)] = near.labels
            result[1, start : start + len(rows)] = near.seconds
            # The second centre may be the nearer one.
            tied = near.second <= limit
            if low_precision:
                doubtful.append(tied)
                if self._on_cpu:  # elsewhere the host waits once, when all is told
                    low_precision = bool(tied.sum() <= _MANY * len(rows))
            elif len(where := tied.nonzero()[:, 0]):
                ties.append((where + start, near.of(where), limit[where]))
                pending = sum(scores.numel() for _, scores, _ in ties)
                if pending > numbers_at_once(z.device, CHUNK_SCORES):
                    self._settle(z, ties, result)
                    ties = []
            start += len(rows)
        if ties:
            self._settle(z, ties, result)
        if doubtful:
            where = torch.cat(doubtful).nonzero()[:, 0]
            if not self._on_cpu and len(where) > _MANY * len(z):
                self.scorer.low_precision_pays = False
            if len(where):
                result[:, where] = self._two(z[where], low_precision=False)
        return result

    def _settle(self, z: Tensor, ties: Sequence[tuple[Tensor, ...]], result: Tensor) -> None:
        """Puts the ``result`` (2, N) right for rows of ``z``, by float64 distances to all centres
        that may be the nearest; an exact tie goes to the lowest number."""
        where, scores, limit = (torch.cat(parts) for parts in zip(*ties, strict=True))
        first, second = result[:, where]
        scores.scatter_(1, first[:, None], -torch.inf)
        row, center = (scores <= limit[:, None]).nonzero().unbind(1)
        rows = z[where] if self._map is None else self._map(z[where])
        # Few: where the device has no float64, the CPU has.
        device = z.device if has_float64(z.device) else torch.device("cpu")
        row, center = row.to(device), center.to(device)
        distances = squares_of_pairs(rows.to(device), self.centers.to(device), row, center)
        least = distances.new_full((len(rows),), torch.inf)
        least.scatter_reduce_(0, row, distances, "amin")
        label = torch.where(distances == least[row], center, self.n_clusters)
        exact = torch.full((len(rows),), self.n_clusters, dtype=torch.int64, device=device)
        exact = exact.scatter_reduce_(0, row, label, "amin").to(z.device)
        result[:, where] = torch.stack([exact, torch.where(exact == first, second, first)])


def squares_of_pairs(z: Tensor, centers: Tensor, row: Tensor, center: Tensor) -> Tensor:
    """Squared distances (P,) float64 of P pairs of a ``row`` of ``z`` and a ``center``."""
    pairs = max(1, numbers_at_once(z.device, 4 * _CACHED_PAIRS) // (4 * z.shape[1]))
    parts = zip(row.split(pairs), center.split(pairs), strict=True)
    return torch.cat([squares_between(z[r].double(), centers[c].double()) for r, c in parts])


def nearest_seeds(z: Tensor, norms: Tensor, seeds: Tensor) -> Nearest:
    """The nearest of the ``seeds`` (K, D) of each row of ``z`` (N, D) with squared ``norms`` (N,),
    and about how far it is; about as near will do, but copies of a seed are at distance 0."""
    if len(seeds) >= _MANY_SEEDS and z.device.type == "cpu" and has_bfloat16():
        return CenterIndex(seeds).nearest_approximate(z)
    squares = seeds.square().sum(1)
    rows = chunk_rows(*seeds.shape, device=z.device)
    with products(z.device):
        parts = [torch.addmm(squares, part, seeds.T, alpha=-2).min(1) for part in z.split(rows)]
    distances = torch.cat([least for least, _ in parts]).add_(norms)
    # Rounding leaves about this much where the distance is truly zero.
    noise = 4 * torch.finfo(z.dtype).eps * z.shape[1] ** 0.5 * norms
    distances[distances <= noise] = 0.0
    return Nearest(torch.cat([label for _, label in parts]), distances)
