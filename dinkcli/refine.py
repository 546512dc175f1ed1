"""Dilation and shrink of whole centres: add some where it pays most, remove as many elsewhere.

Breathing k-means (Fritzke 2020, arXiv 2006.15666) with one change that more than halves the
number of passes: centres are added where a real two-way split of a cluster gains most, and at
the two means of that split, instead of next to the centres of the largest error.

Shapes: N rows, K clusters, D features; ``weights`` is (N,) or None for all ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dinkcli.lloyd import cluster_sums, segment_sums, weighted_sum
from dinkcli.nearest import CenterIndex, Nearest

_SPLIT_ITERATIONS = 3
_SPLIT_CHUNK = 1024


@dataclass
class Rows:
    """The sample being clustered; ``project`` maps means to allowed centres (cosine: normed)."""

    z: Tensor
    weights: Tensor | None
    project: Callable[[Tensor], Tensor]

    def nearest(self, centers: Tensor) -> Nearest:
        return CenterIndex(centers, centered=True).nearest(self.z, exact=False)

    def weigh(self, values: Tensor) -> Tensor:
        return values if self.weights is None else values * self.weights

    def means(self, centers: Tensor, labels: Tensor) -> Tensor:
        """The means of the labelled rows; an empty cluster's centre stays put."""
        counts, sums = cluster_sums(self.z, self.weights, labels, len(centers))
        counts = counts[:, None]
        means = torch.where(counts > 0, sums / counts.clamp(min=1e-30), centers)
        return self.project(means)

    def inertia(self, near: Nearest) -> float:
        return weighted_sum(near.squared_distances, self.weights)


@dataclass(frozen=True)
class Breath:
    """One try: ``moved`` centres added and removed, kept or not.

    Attributes:
        centers: (K, D) the best so far.
        near: their nearest-centre assignment of the sample.
        inertia: of the sample.
    """

    moved: int
    kept: bool
    centers: Tensor
    near: Nearest
    inertia: float


