"""The rows in memory on which centres are annealed and refined.

Several processes each hold a part of them. What is a sum over rows is one over the rows of all
processes, the same everywhere; what there is for each row is there for the rows of this process.

Shapes: S rows, N of them in this process, K clusters, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from dinkcli.nearest.index import CenterIndex, Nearest, NearestTwo
from dinkcli.nearest.products import products
from dinkcli.nearest.sums import (
    Statistics,
    cluster_sums,
    cluster_weights,
    largest_in_segments,
    segment_sums,
    weighted_sum,
)
from dinkcli.processes.group import SINGLE, Group


def center_projection(metric: str) -> Callable[[Tensor], Tensor]:
    """What maps means to allowed centres: under cosine those of norm 1 (spherical k-means), where
    a zero mean stays zero."""
    if metric == "cosine":
        return partial(torch.nn.functional.normalize, dim=1)
    return lambda centers: centers


@dataclass
class Sample:
    """Rows in random order, around the origin.

    Attributes:
        z: (N, D) float32.
        weights: (N,) or None for all ones.
        project: maps means to allowed centres (under cosine, those of norm 1).
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
        squares = weighted_sum(torch.linalg.vecdot(self.z, self.z), self.weights)
        self.group.sum_(total)
        return total / self.total_weight, self.group.total(squares)[0] / self.total_weight

    def paper_shrink_loss(self, centers: Tensor) -> float:
        """Eq. 6 for these rows, from their moments."""
        mean, square = self.moments
        return square + float(centers.square().sum(1).mean() - 2 * (mean @ centers.mean(0)))

    def __len__(self) -> int:
        """S, also where only some of the rows are here."""
        return self.size

    def __getitem__(self, rows: slice) -> Sample:
        """The rows at consecutive positions; theirs begin at 0."""
        start, stop, _ = rows.indices(self.size)
        positions = None
        if self.positions is not None:
            ends = torch.tensor([start, stop], device=self.positions.device)
            rows = slice(*torch.searchsorted(self.positions, ends).tolist())
            positions = self.positions[rows] - start
        weights = None if self.weights is None else self.weights[rows]
        size = stop - start
        return Sample(self.z[rows], weights, self.project, self.group, positions, size)

    def shuffled(self, order: Tensor) -> Sample:
        """The rows in another order (S,); only where all of them are here."""
        weights = None if self.weights is None else self.weights[order]
        return Sample(self.z[order], weights, self.project)

    def everywhere(self, values: Tensor) -> Tensor:
        """``values`` (N, ...) of the rows here, for all rows by position, (S, ...)."""
        if self.positions is None:
            return values
        whole = values.new_zeros((self.size, *values.shape[1:]))
        whole[self.positions] = values
        self.group.sum_(whole)
        return whole

    def at(self, positions: Tensor, values: Tensor) -> Tensor:
        """``values`` (N, ...) of the rows at ``positions`` (M,), wherever these are; (M, ...)."""
        here, index = self.here(positions)
        if here is None:
            return values[index]
        found = values.new_zeros((len(positions), *values.shape[1:]))
        found[here] = values[index]
        self.group.sum_(found)
        return found

    def here(self, positions: Tensor) -> tuple[Tensor | None, Tensor]:
        """Which of the ``positions`` (M,) are here, and the indices of these rows here.

        None and the positions themselves when all rows are.
        """
        if self.positions is None:
            return None, positions
        index = torch.searchsorted(self.positions, positions)
        held = torch.cat([self.positions, self.positions.new_full((1,), -1)])
        here = held[index] == positions
        return here, index[here]

    def farthest(
        self, values: Tensor, labels: Tensor, rows: Tensor, n_clusters: int, index: Tensor
    ) -> Tensor:
        """The row with the largest of ``values`` of each cluster, (K, D).

        That at the last position of a tie; any row for a cluster without one.

        Args:
            values, labels, rows: (M,), (M,) and (M, D) of some of the rows here.
            index: (M,) which of the rows here they are.
        """
        if self.positions is None:
            return rows[largest_in_segments(values, labels, n_clusters)]
        best = values.new_full((n_clusters,), -1.0).scatter_reduce_(0, labels, values, "amax")
        self.group.largest_(best)
        position = self.positions[index]
        winners = (values == best[labels]).nonzero()[:, 0]
        last = position.new_full((n_clusters,), -1)
        last.scatter_reduce_(0, labels[winners], position[winners], "amax")
        self.group.largest_(last)
        found = rows.new_zeros((n_clusters, rows.shape[1]))
        mine = winners[position[winners] == last[labels[winners]]]
        found[labels[mine]] = rows[mine]
        self.group.sum_(found)
        return found

    def weigh(self, values: Tensor) -> Tensor:
        return values if self.weights is None else values * self.weights

    def labels(self, centers: Tensor) -> Tensor:
        return CenterIndex(centers).labels(self.z)

    def nearest(self, centers: Tensor) -> Nearest:
        return CenterIndex(centers).nearest(self.z)

    def nearest_two(self, centers: Tensor, approximate: bool = False) -> NearestTwo:
        return CenterIndex(centers).nearest_two(self.z, approximate)

    def cluster_sums(self, labels: Tensor, n_clusters: int) -> tuple[Tensor, Tensor]:
        """Weight (K,) and sum of weighted rows (K, D) of each cluster, wide."""
        counts, sums = cluster_sums(self.z, self.weights, labels, n_clusters)
        self.group.sum_(counts, sums)
        return counts, sums

    def cluster_weights(self, labels: Tensor, n_clusters: int) -> Tensor:
        """(K,) wide."""
        weights = self.weights_by(labels, n_clusters)
        self.group.sum_(weights)
        return weights

    def weights_by(self, labels: Tensor, number: int) -> Tensor:
        """Weight of the rows here by label, (number,) wide."""
        return cluster_weights(self.weights, labels, number)

    def means(self, centers: Tensor, labels: Tensor) -> Tensor:
        """The means of the labelled rows; an empty cluster's centre stays put."""
        sums = Statistics(*self.cluster_sums(labels, len(centers)))
        return self.project(sums.means(centers))

    def cluster_inertia(self, near: Nearest | NearestTwo, n_clusters: int) -> Tensor:
        """(K,) wide."""
        found = segment_sums(near.squared_distances, near.labels, n_clusters, self.weights)
        self.group.sum_(found)
        return found

    def mean_inertia(self, centers: Tensor) -> float:
        """Per row; 0 of rows without weight. On a GPU by float32 products alone."""
        if self.z.device.type == "cpu":
            inertia = self.inertia(self.nearest(centers))
        else:
            index = CenterIndex(centers)
            parts = [index.squared_distances(rows).amin(1) for rows in index.chunks(self.z)]
            inertia = self.group.total(weighted_sum(torch.cat(parts), self.weights))[0]
        return inertia / max(self.total_weight, 1e-30)

    def inertia(self, near: Nearest | NearestTwo) -> float:
        return self.group.total(weighted_sum(near.squared_distances, self.weights))[0]
