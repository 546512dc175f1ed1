"""Many numbers of clusters at once, and which of them stands out.

For every K the centres of a smaller K are the start: clusters that gain most from it are split,
until there are K. That happens on two halves of a sample apart, and for a few K on noise with the
sample's own spread along each of its main axes. A range of numbers grows while the best of them
lies in its last octave, and is then looked at more closely around the best.

Shapes: S rows of the sample, K clusters, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dinkcli.errors import UsageError
from dinkcli.insight.agreement import adjusted_rand_index
from dinkcli.insight.ranges import grid
from dinkcli.insight.recommend import Candidate, Sweep, highest, recommend
from dinkcli.nearest.index import NearestTwo
from dinkcli.training.neighbours import nearest_others, neighbour_graph
from dinkcli.training.refine import Refining, State, swap
from dinkcli.training.rows import RowSource
from dinkcli.training.sample import Sample
from dinkcli.training.schedule import sample_size
from dinkcli.training.seeding import seed_centers
from dinkcli.training.split import split

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_HALF_ROWS = 4096
_ROWS_PER_CLUSTER = 16  # of a half at least
_GROWN_ROWS = 8  # for each cluster, to which a range grows
_STARTS = 3
_PASSES = 2  # after centres were added
_SWAPS = 2
_ROUNDS = 4  # of numbers half-way from the best to the next ones
_STABLE = 0.9  # what may become clear when the numbers around it are known
_NEIGHBOURS = 8  # of the graph; with 12 or more, small clusters look bad


def sweep(
    rows: RowSource,
    numbers: Sequence[int],
    grows: bool = False,
    seed: int = 0,
    on_step: Callable[[str, int, int], None] = lambda phase, done, total: None,
) -> Sweep:
    """Measures every K of ``numbers``, ascending, and recommends one.

    Args:
        grows: also try larger numbers while the best is among the last, and those around the best.
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
    tried: dict[int, Candidate] = {}

    def look(more: Sequence[int], phase: str) -> Sweep:
        for done, k in enumerate(more, 1):
            tried[k] = search.at(k)
            on_step(phase, done, len(more))
        return recommend([tried[k] for k in sorted(tried)], rows.n_bad)

    if grows:
        search.walk(grid(2, numbers[0]))
    chosen = look(numbers, "sweep")
    most = rows.n_rows // _GROWN_ROWS
    while grows and 2 * chosen.workable > max(tried) and max(tried) < most:
        last = max(tried)
        more = [k for k in grid(last, min(2 * last, most)) if k not in tried]
        if not search.has_rows_for(more[-1]):
            search = _Search(rows, more[-1], seed, search)
        chosen = look(more, "grow")
    for _ in range(_ROUNDS if grows else 0):
        more = _between(chosen, sorted(tried))
        if not more:
            break
        chosen = look(more, "around")
    centers = search.centers(chosen.workable).cpu() + rows.shift
    return replace(chosen, cluster_centers=centers.float().numpy(), offset=rows.data.offset)


