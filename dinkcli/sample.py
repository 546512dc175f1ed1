"""The rows in memory on which centres are annealed and refined.

Shapes: N rows, K clusters, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from dinkcli.lloyd import cluster_sums, segment_sums, weighted_sum
from dinkcli.nearest import CenterIndex, Nearest, NearestTwo


def center_projection(metric: str) -> Callable[[Tensor], Tensor]:
    """What maps means to allowed centres: under cosine those of norm 1 (spherical k-means), where
    a zero mean stays zero."""
    return partial(torch.nn.functional.normalize, dim=1) if metric == "cosine" else _as_they_are


def _as_they_are(centers: Tensor) -> Tensor:
    return centers


@dataclass
class Sample:
    """Rows in random order, around the origin.

    Attributes:
        z: (N, D) float32.
        weights: (N,) or None for all ones.
        project: maps means to allowed centres (under cosine, those of norm 1).
    """

    z: Tensor
    weights: Tensor | None
    project: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        self.total_weight = (
            float(len(self.z)) if self.weights is None else weighted_sum(self.weights, None)
        )

    @cached_property
    def moments(self) -> tuple[Tensor, float]:
        """The mean row (D,) and the mean squared norm, weighted."""
        total = self.z.sum(0) if self.weights is None else self.weights @ self.z
        squares = weighted_sum(torch.linalg.vecdot(self.z, self.z), self.weights)
        return total / self.total_weight, squares / self.total_weight

    def paper_shrink_loss(self, centers: Tensor) -> float:
        """Eq. 6 for these rows, from their moments."""
        mean, square = self.moments
        return square + float(centers.square().sum(1).mean() - 2 * (mean @ centers.mean(0)))

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, rows: slice | Tensor) -> Sample:
        weights = None if self.weights is None else self.weights[rows]
        return Sample(self.z[rows], weights, self.project)

    def weigh(self, values: Tensor) -> Tensor:
        return values if self.weights is None else values * self.weights

    def labels(self, centers: Tensor) -> Tensor:
        return CenterIndex(centers).labels(self.z)

    def nearest(self, centers: Tensor) -> Nearest:
        return CenterIndex(centers).nearest(self.z)

    def nearest_two(self, centers: Tensor) -> NearestTwo:
        return CenterIndex(centers).nearest_two(self.z)

    def cluster_sums(self, labels: Tensor, n_clusters: int) -> tuple[Tensor, Tensor]:
        """Weight (K,) and sum of weighted rows (K, D) of each cluster."""
        return cluster_sums(self.z, self.weights, labels, n_clusters)

    def cluster_weights(self, labels: Tensor, n_clusters: int) -> Tensor:
        if self.weights is None:
            return torch.bincount(labels, minlength=n_clusters)
        return segment_sums(self.weights, labels, n_clusters)

    def means(self, centers: Tensor, labels: Tensor) -> Tensor:
        """The means of the labelled rows; an empty cluster's centre stays put."""
        counts, sums = self.cluster_sums(labels, len(centers))
        counts = counts[:, None]
        means = torch.where(counts > 0, sums / counts.clamp(min=1e-30), centers)
        return self.project(means)

    def cluster_inertia(self, near: Nearest | NearestTwo, n_clusters: int) -> Tensor:
        return segment_sums(self.weigh(near.squared_distances), near.labels, n_clusters)

    def inertia(self, near: Nearest | NearestTwo) -> float:
        return weighted_sum(near.squared_distances, self.weights)
