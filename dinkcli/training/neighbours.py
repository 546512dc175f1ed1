"""Clusters that follow neighbours: a map of rows under which nearest centres agree with them.

Rows are averaged with their nearest neighbours, which pulls apart what a few rows bridge, and
clustered as usual. The covariance S of the rows as they were, within those clusters, gives the map:
under z S^(-1/2) the means of the clusters are the best centres (linear discriminant analysis), for
rows that were never seen too.

Shapes: S rows of the sample, K clusters, D features, M neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dinkcli.nearest.device import scores_at_once
from dinkcli.nearest.maps import RowMap
from dinkcli.nearest.products import products
from dinkcli.training.sample import Sample

# docs/LOG.md has the figures of each.
NEIGHBOURS = 12
_STEPS = 2  # of averaging
_KEPT = 0.25  # of a row in each step
_ROUNDS = 4  # of the map and the clusters under it
_MOST_PASSES = 10  # of a round; more change nothing that was seen
_RIDGE = 0.25  # of the mean variance, added to every variance
_LEAST_ROWS = 8192  # that neighbours are sought among; finding them is quadratic
_ROWS_PER_CLUSTER = 32
_GRID = 2.0**-20  # of the largest number of the map, to which it is rounded


def neighbourhood_size(n_rows: int, n_clusters: int) -> int:
    """Rows of a sample that neighbours are sought among."""
    return min(n_rows, max(_LEAST_ROWS, _ROWS_PER_CLUSTER * n_clusters))


@dataclass(frozen=True)
class Neighbourhood:
    """Rows and those nearest to them.

    Attributes:
        sample: the rows here, as they are.
        smoothed: averaged with their neighbours.
        z: (S, D) all rows, of all processes.
        weights: (S,) or None.
        neighbours: (S, M) int64 positions.
    """

    sample: Sample
    smoothed: Sample
    z: Tensor
    weights: Tensor | None
    neighbours: Tensor

    @classmethod
    def of(cls, sample: Sample) -> Neighbourhood:
        z = sample.everywhere(sample.z)
        weights = None if sample.weights is None else sample.everywhere(sample.weights)
        number = min(NEIGHBOURS, len(z) - 1)
        # One process finds them for all: nearly equal distances may rank otherwise elsewhere.
        found = torch.zeros((len(z), number), dtype=torch.int64, device=z.device)
        if sample.group.rank == 0:
            found = nearest_rows(z, number)
        sample.group.sum_(found)
        smooth = smoothed(z, found)
        here = smooth if sample.positions is None else smooth[sample.positions]
        return cls(sample, replace(sample, z=here), z, weights, found)

    def agreement(self, labels: Tensor) -> float:
        """The share of neighbours that are in the same cluster, by ``labels`` (S,) of all rows."""
        same = (labels[self.neighbours] == labels[:, None]).cpu().double().mean(1)
        if self.weights is None:
            return float(same.mean())
        weights = self.weights.cpu().double()
        return float(same @ weights / weights.sum())

    def learn(self, plain: Tensor, follow: Tensor) -> tuple[Tensor, Tensor]:
        """The clusters (S,) of all rows and the map (D, D) that goes with them.

        They begin as those of the centres ``follow`` (K, D) of the smoothed rows where neighbours
        share them more often than those of the centres ``plain`` (K, D) of the rows, and are then
        found again under their map, where other smoothed rows are near, until they stay.
        Rare clusters shrink to a point when rows are averaged, and a large one is then cut in two;
        neighbours tell, and those of the rows as they are are then kept.
        """
        both = self.sample.labels(plain), self.smoothed.labels(follow)
        ours, theirs = (self.sample.everywhere(labels) for labels in both)
        k = len(plain)
        if self.agreement(theirs) <= self.agreement(ours):
            return ours, self.map(ours, k)
        matrix = self.map(theirs, k)
        for _ in range(_ROUNDS - 1):
            moved = self._settled(matrix, theirs, k)
            if torch.equal(moved, theirs):
                break
            theirs, matrix = moved, self.map(moved, k)
        return theirs, matrix

    def here(self, labels: Tensor) -> Tensor:
        """Those of ``labels`` (S,) of all rows that are of the rows here."""
        return labels if self.sample.positions is None else labels[self.sample.positions]

    def _settled(self, matrix: Tensor, labels: Tensor, n_clusters: int) -> Tensor:
        """(S,) clusters of the smoothed rows under the map, by passes from ``labels`` (S,) on."""
        rows = RowMap(torch.zeros_like(matrix[:, 0]), matrix)(self.smoothed.z)
        under = replace(self.smoothed, z=rows)
        centers = rows.new_zeros((n_clusters, rows.shape[1]))
        for _ in range(_MOST_PASSES):
            centers = under.means(centers, self.here(labels))
            moved = under.everywhere(under.labels(centers))
            if torch.equal(moved, labels):
                break
            labels = moved
        return labels

    def map(self, labels: Tensor, n_clusters: int) -> Tensor:
        """(D, D) S^(-1/2) of the rows within the clusters ``labels`` (S,), times the root of the
        mean variance, so that distances keep their size; the same in every process."""
        z = self.z.cpu().double().numpy()
        weights = np.ones(len(z)) if self.weights is None else self.weights.cpu().double().numpy()
        own = labels.cpu().numpy()
        sizes = np.bincount(own, weights, n_clusters)
        means = np.zeros((n_clusters, z.shape[1]))
        np.add.at(means, own, z * weights[:, None])
        z -= (means / np.maximum(sizes, 1e-30)[:, None])[own]
        covariance = (z * weights[:, None]).T @ z / weights.sum()
        variance = covariance.trace() / len(covariance)
        if not variance > 0:  # every row is a mean
            return torch.eye(len(covariance), device=self.z.device)
        covariance[np.diag_indices_from(covariance)] += _RIDGE * variance
        values, axes = np.linalg.eigh(covariance)
        found = (axes * (variance * (1 + _RIDGE) / values) ** 0.5) @ axes.T
        unit = np.abs(found).max() * _GRID
        rounded = torch.from_numpy(np.round(found / unit) * unit).to(self.z)
        if self.sample.group.rank > 0:
            rounded.zero_()
        self.sample.group.sum_(rounded)
        return rounded


def nearest_rows(z: Tensor, number: int) -> Tensor:
    """The ``number`` M < S nearest other rows of each row of ``z`` (S, D), (S, M) int64."""
    half = z.square().sum(1) / 2
    found = []
    first = 0
    for part in z.split(max(1, 2 * scores_at_once(z.device) // len(z))):
        with products(z.device):
            scores = torch.addmm(half, part, z.T, alpha=-1)
        here = torch.arange(len(part), device=z.device)
        scores[here, here + first] = torch.inf
        found.append(scores.topk(number, dim=1, largest=False).indices)
        first += len(part)
    return torch.cat(found)


def smoothed(z: Tensor, neighbours: Tensor) -> Tensor:
    """Rows (S, D) averaged with their neighbours (S, M), by the symmetric normalised graph of all
    pairs of neighbours and of each row with itself."""
    from scipy import sparse  # takes a while to load, and only this metric needs it

    n, number = neighbours.shape
    pairs = neighbours.cpu().numpy().ravel(), np.repeat(np.arange(n), number)
    graph = sparse.csr_matrix((np.ones(n * number, np.float32), pairs), shape=(n, n))
    graph = (graph.maximum(graph.T) + sparse.eye(n, dtype=np.float32)).tocsr()
    degree = np.asarray(graph.sum(1)).ravel() ** -0.5
    graph = (sparse.diags(degree) @ graph @ sparse.diags(degree)).tocsr().astype(np.float32)
    rows = z.cpu().numpy()
    for _ in range(_STEPS):
        rows = _KEPT * rows + (1 - _KEPT) * (graph @ rows)
    return torch.from_numpy(rows).to(z)
