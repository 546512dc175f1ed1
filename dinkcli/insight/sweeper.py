"""Many numbers of clusters at once, and which of them stands out.

For every K the centres of a smaller K are the start: clusters that gain most from it are split,
until there are K. That happens on two halves of a sample apart, and for a few K on noise with the
sample's own spread along each of its main axes. A range of numbers grows while the best of them
lies in its last octave, and is then looked at more closely around the best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dinkcli.insight.agreement import adjusted_rand_index
from dinkcli.insight.recommend import Candidate, Sweep, grid, highest, recommend
from dinkcli.nearest.hardware import products
from dinkcli.nearest.index import NearestTwo
from dinkcli.processes.workers import Workers
from dinkcli.training.neighbours import nearest_others, neighbour_graph
from dinkcli.training.refine import Refining, State, split, swap
from dinkcli.training.rows import RowSource
from dinkcli.training.sample import Sample
from dinkcli.training.schedule import sample_size
from dinkcli.training.seeding import seed_centers

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_WORKERS = 4  # two halves, noise, and what is judged
_HALF_ROWS = 4096
_ROWS_PER_CLUSTER = 16  # of a half at least
_GROWN_ROWS = 8  # for each cluster, to which a range grows
_STARTS = 3
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
    """Measures every K of ``numbers``, ascending to half the number of rows, and recommends one.
    Where it ``grows``, larger ones are tried while the best is among the last, and then those
    around the best. InputError for fewer distinct rows than clusters."""
    tried: dict[int, Candidate] = {}

    def look(more: Sequence[int], phase: str) -> Sweep:
        for done, (k, candidate) in enumerate(zip(more, search.candidates(more), strict=True), 1):
            tried[k] = candidate
            on_step(phase, done, len(more))
        return recommend([tried[k] for k in sorted(tried)], rows.n_bad)

    # On other devices one thing after the other: that is how they work, and threads share them.
    threads = _WORKERS if rows.device.type == "cpu" else 0
    with products(rows.device), Workers(threads) as workers:
        search = _Search(rows, numbers[-1], seed, workers)
        for k in grid(2, numbers[0]) if grows else ():
            search.states(k)  # a range that begins later has the centres of smaller numbers
        chosen = look(numbers, "sweep")
        most = rows.n_rows // _GROWN_ROWS
        while grows and 2 * chosen.workable > max(tried) and max(tried) < most:
            last = max(tried)
            more = [k for k in grid(last, min(2 * last, most)) if k not in tried]
            if more[-1] > search.most:
                search = _Search(rows, more[-1], seed, workers, search)
            chosen = look(more, "grow")
        for _ in range(_ROUNDS if grows else 0):
            more = _between(chosen, sorted(tried))
            if not more:
                break
            chosen = look(more, "around")
        sample, first = search.sample, search.first.at(chosen.workable).result().centers
        centers = sample.means(first, sample.labels(first)).cpu() + rows.shift
    return replace(chosen, cluster_centers=centers.float().numpy(), offset=rows.data.offset)


class _Search:
    """Paths of growing K on two halves of a sample, and on noise; all work is that of workers."""

    def __init__(
        self, rows: RowSource, most: int, seed: int, workers: Workers, before: _Search | None = None
    ):
        self.workers = workers
        half = max(_HALF_ROWS, _ROWS_PER_CLUSTER * most)
        fits = sample_size(rows.n_rows, most, rows.n_features, rows.memory)
        self.sample = rows.sample(min(2 * half, fits), torch.Generator().manual_seed(seed))
        self.middle = len(self.sample) // 2
        # The largest K that the sample has rows for, unless it is all that there is.
        self.most = math.inf if self.middle < half else half // _ROWS_PER_CLUSTER
        self.scale = rows.total_weight / self.sample.total_weight
        starts = (None, None) if before is None else (before.first, before.second)
        self.first: _Path = _Path(workers, seed, self.sample[: self.middle], starts[0])
        self.second: _Path = _Path(workers, seed + 1, self.sample[self.middle :], starts[1])
        self.graph = workers.submit(_graph, self.sample)
        self.noise = workers.submit(_noise, self.sample, seed + 2)
        half_of_noise = workers.submit(lambda halves: halves[0], self.noise)
        self.on_noise = _Path(workers, seed + 2, half_of_noise, None)
        self._of_noise: dict[int, Future[float]] = {}

    def states(self, k: int) -> tuple[Future[State], Future[State]]:
        """Centres of both halves."""
        return self.first.at(k), self.second.at(k)

    def candidates(self, numbers: Sequence[int]) -> Iterator[Candidate]:
        """What is known of each K, in turn."""
        judged = []
        for k in numbers:
            states = self.states(k)
            # Noise is measured at powers of two (and the largest K that there are rows for),
            # between which it is smooth.
            power = 1 << (k.bit_length() - 1)
            ends = sorted({power, min(2 * power, self.middle)} if power < k else {k})
            for end in ends:
                if end not in self._of_noise:
                    state = self.on_noise.at(end)
                    self._of_noise[end] = self.workers.submit(_mean_silhouette, self.noise, state)
            noise = [self._of_noise[end] for end in ends]
            judged.append(self.workers.submit(self._judge, k, *states, self.graph, ends, *noise))
        for candidate in judged:
            yield candidate.result()

    def _judge(
        self, k: int, first: State, second: State, graph: csr_matrix, ends: list[int], *noise: float
    ) -> Candidate:
        """What is known of K; ``noise`` are the silhouettes of noise with ``ends`` clusters."""
        # Centres are judged on the rows that they were not made from.
        theirs = self.sample[: self.middle].nearest_two(second.centers)
        mine = self.sample[self.middle :].nearest_two(first.centers)
        labels = torch.cat([first.near.labels, mine.labels])
        others = torch.cat([theirs.labels, second.near.labels])
        table = torch.bincount(labels * k + others, minlength=k * k).cpu().numpy()
        silhouettes = torch.cat([_silhouettes(theirs), _silhouettes(mine)])
        means = self.sample.means(first.centers, labels)
        apart = (self.sample.z - means[labels]).square().sum(1)
        return Candidate(
            k,
            float(self.sample.weigh(apart).sum()) * self.scale,
            float(self.sample.weigh(silhouettes).sum() / self.sample.total_weight),
            float(np.interp(math.log(k), np.log(ends), noise)),
            adjusted_rand_index(table.reshape(k, k)),
            modularity(graph, labels.cpu().numpy(), k),
        )


class _Path:
    """Centres for growing K on one sample, each from the nearest smaller K."""

    def __init__(
        self, workers: Workers, seed: int, sample: Sample | Future[Sample], before: _Path | None
    ):
        self._workers, self._sample = workers, sample
        self._generator = torch.Generator().manual_seed(seed)
        self._states: dict[int, Future[State]] = {}
        self._latest: Future[State] | None = None  # draws come one after the other
        if before is not None:
            start = before._states[max(before._states)].result().centers
            self._latest = workers.submit(_settled, sample, self._generator, start)
            self._states[len(start)] = self._latest

    def at(self, k: int) -> Future[State]:
        if k not in self._states:
            smaller = max((known for known in self._states if known < k), default=k)
            before, common = self._states.get(smaller), (self._sample, self._generator)
            self._latest = self._workers.submit(_grown, self._latest, *common, before, k)
            self._states[k] = self._latest
        return self._states[k]


def _grown(
    _: State | None, sample: Sample, generator: torch.Generator, state: State | None, k: int
) -> State:
    if state is None:
        return _new(sample, generator, k)
    while (now := len(state.centers)) < k:
        everyone = torch.arange(now, device=state.centers.device)
        splits = split(sample, state, everyone, generator)
        # Not all at once: a split is judged with all the other centres in place.
        chosen = splits.gain.topk(min(k - now, max(1, now // 2))).indices
        centers = torch.cat([state.centers, splits.high[chosen]])
        centers[chosen] = splits.low[chosen]
        whole = len(centers) == k
        state = _settled(sample, generator, centers) if whole else _moved(sample, centers)
    return state


def _new(sample: Sample, generator: torch.Generator, k: int) -> State:
    tried = []
    for _ in range(_STARTS):
        order = torch.randperm(len(sample), generator=generator).to(sample.z.device)
        weights = None if sample.weights is None else sample.weights[order]
        mixed = replace(sample, z=sample.z[order], weights=weights)
        seeds = seed_centers(mixed, k, "kmeans++", generator, len(mixed))
        tried.append(_settled(sample, generator, seeds.centers))
    return min(tried, key=lambda state: state.inertia)


def _settled(sample: Sample, generator: torch.Generator, centers: Tensor) -> State:
    """After two passes and swaps."""
    state = _moved(sample, sample.means(centers, sample.labels(centers)))
    rounds = swap(sample, Refining.begin(state.centers), state, generator, patience=_SWAPS)
    return [state, *(better for _, better in islice(rounds, _SWAPS))][-1]


def _moved(sample: Sample, centers: Tensor) -> State:
    return State.of(sample, sample.means(centers, sample.labels(centers)))


def _mean_silhouette(noise: tuple[Sample, Sample], state: State) -> float:
    return float(_silhouettes(noise[1].nearest_two(state.centers)).mean())


def _silhouettes(near: NearestTwo) -> Tensor:
    """(N,) simplified silhouettes."""
    first, second = near.squared_distances.sqrt(), near.second_squared_distances.sqrt()
    return torch.where(second > 0, 1 - first / second, 0.0)


def _graph(sample: Sample) -> csr_matrix:
    return neighbour_graph(nearest_others(sample.z.cpu(), min(_NEIGHBOURS, len(sample) - 1)))


def _noise(sample: Sample, seed: int) -> tuple[Sample, Sample]:
    """Uniform noise in the box of the rows along their main axes (Tibshirani et al. 2001): what
    centres are made from, and what they are judged on."""
    z, generator, middle = sample.z, torch.Generator().manual_seed(seed), len(sample) // 2
    mean = z.mean(0)
    axes = torch.linalg.eigh(torch.cov((z - mean).T.cpu().double()).reshape(z.shape[1], -1))
    along = axes.eigenvectors.to(z)
    spread = axes.eigenvalues.clamp(min=0).sqrt().to(z) * math.sqrt(12)
    uniform = torch.rand(z.shape, generator=generator).to(z) - 0.5
    whole = Sample(sample.project(mean + (uniform * spread) @ along.T), None, sample.project)
    return whole[:middle], whole[middle:]


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
