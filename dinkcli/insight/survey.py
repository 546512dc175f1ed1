"""One look at every row through a trained model: its nearest and second-nearest centre.

Shapes: B rows in a block, C centres, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from dinkcli.assigning.assigner import assigner_for
from dinkcli.assigning.backend import NearestPair
from dinkcli.data.dataset import DataSet
from dinkcli.errors import InputError
from dinkcli.models.model import OUTLIER, Model
from dinkcli.models.tree import squared_distances

if TYPE_CHECKING:
    import torch

_CACHED_NUMBERS = 1 << 16  # half a megabyte of float64, in a core's cache


@dataclass(frozen=True)
class View:
    """The usable ones of consecutive rows, as the model sees them."""

    end: int  # number of the row after them, over all inputs
    rows: np.ndarray  # (B,) int64, their numbers, ascending
    n_bad: int  # bad rows among them that are left out
    z: np.ndarray  # (B, D) float32 as the model compares them, of norm 1 under cosine
    nearest: np.ndarray  # (B,) int64, the nearest centre
    seconds: np.ndarray  # (B,) int64, the nearest centre of another cluster
    labels: np.ndarray  # (B,) int64, the cluster of the nearest centre
    centers: np.ndarray  # (C, D) float64
    carried: pa.RecordBatch | None  # the B values of each carried column

    def __len__(self) -> int:
        return len(self.z)

    # In float64: figures must not depend on how the rows were batched.
    @cached_property
    def distances(self) -> np.ndarray:
        """(B,) float64, to the nearest centre."""
        return np.sqrt(squares_to(self.centers, self.z, self.nearest))

    @cached_property
    def second_distances(self) -> np.ndarray:
        """(B,) float64, to the second-nearest centre; infinite with one centre."""
        squares = squares_to(self.centers, self.z, self.seconds)
        squares[self.seconds == self.nearest] = np.inf
        return np.maximum(np.sqrt(squares), self.distances)

    def at(self, places: np.ndarray) -> View:
        """The rows at these places (M,)."""
        names = ("rows", "z", "nearest", "seconds", "labels")
        arrays = {name: getattr(self, name)[places] for name in names}
        carried = None if self.carried is None else self.carried.take(pa.array(places))
        return replace(self, **arrays, carried=carried)


def survey(model: Model, data: DataSet, device: torch.device | str) -> Iterator[View]:
    """All usable rows in order, in memory that does not grow with the data; not those of a cluster
    that was dropped as outliers. With device "auto" small work is done without torch. An
    InputError for rows that the model cannot take, or that are all bad."""
    data = model.rows_of(data)
    assigner = assigner_for(model, data, device)
    centers, owners = model.centers.astype(np.float64), model.center_clusters
    n_rows = n_bad = 0
    for block, pair in assigner.pairs(data):
        good, carried = np.flatnonzero(block.good), block.carried
        if block.bad is not None and carried is not None:
            carried = carried.take(pa.array(good))
        labels, seconds = owners[pair.labels], pair.second_labels
        if model.parts is not None:
            seconds = _second_clusters(pair, centers, owners)
        end, bad = block.start + len(block), len(block) - len(good)
        numbers = block.start + good
        view = View(end, numbers, bad, pair.z, pair.labels, seconds, labels, centers, carried)
        yield view if (labels != OUTLIER).all() else view.at(np.flatnonzero(labels != OUTLIER))
        n_rows, n_bad = n_rows + len(good), n_bad + bad
    if not n_rows:
        raise InputError(f"{data.name}: all {n_bad} rows are bad; nothing to look at")


def _second_clusters(pair: NearestPair, centers: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """(B,) the nearest centre of another cluster than the nearest one's, no outliers'; that itself
    where there is no other."""
    seconds, owner = pair.second_labels.copy(), owners[pair.labels]
    wrong = np.flatnonzero((owners[seconds] == owner) | (owners[seconds] == OUTLIER))
    step = max(1, _CACHED_NUMBERS // len(centers))
    for start in range(0, len(wrong), step):
        rows = wrong[start : start + step]
        squares = squared_distances(pair.z[rows], centers)
        squares[(owners == owner[rows, None]) | (owners == OUTLIER)] = np.inf
        seconds[rows] = squares.argmin(1)
        none = rows[np.isinf(squares.min(1))]
        seconds[none] = pair.labels[none]
    return seconds


def squares_to(points: np.ndarray, z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(B,) float64, squared distances of rows ``z`` (B, D) to the ``points`` (K, D) float64 of
    their labels (B,)."""
    found = np.empty(len(z))
    step = max(1, _CACHED_NUMBERS // points.shape[1])
    for start in range(0, len(z), step):
        where = slice(start, start + step)
        apart = points[labels[where]]
        apart -= z[where]
        np.einsum("bd,bd->b", apart, apart, out=found[where])
    return found
