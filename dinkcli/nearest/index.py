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

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from dinkcli.nearest.hardware import (
    CPU,
    chunk_rows,
    has_bfloat16,
    has_float64,
    numbers_at_once,
    products,
)
from dinkcli.nearest.prepare import RowMap
from dinkcli.nearest.scorer import FoldedScorer, Scorer, ties_of
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
    """The nearest and the second-nearest centre of each row: index (N,), squared distance (N,).

    With one centre, the second is that centre again, at an infinite distance. Which of two nearly
    equal centres is second is left to rounding.
    """

    labels: Tensor
    squared_distances: Tensor
    second_labels: Tensor
    second_squared_distances: Tensor


# Rows (M,) with their scores (M, K) and what a score of the nearest centre is at most (M,).
_Ties = tuple[Tensor, Tensor, Tensor]


class CenterIndex:
    """Finds the nearest of K centres.

    Args:
        cluster_centers: (K, D), of any floating dtype.
        row_map: where it is given, the centres are among rows under it, and ``labels`` takes rows
            (N, D) as they are. The other methods do not serve then.

    Attributes:
        shift: (D,) what is subtracted from rows and centres before anything else, or None.
        largest: the norm of the longest centre as it is computed with.
    """

    def __init__(self, cluster_centers: Tensor, row_map: RowMap | None = None):
        self._map = row_map
        if row_map is None:
            self.scorer = Scorer(cluster_centers)
        else:
            self.scorer = FoldedScorer(cluster_centers, row_map)
        self.centers, self.n_clusters = self.scorer.centers, len(self.scorer.centers)
        self.dtype = self.scorer.dtype
        self.shift, self.largest = self.scorer.shift, self.scorer.largest
        self._on_cpu = self.centers.device.type == "cpu"
        self._low_precision_pays = self.scorer.low_precision_pays

    def chunks(self, z: Tensor) -> Iterator[Tensor]:
        """The rows of ``z`` (N, D) in pieces whose (rows, K) scores stay small."""
        return iter(z.split(chunk_rows(*self.centers.shape, device=z.device)))

    def squared_distances(self, z: Tensor) -> Tensor:
        """||z_i - c_j||^2, (N, K), in one piece; never negative."""
        return self.scorer.squared_distances(z)[0]

    def labels(self, z: Tensor) -> Tensor:
        """Index of the nearest centre of each row of ``z`` (N, D), (N,) int64."""
        return self._search(z)[0]

    def nearest(self, z: Tensor) -> Nearest:
        """The nearest centre of each row of ``z`` (N, D), and how far it is."""
        labels, _, distances, _ = self._search(z, distances=True)
        return Nearest(labels, distances)

    def nearest_two(self, z: Tensor, approximate: bool = False) -> NearestTwo:
        """The two nearest centres of each row of ``z`` (N, D), and how far they are.

        ``approximate``: where a CPU is faster for it, of centres about as near any are taken; the
        first is the nearer one of the two.
        """
        if approximate and self.scorer.bfloat16_serves and self.scorer.low_precision_pays:
            (a, b), (near, far) = self.nearest_few(z, 2, True)
            turned = far < near
            labels, seconds = torch.where(turned, b, a), torch.where(turned, a, b)
            return NearestTwo(labels, torch.minimum(near, far), seconds, torch.maximum(near, far))
        labels, second, distances, second_distances = self._search(z, distances=True, two=True)
        if self.n_clusters == 1:
            second_distances.fill_(torch.inf)
        return NearestTwo(labels, distances, second, second_distances)

    def nearest_approximate(self, z: Tensor) -> Nearest:
        """Like ``nearest``, but where a CPU is faster for it, any of the centres about as near is
        taken, and distances are off by the rounding of bfloat16, but for those near 0."""
        if not (self.scorer.bfloat16_serves and self.scorer.low_precision_pays):
            return self.nearest(z)
        labels = torch.empty(len(z), dtype=torch.int64)
        distances = torch.empty(len(z), dtype=self.dtype)
        close = [torch.empty(0, dtype=torch.int64)]
        for where, _, rows in self._shifted(z):
            labels[where], distances[where], noise = self.scorer.bfloat16_nearest(rows)
            close.append((distances[where] <= noise).nonzero()[:, 0] + where.start)
        again = torch.cat(close)
        labels[again], distances[again] = self.nearest(z[again])
        return Nearest(labels, distances)

    def nearest_few(self, z: Tensor, number: int, approximate: bool) -> tuple[Tensor, Tensor]:
        """The ``number`` M <= K nearest centres of each row of ``z`` (N, D), the nearest first:
        indices (M, N) and squared distances (M, N).

        Which they are, and their order, is left to the rounding of products (of bfloat16 numbers
        with ``approximate``, where a CPU has them) and, of distances, to 2**-13 or so of them;
        those that are given are exact to float32.
        """
        labels = torch.empty((number, len(z)), dtype=torch.int64, device=z.device)
        distances = torch.empty((number, len(z)), dtype=self.dtype, device=z.device)
        for where, rows, shifted in self._shifted(z):
            labels[:, where] = self.scorer.few(shifted, number, approximate)
            for label, squares in zip(labels[:, where], distances[:, where], strict=True):
                squares[:] = self.scorer.squared_distances_to(rows, label)
        return labels, distances

    def squared_distances_to(self, z: Tensor, labels: Tensor) -> Tensor:
        """How far each row of ``z`` (N, D) is from the centre of its label (N,), squared, (N,)."""
        squares = torch.empty(len(z), dtype=self.dtype, device=z.device)
        # Away from the CPU memory counts, and this takes none for other centres.
        n_clusters = self.n_clusters if self._on_cpu else 1
        size = chunk_rows(n_clusters, z.shape[1], device=z.device)
        for start in range(0, len(z), size):
            where = slice(start, start + size)
            squares[where] = self.scorer.squared_distances_to(z[where], labels[where])
        return squares

    def _shifted(self, z: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Where each chunk of ``z`` (N, D) is, its rows, and these as products want them."""
        start = 0
        for chunk in self.chunks(z) if len(z) else ():
            yield slice(start, start + len(chunk)), chunk, self.scorer.shifted(chunk)
            start += len(chunk)

    def _search(
        self, z: Tensor, distances: bool = False, two: bool = False, low_precision: bool = True
    ) -> list[Tensor]:
        """Labels, second labels, and squared distances to both, each (N,), or (0,) where they are
        not asked for. Without ``low_precision`` as a CPU does, and by float32 products at least."""
        if low_precision and not self._on_cpu and len(z):
            return self._search_on_device(z, distances, two, self._low_precision_pays)
        low_precision &= self.scorer.low_precision_pays and len(z) >= _LEAST_ROWS
        wanted = (True, two, distances, distances and two)
        dtypes = (torch.int64, torch.int64, self.dtype, self.dtype)
        result = [
            torch.empty(len(z) if each else 0, dtype=dtype, device=z.device)
            for each, dtype in zip(wanted, dtypes, strict=True)
        ]
        doubtful: list[Tensor] = []
        ties: list[_Ties] = []
        for where, rows, shifted in self._shifted(z):
            if low_precision:
                near, limit = self.scorer.bfloat16_two(shifted)
                tied = ties_of(near, limit)
                low_precision = len(tied) <= _MANY * len(rows)
                doubtful.append(tied + where.start)
            else:
                near, limit = self.scorer.two(shifted)
                tied = ties_of(near, limit)
                if len(tied):
                    ties.append((tied + where.start, near.of(tied), limit[tied]))
            self._put(result, where, rows, near.labels, near.seconds)
            pending = sum(scores.numel() for _, scores, _ in ties)
            if pending > numbers_at_once(z.device, CHUNK_SCORES):
                self._settle(z, ties, result)
                ties = []
        if ties:
            self._settle(z, ties, result)
        if doubtful:
            self._look_again(self._search, z, torch.cat(doubtful), result)
        return result

    def _search_on_device(
        self, z: Tensor, distances: bool, two: bool, low_precision: bool
    ) -> list[Tensor]:
        """``_search`` away from the CPU: the host waits once, to learn how many rows are doubtful,
        and again only for these: first in float32, then as a CPU does."""
        parts = []
        for rows in self.chunks(z):
            near, limit = self.scorer.device_two(self.scorer.shifted(rows), low_precision)
            parts.append((near.labels, near.seconds, near.second <= limit))
        labels, seconds, doubtful = (torch.cat(part) for part in zip(*parts, strict=True))
        result = [labels, seconds[: len(z) if two else 0]]
        for numbers, wanted in ((labels, distances), (seconds, distances and two)):
            result.append(self.squared_distances_to(z, numbers) if wanted else z.new_empty(0))
        where = doubtful.nonzero()[:, 0]
        if low_precision and len(where) > _MANY * len(z):
            self._low_precision_pays = False
        if len(where):
            again = self._search_on_device if low_precision else self._search
            self._look_again(again, z, where, result)
        return result

    @staticmethod
    def _look_again(
        search: Callable[..., list[Tensor]], z: Tensor, where: Tensor, result: list[Tensor]
    ) -> None:
        """Replaces the ``result`` for the rows ``where`` by that of ``search``."""
        _, seconds, distances, _ = result
        again = search(z[where], len(distances) > 0, len(seconds) > 0, low_precision=False)
        for values, right in zip(result, again, strict=True):
            if len(values):
                values[where] = right

    def _put(
        self,
        result: list[Tensor],
        where: slice | Tensor,
        rows: Tensor,
        labels: Tensor,
        seconds: Tensor,
    ) -> None:
        """Writes what ``_search`` gives about the ``rows`` (B, D)."""
        numbers = (labels, seconds)
        for values, target, distances in zip(numbers, result[:2], result[2:], strict=True):
            if len(target):
                target[where] = values
            if len(distances):
                distances[where] = self.scorer.squared_distances_to(rows, values)

    def _settle(self, z: Tensor, ties: list[_Ties], result: list[Tensor]) -> None:
        """Puts labels right, by float64 distances to all centres that may be the nearest."""
        where, scores, limit = (torch.cat(parts) for parts in zip(*ties, strict=True))
        first = result[0][where]
        rows = z[where] if self._map is None else self._map(z[where])
        scores.scatter_(1, first[:, None], -torch.inf)
        counts = (scores <= limit[:, None]).sum(1)
        candidates = scores.topk(int(counts.max()), largest=False).indices
        exact = _nearest_listed(rows, self.centers, candidates, counts)
        seconds = torch.where(exact == first, result[1][where], first) if len(result[1]) else first
        self._put(result, where, rows, exact, seconds)


def _nearest_listed(z: Tensor, centers: Tensor, candidates: Tensor, counts: Tensor) -> Tensor:
    """The nearest (M,) int64 of the ``centers`` (K, D) to each row of ``z`` (M, D), among the first
    ``counts`` (M,) of its ``candidates`` (M, C), in float64 from the coordinates; the lowest number
    of an exact tie."""
    listed = torch.arange(candidates.shape[1], device=z.device) < counts[:, None]
    row, position = listed.nonzero().unbind(1)
    center = candidates[row, position]
    # Few: where the device has no float64, the CPU has.
    device = z.device if has_float64(z.device) else CPU
    row, center = row.to(device), center.to(device)
    distances = squares_of_pairs(z.to(device), centers.to(device), row, center)
    least = distances.new_full((len(z),), torch.inf)
    least.scatter_reduce_(0, row, distances, "amin")
    label = torch.where(distances == least[row], center, len(centers))
    result = torch.full((len(z),), len(centers), dtype=torch.int64, device=device)
    return result.scatter_reduce_(0, row, label, "amin").to(z.device)


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
