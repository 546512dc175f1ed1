"""One pass over rows: the sums from which new centres are made, hard or tempered.

Shapes: N rows, K clusters, D features; ``weights`` is (N,) or None for all ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from dinkcli.nearest.device import gathered_at_once, wide
from dinkcli.nearest.index import CenterIndex, Nearest
from dinkcli.nearest.products import products
from dinkcli.nearest.runs import counts_of, one_hot_sums, run_sums
from dinkcli.nearest.soft import responsibilities
from dinkcli.processes.group import SINGLE, Group

# Of so few rows and clusters a GPU has the product before it is told of runs.
_ONE_HOT_ELEMENTS = 1 << 22


@dataclass
class Statistics:
    """Sums over rows for given centres. float64, so that counts never saturate.

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
        dtype = wide(centers.device)
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
            pull = torch.minimum(
                torch.full_like(share, 2 * dilation / (len(centers) - 1)), share / 2
            )
            spread = (share * means - pull * centers.to(means.dtype).mean(0)) / (share - pull)
            means = torch.where(counts > 0, spread, means)
        return means.to(centers.dtype)


def row_dots(z: Tensor, table: Tensor, index: Tensor) -> Tensor:
    """<z_i, table[index_i]> of each row, (N,), in pieces that stay in the processor's cache."""
    rows = max(1, gathered_at_once(z.device) // z.shape[1])
    buffer = z.new_empty((min(rows, len(z)), z.shape[1]))
    parts = []
    for part, where in zip(z.split(rows), index.split(rows), strict=True):
        products = torch.index_select(table, 0, where, out=buffer[: len(part)]).mul_(part)
        parts.append(products.sum(1))
    return torch.cat(parts)


def segment_sums(
    values: Tensor, labels: Tensor, n_clusters: int, weights: Tensor | None = None
) -> Tensor:
    """Sums of ``values`` (N, D) or (N,), times ``weights`` (N,), by label; (K, D) or (K,), wide.

    The same bits every time; on CPUs, where they are taken in float64, also however the rows are
    shared between processes, but for the last bits of that.
    """
    dtype = wide(values.device)
    if values.ndim == 1:
        wider = values.to(dtype)
        return segment_sums(
            (wider if weights is None else wider * weights)[:, None], labels, n_clusters
        )[:, 0]
    if values.device.type == "cpu" or not len(values):
        result = torch.zeros((n_clusters, values.shape[1]), dtype=dtype, device=values.device)
        rows = max(1, gathered_at_once(values.device) // max(1, values.shape[1]))
        buffer = torch.empty((min(rows, len(values)), values.shape[1]), dtype=dtype)
        for start in range(0, len(values), rows):
            where = slice(start, min(start + rows, len(values)))
            part = buffer[: where.stop - start].copy_(values[where])
            if weights is not None:
                part *= weights[where, None]
            result.index_add_(0, labels[where], part)
        return result
    # Atomic additions on a GPU come in any order; neither products nor runs do.
    if len(values) * n_clusters <= _ONE_HOT_ELEMENTS:
        if weights is not None:
            values = values * weights[:, None]
        return one_hot_sums(values, labels, n_clusters).to(dtype)
    if weights is not None and values.dtype != dtype and weights.dtype == dtype:
        values = values.to(dtype)
    return run_sums(values, labels, n_clusters, weights, dtype)


def weights_and_sums(
    values: Tensor, labels: Tensor, n_clusters: int, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Sums of ``weights`` (N,), and of ``values`` (N, D) times these, by label: (K,) and (K, D),
    wide; of few rows, for which a GPU is told once."""
    if values.device.type == "cpu":
        return (
            segment_sums(weights, labels, n_clusters),
            segment_sums(values, labels, n_clusters, weights),
        )
    with_ones = torch.nn.functional.pad(values, (0, 1), value=1.0)
    found = segment_sums(with_ones, labels, n_clusters, weights)
    return found[:, -1], found[:, :-1]


def largest_in_segments(values: Tensor, labels: Tensor, n_clusters: int) -> Tensor:
    """Position of the largest of ``values`` (N,) of each label, (K,); 0 for a label without one.

    The last position of a tie, so that the answer is the same every time.
    """
    lowest = torch.full((n_clusters,), -torch.inf, dtype=values.dtype, device=values.device)
    largest = lowest.scatter_reduce_(0, labels, values, "amax")
    winners = (values == largest[labels]).nonzero()[:, 0]
    result = torch.zeros(n_clusters, dtype=torch.int64, device=values.device)
    return result.scatter_reduce_(0, labels[winners], winners, "amax")


def cluster_sums(
    z: Tensor, weights: Tensor | None, labels: Tensor, n_clusters: int
) -> tuple[Tensor, Tensor]:
    """Weight (K,) and sum of weighted rows (K, D) of each cluster, wide."""
    counts = cluster_weights(weights, labels, n_clusters)
    return counts, segment_sums(z, labels, n_clusters, weights)


def cluster_weights(weights: Tensor | None, labels: Tensor, n_clusters: int) -> Tensor:
    """Weight of each cluster, (K,) wide."""
    if weights is None:
        if labels.device.type != "cpu":
            return counts_of(labels, n_clusters).to(wide(labels.device))
        return torch.bincount(labels, minlength=n_clusters).to(torch.float64)
    return segment_sums(weights, labels, n_clusters)


def weighted_sum(values: Tensor, weights: Tensor | None) -> float:
    dtype = wide(values.device)
    if weights is None:
        return float(values.sum(dtype=dtype))
    return float((values.to(dtype) * weights).sum())


def hard_statistics(
    z: Tensor, weights: Tensor | None, near: Nearest, n_clusters: int
) -> Statistics:
    counts, sums = cluster_sums(z, weights, near.labels, n_clusters)
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
    start = 0
    for rows in index.chunks(z):
        w = None if weights is None else weights[start : start + len(rows)]
        start += len(rows)
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


def full_pass(
    blocks: Iterable[tuple[Tensor, Tensor | None]], centers: Tensor, temperature: float = 0.0
) -> Statistics:
    """Statistics of all ``blocks`` of (rows, weights), taken as centred already."""
    index = CenterIndex(centers)
    total = Statistics.zeros(centers)
    for z, weights in blocks:
        total.add(tempered_statistics(z, weights, index, temperature))
    return total


def farthest_rows(
    blocks: Iterable[tuple[Tensor, Tensor | None]],
    centers: Tensor,
    number: int,
    group: Group = SINGLE,
) -> Tensor:
    """At most ``number`` distinct rows of positive weight, the farthest from their centres.

    Rows that coincide with a centre never count; (M, D) with M = 0 when all rows do. Of the rows
    of all processes, the same in each.
    """
    index = CenterIndex(centers)
    rows = [centers.new_empty((0, centers.shape[1]))]
    distances = [centers.new_empty(0, dtype=wide(centers.device))]
    for z, weights in blocks:
        near = index.nearest(z)
        if weights is not None:
            near.squared_distances[weights == 0] = -1.0
        # Four times as many, since some may be copies of one row.
        top = near.squared_distances.topk(min(len(z), 4 * number)).indices
        nearest_centers = centers[near.labels[top]].to(wide(z.device))
        exact = (z[top].to(wide(z.device)) - nearest_centers).square().sum(1)
        keep = exact > 0
        if weights is not None:
            keep &= weights[top] > 0
        rows.append(z[top][keep])
        distances.append(exact[keep])
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
