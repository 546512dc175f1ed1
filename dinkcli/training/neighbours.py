"""Clusters that follow neighbours: a map of rows under which nearest centres agree with them.

The clusters of k-means are the start. Rows averaged with their nearest neighbours, which pulls
apart what a few rows bridge, go to the nearest mean; then single rows go to the cluster of their
neighbours while the modularity of the graph of neighbours rises. The covariance S of the rows as
they are within those clusters gives the map: under z S^(-1/2) the means of the clusters are the
best centres (linear discriminant analysis), for rows that were never seen too.

Shapes: S rows of the sample, K clusters, D features, M neighbours, C cells of rows around some of
them: a row's neighbours are sought in the cells nearest to its own, and nearly all of them found.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dinkcli.nearest.hardware import products
from dinkcli.nearest.index import CenterIndex
from dinkcli.training.sample import Sample

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# docs/LOG.md has the figures of each.
_FEWEST, _MOST = 10, 20  # neighbours; between them
_SHARE = 0.25  # of the rows of a cluster
_STEPS = 2  # of averaging
_KEPT = 0.25  # of a row in each step
_ROUNDS = 2  # of nearest means and moves
_SWEEPS = 5  # of moves in a round
_PARTS = 8  # of the rows, which move one part after the other
_RIDGE = 1.5  # times the mean variance, added to every variance
_SEARCHED_ROWS = 100_000  # that neighbours are sought among, or 32 for each cluster
_ROWS_PER_CLUSTER = 32
_GRID = 2.0**-20  # of the largest number of the map, to which it is rounded
_ALL_PAIRS = 4096  # rows among which every pair is compared
_CELL = 256  # rows, on average
_LARGEST = 1024
_CELLS = 8  # that neighbours are sought in, the own one included
_SCORES = 1 << 22  # at once


def follow_neighbours(sample: Sample, centers: Tensor) -> tuple[Tensor, Tensor]:
    """The map (D, D) of the rows, and the means (K, D) under it of the clusters that go with it,
    which begin as those of k-means with ``centers`` (K, D). The same in every process."""
    k, d = centers.shape
    sample = sample[: max(_SEARCHED_ROWS, _ROWS_PER_CLUSTER * k)]
    labels = sample.gathered(sample.labels(centers))
    whole = sample.whole()
    result = centers.new_zeros((d + k, d))
    # In another process nearly equal distances may rank otherwise.
    if sample.group.rank == 0 and len(whole) > 1:
        labels = neighbourly(whole, labels, centers)
        means = whole.means(centers, labels)
        matrix = whitening(whole, labels, means)
        with products(matrix.device):
            result = torch.cat([matrix, means @ matrix])
    sample.group.sum_(result)
    return result.split([d, k])


def neighbourly(sample: Sample, labels: Tensor, centers: Tensor) -> Tensor:
    """The clusters (S,) that follow the neighbours of the rows, from ``labels`` (S,) on;
    ``centers`` (K, D) are taken for those without rows."""
    n, k = len(sample), len(centers)
    number = min(max(_FEWEST, min(round(_SHARE * n / k), _MOST)), n - 1)
    graph = neighbour_graph(nearest_others(sample.z.cpu(), number))
    averaged = replace(sample, z=smoothed(sample.z, graph))
    rng = np.random.default_rng(0)
    for _ in range(_ROUNDS):
        labels = averaged.labels(averaged.means(centers, labels))
        own = labels.cpu().numpy()
        for _ in range(_SWEEPS):
            order = rng.permutation(n)
            moves = [move(graph, own, part, k) for part in np.array_split(order, _PARTS)]
            if not any(moves):
                break
        labels = torch.from_numpy(own).to(labels)
    return labels


def nearest_others(z: Tensor, number: int, seed: int = 0) -> np.ndarray:
    """Numbers (N, M) int32 of the ``number`` M < N rows nearest to each row of ``z`` (N, D); of
    more than 4096 rows, not all pairs are compared, and nine of ten or more are the nearest."""
    n = len(z)
    if n <= _ALL_PAIRS:
        order, sizes, near = torch.arange(n), [n], torch.zeros((1, 1), dtype=torch.int64)
    else:
        order, sizes, near = _cells(z, number, seed)
    starts = [0, *accumulate(sizes)]
    z = z[order]
    half = z.square().sum(1) / 2
    nearest = torch.empty((n, number), dtype=torch.int64)
    for cell, others in enumerate(near.tolist()):
        candidates = torch.cat([torch.arange(starts[j], starts[j + 1]) for j in others])
        rows, lengths = z.index_select(0, candidates), half[candidates]
        step = max(1, _SCORES // len(candidates))
        for first in range(starts[cell], starts[cell + 1], step):
            part = slice(first, min(first + step, starts[cell + 1]))
            scores = torch.addmm(lengths, z[part], rows.T, alpha=-1)
            # The own cell comes first among the candidates: a row's own place there is known.
            scores.diagonal(first - starts[cell]).fill_(torch.inf)
            nearest[part] = candidates[scores.topk(number, dim=1, largest=False).indices]
    result = torch.empty((n, number), dtype=torch.int32)
    result[order] = order[nearest].int()
    return result.numpy()


def _cells(z: Tensor, number: int, seed: int) -> tuple[Tensor, list[int], Tensor]:
    """Rows in the order of their cells, the cells' sizes (C,), and the cells nearest to each."""
    n = len(z)
    chosen = np.random.default_rng(seed).choice(n, n // _CELL, replace=False)
    centers = z[torch.from_numpy(np.sort(chosen))]
    for _ in range(2):
        labels = CenterIndex(centers).labels(z)
        sums = torch.zeros_like(centers).index_add_(0, labels, z)
        sizes = labels.bincount(minlength=len(centers))
        centers = torch.where(sizes[:, None] > 0, sums / sizes.clip(min=1)[:, None], centers)
    # A cell of many rows, as duplicates make it, is cut: time stays proportional to rows.
    order = (labels := CenterIndex(centers).labels(z)).argsort(stable=True)
    sizes = labels.bincount(minlength=len(centers))
    rank = torch.arange(n) - (sizes.cumsum(0) - sizes)[labels[order]]
    pieces = labels[order] * n + rank // _LARGEST
    sizes = pieces.unique_consecutive(return_counts=True)[1]
    means = torch.segment_reduce(z[order], "mean", lengths=sizes)
    apart = torch.cdist(means, means).fill_diagonal_(-1)
    ranked = apart.argsort(dim=1, stable=True)
    cells = _CELLS
    while cells < len(sizes) and int(sizes[ranked[:, :cells]].sum(1).min()) <= number:
        cells *= 2
    return order, sizes.tolist(), ranked[:, :cells]


def neighbour_graph(neighbours: np.ndarray) -> csr_matrix:
    """(S, S), 1 between two rows of which one is a neighbour (S, M) of the other."""
    from scipy import sparse  # takes a while to load, and only this metric needs it

    n, number = neighbours.shape
    pairs = np.repeat(np.arange(n), number), neighbours.ravel()
    graph = sparse.csr_matrix((np.ones(n * number, np.float32), pairs), shape=(n, n))
    return graph.maximum(graph.T).tocsr()


def smoothed(z: Tensor, graph: csr_matrix) -> Tensor:
    """Rows (S, D) averaged with their neighbours, by the symmetric normalised graph."""
    from scipy import sparse

    graph = graph + sparse.eye(len(z), dtype=np.float32)
    degree = sparse.diags(np.asarray(graph.sum(1)).ravel() ** -0.5)
    graph = (degree @ graph @ degree).tocsr().astype(np.float32)
    rows = z.cpu().numpy()
    for _ in range(_STEPS):
        rows = _KEPT * rows + (1 - _KEPT) * (graph @ rows)
    return torch.from_numpy(rows).to(z)


def move(graph: csr_matrix, labels: np.ndarray, rows: np.ndarray, n_clusters: int) -> int:
    """Moves each of the ``rows`` (R,) to the cluster where modularity gains most, all at once and
    in ``labels`` (S,) itself; returns how many moved. No cluster is left empty.

    A row of degree d gains links to a cluster - d (degrees in it without the row) / all degrees.
    """
    from scipy import sparse

    n = len(labels)
    degrees = np.asarray(graph.sum(1)).ravel().astype(np.float64)
    inside = np.bincount(labels, degrees, n_clusters)
    clusters = sparse.csr_matrix((np.ones(n), labels, np.arange(n + 1)), shape=(n, n_clusters))
    # Each row beside its own cluster, also where it has no link to it.
    links = graph[rows] @ clusters + 1e-9 * clusters[rows]
    row = np.repeat(np.arange(len(rows)), np.diff(links.indptr))
    degree, own = degrees[rows][row], links.indices == labels[rows][row]
    gain = links.data - degree * (inside[links.indices] - own * degree) / degrees.sum()
    order = np.lexsort((own, gain, row))  # the own cluster wins a tie
    best = order[np.r_[row[order][1:] != row[order][:-1], True]]
    before, after = labels[rows], links.indices[best]
    labels[rows] = after
    emptied = np.bincount(labels, minlength=n_clusters)[before] == 0
    labels[rows[emptied]] = before[emptied]
    return int((labels[rows] != before).sum())


def whitening(sample: Sample, labels: Tensor, means: Tensor) -> Tensor:
    """(D, D) S^(-1/2) of the rows around the ``means`` (K, D) of their clusters, times the root of
    the mean variance, so that distances keep their size."""
    within = sample.z - means[labels]
    weighted = within if sample.weights is None else within * sample.weights[:, None]
    with products(within.device):
        covariance = (weighted.T @ within).cpu().double().numpy() / sample.total_weight
    variance = covariance.trace() / len(covariance)
    if not variance > 0:  # every row is a mean
        return torch.eye(len(covariance)).to(means)
    covariance[np.diag_indices_from(covariance)] += _RIDGE * variance
    values, axes = np.linalg.eigh(covariance)
    matrix = (axes * (variance * (1 + _RIDGE) / values) ** 0.5) @ axes.T
    unit = np.abs(matrix).max() * _GRID
    return torch.from_numpy(np.round(matrix / unit) * unit).to(means)
