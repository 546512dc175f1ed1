"""One look at every row through a trained model: its nearest and second-nearest centre.

Shapes: N rows, B rows in a block, K clusters, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from dinkcli.assigning.with_torch import prepared
from dinkcli.data.dataset import DataSet
from dinkcli.errors import InputError
from dinkcli.models.model import Model
from dinkcli.nearest.device import wide
from dinkcli.nearest.index import CenterIndex


@dataclass(frozen=True)
class View:
    """The usable ones of consecutive rows, as the model sees them.

    Attributes:
        end: number of the row after them, over all inputs.
        rows: (B,) int64, their numbers, ascending.
        n_bad: bad rows among them that are left out.
        z: (B, D) float32 on the device, of norm 1 under cosine.
        labels: (B,) int64 on the device, the nearest centre.
        distances: (B,) float64 on the device, to the nearest centre.
        second_distances: (B,) float64, to the second nearest; infinite with one centre.
        carried: the B values of each carried column, or None.
    """

    end: int
    rows: np.ndarray
    n_bad: int
    z: Tensor
    labels: Tensor
    distances: Tensor
    second_distances: Tensor
    carried: pa.RecordBatch | None

    def __len__(self) -> int:
        return len(self.z)

    def first(self, number: int) -> View:
        """At most so many of the rows."""
        return self if number >= len(self) else self._at(torch.arange(number))

    def of_cluster(self, cluster: int) -> View:
        """The rows of one cluster alone, with labels of 0."""
        found = self._at((self.labels == cluster).nonzero()[:, 0])
        return replace(found, labels=torch.zeros_like(found.labels))

    def _at(self, places: Tensor) -> View:
        """The rows at these places (M,)."""
        there, here = places.to(self.z.device), places.cpu().numpy()
        return replace(
            self,
            rows=self.rows[here],
            z=self.z[there],
            labels=self.labels[there],
            distances=self.distances[there],
            second_distances=self.second_distances[there],
            carried=None if self.carried is None else self.carried.take(pa.array(here)),
        )


def survey(model: Model, data: DataSet, device: torch.device | str = "cpu") -> Iterator[View]:
    """All usable rows in order, in memory that does not grow with the data.

    Raises:
        InputError: the data's dimension is not the model's; a row is bad where
            ``data.bad_rows`` is "stop", or all are.
    """
    model.check_features(data.n_features, data.name)
    centers = torch.from_numpy(model.cluster_centers).to(device)
    index = CenterIndex(centers)
    n_rows = n_bad = 0
    for block in data.blocks(nonzero=model.metric == "cosine"):
        vectors, carried = block.vectors, block.carried
        rows = np.arange(block.start, block.start + len(block))
        if block.bad is not None:
            good = ~block.bad
            vectors, rows = vectors[good], rows[good]
            carried = None if carried is None else carried.filter(pa.array(good))
        n_bad += len(block) - len(rows)
        if not len(rows):
            continue  # the next view counts them
        z = prepared(vectors, model, device)
        near = index.nearest_two(z)
        # In float64: the figures below must not depend on how the rows were batched.
        distances = _exact(z, centers, near.labels)
        second = _exact(z, centers, near.second_labels)
        if len(centers) == 1:
            second.fill_(torch.inf)
        second = torch.maximum(second, distances)
        end = block.start + len(block)
        yield View(end, rows, n_bad, z, near.labels, distances, second, carried)
        n_rows, n_bad = n_rows + len(rows), 0
    if not n_rows:
        raise InputError(f"{data.name}: all {n_bad} rows are bad; nothing to look at")


def _exact(z: Tensor, centers: Tensor, labels: Tensor) -> Tensor:
    """(B,) distances of the rows to the given centres, in float64 where the device has it."""
    return torch.linalg.vector_norm((z - centers[labels]).to(wide(z.device)), dim=1)
