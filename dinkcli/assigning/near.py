"""All pairs of close rows, among the rows of a cluster and those near its border.

Let a row x of cluster a and a row y of cluster b be at most t apart. The border between a and b is
the plane halfway between the centres; x lies (|x - b|^2 - |x - a|^2) / (2 |a - b|) on its side of
it, y likewise on the other, and these two together are at most t. So at least one of them is
within t / 2 of the plane. A row is therefore compared with the rows of every cluster whose plane
is that near (it visits it), and no pair is missed.

Shapes: B rows or pairs, P pairs, R residents (rows of a cluster), V visitors, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from dinkcli.assigning.groups import Groups
from dinkcli.assigning.survey import RowsByCluster
from dinkcli.assigning.torch_backend import scaled
from dinkcli.errors import InputError
from dinkcli.models.model import Model
from dinkcli.nearest.device import accumulator_dtype
from dinkcli.nearest.index import CenterIndex
from dinkcli.nearest.products import products

# Of squared norms: float32 distances are off by a hundredth of this.
_SLACK = 1e-5
_TABLE_NUMBERS = 1 << 26  # 256 MB of distances between centres
_BLOCK = 1024  # rows compared with as many at once: scores that a core keeps close
_UNIT_NORM = 1e-3
_USUAL_DISTANCE = 0.1**0.5


@dataclass(frozen=True)
class Closeness:
    """What makes two rows near-duplicates.

    Attributes:
        cosine: rows are compared at norm 1.
        distance: the largest Euclidean distance.
        unit: the distance is meant for rows of norm 1.
    """

    cosine: bool
    distance: float
    unit: bool

    @classmethod
    def of_options(cls, metric: str, max_distance: float | None) -> Closeness:
        """By default the distance at which the cosine similarity is 0.95."""
        distance = _USUAL_DISTANCE if max_distance is None else max_distance
        return cls(metric == "cosine", distance, max_distance is None and metric != "cosine")

    def check(self, vectors: np.ndarray, rows: np.ndarray, name: str) -> None:
        """Raises InputError for rows (B, D) that the distance is not meant for."""
        if not self.unit:
            return
        norms = np.linalg.norm(vectors, axis=1)
        wrong = np.flatnonzero(np.abs(norms - 1) > _UNIT_NORM)
        if len(wrong):
            raise InputError(
                f"{name}: row {rows[wrong[0]]} has norm {norms[wrong[0]]:.4g}, and the model is "
                f"euclidean: the usual distance, {self.distance:.3f}, is one between rows of norm "
                "1; give a `max_distance`"
            )

    def distances(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Of pairs of rows (B, D) as the inputs give them, (B,) float64."""
        x, y = x.astype(np.float64), y.astype(np.float64)
        if self.cosine:
            x /= np.linalg.norm(x, axis=1, keepdims=True)
            y /= np.linalg.norm(y, axis=1, keepdims=True)
        return np.linalg.norm(x - y, axis=1)

    def close(self, distances: np.ndarray) -> np.ndarray:
        """(B,) bool. Multiples of a row are at distance 0 but for the last bits."""
        return distances <= self.distance + (4e-15 if self.cosine else 0.0)


