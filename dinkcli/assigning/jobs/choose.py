"""Which rows of a cluster a sample has. Nothing here depends on the order of the rows: where chance
decides, it is that of their keys.

Shapes: B rows of a cluster, q of them chosen, D features.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def by_chance(keys: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """``number`` q of the rows, each with the same probability: positions and probabilities (q,).

    Args:
        keys: (B,) uint64.
    """
    chosen = np.argsort(keys, kind="stable")[:number]
    return chosen, np.full(number, number / max(1, len(keys)))


def by_weight(
    keys: np.ndarray, weights: np.ndarray, number: int, start: float
) -> tuple[np.ndarray, np.ndarray]:
    """``number`` q of the rows, each with a probability in proportion to its weight, or 1 where
    that would be more: a systematic sample in the order of the keys. Positions and probabilities
    (q,).

    Args:
        keys: (B,) uint64.
        weights: (B,) float64, at least q of them above 0.
        start: from 0 to below 1, the only draw besides the order.
    """
    probabilities = inclusion(weights, number)
    order = np.argsort(keys, kind="stable")
    ends = probabilities[order].cumsum()
    ends *= number / ends[-1]  # to the last bit
    chosen = order[np.searchsorted(ends, start + np.arange(number), "right")]
    return chosen, probabilities[chosen]


def inclusion(weights: np.ndarray, number: int) -> np.ndarray:
    """(B,) probabilities in proportion to the weights that sum to ``number``, none above 1."""
    sure = np.zeros(len(weights), bool)
    while True:
        rest = np.where(sure, 0.0, weights)
        total = rest.sum()
        left = number - int(sure.sum())
        found = np.where(sure, 1.0, left * rest / total if total else 0.0)
        more = ~sure & (found >= 1)
        if not more.any():
            return found
        sure |= more


def prototypes(keys: np.ndarray, distances: np.ndarray, number: int) -> np.ndarray:
    """The rows nearest to the centre, the nearest first: positions (q,)."""
    return np.lexsort((keys, distances))[:number]


def diverse(z: Tensor, first: int, number: int) -> np.ndarray:
    """Farthest-first: each next row is the one farthest from all before it (Gonzalez, 1985).
    Positions (q,).

    Args:
        z: (B, D) in the order of the keys, which decides ties.
        first: the position to begin with.
    """
    squares = z.square().sum(1)
    nearest = torch.full((len(z),), torch.inf)
    chosen = np.empty(number, np.int64)
    at = first
    for index in range(number):
        chosen[index] = at
        distances = (squares - 2 * (z @ z[at])).add_(squares[at]).clamp_(min=0)
        nearest = torch.minimum(nearest, distances)
        nearest[at] = -1
        at = int(nearest.argmax())
    return chosen


def unit(keys: np.ndarray) -> np.ndarray:
    """Keys uint64 as numbers from 0 to below 1."""
    return (keys >> np.uint64(11)).astype(np.float64) * 2.0**-53
