"""Many numbers of clusters at once, and which of them stands out.

For every K the centres of a smaller K are the start: clusters that gain most from it are split,
until there are K. That happens on two halves of a sample apart, and on noise with the sample's
own spread along each of its main axes. A few passes that all K share then measure all rows.

Shapes: N rows, K clusters, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from dinkcli.errors import UsageError
from dinkcli.insight.agreement import adjusted_rand_index
from dinkcli.insight.recommend import Candidate, Sweep, recommend
from dinkcli.nearest.index import CenterIndex, NearestTwo
from dinkcli.nearest.sums import Statistics, tempered_statistics
from dinkcli.training.refine import Refining, State, swap
from dinkcli.training.sample import Sample
from dinkcli.training.schedule import sample_size
from dinkcli.training.seeding import seed_centers
from dinkcli.training.source import RowSource
from dinkcli.training.split import split

_HALF_ROWS = 4096
_ROWS_PER_CLUSTER = 64
_STARTS = 3
_PASSES = 2  # after centres were added
_SWAPS = 2
_NEIGHBOURS = 12


def sweep(
    rows: RowSource,
    numbers: Sequence[int],
    between: bool = False,
    seed: int = 0,
    on_step: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> Sweep:
    """Measures every K of ``numbers``, ascending, and recommends one if there is a clear one.

    Args:
        between: also try the numbers around the best of ``numbers``.
        on_step: called with a phase, the position in it, and its length.

    Raises:
        UsageError: fewer than two rows for the largest K.
        InputError: fewer distinct rows than clusters.
    """
    if 2 * numbers[-1] > rows.n_rows:
        raise UsageError(
            f"-k {numbers[-1]}: a sweep needs at least 2 rows for each cluster, and "
            f"{rows.data.name} has {rows.n_rows}"
        )
    search = _Search(rows, numbers[-1], seed)
    found: dict[int, Candidate] = {}
    for done, k in enumerate(numbers, 1):
        found[k] = search.at(k)
        on_step("sweep", done, len(numbers))
    if between:
        best = max(found, key=lambda k: found[k].excess)
        extra = _around(best, sorted(found))
        for done, k in enumerate(extra, 1):
            found[k] = search.at(k)
            on_step("around", done, len(extra))
    tried = sorted(found)
    inertia = _shared_passes(rows, [search.first.centers(k) for k in tried])
    candidates = [replace(found[k], inertia=each) for k, each in zip(tried, inertia, strict=True)]
    chosen = recommend(candidates, rows.n_bad)
    centers = search.first.centers(chosen.workable).cpu() + rows.shift
    return replace(chosen, cluster_centers=centers.float().numpy(), offset=rows.data.offset)


class _Search:
    """Paths of growing K on two halves of a sample, and on noise."""

    def __init__(self, rows: RowSource, most: int, seed: int):
        self.generator = torch.Generator().manual_seed(seed)
        half = max(_HALF_ROWS, _ROWS_PER_CLUSTER * most)
        size = min(2 * half, sample_size(rows.n_rows, most, rows.n_features, rows.memory))
        self.sample = rows.sample(size, self.generator)
        z, project = self.sample.z, rows.project
        self.middle = size // 2
        self.first = _Path(self.sample[: self.middle], self.generator)
        self.second = _Path(self.sample[self.middle :], self.generator)
        noise = Sample(project(_noise(z, self.generator)), None, project)
        self.noise = _Path(noise[: self.middle], self.generator)
        self.other_noise = noise[self.middle :]

    def at(self, k: int) -> Candidate:
        """All but the inertia over all rows."""
        first, second = self.first.centers(k), self.second.centers(k)
        mine, theirs = self.sample.nearest_two(first), self.sample.nearest_two(second)
        table = torch.bincount(mine.labels * k + theirs.labels, minlength=k * k).cpu().numpy()
        # Centres are judged on the rows that they were not made from.
        values = torch.cat([_silhouettes(theirs)[: self.middle], _silhouettes(mine)[self.middle :]])
        noise = _silhouettes(self.other_noise.nearest_two(self.noise.centers(k)))
        return Candidate(
            k,
            math.nan,
            float(self.sample.weigh(values).sum() / self.sample.total_weight),
            float(noise.mean()),
            adjusted_rand_index(table.reshape(k, k)),
        )


class _Path:
    """Centres for growing K on one sample, each from the nearest smaller K."""

    def __init__(self, sample: Sample, generator: torch.Generator):
        self.sample = sample
        self.generator = generator
        self._states: dict[int, State] = {}

    def centers(self, k: int) -> Tensor:
        if k not in self._states:
            smaller = [known for known in self._states if known < k]
            self._states[k] = (
                self._grown(self._states[max(smaller)], k) if smaller else self._new(k)
            )
        return self._states[k].centers

    def _new(self, k: int) -> State:
        tried = []
        for _ in range(_STARTS):
            order = torch.randperm(len(self.sample), generator=self.generator)
            mixed = self.sample.shuffled(order.to(self.sample.z.device))
            seeds = seed_centers(mixed, k, "kmeans++", self.generator, len(mixed))
            tried.append(self._settled(seeds.centers))
        return min(tried, key=lambda state: state.inertia)

    def _grown(self, state: State, k: int) -> State:
        while (now := len(state.centers)) < k:
            near, sample = state.near, self.sample
            sizes = sample.cluster_weights(near.labels, now).to(state.centers)
            everyone = torch.arange(now, device=state.centers.device)
            found = split(sample, near, sizes, everyone, self.generator)
            # Not all at once: a split is judged with all the other centres in place.
            chosen = found.gain.topk(min(k - now, max(1, now // 2))).indices
            centers = torch.cat([state.centers, found.high[chosen]])
            centers[chosen] = found.low[chosen]
            state = self._settled(centers) if len(centers) == k else self._passes(centers, 1)
        return state

    def _settled(self, centers: Tensor) -> State:
        best = self._passes(centers, _PASSES)
        at = Refining.begin(best.centers)
        rounds = swap(self.sample, at, best, self.generator, patience=_SWAPS)
        states = [state for _, state in islice(rounds, _SWAPS)]
        return states[-1] if states else best

    def _passes(self, centers: Tensor, number: int) -> State:
        for _ in range(number):
            centers = self.sample.means(centers, self.sample.labels(centers))
        return State.of(self.sample, centers)


def _silhouettes(near: NearestTwo) -> Tensor:
    """(N,) simplified silhouettes."""
    first, second = near.squared_distances.sqrt(), near.second_squared_distances.sqrt()
    return torch.where(second > 0, 1 - first / second, 0.0)


def _noise(z: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform noise in the box of the rows along their main axes (Tibshirani et al. 2001)."""
    mean = z.mean(0)
    axes = torch.linalg.eigh(torch.cov((z - mean).T.cpu().double()).reshape(z.shape[1], -1))
    along = axes.eigenvectors.to(z)
    spread = axes.eigenvalues.clamp(min=0).sqrt().to(z) * math.sqrt(12)
    uniform = torch.rand(z.shape, generator=generator).to(z) - 0.5
    return mean + (uniform * spread) @ along.T


