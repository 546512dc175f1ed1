"""Rows near a border between clusters: where else a near-duplicate of theirs may be.

Let a row x of cluster a and a row y of cluster b be at most t apart. The border between a and b is
the plane halfway between the centres; x lies (|x - b|^2 - |x - a|^2) / (2 |a - b|) on its side of
it, y likewise on the other, and these two together are at most t. So at least one of them is
within t / 2 of the plane. A row is therefore compared with the rows of every cluster whose plane
is that near, and no pair is missed.

Shapes: B rows, K clusters, D features.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from dinkcli.assigning.jobs.shelves import Shelves
from dinkcli.assigning.jobs.survey import Survey
from dinkcli.nearest.device import wide
from dinkcli.nearest.index import CenterIndex
from dinkcli.nearest.products import products

# Of squared norms: float32 distances are off by a hundredth of this.
SLACK = 1e-5
_TABLE_NUMBERS = 1 << 26  # 256 MB of distances between centres


class Border:
    """Finds the clusters whose border a row is near.

    Args:
        index: the centres of all clusters.
        distance: t, the Euclidean distance up to which rows are near-duplicates.
    """

    def __init__(self, index: CenterIndex, distance: float):
        self.index, self.distance = index, distance

    def __call__(self, z: Tensor, labels: Tensor, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """The visits of prepared rows ``z`` (B, D): numbers of rows and of clusters."""
        index = self.index
        rows, clusters = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
        start = 0
        for part, own in zip(index.chunks(z), index.chunks(labels), strict=True):
            squared = index.squared_distances(part)
            mine = squared.gather(1, own[:, None])
            seen = part if index.shift is None else part - index.shift
            slack = SLACK * (seen.square().sum(1, keepdim=True) + index.largest**2)
            near = squared - (mine + slack) <= self.distance * self._between(own)
            near.scatter_(1, own[:, None], False)
            row, cluster = near.nonzero().cpu().numpy().T
            rows.append(numbers[start + row])
            clusters.append(cluster.astype(np.int32))
            start += len(part)
        return {"visits": np.concatenate(rows), "visited": np.concatenate(clusters)}

    def _between(self, own: Tensor) -> Tensor:
        """Distances from the centre of each row to all centres, (B, K)."""
        centers = self.index.centers
        if len(centers) ** 2 <= _TABLE_NUMBERS:
            return self._table[own]
        with products(centers.device):
            return torch.cdist(centers[own], centers)

    @cached_property
    def _table(self) -> Tensor:
        """Distances between all centres, (K, K)."""
        exact = self.index.centers.to(wide(self.index.centers.device))
        with products(exact.device):
            return torch.cdist(exact, exact).float()


def visitors(shelves: Shelves, seen: Survey, alone: np.ndarray) -> list[np.ndarray]:
    """Of each cluster, the positions of the rows that visit it to be compared with its rows.

    Args:
        seen: with the visits that ``Border`` finds.
        alone: (M,) bool by position, rows that repeat no other exactly; the others do not visit.
    """
    places, visited = shelves.places[seen.more["visits"]], seen.more["visited"]
    places, visited = places[alone[places]], visited[alone[places]]
    order = np.argsort(visited, kind="stable")
    n_clusters = len(shelves.starts) - 1
    return np.split(places[order], np.searchsorted(visited[order], np.arange(1, n_clusters)))
