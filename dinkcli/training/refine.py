"""Dilation and shrink at the level of whole centres: they leave where they are worth little and
appear where they are worth much.

Two searches share one idea: a centre is placed at the means of a real two-way split of a cluster.
``swap`` pairs the best splits with the cheapest removals inside an ordinary pass, so that a round
costs one pass. ``breathe`` (breathing k-means, Fritzke 2020, arXiv 2006.15666) adds several
centres, lets all of them settle, and only then removes the least useful; it costs about four
passes a round and goes on where swaps end.

Shapes: N rows, K clusters, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dinkcli.nearest.index import NearestTwo
from dinkcli.training.sample import Sample
from dinkcli.training.schedule import Effort
from dinkcli.training.split import removal_costs, split

_LEAST_CANDIDATES = 64  # centres of a round of swaps
# Of the inertia: a round of swaps that gains less is the last. At a third of it inertia ends
# 0.02 % lower, a tenth later (docs/LOG.md, 2026-11-25).
_SWAP_TOL = 3e-4
_SWAP_ROUNDS = 50  # seen: 24 at most
_ROUNDING = 1e-9  # what is better by less is the same, with its centres in another order


@dataclass(frozen=True)
class State:
    """Centres (K, D) with their nearest-centre assignment of a sample, its inertia and size."""

    centers: Tensor
    near: NearestTwo
    inertia: float
    rows: int

    @classmethod
    def of(cls, sample: Sample, centers: Tensor, approximate: bool = False) -> State:
        """``approximate``: any of the centres about as near will do."""
        near = sample.nearest_two(centers, approximate)
        return cls(centers, near, sample.inertia(near), len(sample))


@dataclass
class Refining:
    """Where a refinement stands: with the sample, all that its next round depends on.

    Attributes:
        centers: (K, D), the best so far.
        moves: centres that the next round may move; 0 after the last breath.
        largest: the most centres that a round moved, at least K/4.
        approximate: clusters are so wide that any of the centres about as near will do.
        swapping: swaps come first, then breaths.
        rounds: of swaps so far.
        failures: poor rounds in a row.
    """

    centers: Tensor
    moves: int
    largest: int
    approximate: bool = False
    swapping: bool = True
    rounds: int = 0
    failures: int = 0

    @classmethod
    def begin(cls, centers: Tensor, approximate: bool = False) -> Refining:
        most = max(1, len(centers) // 4)
        return cls(centers, most, most, approximate)


def refine(
    sample: Sample, at: Refining, generator: torch.Generator, effort: Effort
) -> Iterator[tuple[int, State]]:
    """Yields (centres moved, best state so far) after every round: swaps, then breaths."""
    if len(at.centers) < 2:
        return
    best = State.of(sample, at.centers, at.approximate)
    if at.swapping:
        for step in swap(sample, at, best, generator, effort.patience, effort.moves):
            yield step
            best = step[1]
    part = sample[: effort.breathing_rows]
    if len(part) > 0:
        if len(part) < len(sample):
            best = State.of(part, best.centers, at.approximate)
        yield from breathe(part, at, best, generator, effort)


def swap(
    sample: Sample,
    at: Refining,
    best: State,
    generator: torch.Generator,
    patience: int,
    breaths: int = 0,
) -> Iterator[tuple[int, State]]:
    """Rounds of moves inside a pass, up to K/4 at first and half as many after a poor round.

    Args:
        patience: poor rounds in a row that end them.
        breaths: how many centres the round after the last swap may move.
    """
    if len(best.centers) < 3:
        at.swapping, at.moves = False, breaths
    while at.swapping:
        centers, moved = _swapped(sample, best, at.moves, generator)
        new = State.of(sample, centers, at.approximate)
        poor = new.inertia >= best.inertia * (1 - _SWAP_TOL)
        if new.inertia < best.inertia * (1 - _ROUNDING):
            best = new
        at.centers = best.centers
        at.largest = max(at.largest, moved)
        at.rounds += 1
        at.failures = at.failures + 1 if poor else 0
        if poor:
            at.moves = max(1, min(at.moves, moved) // 2)
        if moved == 0 or at.failures == patience or at.rounds == _SWAP_ROUNDS:
            at.swapping, at.moves, at.failures = False, breaths, 0
        yield moved, best


def _swapped(
    sample: Sample, state: State, most: int, generator: torch.Generator
) -> tuple[Tensor, int]:
    """The means of all clusters, with up to ``most`` centres moved; and how many were."""
    near, n_clusters = state.near, len(state.centers)
    sizes = sample.cluster_weights(near.labels, n_clusters).to(state.centers)
    cost, receiver = removal_costs(sample, near, sizes)
    candidates = _worst(sample, near, n_clusters, 2 * most)
    found = split(sample, near, sizes, candidates, generator)
    pairs = _pair(found.gain, candidates, cost, receiver, most)
    if not pairs:
        return sample.means(state.centers, near.labels), 0
    chosen, removed = torch.tensor(pairs, device=near.labels.device).unbind(1)
    centers = _means_without(sample, near, state.centers, removed)
    centers[candidates[chosen]] = found.low[chosen]
    centers[removed] = found.high[chosen]
    return centers, len(pairs)


def _pair(
    gain: Tensor, candidates: Tensor, cost: Tensor, receiver: Tensor, most: int
) -> list[tuple[int, int]]:
    """(position of the split, removed centre), best gain with least cost, while that pays.

    The main receiver of a removed centre neither goes nor is split: the cost counts on it.
    """
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


def breathe(
    sample: Sample, at: Refining, best: State, generator: torch.Generator, effort: Effort
) -> Iterator[tuple[int, State]]:
    """Rounds of ``effort.moves`` centres at a time, then fewer, down to one.

    The number is halved after ``effort.patience`` rounds in a row that did not lower the inertia by
    ``effort.tol`` of it.
    """
    while at.moves:
        moves = at.moves
        centers = _inhale_exhale(sample, best, moves, at.approximate, generator)
        new = State.of(sample, centers, at.approximate)
        poor = new.inertia >= best.inertia * (1 - effort.tol)
        if new.inertia < best.inertia * (1 - _ROUNDING):
            best = new
        at.centers = best.centers
        at.largest = max(at.largest, moves)
        at.failures = at.failures + 1 if poor else 0
        if at.failures == effort.patience:
            at.failures = 0
            at.moves //= 2
        yield moves, best


def _inhale_exhale(
    sample: Sample, state: State, moves: int, approximate: bool, generator: torch.Generator
) -> Tensor:
    """``moves`` more centres by the best splits, then as many fewer by the least cost; (K, D)."""
    near, n_clusters = state.near, len(state.centers)
    sizes = sample.cluster_weights(near.labels, n_clusters).to(state.centers)
    candidates = _worst(sample, near, n_clusters, 2 * moves)
    found = split(sample, near, sizes, candidates, generator)
    best = found.gain.topk(moves).indices
    many = torch.cat([state.centers, found.high[best]])
    many[candidates[best]] = found.low[best]
    many = sample.means(many, sample.labels(many))
    near = sample.nearest_two(many, approximate)
    sizes = sample.cluster_weights(near.labels, len(many)).to(many)
    removed = _least_useful(*removal_costs(sample, near, sizes), moves)
    many = _means_without(sample, near, many, removed)
    stays = torch.ones(len(many), dtype=torch.bool, device=many.device)
    stays[removed] = False
    return many[stays]


def _least_useful(cost: Tensor, receiver: Tensor, number: int) -> Tensor:
    """The centres of least cost, main receivers spared where there are enough others."""
    receivers = receiver.tolist()
    order = cost.argsort(stable=True).tolist()
    spared: set[int] = set()
    gone: list[int] = []
    for center in order:
        if len(gone) < number and center not in spared:
            gone.append(center)
            if len(spared) + number < len(order):
                spared.add(receivers[center])
    taken = set(gone)
    gone += [center for center in order if center not in taken][: number - len(gone)]
    return torch.tensor(gone, device=cost.device)


def _worst(sample: Sample, near: NearestTwo, n_clusters: int, number: int) -> Tensor:
    """The clusters of the largest inertia, the candidates for a split."""
    inertia = sample.cluster_inertia(near, n_clusters)
    return inertia.topk(min(n_clusters, max(number, _LEAST_CANDIDATES))).indices


def _means_without(sample: Sample, near: NearestTwo, centers: Tensor, removed: Tensor) -> Tensor:
    """The means when the rows of the ``removed`` centres go to their second nearest one.

    Rows whose second nearest centre is removed too leave that centre where it is.
    """
    gone = torch.zeros(len(centers), dtype=torch.bool, device=centers.device)
    gone[removed] = True
    labels = torch.where(gone[near.labels], near.second_labels, near.labels)
    return sample.means(centers, labels)
