"""One pass over rows: the sums from which new centres are made, hard or tempered.

The same bits every time. On a GPU that rules out atomic additions; rows sorted by label are summed
in pieces of the same length instead, and the sums of pieces likewise, until every label has one.
No size depends on values, so the host never waits.

Shapes: N rows, K clusters, D features; ``weights`` is (N,) or None for all ones. The accumulator's
dtype is float64, but on MPS.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor

from dinkcli.nearest.hardware import accumulator_dtype, numbers_at_once, products
from dinkcli.nearest.index import CenterIndex, Nearest
from dinkcli.nearest.probabilities import responsibilities
from dinkcli.processes.group import SINGLE, Group

# Multiplications, some of them in float64, that a GPU has done before it is told of another round.
_FEW_MULTIPLICATIONS = 1 << 26
_SHORTEST, _LONGEST = 8, 128  # short pieces take more rounds, of long ones more stay empty
_LINE = 1024
_CACHED_GATHERED = 1 << 20  # coordinates of centres that a CPU gathers for rows at once


@dataclass
class Statistics:
    """Sums over rows for given centres, in the accumulator's dtype.

    Attributes:
        counts: (K,) sum of the weights (times responsibilities) of each cluster.
        sums: (K, D) the same sum of weighted rows.
        shrink: sum of weighted squared distances under the responsibilities.
        inertia: sum of weighted squared distances to the nearest centre.
        cluster_inertia: (K,) the part of each cluster in that, or 0 before any row.
    """

    counts: Tensor
    sums: Tensor
    shrink: float = 0.0
    inertia: float = 0.0
    cluster_inertia: Tensor | float = 0.0

    @classmethod
    def zeros(cls, centers: Tensor) -> Statistics:
        dtype = accumulator_dtype(centers.device)
        return cls(
            torch.zeros(len(centers), dtype=dtype, device=centers.device),
            torch.zeros(centers.shape, dtype=dtype, device=centers.device),
        )

    def add(self, part: Statistics) -> None:
        """Adds the sums over other rows, for the same centres."""
        self.counts += part.counts
        self.sums += part.sums
        self.shrink += part.shrink
        self.inertia += part.inertia
        self.cluster_inertia += part.cluster_inertia

    def over(self, group: Group) -> Statistics:
        """The sums over the rows of all processes."""
        # Of no rows at all it is a plain zero.
        parts = torch.zeros_like(self.counts) + self.cluster_inertia
        group.sum_(self.counts, self.sums, parts)
        shrink, inertia = group.total(self.shrink, self.inertia)
        return Statistics(self.counts, self.sums, shrink, inertia, parts)

    def paper_shrink_loss(self, centers: Tensor) -> float:
        """Eq. 6 for the rows and the centres that these sums came from.

        sum r ||z - c||^2 = sum ||z||^2 - 2 sum <sums_j, c_j> + sum counts_j ||c_j||^2 gives the
        squared norms of the rows without another look at them.
        """
        c = centers.to(self.sums.dtype)
        total = float(self.counts.sum())
        norms = c.square().sum(1)
        squares = self.shrink + float(2 * (self.sums * c).sum() - self.counts @ norms)
        mean = self.sums.sum(0) / total
        return squares / total + float(norms.mean() - 2 * (mean @ c.mean(0)))

    def means(self, centers: Tensor, dilation: float = 0.0) -> Tensor:
        """The centres that minimise the shrink loss for these sums; an empty one stays put.

        ``dilation`` is the weight w of the dilation loss. Setting the gradient of
        shrink + w * dilation to zero gives C_j = (n_j m_j - a c) / (n_j - a) with n_j the share
        of cluster j, m_j its mean, c the mean centre and a = 2w / (K-1). It has a minimum only
        for a < n_j; a is held to half of n_j, so no weight can make centres fly away.
        """
        counts = self.counts[:, None]
        means = torch.where(counts > 0, self.sums / counts.clamp(min=1e-30), centers)
        if dilation and len(centers) > 1:
            share = counts / counts.sum()
            pull = (share / 2).clamp(max=2 * dilation / (len(centers) - 1))
            spread = (share * means - pull * centers.to(means.dtype).mean(0)) / (share - pull)
            means = torch.where(counts > 0, spread, means)
        return means.to(centers.dtype)


def row_dots(z: Tensor, table: Tensor, index: Tensor) -> Tensor:
    """<z_i, table[index_i]> of each row, (N,), in pieces that stay in the processor's cache."""
    rows = max(1, numbers_at_once(z.device, _CACHED_GATHERED) // z.shape[1])
    buffer = z.new_empty((min(rows, len(z)), z.shape[1]))
    parts = []
    for part, where in zip(z.split(rows), index.split(rows), strict=True):
        chosen = torch.index_select(table, 0, where, out=buffer[: len(part)])
        parts.append(chosen.mul_(part).sum(1))
    return torch.cat(parts)


def segment_sums(
    values: Tensor, labels: Tensor, n_clusters: int, weights: Tensor | None = None
) -> Tensor:
    """Sums of ``values`` (N, D) or (N,), times ``weights`` (N,), by label; (K, D) or (K,), in the
    accumulator's dtype. How rows are shared between processes moves only the last bits of that."""
    dtype = accumulator_dtype(values.device)
    if values.ndim == 1:
        values = values.to(dtype) if weights is None else values.to(dtype) * weights
        return segment_sums(values[:, None], labels, n_clusters)[:, 0]
    n_features, on_cpu = values.shape[1], values.device.type == "cpu"
    result = torch.zeros((n_clusters, n_features), dtype=dtype, device=values.device)
    rows = max(1, numbers_at_once(values.device, _CACHED_GATHERED) // max(1, n_features))
    # Fresh memory for each part would cost a CPU more than the sums do.
    buffer = torch.empty((min(rows, len(values)) if on_cpu else 0, n_features), dtype=dtype)
    for start in range(0, len(values), rows):
        where = slice(start, start + rows)
        part = values[where]
        if on_cpu:
            part = buffer[: len(part)].copy_(part)
            part = part if weights is None else part.mul_(weights[where, None])
            result.index_add_(0, labels[where], part)
        else:
            part = part if weights is None else part * weights[where, None]
            result += _sums_in_order(part, labels[where], n_clusters, dtype)
    return result


def largest_in_segments(values: Tensor, labels: Tensor, n_clusters: int) -> Tensor:
    """Position of the largest of ``values`` (N,) of each label, (K,), the last one of a tie; 0 for
    a label without one."""
    lowest = torch.full((n_clusters,), -torch.inf, dtype=values.dtype, device=values.device)
    largest = lowest.scatter_reduce_(0, labels, values, "amax")
    winners = (values == largest[labels]).nonzero()[:, 0]
    result = torch.zeros(n_clusters, dtype=torch.int64, device=values.device)
    return result.scatter_reduce_(0, labels[winners], winners, "amax")


def cluster_weights(weights: Tensor | None, labels: Tensor, n_clusters: int) -> Tensor:
    """Weight of each cluster, (K,), in the accumulator's dtype."""
    if weights is None:
        return counts_of(labels, n_clusters).to(accumulator_dtype(labels.device))
    return segment_sums(weights, labels, n_clusters)


def weighted_sum(values: Tensor, weights: Tensor | None) -> float:
    dtype = accumulator_dtype(values.device)
    values = values if weights is None else values.to(dtype) * weights
    return float(values.sum(dtype=dtype))


def hard_statistics(
    z: Tensor, weights: Tensor | None, near: Nearest, n_clusters: int
) -> Statistics:
    counts = cluster_weights(weights, near.labels, n_clusters)
    sums = segment_sums(z, near.labels, n_clusters, weights)
    inertia = weighted_sum(near.squared_distances, weights)
    parts = segment_sums(near.squared_distances, near.labels, n_clusters, weights)
    return Statistics(counts, sums, inertia, inertia, parts)


def tempered_statistics(
    z: Tensor, weights: Tensor | None, index: CenterIndex, temperature: float
) -> Statistics:
    """Statistics of the shrink loss at a temperature; never more than a chunk of (N, K)."""
    if temperature == 0:
        near = index.nearest(z)
        return hard_statistics(z, weights, near, index.n_clusters)
    total = Statistics.zeros(index.centers)
    parts = repeat(None) if weights is None else index.chunks(weights)
    for rows, w in zip(index.chunks(z), parts, strict=False):
        distances = index.squared_distances(rows)
        r = responsibilities(distances, temperature)
        if w is not None:
            r *= w[:, None]
        total.counts += r.sum(0)
        with products(rows.device):
            total.sums += r.T @ rows
        total.shrink += weighted_sum(r * distances, None)
        least, labels = distances.min(1)
        total.inertia += weighted_sum(least, w)
        total.cluster_inertia += segment_sums(least, labels, index.n_clusters, w)
    return total


def farthest_rows(
    blocks: Iterable[tuple[Tensor, Tensor | None]],
    centers: Tensor,
    number: int,
    group: Group = SINGLE,
) -> Tensor:
    """At most ``number`` distinct rows (M, D) of positive weight, the farthest from their centres
    and not on them, of the rows of all processes; the same in each."""
    index, dtype = CenterIndex(centers), accumulator_dtype(centers.device)
    rows = [centers.new_empty((0, centers.shape[1]))]
    distances = [centers.new_empty(0, dtype=dtype)]
    for z, weights in blocks:
        z = z if weights is None else z[weights > 0]
        near = index.nearest(z)
        # Four times as many, since some may be copies of one row.
        top = near.squared_distances.topk(min(len(z), 4 * number)).indices
        exact = (z[top].to(dtype) - centers[near.labels[top]].to(dtype)).square().sum(1)
        rows.append(z[top][exact > 0])
        distances.append(exact[exact > 0])
    far, distance = _farthest_of(torch.cat(rows), torch.cat(distances), number)
    if not group.alone:
        far, _ = _farthest_of(group.gather(far), group.gather(distance), number)
    return far


def _farthest_of(rows: Tensor, distances: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """At most ``number`` distinct rows of the largest distances (M, D), and these (M,)."""
    far, copies = torch.unique(rows, dim=0, return_inverse=True)
    distance = distances.new_zeros(len(far))
    distance.scatter_reduce_(0, copies, distances, "amax")
    top = distance.topk(min(number, len(far)))
    return far[top.indices], top.values


def _sums_in_order(values: Tensor, labels: Tensor, n_clusters: int, dtype: torch.dtype) -> Tensor:
    """Sums of ``values`` (N, D) by label, (K, D) in ``dtype``, without atomic additions."""
    n_rows, n_features = values.shape
    length = min(_LONGEST, max(_SHORTEST, n_rows // n_clusters))
    reached = 1  # the rows that one of the values is the sum of, at most
    while reached < n_rows and values.numel() * n_clusters > _FEW_MULTIPLICATIONS:
        order = labels.argsort(stable=True)
        labels = labels[order]
        counts = counts_of(labels, n_clusters + 1)
        place = torch.arange(len(labels), device=labels.device)
        place -= (counts.cumsum(0) - counts)[labels]  # within the run of its label
        place %= length
        piece = (place == 0).cumsum(0) - 1
        # As many as there can be, whatever the labels; those that are left over get the label K.
        n_pieces = len(labels) // length + min(len(labels), n_clusters + 1)
        padded = values.new_zeros((n_pieces * length, n_features))
        padded.index_copy_(0, piece * length + place, values[order])
        values = padded.view(n_pieces, length, n_features).sum(1, dtype=dtype)
        labels = labels.new_full((n_pieces,), n_clusters).scatter_(0, piece, labels)
        reached *= length
    if reached >= n_rows > 1:  # one for each label by now, but for K
        return values.new_zeros((n_clusters + 1, n_features)).index_copy_(0, labels, values)[:-1]
    one_hot = torch.arange(n_clusters, device=labels.device)[:, None] == labels
    with products(values.device):
        return (one_hot.to(values) @ values).to(dtype)


def counts_of(labels: Tensor, n_clusters: int) -> Tensor:
    """How often each label (N,) comes, (K,) int64; sums of integers are the same in any order."""
    if labels.device.type == "cpu":
        return torch.bincount(labels, minlength=n_clusters)
    # ``bincount`` would make the host wait.
    counts = torch.zeros(n_clusters, dtype=torch.int64, device=labels.device)
    return counts.scatter_add_(0, labels, torch.ones_like(labels))


def running_sums(values: Tensor) -> Tensor:
    """The sums of ``values`` (N,) up to each one, in the accumulator's dtype; the same bits every
    time. Along one line a GPU adds up in any order, along the rows of a matrix it does not."""
    dtype = accumulator_dtype(values.device)
    if values.device.type == "cpu":
        return values.cumsum(0, dtype=dtype)
    n_lines = max(2, -(-len(values) // _LINE))
    lines = values.new_zeros(n_lines * _LINE, dtype=dtype)
    lines[: len(values)] = values
    lines = lines.view(n_lines, _LINE).cumsum(1)
    if len(values) > _LINE:
        lines[1:] += running_sums(lines[:, -1])[:-1, None]
    return lines.view(-1)[: len(values)]
