"""What a model file alone says about its clusters. Needs no torch.

Shapes: K clusters, D features.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dinkcli.errors import UsageError
from dinkcli.models.model import Model
from dinkcli.models.tree import squared_distances

_CHUNK_ELEMENTS = 1 << 22


class Pair(NamedTuple):
    """Two clusters, the lower index first, and the distance between their centres."""

    first: int
    second: int
    distance: float


def nearest_pairs(model: Model, number: int) -> list[Pair]:
    """The ``number`` pairs of clusters with the least distance between centres, nearest first.

    O(K^2 D) time, memory for a chunk of rows of the (K, K) distances.
    """
    centers, k = model.cluster_centers.astype(np.float64), model.n_clusters
    best: list[Pair] = []
    gone = ~np.isin(np.arange(k), model.present)
    rows = max(1, _CHUNK_ELEMENTS // k)
    for start in range(0, k, rows):
        squares = squared_distances(centers[start : start + rows], centers)
        squares[np.tril_indices(len(squares), start, k)] = np.inf
        squares[gone[start : start + rows]] = np.inf
        squares[:, gone] = np.inf
        flat = squares.ravel()
        least = np.argpartition(flat, min(number, len(flat) - 1))[:number]
        for i, j in (divmod(int(cell), k) for cell in least if np.isfinite(flat[cell])):
            apart = centers[start + i] - centers[j]  # so that copies are at 0
            best.append(Pair(start + i, j, float(np.linalg.norm(apart))))
    return sorted(best, key=lambda pair: (pair.distance, pair))[:number]


def neighbours(model: Model, cluster: int, number: int) -> list[tuple[int, float]]:
    """The clusters whose centres are nearest to that of ``cluster``, with the distances, nearest
    first."""
    centers = model.cluster_centers.astype(np.float64)
    distances = np.linalg.norm(centers - centers[cluster], axis=1)
    order = np.argsort(distances, kind="stable").tolist()
    present = set(model.present.tolist()) - {cluster}
    return [(j, float(distances[j])) for j in order if j in present][:number]


def cluster_of(model: Model, which: int | str) -> int:
    """The cluster of a number, a name, or a part of a name that only one of them has.

    Raises:
        UsageError: none or several.
    """
    text, k = str(which), model.n_clusters
    wanted = text.strip().casefold()
    if wanted.isdecimal():
        if int(wanted) >= k:
            raise UsageError(f"`cluster` {text}: the model has the clusters 0 to {k - 1}")
        return int(wanted)
    names = [name.casefold() for name in model.names]
    if not any(names):
        raise UsageError(
            f"`cluster` {text}: the clusters have no names, only numbers from 0 to {k - 1}; dink "
            "name gives them some"
        )
    exact = [j for j, name in enumerate(names) if name == wanted]
    matches = exact or [j for j, name in enumerate(names) if wanted in name]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise UsageError(f"`cluster` {text}: no cluster has that in its name")
    some = ", ".join(f"{j} ({model.names[j]})" for j in matches[:5])
    more = f" and {len(matches) - 5} more" if len(matches) > 5 else ""
    raise UsageError(f"`cluster` {text}: may be {some}{more}; give the number")


def history(model: Model) -> list[dict[str, Any]]:
    """The steps of the training; of the last start, where it had several."""
    steps = model.training.get("history", [])
    last = max((step.get("start", 1) for step in steps), default=1)
    return [step for step in steps if step.get("start", 1) == last]


def curve(model: Model, name: str) -> list[float]:
    """One figure of each step of ``history``."""
    return [float(step[name]) for step in history(model)]
