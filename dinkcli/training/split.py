"""What splitting a cluster in two would gain, and what removing a centre would cost.

Shapes: N rows in this process, K clusters, D features, M candidates for a split.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dinkcli.nearest.index import NearestTwo
from dinkcli.nearest.sums import (
    largest_in_segments,
    row_dots,
    segment_sums,
    weights_and_sums,
)
from dinkcli.processes.group import Group
from dinkcli.training.sample import Sample

JUDGES = 128  # of each cluster, on average, that a split is judged by
_AXIS_ITERATIONS = 2
_ITERATIONS = 2


class Split(NamedTuple):
    """Two-way splits of M clusters.

    Attributes:
        gain: (M,) inertia that each split saves.
        low, high: (M, D) the means of the two halves.
    """

    gain: Tensor
    low: Tensor
    high: Tensor


def split(
    sample: Sample,
    near: NearestTwo,
    sizes: Tensor,
    candidates: Tensor,
    generator: torch.Generator,
) -> Split:
    """Splits the candidate clusters, all at once: the better of two local two-means.

    One starts along the cluster's main axis, the other from its farthest row (and those nearer to
    it than to the mean) against the rest, which finds a small group far from a large one.

    Args:
        sizes: (K,) weight of each cluster.
        candidates: (M,) their indices.
    """
    rows, owner, weight = _judges(sample, near, sizes, candidates, generator)
    m = len(candidates)
    part = sample.z[rows]
    total, mean = weights_and_sums(part, owner, m, weight)
    group = sample.group
    group.sum_(total, mean)
    total.clamp_(min=1e-30)
    mean = (mean / total[:, None]).to(part)
    part -= mean[owner]
    squares = torch.linalg.vecdot(part, part)
    farthest = sample.farthest(squares, owner, part, m, rows)
    upper = _along_axis(part, owner, weight, m, generator, group)
    along = _two_means(part, owner, weight, total, upper, group)
    upper = row_dots(part, farthest, owner) > (farthest.square().sum(1) / 2)[owner]
    apart = _two_means(part, owner, weight, total, upper, group)
    better = apart.gain > along.gain
    low, high = (
        sample.project(mean + torch.where(better[:, None], second, first))
        for first, second in ((along.low, apart.low), (along.high, apart.high))
    )
    gain = torch.where(better, apart.gain, along.gain)
    return Split(gain * sizes[candidates] / total, low, high)


def _judges(
    sample: Sample,
    near: NearestTwo,
    sizes: Tensor,
    candidates: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (R,) here of the candidates, which candidate each belongs to, and its weight.

    Where they are many, about ``JUDGES`` of each are drawn: half evenly, half by their error, so
    that a rare far group is among them, and weighted by one over the probability.
    """
    m = len(candidates)
    position = torch.full((len(sizes),), -1, device=sizes.device)
    position[candidates] = torch.arange(m, device=sizes.device)
    owner = position[near.labels]
    rows = (owner >= 0).nonzero()[:, 0]
    owner = owner[rows]
    weight = torch.ones_like(near.squared_distances[rows])
    if sample.weights is not None:
        weight = sample.weights[rows]
    number, order = _numbered(sample, rows)
    if number > JUDGES * m:
        error = near.squared_distances[rows] * weight
        errors = segment_sums(error, owner, m)
        sample.group.sum_(errors)
        errors.clamp_(min=1e-30)
        chance = weight / sizes[candidates].clamp(min=1e-30)[owner] + error / errors[owner]
        chance = (chance * (JUDGES / 2)).clamp_(max=1.0)
        uniform = torch.rand(number, generator=generator).to(chance)
        drawn = ((uniform if order is None else uniform[order]) < chance).nonzero()[:, 0]
        rows, owner, weight = rows[drawn], owner[drawn], (weight / chance)[drawn]
    return rows, owner, weight


def _numbered(sample: Sample, rows: Tensor) -> tuple[int, Tensor | None]:
    """How many such rows (R,) all processes have, and the number of each of those here among
    them, by position; None when all are here."""
    if sample.positions is None:
        return len(rows), None
    chosen = torch.zeros(len(sample.z), dtype=torch.uint8, device=rows.device)
    chosen[rows] = 1
    upto = sample.everywhere(chosen).cumsum(0)
    return int(upto[-1]), upto[sample.positions[rows]] - 1


def _along_axis(
    part: Tensor,
    owner: Tensor,
    weight: Tensor,
    m: int,
    generator: torch.Generator,
    group: Group,
) -> Tensor:
    """(R,) bool: rows on the upper side of their cluster's main axis, by power iteration."""
    axis = torch.randn(m, part.shape[1], generator=generator).to(part)
    for _ in range(_AXIS_ITERATIONS):
        along = row_dots(part, axis, owner) * weight
        sums = segment_sums(part, owner, m, along)
        group.sum_(sums)
        axis = normalize(sums, dim=1).to(part)
    return row_dots(part, axis, owner) > 0


def _two_means(
    part: Tensor, owner: Tensor, weight: Tensor, total: Tensor, upper: Tensor, group: Group
) -> Split:
    """Local two-means of rows around their cluster's mean, from the sides ``upper`` (R,)."""
    m = len(total)
    for last in range(_ITERATIONS):
        inside = weight * upper
        n_high, sum_high = weights_and_sums(part, owner, m, inside)
        group.sum_(n_high, sum_high)
        n_low = (total - n_high).clamp_(min=0)
        high = (sum_high / n_high.clamp(min=1e-30)[:, None]).to(part)
        low = (-sum_high / n_low.clamp(min=1e-30)[:, None]).to(part)  # the rows sum to zero
        if last < _ITERATIONS - 1:
            middle = (high.square().sum(1) - low.square().sum(1)) / 2
            upper = row_dots(part, high - low, owner) > middle[owner]
    both = (n_high > 1e-6 * total) & (n_low > 1e-6 * total)
    gain = n_high * n_low / total * (high - low).square().sum(1)
    return Split(
        torch.where(both, gain, 0.0),
        torch.where(both[:, None], low, 0.0),
        torch.where(both[:, None], high, 0.0),
    )


def removal_costs(sample: Sample, near: NearestTwo, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """What the inertia would rise by without each centre (K,), and its main receiver (K,).

    Rows go to their second nearest centre, which then moves to its new mean. For the rows of j
    that go to k together the rise is about sum(d2 - d1) n_k / (n_k + n_jk).
    """
    n_clusters = len(sizes)
    pairs, inverse = torch.unique(
        near.labels * n_clusters + near.second_labels, return_inverse=True
    )
    rise = sample.weigh(near.second_squared_distances - near.squared_distances)
    rise = segment_sums(rise, inverse, len(pairs))
    moved = sample.weights_by(inverse, len(pairs)).to(rise)
    if not sample.group.alone:
        rise, moved = sample.group.gather(torch.stack([rise, moved], 1)).unbind(1)
        pairs, inverse = torch.unique(sample.group.gather(pairs), return_inverse=True)
        rise, moved = (segment_sums(each, inverse, len(pairs)) for each in (rise, moved))
    source, receiver = pairs // n_clusters, pairs % n_clusters
    rest = sizes[receiver].to(rise)
    cost = segment_sums(rise * rest / (rest + moved).clamp(min=1e-30), source, n_clusters)
    return cost, receiver[largest_in_segments(moved, source, n_clusters)]
