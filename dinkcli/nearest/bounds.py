"""Nearest centres pass after pass, without another look at centres that cannot have come nearest.

When the centres move a little, a row whose own centre is nearer than any other can have become
keeps its label: the triangle inequality says how near that is (Hamerly 2010). In the last passes of
a training that is most rows.

Shapes: B rows of a block, K clusters, D features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dinkcli.nearest.index import CenterIndex, Nearest

# More doubtful rows than this share, and gathering them costs more than the rest is worth.
_MANY = 0.5


class _Known(NamedTuple):
    """Of a block in a pass: labels (B,), and how near any other centre can be at most (B,)."""

    labels: Tensor
    others: Tensor
    number: int


class Bounds:
    """What passes over the same blocks know from the pass before: 12 bytes a row."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}
        self._pass = 0
        self._index: CenterIndex | None = None
        self._approach = torch.zeros(0)

    def begin(self, index: CenterIndex) -> None:
        """Begins a pass with these centres."""
        if self._index is not None:
            moved = index.centers.double() - self._index.centers.double()
            # Rounded up: float32 is good to half of this.
            moved = torch.linalg.vector_norm(moved, dim=1).mul_(1 + 2.0**-23).float()
            farthest = moved.argmax()
            self._approach = torch.full_like(moved, float(moved[farthest]))
            moved[farthest] = 0
            self._approach[farthest] = moved.max()
        self._index = index
        self._pass += 1

    def nearest(self, number: int, z: Tensor) -> Nearest:
        """What ``CenterIndex.nearest`` says about the rows ``z`` (B, D) of block ``number``, bit
        for bit."""
        index, known = self._index, self._known.get(number)
        assert index is not None
        if known is not None and known.number == self._pass - 1:
            labels = known.labels
            squares = index.squared_distances_to(z, labels)
            own, others = squares.sqrt(), known.others - self._approach[labels]
            doubtful = (own + self._rounding(index, own) >= others).nonzero()[:, 0]
            if len(doubtful) <= _MANY * len(z):
                again = index.nearest_two(z[doubtful])
                labels[doubtful] = again.labels
                squares[doubtful] = again.squared_distances
                others[doubtful] = again.second_squared_distances.sqrt()
                self._known[number] = _Known(labels, others, self._pass)
                return Nearest(labels, squares)
        two = index.nearest_two(z)
        others = two.second_squared_distances.sqrt()
        self._known[number] = _Known(two.labels, others, self._pass)
        return Nearest(two.labels, two.squared_distances)

    def _rounding(self, index: CenterIndex, own: Tensor) -> Tensor:
        """What two distances, and bounds from as many passes, can be off by together, (B,)."""
        eps = torch.finfo(own.dtype).eps
        n_features = index.centers.shape[1]
        return 2 * eps * ((n_features + 4 * self._pass) * own + 4 * index.largest)
