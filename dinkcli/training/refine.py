"""Dilation and shrink at the level of whole centres: they leave where they are worth little and
appear where they are worth much, at the means of a real two-way split of a cluster.

``swap`` pairs the best splits with the cheapest removals inside an ordinary pass, so that a round
costs one pass. Breaths (breathing k-means, Fritzke 2020, arXiv 2006.15666) add several centres,
let all of them settle, and only then remove the least useful; a round costs about four passes.

Shapes: N rows in this process, K clusters, D features, M candidates for a split.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dinkcli.nearest.index import NearestTwo
from dinkcli.nearest.sums import largest_in_segments, row_dots, segment_sums
from dinkcli.training.sample import Sample
from dinkcli.training.schedule import Effort

JUDGES = 128  # rows of each cluster, on average, that a split is judged by
_LEAST_CANDIDATES = 64  # centres of a round of swaps
# Of the inertia: a round of swaps that gains less is the last. At a third of it inertia ends
# 0.02 % lower, a tenth later (docs/LOG.md, 2026-11-25).
_SWAP_TOL = 3e-4
_ROUNDING = 1e-9  # what is better by less is the same, with its centres in another order
_AXIS_ITERATIONS = 2
_MEANS_ITERATIONS = 2


@dataclass(frozen=True)
class State:
    """Centres (K, D) with their nearest-centre assignment of a sample."""

    centers: Tensor
    near: NearestTwo
    sizes: Tensor  # (K,) weights of clusters
    inertia: float
    rows: int  # of the sample

    @classmethod
    def of(cls, sample: Sample, centers: Tensor, approximate: bool = False) -> State:
        """``approximate``: any of the centres about as near will do."""
        near = sample.nearest_two(centers, approximate)
        sizes = sample.cluster_weights(near.labels, len(centers)).to(centers)
        return cls(centers, near, sizes, sample.total(near.squared_distances), len(sample))


@dataclass
class Refining:
    """Where a refinement stands: with the sample, all that its next round depends on."""

    centers: Tensor  # (K, D), the best so far
    moves: int  # centres that the next round may move; 0 after the last one of its kind
    largest: int  # most centres that a round moved, at least K/4
    approximate: bool = False  # clusters overlap (see ``Sample.overlap``)
    swapping: bool = True  # swaps come first, then breaths
    failures: int = 0  # poor rounds in a row

    @classmethod
    def begin(cls, centers: Tensor, approximate: bool = False) -> Refining:
        most = max(1, len(centers) // 4)
        return cls(centers, most, most, approximate)

    def judge(self, sample: Sample, best: State, centers: Tensor, moved: int, tol: float) -> State:
        """The better one of the best state and that of new ``centers``, of which a round has moved
        so many; the round is a poor one when it lowers the inertia by less than ``tol`` of it."""
        new = State.of(sample, centers, self.approximate)
        poor = new.inertia >= best.inertia * (1 - tol)
        if new.inertia < best.inertia * (1 - _ROUNDING):
            best = new
        self.centers = best.centers
        self.largest = max(self.largest, moved)
        self.failures = self.failures + 1 if poor else 0
        return best


def refine(
    sample: Sample, search: Refining, generator: torch.Generator, effort: Effort
) -> Iterator[tuple[int, State]]:
    """Yields (centres moved, best state so far) after every round: swaps, then breaths, of
    ``effort.moves`` centres at first; of half as many after ``effort.patience`` poor rounds."""
    if len(search.centers) < 2:
        return
    first = best = State.of(sample, search.centers, search.approximate)
    if search.swapping:
        for moved, best in swap(sample, search, first, generator, effort.patience):
            yield moved, best
        search.swapping, search.moves, search.failures = False, effort.moves, 0
    part = sample[: effort.breathing_rows]
    if not search.moves or not len(part):
        return
    if len(part) < len(sample):
        best = State.of(part, best.centers, search.approximate)
    while moves := search.moves:
        centers = _inhale_exhale(part, best, moves, search.approximate, generator)
        best = search.judge(part, best, centers, moves, effort.tol)
        if search.failures == effort.patience:
            search.failures = 0
            search.moves //= 2
        yield moves, best


def swap(
    sample: Sample, search: Refining, best: State, generator: torch.Generator, patience: int
) -> Iterator[tuple[int, State]]:
    """Rounds of moves inside a pass, up to K/4 at first and half as many after a poor round, until
    ``patience`` rounds in a row are poor."""
    while search.moves and len(best.centers) > 2:
        centers, moved = _swapped(sample, best, search.moves, generator)
        best = search.judge(sample, best, centers, moved, _SWAP_TOL)
        if search.failures:
            search.moves = max(1, min(search.moves, moved) // 2)
        if moved == 0 or search.failures == patience:
            search.moves = 0
        yield moved, best


def _swapped(
    sample: Sample, state: State, most: int, generator: torch.Generator
) -> tuple[Tensor, int]:
    """The means of all clusters, with up to ``most`` centres moved; and how many were."""
    cost, receiver = removal_costs(sample, state)
    candidates, halves = _splits(sample, state, 2 * most, generator)
    pairs = _pair(halves.gain, candidates, cost, receiver, most)
    if not pairs:
        return sample.means(state.centers, state.near.labels), 0
    chosen, removed = torch.tensor(pairs, device=cost.device).unbind(1)
    centers = _means_without(sample, state, removed)
    centers[candidates[chosen]] = halves.low[chosen]
    centers[removed] = halves.high[chosen]
    return centers, len(pairs)


def _pair(
    gain: Tensor, candidates: Tensor, cost: Tensor, receiver: Tensor, most: int
) -> list[tuple[int, int]]:
    """(position of the split, removed centre), best gain with least cost, while that pays. The main
    receiver of a removed centre neither goes nor is split: the cost counts on it."""
    gains, splits = gain.tolist(), candidates.tolist()
    costs, receivers = cost.tolist(), receiver.tolist()
    cheapest = iter(cost.argsort(stable=True).tolist())
    busy: set[int] = set()
    gone: set[int] = set()
    pairs: list[tuple[int, int]] = []
    for position in gain.argsort(descending=True, stable=True).tolist():
        center = splits[position]
        if len(pairs) == most:
            break
        if center in busy:
            continue
        busy.add(center)
        # Who is busy, or counts on a centre that is gone, stays so: nobody is looked at twice.
        removed = next((c for c in cheapest if c not in busy and receivers[c] not in gone), None)
        if removed is None or gains[position] <= costs[removed]:
            break
        gone.add(removed)
        busy |= {removed, receivers[removed]}
        pairs.append((position, removed))
    return pairs


def _inhale_exhale(
    sample: Sample, state: State, moves: int, approximate: bool, generator: torch.Generator
) -> Tensor:
    """``moves`` more centres by the best splits, then as many fewer by the least cost; (K, D)."""
    candidates, halves = _splits(sample, state, 2 * moves, generator)
    best = halves.gain.topk(moves).indices
    many = torch.cat([state.centers, halves.high[best]])
    many[candidates[best]] = halves.low[best]
    state = State.of(sample, sample.means(many, sample.labels(many)), approximate)
    removed = _least_useful(*removal_costs(sample, state), moves)
    stays = torch.ones(len(many), dtype=torch.bool, device=many.device)
    stays[removed] = False
    return _means_without(sample, state, removed)[stays]


def _least_useful(cost: Tensor, receiver: Tensor, number: int) -> Tensor:
    """The centres of least cost, main receivers spared where there are enough others."""
    receivers = receiver.tolist()
    spared: set[int] = set()
    gone: list[int] = []
    for center in cost.argsort(stable=True).tolist():
        if len(gone) < number and center not in spared:
            gone.append(center)
            if len(spared) + number < len(cost):
                spared.add(receivers[center])
    return torch.tensor(gone, device=cost.device)


def _means_without(sample: Sample, state: State, removed: Tensor) -> Tensor:
    """The means when the rows of the ``removed`` centres go to their second nearest one."""
    near, gone = state.near, torch.zeros_like(state.sizes, dtype=torch.bool)
    gone[removed] = True
    labels = torch.where(gone[near.labels], near.second_labels, near.labels)
    return sample.means(state.centers, labels)


def _splits(
    sample: Sample, state: State, number: int, generator: torch.Generator
) -> tuple[Tensor, Split]:
    """The clusters of the largest inertia (M,), and what splitting them would gain."""
    near, k = state.near, len(state.centers)
    inertia = sample.sums(near.squared_distances, near.labels, k, sample.weights)
    candidates = inertia.topk(min(k, max(number, _LEAST_CANDIDATES))).indices
    return candidates, split(sample, state, candidates, generator)


class Split(NamedTuple):
    """Two-way splits of M clusters."""

    gain: Tensor  # (M,) inertia that each split saves
    low: Tensor  # (M, D) the means of one half, and of the other
    high: Tensor


def split(sample: Sample, state: State, candidates: Tensor, generator: torch.Generator) -> Split:
    """Splits the clusters ``candidates`` (M,), all at once: the better of two local two-means. One
    starts along the cluster's main axis, the other from its farthest row (and those nearer to it
    than to the mean) against the rest, which finds a small group far from a large one."""
    rows, owner, weight = _judges(sample, state, candidates, generator)
    m = len(candidates)
    part = sample.z[rows]
    total, mean = sample.weighted_sums(part, owner, m, weight)
    total.clamp_(min=1e-30)
    mean = (mean / total[:, None]).to(part)
    part -= mean[owner]
    squares = torch.linalg.vecdot(part, part)
    farthest = sample.farthest(rows, squares, owner, m) - mean
    axis = torch.randn(m, part.shape[1], generator=generator).to(part)
    for _ in range(_AXIS_ITERATIONS):  # of power iteration
        sums = sample.sums(part, owner, m, row_dots(part, axis, owner) * weight)
        axis = normalize(sums, dim=1).to(part)
    upper = row_dots(part, axis, owner) > 0
    along = _two_means(sample, part, owner, weight, total, upper)
    upper = row_dots(part, farthest, owner) > (farthest.square().sum(1) / 2)[owner]
    apart = _two_means(sample, part, owner, weight, total, upper)
    better = apart.gain > along.gain
    low, high = (
        sample.project(mean + torch.where(better[:, None], second, first))
        for first, second in ((along.low, apart.low), (along.high, apart.high))
    )
    gain = torch.where(better, apart.gain, along.gain)
    return Split(gain * state.sizes[candidates] / total, low, high)


def _judges(
    sample: Sample, state: State, candidates: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (R,) here of the candidates, which candidate each belongs to, and its weight. Of many,
    about ``JUDGES`` of each are drawn: half evenly, half by their error, so that a rare far group
    is among them, and weighted by one over the probability."""
    m, sizes = len(candidates), state.sizes
    position = torch.full_like(sizes, -1, dtype=torch.int64)
    position[candidates] = torch.arange(m, device=sizes.device)
    owner = position[state.near.labels]
    rows = (owner >= 0).nonzero()[:, 0]
    owner, error = owner[rows], state.near.squared_distances[rows]
    weight = torch.ones_like(error) if sample.weights is None else sample.weights[rows]
    number, order = sample.numbered(rows)
    if number > JUDGES * m:
        error = error * weight
        errors = sample.sums(error, owner, m).clamp_(min=1e-30)
        chance = weight / sizes[candidates].clamp(min=1e-30)[owner] + error / errors[owner]
        chance = (chance * (JUDGES / 2)).clamp_(max=1.0)
        uniform = torch.rand(number, generator=generator).to(chance)[order]
        drawn = (uniform < chance).nonzero()[:, 0]
        rows, owner, weight = rows[drawn], owner[drawn], (weight / chance)[drawn]
    return rows, owner, weight


