"""One look at every row through a trained model: its nearest and second-nearest centre.

Shapes: N rows, B rows in a block, K clusters, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from dinkcli.assigning.assigner import assigner_for, usable
from dinkcli.data.dataset import DataSet
from dinkcli.errors import InputError
from dinkcli.models.model import Model

if TYPE_CHECKING:
    import torch

_CACHED_NUMBERS = 1 << 16  # half a megabyte of float64, in a core's cache


@dataclass(frozen=True)
class View:
    """The usable ones of consecutive rows, as the model sees them.

    Attributes:
        end: number of the row after them, over all inputs.
        rows: (B,) int64, their numbers, ascending.
        n_bad: bad rows among them that are left out.
        z: (B, D) float32 as the model compares them, of norm 1 under cosine.
        labels, seconds: (B,) int64, the nearest centre and the second nearest.
        centers: (K, D) float64.
        carried: the B values of each carried column, or None.
    """

    end: int
    rows: np.ndarray
    n_bad: int
    z: np.ndarray
    labels: np.ndarray
    seconds: np.ndarray
    centers: np.ndarray
    carried: pa.RecordBatch | None

    def __len__(self) -> int:
        return len(self.z)

    # In float64: figures must not depend on how the rows were batched.
    @cached_property
    def distances(self) -> np.ndarray:
        """(B,) float64, to the nearest centre."""
        return np.sqrt(squares_to(self.centers, self.z, self.labels))

    @cached_property
    def second_distances(self) -> np.ndarray:
        """(B,) float64, to the second-nearest centre; infinite with one centre."""
        if len(self.centers) == 1:
            return np.full(len(self), np.inf)
        seconds = np.sqrt(squares_to(self.centers, self.z, self.seconds))
        return np.maximum(seconds, self.distances)

    def at(self, places: np.ndarray) -> View:
        """The rows at these places (M,)."""
        arrays = {name: getattr(self, name)[places] for name in ("rows", "z", "labels", "seconds")}
        carried = None if self.carried is None else self.carried.take(pa.array(places))
        return replace(self, **arrays, carried=carried)


def survey(model: Model, data: DataSet, device: torch.device | str = "cpu") -> Iterator[View]:
    """All usable rows in order, in memory that does not grow with the data.

    Args:
        device: with "auto" small work is done by NumPy, and torch is not loaded.

    Raises:
        InputError: the data's dimension is not the model's; a row is bad where
            ``data.bad_rows`` is "stop", or all are.
    """
    data = model.rows_of(data)
    assigner = assigner_for(model, data, device)
    centers = model.cluster_centers.astype(np.float64)
    n_rows = n_bad = 0
    for block in assigner.blocks(data):
        vectors, carried = block.vectors, block.carried
        rows = np.arange(block.start, block.start + len(block))
        if block.bad is not None:
            good = usable(block)
            vectors, rows = vectors[good], rows[good]
            carried = None if carried is None else carried.filter(pa.array(good))
        n_bad += len(block) - len(rows)
        if not len(rows):
            continue  # the next view counts them
        pair = assigner.backend.nearest_pair(vectors)
        yield View(block.start + len(block), rows, n_bad, *pair, centers, carried)
        n_rows, n_bad = n_rows + len(rows), 0
    if not n_rows:
        raise InputError(f"{data.name}: all {n_bad} rows are bad; nothing to look at")


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
