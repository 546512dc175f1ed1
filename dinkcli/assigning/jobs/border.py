"""Rows near a border between clusters: where else a near-duplicate of theirs may be.

Let a row x of cluster a and a row y of cluster b be at most t apart. The border between a and b is
the plane halfway between the centres; x lies (|x - b|^2 - |x - a|^2) / (2 |a - b|) on its side of
it, y likewise on the other, and these two together are at most t. So at least one of them is
within t / 2 of the plane. A row is therefore compared with the rows of every cluster whose plane
is that near, and no pair is missed.

Shapes: B rows, K clusters, D features.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dinkcli.assigning.assigner import Assigner
from dinkcli.assigning.jobs.shelves import Shelves
from dinkcli.assigning.jobs.survey import Survey
from dinkcli.nearest.device import wide
from dinkcli.nearest.products import products

# Of squared norms: float32 distances are off by a hundredth of this.
SLACK = 1e-5
_TABLE_NUMBERS = 1 << 26  # 256 MB of distances between centres


class Border:
    """Finds the clusters whose border a row is near.

    Args:
        distance: t, the Euclidean distance up to which rows are near-duplicates.
    """

    def __init__(self, distance: float):
        self.distance = distance
        self._table: Tensor | None = None

    def __call__(
        self, assigner: Assigner, z: Tensor, labels: Tensor, numbers: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The visits of prepared rows ``z`` (B, D): numbers of rows and of clusters."""
        index = assigner.index
        rows, clusters = [], []
        start = 0
        for part, own in zip(index.chunks(z), index.chunks(labels), strict=True):
            squared = index.squared_distances(part)
            mine = squared.gather(1, own[:, None])
            seen = part if index.shift is None else part - index.shift
            slack = SLACK * (seen.square().sum(1, keepdim=True) + index.largest**2)
            near = squared - (mine + slack) <= self.distance * self._between(index.centers, own)
            near.scatter_(1, own[:, None], False)
            row, cluster = near.nonzero().cpu().numpy().T
            rows.append(numbers[start + row])
            clusters.append(cluster.astype(np.int32))
            start += len(part)
        empty = np.empty(0, np.int64), np.empty(0, np.int32)
        return {
            "visits": np.concatenate(rows or [empty[0]]),
            "visited": np.concatenate(clusters or [empty[1]]),
        }

    def _between(self, centers: Tensor, own: Tensor) -> Tensor:
        """Distances from the centre of each row to all centres, (B, K)."""
        if len(centers) ** 2 > _TABLE_NUMBERS:
            with products(centers.device):
                return torch.cdist(centers[own], centers)
        if self._table is None:
            exact = centers.to(wide(centers.device))
            with products(centers.device):
                self._table = torch.cdist(exact, exact).float()
        return self._table[own]


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