def _two_means(
    sample: Sample, part: Tensor, owner: Tensor, weight: Tensor, total: Tensor, upper: Tensor
) -> Split:
    """Local two-means of rows around their cluster's mean, from the sides ``upper`` (R,)."""
    m = len(total)
    for last in range(_MEANS_ITERATIONS):
        n_high, sum_high = sample.weighted_sums(part, owner, m, weight * upper)
        n_low = (total - n_high).clamp_(min=0)
        high = (sum_high / n_high.clamp(min=1e-30)[:, None]).to(part)
        low = (-sum_high / n_low.clamp(min=1e-30)[:, None]).to(part)  # the rows sum to zero
        if last < _MEANS_ITERATIONS - 1:
            middle = (high.square().sum(1) - low.square().sum(1)) / 2
            upper = row_dots(part, high - low, owner) > middle[owner]
    both = (n_high > 1e-6 * total) & (n_low > 1e-6 * total)
    gain = n_high * n_low / total * (high - low).square().sum(1)
    return Split(
        torch.where(both, gain, 0.0),
        torch.where(both[:, None], low, 0.0),
        torch.where(both[:, None], high, 0.0),
    )


def removal_costs(sample: Sample, state: State) -> tuple[Tensor, Tensor]:
    """What the inertia would rise by without each centre (K,), and its main receiver (K,).

    Rows go to their second nearest centre, which then moves to its new mean. For the rows of j
    that go to k together the rise is about sum(d2 - d1) n_k / (n_k + n_jk).
    """
    near, k = state.near, len(state.centers)
    rises = near.second_squared_distances - near.squared_distances
    pairs, rise, moved = sample.sums_by_pair(near.labels * k + near.second_labels, rises)
    source, receiver = pairs // k, pairs % k
    rest = state.sizes[receiver].to(rise)
    cost = segment_sums(rise * rest / (rest + moved).clamp(min=1e-30), source, k)
    return cost, receiver[largest_in_segments(moved, source, k)]
