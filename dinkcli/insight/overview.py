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
    present, best = model.present, []
    centers, k = model.cluster_centers[present].astype(np.float64), len(present)
    rows = max(1, _CHUNK_ELEMENTS // k)
    for start in range(0, k, rows):
        squares = squared_distances(centers[start : start + rows], centers)
        squares[np.tril_indices(len(squares), start, k)] = np.inf
        flat = squares.ravel()
        least = np.argpartition(flat, min(number, len(flat) - 1))[:number]
        for i, j in (divmod(cell, k) for cell in least[np.isfinite(flat[least])].tolist()):
            apart = centers[start + i] - centers[j]  # so that copies are at 0
            pair = int(present[start + i]), int(present[j])
            best.append(Pair(*pair, float(np.linalg.norm(apart))))
    return sorted(best, key=lambda pair: (pair.distance, pair))[:number]


def neighbours(model: Model, cluster: int, number: int) -> list[tuple[int, float]]:
    """The clusters whose centres are nearest to that of ``cluster``, with the distances, nearest
    first."""
    others, centers = model.present[model.present != cluster], model.cluster_centers
    distances = np.linalg.norm(centers[others].astype(np.float64) - centers[cluster], axis=1)
    order = distances.argsort(kind="stable")[:number]
    return list(zip(others[order].tolist(), distances[order].tolist(), strict=True))


def cluster_of(model: Model, which: int | str) -> int:
    """The cluster of a number, a name, or a part of a name that only one of them has.

    Raises:
        UsageError: none or several.
    """
    wanted, k = str(which).strip().casefold(), model.n_clusters
    names = [name.casefold() for name in model.names]
    exact = [j for j, name in enumerate(names) if name == wanted]
    matches = exact or [j for j, name in enumerate(names) if wanted in name]
    if wanted.isdecimal():
        matches = [int(wanted)] if int(wanted) < k else []
        problem = f"the model has the clusters 0 to {k - 1}"
    elif not any(names):
        problem = f"the clusters have no names, only numbers from 0 to {k - 1}; dink name gives "
        problem += "them some"
    elif not matches:
        problem = "no cluster has that in its name"
    else:
        some = ", ".join(f"{j} ({model.names[j]})" for j in matches[:5])
        more = f" and {len(matches) - 5} more" if len(matches) > 5 else ""
        problem = f"may be {some}{more}; give the number"
    if len(matches) != 1:
        raise UsageError(f"`cluster` {which}: {problem}")
    return matches[0]


def history(model: Model) -> list[dict[str, Any]]:
    """The steps of the training; of the last start, where it had several."""
    steps = model.training.get("history", [])
    last = max((step.get("start", 1) for step in steps), default=1)
    return [step for step in steps if step.get("start", 1) == last]
