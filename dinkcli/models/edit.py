"""Models that change after their training: clusters merged, split, dropped and named by hand.

A merged cluster keeps the centres of both, so that it gets exactly the rows that both had. Numbers
of clusters never change and are never used again. Shapes: K clusters, C centres, D features.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import numpy as np

from dinkcli.errors import UsageError
from dinkcli.models.file import as_model
from dinkcli.models.model import OUTLIER, Centers, Model
from dinkcli.models.statistics import Statistics


def statistics_of(model: Model) -> Statistics:
    """Of the rows of each centre; of an older model, which does not know it, without distances."""
    if model.statistics is not None:
        return model.statistics
    inertia = model.training.get("metrics", {}).get("cluster_inertia") or [0.0] * model.n_clusters
    return Statistics.trained(model.cluster_sizes, model.cluster_centers, np.array(inertia))


def cluster_of(model: Model, which: int | str) -> int:
    """The cluster of a number, a name, or part of a name; raises UsageError for none or several."""
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


def check_present(model: Model, clusters: Sequence[int]) -> None:
    """Raises UsageError for a cluster without centres: merged or dropped before."""
    for cluster in clusters:
        if cluster not in model.center_clusters:
            raise UsageError(f"cluster {cluster}: has been merged or dropped before")


def merge(
    model: Model | str | os.PathLike[str], clusters: Sequence[int], name: str | None = None
) -> Model:
    """The rows of all ``clusters`` are those of the first one from now on.

    Args:
        name: of the merged cluster, given by hand; without it, that of the first one.

    Raises:
        UsageError: fewer than two different clusters, or one that is gone.
    """
    model = as_model(model)
    first, *others = clusters
    if not others or len(set(clusters)) < len(clusters):
        raise UsageError(f"merge {','.join(map(str, clusters))}: expected two or more clusters")
    check_present(model, clusters)
    owners = np.where(np.isin(model.center_clusters, others), first, model.center_clusters)
    merged = with_centers(model, model.centers, owners, statistics_of(model))
    if name is not None:
        merged = _named(merged, first, name)
    return noted(merged, what="merge", clusters=list(clusters), name=merged.all_names[first])


def drop(model: Model | str | os.PathLike[str], cluster: int, outlier: bool = False) -> Model:
    """Without a cluster: its rows go to the next centre, or with ``outlier`` have the label -1.

    Raises:
        UsageError: no other cluster would be left, or it is gone.
    """
    model = as_model(model)
    check_present(model, [cluster])
    owners, statistics = model.center_clusters, statistics_of(model)
    rest = owners != cluster
    if not (owners[rest] != OUTLIER).any():
        raise UsageError(f"drop {cluster}: no other cluster would be left")
    if outlier:
        owners = np.where(rest, owners, OUTLIER)
        rest = np.ones_like(rest)
    dropped = with_centers(model, model.centers[rest], owners[rest], statistics[rest])
    return noted(dropped, what="drop", clusters=[cluster], outlier=outlier)


def split(model: Model, cluster: int, parts: Statistics) -> Model:
    """A cluster in ``parts``: the largest keeps its number and name, the others get new numbers."""
    check_present(model, [cluster])
    parts = parts[np.argsort(-parts.weights, kind="stable")]
    k = model.n_clusters
    numbers = [cluster, *range(k, k + len(parts.weights) - 1)]
    rest = model.center_clusters != cluster
    parted = with_centers(
        model,
        np.concatenate([model.centers[rest], centers_of(parts.means, model.metric)]),
        np.append(model.center_clusters[rest], numbers),
        statistics_of(model)[rest].joined(parts),
    )
    return noted(parted, what="split", clusters=[cluster], into=numbers)


def rename(model: Model | str | os.PathLike[str], cluster: int, name: str) -> Model:
    """With a name that was given by hand, which names found in texts do not replace.

    Raises:
        UsageError: the cluster is gone.
    """
    model = as_model(model)
    check_present(model, [cluster])
    return noted(_named(model, cluster, name), what="name", clusters=[cluster], name=name)


def noted(model: Model, **entry: Any) -> Model:
    """With one more entry in its history, and the time."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return replace(model, history=[*model.history, {"when": now, **entry}])


def described(entry: dict[str, Any]) -> str:
    """An entry as a line."""
    more = {key: value for key, value in entry.items() if key not in ("when", "what") and value}
    return f"{entry.get('what', '')}: {', '.join(f'{key} {value}' for key, value in more.items())}"


def centers_of(means: np.ndarray, metric: str) -> np.ndarray:
    """(C, D) float32 centres of clusters with ``means`` (C, D)."""
    if metric == "cosine":
        means = means / np.linalg.norm(means, axis=1, keepdims=True).clip(1e-30)
    return means.astype(np.float32)


def with_centers(
    model: Model, centers: np.ndarray, owners: np.ndarray, statistics: Statistics
) -> Model:
    """The model with other ``centers`` (C, D) float32 of the clusters ``owners`` (C,), and what
    follows for those: means, sizes, inertia, and no names yet for new ones. A cluster without
    centres keeps its mean to look at."""
    more = max(0, int(owners.max()) + 1 - model.n_clusters)
    k, old = model.n_clusters + more, model.cluster_centers
    cluster_centers = np.concatenate([old, np.zeros((more, model.n_features), old.dtype)])
    inside = owners != OUTLIER
    numbers, centers_in, of_rows = owners[inside], centers[inside], statistics[inside]
    sizes = np.bincount(numbers, of_rows.weights, k)
    # A cluster without rows has the plain mean of its centres.
    shares = np.where(sizes[numbers] > 0, of_rows.weights, 1.0)
    shares /= np.bincount(numbers, shares, k)[numbers]
    means = np.zeros((k, model.n_features))
    np.add.at(means, numbers, shares[:, None] * centers_in)
    present, counts = np.unique(numbers, return_counts=True)
    cluster_centers[present] = centers_of(means[present], model.metric)
    alone = np.isin(numbers, present[counts == 1])
    cluster_centers[numbers[alone]] = centers_in[alone]
    apart = ((of_rows.means - cluster_centers[numbers]) ** 2).sum(1)
    inertia = np.bincount(numbers, of_rows.deviations + of_rows.weights * apart, k)
    metrics = model.training.get("metrics", {}) | {"cluster_inertia": inertia.tolist()}
    return replace(
        model,
        cluster_centers=cluster_centers,
        cluster_sizes=sizes,
        parts=None if np.array_equal(owners, np.arange(k)) else Centers(centers, owners),
        statistics=statistics,
        names=[*model.names, *[""] * more] if model.names else [],
        terms=[*model.terms, *[[] for _ in range(more)]] if model.terms else [],
        training=model.training | {"metrics": metrics},
    )


def _named(model: Model, cluster: int, name: str) -> Model:
    names = list(model.all_names)
    names[cluster] = name
    return replace(model, names=names, named_by_hand=sorted({*model.named_by_hand, cluster}))
