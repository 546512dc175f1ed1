"""Dilation and shrink of whole centres: add some where it pays most, remove as many elsewhere.

Breathing k-means (Fritzke 2020, arXiv 2006.15666) with one change that more than halves the
number of passes: centres are added where a real two-way split of a cluster gains most, and at
the two means of that split, instead of next to the centres of the largest error.

Shapes: N rows, K clusters, D features; ``weights`` is (N,) or None for all ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dinkcli.lloyd import segment_sums
from dinkcli.nearest import CenterIndex, Nearest
from dinkcli.sample import Sample
from dinkcli.schedule import Effort

_SPLIT_ITERATIONS = 3
_SPLIT_CHUNK = 1024


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
    sample: Sample, centers: Tensor, generator: torch.Generator, effort: Effort
) -> Iterator[Breath]:
    """Yields after every try, moving ``effort.moves`` centres at a time, then fewer, down to one.

    A number of moves is halved (by one from 5 on) after ``effort.patience`` tries in a row that
    did not lower the inertia by ``effort.tol`` of it.
    """
    n_clusters = len(centers)
    if n_clusters < 2:
        return
    near = sample.nearest(centers)
    inertia = sample.inertia(near)
    moves = effort.moves
    failures = 0
    while moves:
        new = _inhale_exhale(sample, centers, near, moves, generator, effort.split_rows)
        new_near = sample.nearest(new)
        new_inertia = sample.inertia(new_near)
        gained = new_inertia < inertia * (1 - effort.tol)
        kept = new_inertia < inertia
        if kept:
            centers, near, inertia = new, new_near, new_inertia
        yield Breath(moves, kept, centers, near, inertia)
        failures = 0 if gained else failures + 1
        if failures >= effort.patience:
            failures = 0
            moves = moves // 2 if moves > 5 else moves - 1


def _inhale_exhale(
    sample: Sample,
    centers: Tensor,
    near: Nearest,
    moves: int,
    generator: torch.Generator,
    split_rows: int | None,
) -> Tensor:
    """``moves`` more centres by the best splits, then as many fewer by the least loss; (K, D)."""
    low, high, gain = _split_by_part(sample, centers, near, generator, split_rows)
    best = gain.topk(moves).indices
    many = torch.cat([centers, high[best]])
    many[best] = low[best]
    near = sample.nearest(many)
    many = sample.means(many, near.labels)
    near = sample.nearest(many)
    gone = _least_useful(sample, many, near, moves)
    few = many[~gone]
    # Rows of a removed centre go to their second nearest one, known from the same pass. Where
    # that is gone too, the row sits out this one update of the means.
    renumbered = torch.cumsum(~gone, 0) - 1
    labels = torch.where(gone[near.labels], near.second_labels, near.labels)
    stay = (~gone[labels]).nonzero()[:, 0]
    return sample[stay].means(few, renumbered[labels[stay]])


def _split_by_part(
    sample: Sample,
    centers: Tensor,
    near: Nearest,
    generator: torch.Generator,
    split_rows: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """``split`` judged by some rows of each cluster where there are plenty, at random ones."""
    rows = len(sample) if split_rows is None else split_rows * len(centers)
    if rows >= len(sample):
        return split(sample, centers, near, generator)
    start = int(torch.randint(len(sample) - rows + 1, (), generator=generator))
    part = slice(start, start + rows)
    near_part = Nearest(*(values[part] for values in near))
    low, high, gain = split(sample[part], centers, near_part, generator)
    share = sample.cluster_weights(near.labels, len(centers)) / sample[part].cluster_weights(
        near_part.labels, len(centers)
    ).clamp(min=1e-30)
    return low, high, gain * share


def split(
    sample: Sample, centers: Tensor, near: Nearest, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Splits every cluster in two, all at once: a local two-means from one D^2-drawn row.

    Returns:
        The two means of each cluster, (K, D) each, and the inertia that the split saves, (K,).
    """
    z, labels, n_clusters = sample.z, near.labels, len(centers)
    counts, sums = sample.cluster_sums(labels, n_clusters)
    low = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1e-30)[:, None], centers)
    high = z[_draw_in_clusters(sample, near, n_clusters, generator)]
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
        n_high, sum_high = sample[upper].cluster_sums(labels[upper], n_clusters)
        n_low = counts - n_high
        both = (n_high > 0) & (n_low > 0)
        high = torch.where(both[:, None], sum_high / n_high.clamp(min=1e-30)[:, None], high)
        low = torch.where(both[:, None], (sums - sum_high) / n_low.clamp(min=1e-30)[:, None], low)
        gain = n_high * n_low / counts.clamp(min=1e-30) * (high - low).square().sum(1)
        gain = torch.where(both, gain, 0.0)
    return sample.project(low), sample.project(high), gain


def _draw_in_clusters(
    sample: Sample, near: Nearest, n_clusters: int, generator: torch.Generator
) -> Tensor:
    """One row of each cluster, drawn with probability proportional to its squared distance."""
    mass = sample.weigh(near.squared_distances)
    noise = torch.empty(len(mass), dtype=mass.dtype).exponential_(generator=generator)
    # The largest mass / Exp(1) is a draw proportional to mass: no loop over clusters.
    keys = mass / noise.to(mass.device).clamp_(min=1e-30)
    best = keys.new_zeros(n_clusters).scatter_reduce_(0, near.labels, keys, "amax")
    winners = (keys == best[near.labels]).nonzero()[:, 0]
    drawn = torch.zeros(n_clusters, dtype=torch.int64, device=mass.device)
    return drawn.scatter_reduce_(0, near.labels[winners], winners, "amax")


def _least_useful(sample: Sample, centers: Tensor, near: Nearest, number: int) -> Tensor:
    """(K,) bool: the centres whose rows lose least by going to their second nearest one.

    Neighbours are not removed together, since each one's loss counts on the other staying.
    """
    loss = sample.weigh(near.second_squared_distances - near.squared_distances)
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
