"""Assigning rows to the centres of a trained model, block by block.

Shapes: B rows in a block, K clusters, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from dinkcli.device import in_pieces
from dinkcli.limits import LARGEST_NORM, normalize_, refuse_overflow
from dinkcli.model import Model
from dinkcli.nearest import CenterIndex
from dinkcli.readers import DataSet


@dataclass(frozen=True)
class Assignments:
    """The clusters of consecutive rows.

    Attributes:
        start: number of the first row over all inputs.
        labels: (B,) int32.
        probabilities: (B, K) float32, or None for hard assignments.
        carried: the B values of each carried column, or None without such columns.
    """

    start: int
    labels: np.ndarray
    probabilities: np.ndarray | None = None
    carried: pa.RecordBatch | None = None

    def __len__(self) -> int:
        return len(self.labels)


class Assigner:
    """A model's centres on a device, ready to take batches.

    Args:
        soft: also give the probability of every cluster: softmax of minus the distance.
    """

    def __init__(self, model: Model, device: torch.device | str = "cpu", soft: bool = False):
        self.model = model
        self.device = torch.device(device)
        self.soft = soft
        self.index = CenterIndex(torch.from_numpy(model.cluster_centers).to(self.device))
        self._usual_range = LARGEST_NORM / model.n_features**0.5 / 2
        if np.abs(model.cluster_centers).max() > self._usual_range:
            self._usual_range = 0.0

    def __call__(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Labels (B,) int32 and, when soft, probabilities (B, K) float32 of (B, D) float32."""
        parts = list(in_pieces(lambda where: self._assign(vectors[where]), len(vectors)))
        labels = np.concatenate([part for part, _ in parts])
        soft = [part for _, part in parts if part is not None]
        return labels, np.concatenate(soft) if soft else None

    def _assign(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        z = as_tensor(vectors).to(self.device)
        if self.model.metric == "cosine":
            z = z.clone()
            normalize_(z)
        labels = self.index.labels(z).to(torch.int32).cpu().numpy()
        if not self.soft:
            return labels, None
        distances = self.index.squared_distances(z).sqrt_()
        return labels, torch.softmax(-distances, dim=1).cpu().numpy()

    def check_range(self, vectors: np.ndarray, name: str, start: int) -> None:
        """Raises InputError at a row so far away that distances would overflow float32."""
        if self.model.metric == "cosine":
            return
        # The range of all numbers says enough, but for data that lie far from the origin.
        if float(np.abs(vectors).max(initial=0.0)) > self._usual_range:
            rows = as_tensor(vectors).to(self.device)
            shift = self.index.shift
            refuse_overflow(rows if shift is None else rows - shift, name, start)


def as_tensor(vectors: np.ndarray) -> torch.Tensor:
    """The same memory as a tensor; a mapped, read-only file is copied first."""
    return torch.from_numpy(vectors if vectors.flags.writeable else vectors.copy())


def assign(
    model: Model, data: DataSet, device: torch.device | str = "cpu", soft: bool = False
) -> Iterator[Assignments]:
    """The clusters of all rows, in order, in memory that does not grow with the data.

    Raises:
        InputError: the data's dimension is not the model's, or a row is not finite.
    """
    model.check_features(data.n_features, data.name)
    assigner = Assigner(model, device, soft)
    # Probabilities widen a row from D to K numbers: then K bounds the block.
    rows = max(1, (2 << 20) // max(model.n_features, model.n_clusters if soft else 1))
    for block in data.blocks(rows):
        assigner.check_range(block.vectors, data.name, block.start)
        labels, probabilities = assigner(block.vectors)
        yield Assignments(block.start, labels, probabilities, block.carried)