def breathe(
    rows: Rows, centers: Tensor, generator: torch.Generator, tol: float, patience: int = 1
) -> Iterator[Breath]:
    """Yields after every try, moving up to K/2 centres at a time, then fewer, down to one.

    A number of moves is halved (by one from 5 on) after ``patience`` tries in a row that did
    not lower the inertia by ``tol`` of it.
    """
    n_clusters = len(centers)
    if n_clusters < 2:
        return
    near = rows.nearest(centers)
    inertia = rows.inertia(near)
    moves = max(min(5, n_clusters), n_clusters // 2)
    failures = 0
    while moves:
        new = _inhale_exhale(rows, centers, near, moves, generator)
        new_near = rows.nearest(new)
        new = rows.means(new, new_near.labels)
        new_near = rows.nearest(new)
        new_inertia = rows.inertia(new_near)
        gained = new_inertia < inertia * (1 - tol)
        kept = new_inertia < inertia
        if kept:
            centers, near, inertia = new, new_near, new_inertia
        yield Breath(moves, kept, centers, near, inertia)
        failures = 0 if gained else failures + 1
        if failures >= patience:
            failures = 0
            moves = moves // 2 if moves > 5 else moves - 1


def _inhale_exhale(
    rows: Rows, centers: Tensor, near: Nearest, moves: int, generator: torch.Generator
) -> Tensor:
    """``moves`` more centres by the best splits, then as many fewer by the least loss; (K, D)."""
    low, high, gain = split(rows, centers, near, generator)
    best = gain.topk(moves).indices
    many = torch.cat([centers, high[best]])
    many[best] = low[best]
    near = rows.nearest(many)
    many = rows.means(many, near.labels)
    near = rows.nearest(many)
    gone = _least_useful(rows, many, near, moves)
    few = many[~gone]
    # Rows of a removed centre go to their second nearest one, known from the same pass. Where
    # that is gone too, the row sits out this one update of the means.
    renumbered = torch.cumsum(~gone, 0) - 1
    labels = torch.where(gone[near.labels], near.second_labels, near.labels)
    stay = (~gone[labels]).nonzero()[:, 0]
    known = Rows(rows.z[stay], None if rows.weights is None else rows.weights[stay], rows.project)
    return known.means(few, renumbered[labels[stay]])


def split(
    rows: Rows, centers: Tensor, near: Nearest, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Splits every cluster in two, all at once: a local two-means from one D^2-drawn row.

    Returns:
        The two means of each cluster, (K, D) each, and the inertia that the split saves, (K,).
    """
    z, labels, n_clusters = rows.z, near.labels, len(centers)
    counts, sums = cluster_sums(z, rows.weights, labels, n_clusters)
    low = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1e-30)[:, None], centers)
    high = z[_draw_in_clusters(rows, near, n_clusters, generator)]
    gain = torch.zeros_like(counts)
    for _ in range(_SPLIT_ITERATIONS):
        normal = high - low
        threshold = ((high + low) * normal).sum(1)[labels] / 2
        upper = torch.cat(
            [
                torch.linalg.vecdot(part, normal[label]) > limit
                for part, label, limit in zip(
                    z.split(_SPLIT_CHUNK),
                    labels.split(_SPLIT_CHUNK),
                    threshold.split(_SPLIT_CHUNK),
                    strict=True,
                )
            ]
        ).nonzero()[:, 0]
        weights = None if rows.weights is None else rows.weights[upper]
        n_high, sum_high = cluster_sums(z[upper], weights, labels[upper], n_clusters)
        n_low = counts - n_high
        both = (n_high > 0) & (n_low > 0)
        high = torch.where(both[:, None], sum_high / n_high.clamp(min=1e-30)[:, None], high)
        low = torch.where(both[:, None], (sums - sum_high) / n_low.clamp(min=1e-30)[:, None], low)
        gain = n_high * n_low / counts.clamp(min=1e-30) * (high - low).square().sum(1)
        gain = torch.where(both, gain, 0.0)
    return rows.project(low), rows.project(high), gain


def _draw_in_clusters(
    rows: Rows, near: Nearest, n_clusters: int, generator: torch.Generator
) -> Tensor:
    """One row of each cluster, drawn with probability proportional to its squared distance."""
    mass = rows.weigh(near.squared_distances)
    noise = torch.empty(len(mass), dtype=mass.dtype).exponential_(generator=generator)
    # The largest mass / Exp(1) is a draw proportional to mass: no loop over clusters.
    keys = mass / noise.to(mass.device).clamp_(min=1e-30)
    best = keys.new_zeros(n_clusters).scatter_reduce_(0, near.labels, keys, "amax")
    winners = (keys == best[near.labels]).nonzero()[:, 0]
    drawn = torch.zeros(n_clusters, dtype=torch.int64, device=mass.device)
    return drawn.scatter_reduce_(0, near.labels[winners], winners, "amax")


def _least_useful(rows: Rows, centers: Tensor, near: Nearest, number: int) -> Tensor:
    """(K,) bool: the centres whose rows lose least by going to their second nearest one.

    Neighbours are not removed together, since each one's loss counts on the other staying.
    """
    loss = rows.weigh(near.second_squared_distances - near.squared_distances)
    order = segment_sums(loss, near.labels, len(centers)).argsort(stable=True).tolist()
    distances = CenterIndex(centers, centered=True).squared_distances(centers)
    neighbour = distances.fill_diagonal_(torch.inf).argmin(1).tolist()
    frozen: set[int] = set()
    gone: list[int] = []
    for center in order:
        if len(gone) == number:
            break
        if center not in frozen:
            gone.append(center)
            if len(frozen) + number < len(centers) - 1:
                frozen.add(neighbour[center])
    taken = set(gone)
    gone += [center for center in order if center not in taken][: number - len(gone)]
    mask = torch.zeros(len(centers), dtype=torch.bool, device=centers.device)
    mask[gone] = True
    return mask