class Border:
    """Finds the clusters whose border a row is near.

    Attributes:
        rows, clusters: of all visits so far, (V,) each: numbers of rows and of clusters.
    """

    def __init__(self, index: CenterIndex, distance: float):
        self._index, self._distance = index, distance
        self._found = [(np.empty(0, np.int64), np.empty(0, np.int32))]

    def look(self, z: Tensor, labels: Tensor, numbers: np.ndarray) -> None:
        """Adds the visits of prepared rows ``z`` (B, D)."""
        index, start = self._index, 0
        for part, own in zip(index.chunks(z), index.chunks(labels), strict=True):
            squared = index.squared_distances(part)
            mine = squared.gather(1, own[:, None])
            seen = part if index.shift is None else part - index.shift
            slack = _SLACK * (seen.square().sum(1, keepdim=True) + index.largest**2)
            near = squared - (mine + slack) <= self._distance * self._between(own)
            near.scatter_(1, own[:, None], False)
            row, cluster = near.nonzero().cpu().numpy().T
            self._found.append((numbers[start + row], cluster.astype(np.int32)))
            start += len(part)

    def visits(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of rows, and the clusters that these visit, (V,) each."""
        rows, clusters = zip(*self._found, strict=True)
        return np.concatenate(rows), np.concatenate(clusters)

    def _between(self, own: Tensor) -> Tensor:
        """Distances from the centre of each row to all centres, (B, K)."""
        centers = self._index.centers
        if len(centers) ** 2 <= _TABLE_NUMBERS:
            return self._table[own]
        with products(centers.device):
            return torch.cdist(centers[own], centers)

    @cached_property
    def _table(self) -> Tensor:
        """Distances between all centres, (K, K)."""
        exact = self._index.centers.to(accumulator_dtype(self._index.centers.device))
        with products(exact.device):
            return torch.cdist(exact, exact).float()


class Pairs:
    """Compares rows exactly; what cannot be close by float32 products is left out first.

    Args:
        memory: bytes that rows may take at once.

    Attributes:
        compared: pairs so far.
    """

    def __init__(self, rows: RowsByCluster, model: Model, closeness: Closeness, memory: int):
        self._rows, self._model, self._closeness = rows, model, closeness
        self._memory, self._n_features = memory, model.n_features
        # Of a pair at once; both rows, in float64, and once more to scale them.
        self._pairs = max(64, memory // 4 // (32 * model.n_features))
        self.compared = 0

    def within(self, label: int, residents: np.ndarray, visitors: np.ndarray) -> np.ndarray:
        """Which rows belong together through near-duplicates among the residents, or between
        residents and visitors of a cluster: pairs (P, 2) of positions that connect what belongs
        together.

        Args:
            residents, visitors: positions.
        """
        positions = np.concatenate([residents, visitors])
        found = Groups(len(positions))
        center = torch.from_numpy(self._model.cluster_centers[label])
        held = None
        if 8 * len(positions) * self._n_features <= self._memory:
            held = self._load(positions, center)
        for first in range(0, len(residents), _BLOCK):
            own = slice(first, min(first + _BLOCK, len(residents)))
            a = self._load(positions[own], center) if held is None else held[own]
            for second in range(first, len(positions), _BLOCK):
                other = slice(second, second + _BLOCK)
                b = self._load(positions[other], center) if held is None else held[other]
                self.compared += len(a) * len(b)
                self._join(found, positions, self._near(a, b) + np.array([first, second]))
        return positions[found.connections()]

    def _load(self, positions: np.ndarray, center: Tensor) -> Tensor:
        """Rows (B, D) float32 about the centre, where differences keep their digits."""
        vectors = self._rows.at(positions).astype(np.float32, copy=False)
        return scaled(vectors, self._model.metric, "cpu") - center

    def _near(self, a: Tensor, b: Tensor) -> np.ndarray:
        """Pairs (P, 2) of the rows of ``a`` and ``b`` that may be close, given the rounding."""
        half_a, half_b = a.square().sum(1) / 2, b.square().sum(1) / 2
        largest = float(torch.maximum(half_a.max(), half_b.max()))
        # A row of norm 1 is off by its last bit, which the centre does not take away.
        distance = self._closeness.distance + (1e-6 if self._closeness.cosine else 0.0)
        least = -(distance**2) / 2 - 2 * _SLACK * largest
        # Minus half of the squared distance.
        scores = torch.addmm(half_b, a, b.T, beta=-1)
        rows = (scores.amax(1) >= half_a + least).nonzero()[:, 0]
        if len(rows) == 0:
            return np.empty((0, 2), np.int64)
        near = (scores[rows] >= (half_a[rows] + least)[:, None]).nonzero()
        near[:, 0] = rows[near[:, 0]]
        return near.numpy()

    def _join(self, found: Groups, positions: np.ndarray, pairs: np.ndarray) -> None:
        """Joins those of the pairs (P, 2) that are close, looking at both rows."""
        pairs = pairs[pairs[:, 0] < pairs[:, 1]]
        while len(pairs):
            pairs = pairs[found.apart(pairs)]  # whatever is joined already need not be looked at
            some, pairs = pairs[: self._pairs], pairs[self._pairs :]
            if len(some):
                x, y = (self._rows.at(positions[side]) for side in some.T)
                found.join(some[self._closeness.close(self._closeness.distances(x, y))])
