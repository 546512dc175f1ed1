"""Labels under a limit of the size of clusters: the best partition of which none is larger.

An auction. Each cluster has a price, 0 at first, and each row goes where squared distance and price
are least. A cluster with too many rows raises its price until those that lose least by it have
left. Prices only rise, and a cluster whose price is not 0 is full: so in the end no other partition
within the limit has a lower inertia, but for the least step of a price. Bertsekas, "The auction
algorithm" (1988), with whole clusters in place of single bids.

Shapes: N rows, M candidates of each, K clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from dinkcli.errors import InputError
from dinkcli.nearest.index import CenterIndex

_CANDIDATES = 8  # at first; twice as many for as long as they are too few
# Least steps of a price, of the mean squared distance to the nearest centre: the inertia is at most
# so much above the best. Where rows repeat, only the step lets them part, so it grows.
_STEP = 1e-4
_GROW_AFTER = 100  # rounds
_MOST_ROUNDS = 2000  # then more candidates may make it easier
_HEMMED_IN = 0.01  # of the rows; a centre that is none of their candidates might be better for them


def labels_within(
    blocks: Callable[[], Iterable[Tensor]], centers: Tensor, limit: int
) -> np.ndarray:
    """(N,) int32, the labels of least inertia of which none is there more than ``limit`` times, by
    ``centers`` (K, D). ``blocks`` gives the rows, prepared for the metric, and again when more
    candidates are wanted; N (4 + 8 M) bytes stay in memory."""
    index, n_clusters = CenterIndex(centers), len(centers)
    number = min(_CANDIDATES, n_clusters)
    while True:
        nearest = [index.nearest_few(z, number, approximate=False) for z in blocks()]
        candidates = torch.cat([labels.int().cpu() for labels, _ in nearest], 1).T
        distances = torch.cat([d.float().cpu() for _, d in nearest], 1).T
        del nearest
        if not distances.isfinite().all():
            raise InputError("rows or centres so far away that their distances overflow float32")
        labels = limited_labels(
            candidates.contiguous().numpy(), distances.contiguous().numpy(), limit, n_clusters
        )
        if labels is not None:
            return labels
        number = min(2 * number, n_clusters)


def limited_labels(
    candidates: np.ndarray, squared_distances: np.ndarray, limit: int, n_clusters: int
) -> np.ndarray | None:
    """(N,) int32 labels of which none is there more than ``limit`` (at least N / K) times, or None
    where the ``candidates`` (N, M) int32, the nearest centres of each row in order, at
    ``squared_distances`` (N, M), are too few for that."""
    n_candidates = candidates.shape[1]
    prices = np.zeros(n_clusters)
    labels = candidates[:, 0].astype(np.int32)
    step = _STEP * max(float(squared_distances[:, 0].mean(dtype=np.float64)), 1e-30)
    sizes = np.bincount(labels, minlength=n_clusters)
    rounds = 0
    while (crowded := sizes > limit).any():
        if n_candidates == 1:
            return None
        rounds += 1
        if rounds > _MOST_ROUNDS and n_candidates < n_clusters:
            return None
        if rounds % _GROW_AFTER == 0:
            step *= 2
        rows = np.flatnonzero(crowded[labels])
        costs = squared_distances[rows] + prices[candidates[rows]]
        own = candidates[rows] == labels[rows, None]
        others = np.where(own, np.inf, costs).min(1)
        loss = others - np.where(own, costs, np.inf).min(1)
        order = np.lexsort((loss, labels[rows]))
        rows, loss = rows[order], loss[order]
        clusters = np.flatnonzero(crowded)
        starts = np.searchsorted(labels[rows], clusters)
        excess = sizes[clusters] - limit
        # Those that stay would lose at least what the first of them does.
        prices[clusters] += np.maximum(loss[starts + excess], 0) + step
        rank = np.arange(len(rows)) - np.repeat(starts, sizes[clusters])
        leaving = rows[rank < np.repeat(excess, sizes[clusters])]
        costs = squared_distances[leaving] + prices[candidates[leaving]]
        best = costs.argmin(1)
        labels[leaving] = candidates[leaving, best]
        sizes = np.bincount(labels, minlength=n_clusters)
    if n_candidates < n_clusters and rounds:
        own = candidates == labels[:, None]
        paid = np.where(own, squared_distances, np.inf).min(1) + prices[labels]
        # A centre beyond the candidates is at least as far as the last of them, and may be free.
        if (paid > squared_distances[:, -1]).mean() > _HEMMED_IN:
            return None
    return labels
