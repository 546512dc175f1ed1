"""The rows in memory on which centres are annealed and refined. Several processes each hold a part
of them: sums are over the rows of all processes; what each row has, is there for the rows here.

Shapes: S rows, N of them in this process, K clusters, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from dinkcli.nearest.hardware import products
from dinkcli.nearest.index import CenterIndex, NearestTwo
from dinkcli.nearest.prepare import largest_value
from dinkcli.nearest.sums import (
    Statistics,
    cluster_weights,
    largest_in_segments,
    segment_sums,
    weighted_sum,
)
from dinkcli.nearest.tempered import (
    OVERLAP,
    RunningAverages,
    TemperedSums,
    low_precision_temperature,
)
from dinkcli.processes.group import SINGLE, Group

REPORT_ROWS = 2048  # for an estimate of the inertia
_PROBE_ROWS = 512  # that tell whether products of low precision serve


def center_projection(metric: str) -> Callable[[Tensor], Tensor]:
    """What maps means to allowed centres: under cosine those of norm 1; a zero mean stays zero."""
    if metric == "cosine":
        return partial(torch.nn.functional.normalize, dim=1)
    return lambda centers: centers


@dataclass
class Sample:
    """Rows in random order, around the origin.

    Attributes:
        z: (N, D) float32.
        weights: (N,) or None for all ones.
        project: maps means to allowed centres (see ``center_projection``).
        group: the processes that share the rows.
        positions: (N,) int64, ascending, of the rows here among all S; None when all are here.
        size: S; N when all are here.
    """

    z: Tensor
    weights: Tensor | None
    project: Callable[[Tensor], Tensor]
    group: Group = SINGLE
    positions: Tensor | None = None
    size: int = -1

    def __post_init__(self) -> None:
        if self.positions is None:
            self.size = len(self.z)

    @cached_property
    def total_weight(self) -> float:
        if self.weights is None:
            return float(self.size)
        return self.group.total(weighted_sum(self.weights, None))[0]

    @cached_property
    def moments(self) -> tuple[Tensor, float]:
        """The mean row (D,) and the mean squared norm, weighted."""
        with products(self.z.device):
            total = self.z.sum(0) if self.weights is None else self.weights @ self.z
        self.group.sum_(total)
        squares = self.total(torch.linalg.vector_norm(self.z, dim=1).square_())
        return total / self.total_weight, squares / self.total_weight

    def paper_shrink_loss(self, centers: Tensor) -> float:
        """Eq. 6 for these rows, from their moments."""
        mean, square = self.moments
        return square + float(centers.square().sum(1).mean() - 2 * (mean @ centers.mean(0)))

    def __len__(self) -> int:
        """S, also where only some of the rows are here."""
        return self.size

    def __getitem__(self, rows: slice) -> Sample:
        """The rows at consecutive positions, which begin at 0 there."""
        start, stop, _ = rows.indices(self.size)
        positions = None
        if self.positions is not None:
            ends = torch.tensor([start, stop], device=self.positions.device)
            rows = slice(*torch.searchsorted(self.positions, ends).tolist())
            positions = self.positions[rows] - start
        weights = None if self.weights is None else self.weights[rows]
        size = stop - start
        return Sample(self.z[rows], weights, self.project, self.group, positions, size)

    def gathered(self, values: Tensor) -> Tensor:
        """``values`` (N, ...) of the rows here, for all rows by position, (S, ...)."""
        if self.positions is None:
            return values
        result = values.new_zeros((self.size, *values.shape[1:]))
        result[self.positions] = values
        self.group.sum_(result)
        return result

    def whole(self) -> Sample:
        """All rows of all processes, in this one."""
        weights = None if self.weights is None else self.gathered(self.weights)
        return Sample(self.gathered(self.z), weights, self.project)

    def select(self, positions: Tensor) -> Tensor:
        """The rows at ``positions`` (M,) of any process; (M, D)."""
        held, index = self.local(positions)
        result = self.z.new_zeros((len(positions), self.z.shape[1]))
        result[held] = self.z[index]
        self.group.sum_(result)
        return result

    def local(self, positions: Tensor) -> tuple[Tensor | slice, Tensor]:
        """Which of the ``positions`` (M,) this process holds, and the indices of these rows."""
        if self.positions is None:
            return slice(None), positions
        index = torch.searchsorted(self.positions, positions)
        padded = torch.cat([self.positions, self.positions.new_full((1,), -1)])
        held = padded[index] == positions
        return held, index[held]

    def numbered(self, rows: Tensor) -> tuple[int, Tensor | slice]:
        """How many such rows all processes have, and the number of each here (R,) among them."""
        if self.positions is None:
            return len(rows), slice(None)
        chosen = torch.zeros(len(self.z), dtype=torch.uint8, device=rows.device)
        chosen[rows] = 1
        upto = self.gathered(chosen).cumsum(0)
        return int(upto[-1]), upto[self.positions[rows]] - 1

    def distinct(self, most: int) -> Tensor:
        """At most so many distinct rows."""
        rows = torch.unique(self.z, dim=0)[:most]
        return torch.unique(self.group.gather(rows), dim=0)[:most]

    def farthest(self, rows: Tensor, values: Tensor, labels: Tensor, n_clusters: int) -> Tensor:
        """Of some ``rows`` (R,) here, that with the largest of ``values`` (R,) of each cluster,
        (K, D): the one at the last position of a tie; any for a cluster without one."""
        if self.positions is None:
            return self.z[rows[largest_in_segments(values, labels, n_clusters)]]
        best = values.new_full((n_clusters,), -1.0).scatter_reduce_(0, labels, values, "amax")
        self.group.largest_(best)
        winners = (values == best[labels]).nonzero()[:, 0]
        last = rows.new_full((n_clusters,), -1)
        last.scatter_reduce_(0, labels[winners], self.positions[rows[winners]], "amax")
        self.group.largest_(last)
        return self.select(last.clamp_(min=0))

    def sums(
        self, values: Tensor, labels: Tensor, number: int, weights: Tensor | None = None
    ) -> Tensor:
        """Sums of ``values`` (R,) or (R, D) of rows here, times ``weights``, by label; float64."""
        result = segment_sums(values, labels, number, weights)
        self.group.sum_(result)
        return result

    def weighted_sums(
        self, values: Tensor, labels: Tensor, number: int, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Those of the ``weights`` (R,), and of ``values`` (R, D) times these, in one message."""
        totals = segment_sums(weights, labels, number)
        sums = segment_sums(values, labels, number, weights)
        self.group.sum_(totals, sums)
        return totals, sums

    def sums_by_pair(self, pairs: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The distinct ones of ``pairs`` (N,), numbers, ascending; for each the weight of its rows
        times ``values`` (N,), and their weight alone, (P,)."""
        pairs, inverse = torch.unique(pairs, return_inverse=True)
        sums = segment_sums(self.weigh(values), inverse, len(pairs))
        weights = cluster_weights(self.weights, inverse, len(pairs)).to(sums)
        both = self.group.gather(torch.stack([sums, weights], 1))
        pairs, inverse = torch.unique(self.group.gather(pairs), return_inverse=True)
        sums, weights = segment_sums(both, inverse, len(pairs)).unbind(1)
        return pairs, sums, weights

    def cluster_weights(self, labels: Tensor, n_clusters: int) -> Tensor:
        """(K,) float64."""
        weights = cluster_weights(self.weights, labels, n_clusters)
        self.group.sum_(weights)
        return weights

    def weigh(self, values: Tensor) -> Tensor:
        return values if self.weights is None else values * self.weights

    def labels(self, centers: Tensor) -> Tensor:
        return CenterIndex(centers).labels(self.z)

    def nearest_two(self, centers: Tensor, approximate: bool = False) -> NearestTwo:
        return CenterIndex(centers).nearest_two(self.z, approximate)

    def means(self, centers: Tensor, labels: Tensor) -> Tensor:
        """The means of the labelled rows; an empty cluster's centre stays put."""
        counts = cluster_weights(self.weights, labels, len(centers))
        sums = segment_sums(self.z, labels, len(centers), self.weights)
        self.group.sum_(counts, sums)
        return self.project(Statistics(counts, sums).means(centers))

    def mean_inertia(self, centers: Tensor) -> float:
        """Per row; 0 of rows without weight. On a GPU by float32 products alone."""
        index = CenterIndex(centers)
        if self.z.device.type == "cpu":
            least = index.nearest(self.z).squared_distances
        else:
            parts = [index.squared_distances(rows).amin(1) for rows in index.chunks(self.z)]
            least = torch.cat(parts)
        return self.total(least) / max(self.total_weight, 1e-30)

    def total(self, values: Tensor) -> float:
        """The weighted sum of ``values`` (N,)."""
        return self.group.total(weighted_sum(values, self.weights))[0]

    def overlap(self, centers: Tensor) -> bool:
        """Whether clusters are so wide that any of the centres about as near will do."""
        return self[:REPORT_ROWS].mean_inertia(centers) >= OVERLAP * self.moments[1]


class Averages:
    """Running averages over batches of ``batch_size`` rows (stepwise EM, Cappe and Moulines 2009):
    ``shares`` (K,) of the weight of all rows in each cluster, and ``sums`` (K, D) of the rows of
    each over that weight. ``centers`` (K, D) are for device and size."""

    def __init__(self, sample: Sample, centers: Tensor, batch_size: int, approximate: bool):
        self._sample, self._batch_size, self._approximate = sample, batch_size, approximate
        probe = sample[:_PROBE_ROWS].whole().z
        self._low_precision_above = low_precision_temperature(probe, centers)
        self.sums = torch.zeros_like(centers)
        self.shares = self.sums.new_zeros(len(centers))
        self._fused: RunningAverages | None = None
        z, weights = sample.z, sample.weights
        if z.device.type != "cpu" and sample.group.alone:
            self._fused = RunningAverages(z, weights, self.shares, self.sums, batch_size)
            self.shares, self.sums = self._fused.shares, self._fused.sums
            return
        heaviest = 1.0 if weights is None else largest_value(weights)
        largest = sample.group.largest(largest_value(z), heaviest)
        usual = (sample.moments[1] / z.shape[1]) ** 0.5, sample.total_weight / len(sample)
        self._add_up = TemperedSums(centers, batch_size, largest, usual)

    def update(self, start: int, centers: Tensor, temperature: float, step_size: float) -> None:
        """Takes in the batch from row ``start`` on, with the weight ``step_size``."""
        low_precision = temperature >= self._low_precision_above
        if self._fused is not None:
            self._fused.update(start, centers, temperature, low_precision, step_size)
            return
        batch = self._sample[start : start + self._batch_size]
        weight = max(batch.total_weight, 1e-30)
        counts, total = self._add_up(
            batch.z, batch.weights, centers, temperature, low_precision, self._approximate
        )
        batch.group.sum_(counts, total)
        self.shares.lerp_((counts / weight).to(self.shares), step_size)
        self.sums.lerp_(total.div_(weight).to(self.sums), step_size)

    def means(self, centers: Tensor, dilation: float) -> Tensor:
        """The centres (K, D) that these averages make of the ones before."""
        means = Statistics(self.shares, self.sums).means(centers, dilation)
        return self._sample.project(means)
