"""The two nearest centres of rows, by NumPy or by torch.

Shapes: B rows, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dinkcli.assigning.with_numpy import is_small
from dinkcli.data.dataset import DataSet
from dinkcli.models.model import Model
from dinkcli.nearest.small import SmallIndex

if TYPE_CHECKING:
    import torch


class Two(NamedTuple):
    """Rows (B, D) float32 as the model compares them, and the numbers (B,) int64 of the nearest and
    of the second-nearest centre of each; with one centre, that is both."""

    z: np.ndarray
    labels: np.ndarray
    seconds: np.ndarray


def two_nearest(
    model: Model, data: DataSet, device: torch.device | str
) -> Callable[[np.ndarray], Two]:
    """What finds them for blocks (B, D) float32 of the rows of ``data``.

    Args:
        device: with "auto" small work is done by NumPy, and torch is not loaded.

    Raises:
        UsageError: there is no such device.
    """
    if device == "auto" and is_small(model, data):
        small = SmallIndex(model.cluster_centers, normalize=model.metric == "cosine")

        def by_numpy(vectors: np.ndarray) -> Two:
            parts = [
                (seen.rows.astype(np.float32), seen.labels, small.seconds(seen))
                for seen in small.look(vectors)
            ]
            return Two(*map(np.concatenate, zip(*parts, strict=True)))

        return by_numpy
    import torch

    from dinkcli.assigning.with_torch import prepared
    from dinkcli.nearest.index import CenterIndex
    from dinkcli.processes.device import resolve_device

    where = resolve_device(device) if isinstance(device, str) else device
    index = CenterIndex(torch.from_numpy(model.cluster_centers).to(where))

    def by_torch(vectors: np.ndarray) -> Two:
        z = prepared(vectors, model, where)
        near = index.nearest_two(z)
        return Two(*(each.cpu().numpy() for each in (z, near.labels, near.second_labels)))

    return by_torch