class _Search:
    """Paths of growing K on two halves of a sample, and on noise."""

    def __init__(self, rows: RowSource, most: int, seed: int, before: _Search | None = None):
        self.seed = seed
        self.half = max(_HALF_ROWS, _ROWS_PER_CLUSTER * most)
        fits = sample_size(rows.n_rows, most, rows.n_features, rows.memory)
        generator = torch.Generator().manual_seed(seed)
        self.sample = rows.sample(min(2 * self.half, fits), generator)
        self.middle = len(self.sample) // 2
        self.whole = self.middle < self.half
        self.scale = rows.total_weight / self.sample.total_weight
        starts = (None, None) if before is None else (before.first.last, before.second.last)
        self.first: _Path = _Path(self.sample[: self.middle], seed, starts[0])
        self.second: _Path = _Path(self.sample[self.middle :], seed + 1, starts[1])
        number = min(_NEIGHBOURS, len(self.sample) - 1)
        self.graph = neighbour_graph(nearest_others(self.sample.z.cpu(), number))
        self._of_noise: dict[int, float] = {}

    def has_rows_for(self, k: int) -> bool:
        """Whether the sample is large enough for K, or is all that there is."""
        return self.whole or _ROWS_PER_CLUSTER * k <= self.half

    def walk(self, numbers: Sequence[int]) -> None:
        """Goes to the last of ``numbers``: a range that begins there has the centres of others."""
        for k in numbers:
            for path in (self.first, self.second):
                path.centers(k)

    def at(self, k: int) -> Candidate:
        first, second = self.first.centers(k), self.second.centers(k)
        mine, theirs = self.sample.nearest_two(first), self.sample.nearest_two(second)
        table = torch.bincount(mine.labels * k + theirs.labels, minlength=k * k).cpu().numpy()
        # Centres are judged on the rows that they were not made from.
        values = torch.cat([_silhouettes(theirs)[: self.middle], _silhouettes(mine)[self.middle :]])
        means = self.sample.means(first, mine.labels)
        apart = (self.sample.z - means[mine.labels]).square().sum(1)
        return Candidate(
            k,
            float(self.sample.weigh(apart).sum()) * self.scale,
            float(self.sample.weigh(values).sum() / self.sample.total_weight),
            self._noise_silhouette(k),
            adjusted_rand_index(table.reshape(k, k)),
            modularity(self.graph, mine.labels.cpu().numpy(), k),
        )

    def centers(self, k: int) -> Tensor:
        """(K, D) the means of the sample's clusters."""
        first = self.first.centers(k)
        return self.sample.means(first, self.sample.labels(first))

    @cached_property
    def noise(self) -> tuple[_Path, Sample]:
        """Noise that centres are made from, and noise that they are judged on."""
        project = self.sample.project
        generator = torch.Generator().manual_seed(self.seed + 2)
        whole = Sample(project(_noise(self.sample.z, generator)), None, project)
        return _Path(whole[: self.middle], self.seed + 2), whole[self.middle :]

    def _noise_silhouette(self, k: int) -> float:
        """Measured at powers of two (and at the largest K that there are rows for); between them
        it is smooth."""
        path, rows = self.noise
        power = 1 << (k.bit_length() - 1)
        ends = sorted({power, min(2 * power, self.middle)} if power < k else {k})
        for end in ends:
            if end not in self._of_noise:
                near = rows.nearest_two(path.centers(end))
                self._of_noise[end] = float(_silhouettes(near).mean())
        known = [self._of_noise[end] for end in ends]
        return float(np.interp(math.log(k), np.log(ends), known))


class _Path:
    """Centres for growing K on one sample, each from the nearest smaller K."""

    def __init__(self, sample: Sample, seed: int, start: Tensor | None = None):
        self.sample = sample
        self.generator = torch.Generator().manual_seed(seed)
        self._states: dict[int, State] = {}
        if start is not None:
            self._states[len(start)] = self._settled(start)

    @property
    def last(self) -> Tensor:
        """The centres of the largest K."""
        return self._states[max(self._states)].centers

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


def modularity(graph: csr_matrix, labels: np.ndarray, n_clusters: int) -> float:
    """The share of links (S, S) within clusters, less that by chance; ``labels`` (S,)."""
    degrees = np.diff(graph.indptr)
    inside = labels[np.repeat(np.arange(len(labels)), degrees)] == labels[graph.indices]
    by_chance = np.bincount(labels, degrees, n_clusters) / degrees.sum()
    return float(inside.mean() - (by_chance**2).sum())


def _between(chosen: Sweep, tried: list[int]) -> list[int]:
    """Numbers half-way, in ratio, from the best to those next to it; none where it is not clear
    and these look alike."""
    peak = highest(chosen.candidates)
    clear = peak.stability >= _STABLE
    at = tried.index(peak.n_clusters if clear else chosen.workable)
    ends = tried[max(0, at - 1)], tried[min(len(tried) - 1, at + 1)]
    if not clear and chosen.alike[0] <= ends[0] and ends[1] <= chosen.alike[1]:
        return []
    return sorted({round(math.sqrt(tried[at] * end)) for end in ends} - set(tried))