def _around(best: int, tried: list[int]) -> list[int]:
    """Numbers next to ``best`` that were not tried, at most ``_NEIGHBOURS``, ascending."""
    at = tried.index(best)
    low, high = tried[max(0, at - 1)], tried[min(len(tried) - 1, at + 1)]
    open_ = [k for k in range(low + 1, high) if k not in tried]
    if len(open_) > _NEIGHBOURS:
        open_ = sorted(sorted(open_, key=lambda k: abs(k - best))[:_NEIGHBOURS])
    return open_


def _shared_passes(rows: RowSource, all_centers: list[Tensor]) -> list[float]:
    """Inertia of each K over all rows, after one update on them; each row is read twice."""
    totals = zip(_one_pass(rows, all_centers), all_centers, strict=True)
    moved = [rows.project(total.means(centers)) for total, centers in totals]
    return [total.inertia for total in _one_pass(rows, moved)]


def _one_pass(rows: RowSource, all_centers: list[Tensor]) -> list[Statistics]:
    indexes = [CenterIndex(centers) for centers in all_centers]
    totals = [Statistics.zeros(centers) for centers in all_centers]
    for z, weights in rows.blocks():
        for total, index in zip(totals, indexes, strict=True):
            total.add(tempered_statistics(z, weights, index, 0.0))
    return totals
