"""Nearest centres in chunks: labels that do not depend on how the rows were batched.

Shapes: N rows, B rows of a chunk, K clusters, D features.

A float32 matrix product rounds differently for different batch shapes, and products of bfloat16
factors, twice as fast or more where the CPU has them, are off by more; so two centres at nearly the
same distance from a row could swap between runs. Rows whose two best scores are closer than the
rounding bound are therefore looked at again: after short products in float32, after those in
float64 from the coordinates. The label of a row is that of the float64 distances, whatever the
batch; an exact tie goes to the lowest index.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from dinkcli.nearest.best import ties_of
from dinkcli.nearest.device import chunk_rows, scores_at_once
from dinkcli.nearest.exact import nearest_listed
from dinkcli.nearest.folded import FoldedScorer
from dinkcli.nearest.maps import RowMap
from dinkcli.nearest.scorer import Scorer

_SHORT_ROWS = 64
# More doubtful rows than this share, and short products are not worth their second look.
_MANY = 0.3


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
        self.centers = self.scorer.centers
        self.dtype = self.scorer.dtype
        self.shift, self.largest = self.scorer.shift, self.scorer.largest
        self._on_cpu = self.centers.device.type == "cpu"
        self._short_serves = self.scorer.has_short

    @property
    def n_clusters(self) -> int:
        return len(self.centers)

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

    def nearest_two(self, z: Tensor, rough: bool = False) -> NearestTwo:
        """The two nearest centres of each row of ``z`` (N, D), and how far they are.

        ``rough``: where a CPU is faster for it, of centres about as near any are taken; the first
        is the nearer one of the two.
        """
        if rough and self.scorer.has_rough and self.scorer.has_short:
            (a, b), (near, far) = self.nearest_few(z, 2, rough)
            turned = far < near
            labels, seconds = torch.where(turned, b, a), torch.where(turned, a, b)
            return NearestTwo(labels, torch.minimum(near, far), seconds, torch.maximum(near, far))
        labels, second, distances, second_distances = self._search(z, distances=True, two=True)
        if self.n_clusters == 1:
            second_distances.fill_(torch.inf)
        return NearestTwo(labels, distances, second, second_distances)

    def nearest_roughly(self, z: Tensor) -> Nearest:
        """Like ``nearest``, but where a CPU is faster for it, any of the centres about as near is
        taken, and distances are off by the rounding of short products, but for those near 0."""
        if not (self.scorer.has_rough and self.scorer.has_short):
            return self.nearest(z)
        labels = torch.empty(len(z), dtype=torch.int64)
        distances = torch.empty(len(z), dtype=self.dtype)
        close = [torch.empty(0, dtype=torch.int64)]
        for where, _, rows in self._shifted(z):
            labels[where], distances[where], noise = self.scorer.rough(rows)
            close.append((distances[where] <= noise).nonzero()[:, 0] + where.start)
        again = torch.cat(close)
        labels[again], distances[again] = self.nearest(z[again])
        return Nearest(labels, distances)

    def nearest_few(self, z: Tensor, number: int, rough: bool) -> tuple[Tensor, Tensor]:
        """The ``number`` M <= K nearest centres of each row of ``z`` (N, D), the nearest first:
        indices (M, N) and squared distances (M, N).

        Which they are, and their order, is left to the rounding of products (short ones with
        ``rough`` where a CPU has them) and, of distances, to 2**-13 or so of them; those that are
        given are exact to float32.
        """
        find = self.scorer.short_few if rough and self.scorer.has_rough else self.scorer.few
        labels = torch.empty((number, len(z)), dtype=torch.int64, device=z.device)
        distances = torch.empty((number, len(z)), dtype=self.dtype, device=z.device)
        for where, rows, shifted in self._shifted(z):
            labels[:, where] = find(shifted, number)
            for label, found in zip(labels[:, where], distances[:, where], strict=True):
                found[:] = self.scorer.squared_distances_to(rows, label)
        return labels, distances

    def squared_distances_to(self, z: Tensor, labels: Tensor) -> Tensor:
        """How far each row of ``z`` (N, D) is from the centre of its label (N,), squared, (N,)."""
        found = torch.empty(len(z), dtype=self.dtype, device=z.device)
        # Away from the CPU memory counts, and this takes none for other centres.
        n_clusters = self.n_clusters if self._on_cpu else 1
        size = chunk_rows(n_clusters, z.shape[1], device=z.device)
        for start in range(0, len(z), size):
            where = slice(start, start + size)
            found[where] = self.scorer.squared_distances_to(z[where], labels[where])
        return found

    def _shifted(self, z: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Where each chunk of ``z`` (N, D) is, its rows, and these as products want them."""
        start = 0
        for chunk in self.chunks(z) if len(z) else ():
            yield slice(start, start + len(chunk)), chunk, self.scorer.shifted(chunk)
            start += len(chunk)

    def _search(
        self, z: Tensor, distances: bool = False, two: bool = False, exact: bool = False
    ) -> list[Tensor]:
        """Labels, second labels, and squared distances to both, each (N,), or (0,) where they are
        not asked for. ``exact`` rules out short products."""
        if not (self._on_cpu or exact) and len(z):
            return self._search_at_once(z, distances, two, self._short_serves)
        short = self.scorer.has_short and not exact and len(z) >= _SHORT_ROWS
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
        for where, rows, shifted in self._shifted(z):
            if short:
                near, limit = self.scorer.short_two(shifted)
                tied = ties_of(near, limit)
                short = len(tied) <= _MANY * len(rows)
                doubtful.append(tied + where.start)
            else:
                near, limit = self.scorer.two(shifted)
                tied = ties_of(near, limit)
                if len(tied):
                    ties.append((tied + where.start, near.of(tied), limit[tied]))
            self._put(found, where, rows, near.labels, near.seconds)
            if sum(scores.numel() for _, scores, _ in ties) > scores_at_once(z.device):
                self._settle(z, ties, found)
                ties = []
        if ties:
            self._settle(z, ties, found)
        if doubtful:
            self._look_again(z, torch.cat(doubtful), found)
        return found

    def _search_at_once(self, z: Tensor, distances: bool, two: bool, short: bool) -> list[Tensor]:
        """``_search`` away from the CPU: the host waits once, to learn how many rows are doubtful,
        and again only for these: first without short products, then as a CPU does."""
        parts = []
        for rows in z.split(self.scorer.rows_at_once(z)):
            near, limit = self.scorer.device_two(self.scorer.shifted(rows), short)
            parts.append((near.labels, near.seconds, near.second <= limit))
        labels, seconds, doubtful = (torch.cat(part) for part in zip(*parts, strict=True))
        found = [labels, seconds[: len(z) if two else 0]]
        for numbers, asked in ((labels, distances), (seconds, distances and two)):
            found.append(self.squared_distances_to(z, numbers) if asked else z.new_empty(0))
        where = doubtful.nonzero()[:, 0]
        if short and len(where) > _MANY * len(z):
            self._short_serves = False
        if len(where):
            self._look_again(z, where, found, exact=not short)
        return found

    def _look_again(
        self, z: Tensor, where: Tensor, found: list[Tensor], exact: bool = True
    ) -> None:
        """Replaces what has been ``found`` about the rows ``where``, from products that are not
        short, and without ``exact`` away from the CPU."""
        _, second, distances, _ = found
        asked = len(distances) > 0, len(second) > 0
        if exact:
            again = self._search(z[where], *asked, exact=True)
        else:
            again = self._search_at_once(z[where], *asked, short=False)
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
        """Writes what ``_search`` gives about the ``rows`` (B, D)."""
        for numbers, target, distances in zip((labels, seconds), found[:2], found[2:], strict=True):
            if len(target):
                target[where] = numbers
            if len(distances):
                distances[where] = self.scorer.squared_distances_to(rows, numbers)

    def _settle(self, z: Tensor, ties: list[_Ties], found: list[Tensor]) -> None:
        """Puts labels right, by float64 distances to all centres that may be the nearest."""
        where, scores, limit = (torch.cat(parts) for parts in zip(*ties, strict=True))
        first = found[0][where]
        rows = z[where] if self._map is None else self._map(z[where])
        scores.scatter_(1, first[:, None], -torch.inf)
        counts = (scores <= limit[:, None]).sum(1)
        candidates = scores.topk(int(counts.max()), largest=False).indices
        exact = nearest_listed(rows, self.centers, candidates, counts)
        seconds = torch.where(exact == first, found[1][where], first) if len(found[1]) else first
        self._put(found, where, rows, exact, seconds)
