"""How close two rows are, to the last digit, and their main axes, on which most pairs show at once
that they are not close.

On orthonormal axes the distance of two rows is never larger than between the rows themselves, also
when the norms of what lies outside of the axes are one more number of each. So a pair that is too
far apart there is too far apart.

Shapes: B rows or pairs, D features, Q axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dinkcli.assigning.jobs.asked import DedupOptions
from dinkcli.assigning.with_torch import scaled
from dinkcli.data.dataset import DataSet
from dinkcli.errors import InputError

_STEP = 32  # axes are taken by so many
_LOOKED_AT = 4096  # rows, to find the axes and how many are worth their products
_NEIGHBOURS = 4  # in the order of clusters, that each of them is compared with for that
# What a look at both rows costs, 2 microseconds, in axes, of a pair 20 picoseconds each.
_LOOK = 100_000
_UNIT_NORM = 1e-3


@dataclass(frozen=True)
class Closeness:
    """What makes two rows near-duplicates.

    Attributes:
        metric: of the model: what is done to rows before they are compared.
        similarity: the least cosine similarity, or None.
        distance: the largest Euclidean distance of prepared rows.
    """

    metric: str
    similarity: float | None
    distance: float

    @classmethod
    def asked(cls, metric: str, options: DedupOptions) -> Closeness:
        """What the options ask for."""
        if options.threshold is None:
            assert options.distance is not None
            return cls(metric, None, options.distance)
        distance = math.sqrt(2 - 2 * options.threshold)
        if metric != "cosine":
            # Two rows as similar as that are farther apart where their norms are not just 1.
            distance = math.hypot(distance * (1 + _UNIT_NORM), 2 * _UNIT_NORM)
        return cls(metric, options.threshold, distance)

    def check(self, vectors: np.ndarray, name: str, start: int) -> None:
        """Raises InputError where a cosine similarity is asked for of rows (B, D) that a euclidean
        model compares, and whose norms are not 1."""
        if self.similarity is None or self.metric == "cosine":
            return
        norms = np.linalg.norm(vectors, axis=1)
        wrong = np.flatnonzero(np.abs(norms - 1) > _UNIT_NORM)
        if len(wrong):
            raise InputError(
                f"{name}: row {start + wrong[0]} has norm {norms[wrong[0]]:.4g}, and the model is "
                "euclidean: --threshold is a cosine similarity, which goes with rows of norm 1 or "
                "a model trained with --metric cosine; give a largest --distance instead"
            )

    def of(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Similarities, or distances, of pairs of rows (B, D) as the inputs give them, (B,)
        float64."""
        x, y = x.astype(np.float64), y.astype(np.float64)
        if self.similarity is not None or self.metric == "cosine":
            x /= np.linalg.norm(x, axis=1, keepdims=True)
            y /= np.linalg.norm(y, axis=1, keepdims=True)
        if self.similarity is not None:
            return np.einsum("ij,ij->i", x, y)
        return np.linalg.norm(x - y, axis=1)

    def close(self, values: np.ndarray) -> np.ndarray:
        """Which of the values that ``of`` gives (B,) are those of near-duplicates."""
        if self.similarity is not None:
            # Rows that are the same have a similarity of 1 but for the last bits.
            return values >= self.similarity - 4e-16
        return values <= self.distance

    @property
    def best(self) -> float:
        """What ``of`` gives for a row and itself."""
        return 1.0 if self.similarity is not None else 0.0


class Axes:
    """Orthonormal axes that hold most of how rows differ.

    Args:
        data: of which the first rows are looked at.
        labels: (N,) clusters of all rows.
    """

    def __init__(self, data: DataSet, labels: np.ndarray, closeness: Closeness):
        self._metric = closeness.metric
        self._shift = torch.zeros(data.n_features)
        # The same rows whenever it is asked: those of the first blocks.
        z, own, found = [], [], 0
        for block in data.blocks(nonzero=self._metric == "cosine"):
            good = labels[block.start : block.start + len(block)] >= 0
            z.append(scaled(block.vectors[good], self._metric, "cpu"))
            own.append(labels[block.start : block.start + len(block)][good])
            found += int(good.sum())
            if found >= _LOOKED_AT:
                break
        rows = torch.cat(z)[:_LOOKED_AT]
        if self._metric == "euclidean":
            self._shift = rows.mean(0)
        self._basis = self._main(rows - self._shift)
        self._basis = self._basis[:, : self._enough(rows, np.concatenate(own), closeness)]

    def on(self, vectors: np.ndarray) -> np.ndarray:
        """Rows (B, D) as the inputs give them on the axes, with the norm of what lies outside of
        them: (B, Q + 1) float32."""
        z = scaled(np.ascontiguousarray(vectors, np.float32), self._metric, "cpu") - self._shift
        inside = z @ self._basis
        rest = z.square().sum(1) - inside.square().sum(1)
        return torch.cat([inside, rest.clamp_(min=0).sqrt_()[:, None]], 1).numpy()

    @staticmethod
    def _main(z: Tensor) -> Tensor:
        """All axes (D, D), those of the largest differences first."""
        centered = (z - z.mean(0)).double()
        _, axes = torch.linalg.eigh(centered.T @ centered)
        return axes.flip(1).float()

    def _enough(self, rows: Tensor, labels: np.ndarray, closeness: Closeness) -> int:
        """How many axes are worth their products: fewer leave more pairs of one cluster to look at
        that are not close."""
        limit, order = closeness.distance**2, np.argsort(labels[: len(rows)], kind="stable")
        pairs = [np.stack([order[:-shift], order[shift:]]) for shift in range(1, _NEIGHBOURS + 1)]
        first, second = np.concatenate(pairs, 1)
        same = labels[first] == labels[second]
        on = (rows - self._shift) @ self._basis
        x, y = on[first[same]], on[second[same]]
        apart = (x - y).square().sum(1) > limit
        x, y = x[apart], y[apart]
        between = (x - y).square().cumsum(1)
        rest_x, rest_y = (each.square().flip(1).cumsum(1).flip(1).sqrt_() for each in (x, y))
        numbers = range(_STEP, x.shape[1], _STEP)
        costs = {x.shape[1]: float(x.shape[1])}
        for number in numbers if len(x) else ():
            seen = between[:, number - 1] + (rest_x[:, number] - rest_y[:, number]).square()
            costs[number] = number + _LOOK * float((seen <= limit).float().mean())
        return min(costs, key=costs.__getitem__)
