"""Editing a model by hand: clusters merged, split, dropped and named, without a training.

A merged cluster keeps the centres of both, so that it gets exactly the rows that both had; a
dropped one leaves its rows to the next centre, or keeps its centre to mark them as outliers. The
numbers of clusters never change and are never used again. Shapes: K clusters, C centres, D
features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import numpy as np

from dinkcli.errors import UsageError
from dinkcli.models.model import OUTLIER, Centers, Model
from dinkcli.models.statistics import Statistics


def check_present(model: Model, clusters: Sequence[int]) -> None:
    """Raises UsageError for a cluster without centres: merged or dropped before."""
    for cluster in clusters:
        if cluster not in model.center_clusters:
            raise UsageError(f"cluster {cluster}: has been merged or dropped before")


def merge(model: Model, clusters: Sequence[int], name: str | None = None) -> Model:
    """The rows of all ``clusters`` are those of the first one from now on.

    Args:
        name: of the merged cluster, given by hand; without it, that of the first one.

    Raises:
        UsageError: fewer than two different clusters, or one that is gone.
    """
    first, *others = clusters
    if not others or len(set(clusters)) < len(clusters):
        raise UsageError(f"merge {','.join(map(str, clusters))}: expected two or more clusters")
    check_present(model, clusters)
    every = list(clusters)
    weights = model.cluster_sizes[every]
    shares = weights / weights.sum() if weights.sum() > 0 else np.full(len(every), 1 / len(every))
    means = model.cluster_centers[every].astype(np.float64)
    mean = shares @ means
    if model.metric == "cosine":
        mean /= max(float(np.linalg.norm(mean)), 1e-30)
    clusters_of, cluster_centers, sizes, inertia = _copies(model)
    clusters_of[np.isin(clusters_of, others)] = first
    cluster_centers[first] = mean
    inertia[first] = inertia[every].sum() + weights @ ((means - mean) ** 2).sum(1)
    sizes[first] = weights.sum()
    sizes[others] = inertia[others] = 0
    parts = Centers(model.centers, clusters_of)
    merged = _with(model, parts, cluster_centers, sizes, inertia, model.statistics)
    if name is not None:
        merged = _named(merged, first, name)
    return noted(merged, what="merge", clusters=every, name=merged.all_names[first])


def drop(model: Model, cluster: int, outlier: bool = False) -> Model:
    """Without a cluster: its rows go to the next centre, or with ``outlier`` have the label -1.

    Raises:
        UsageError: no other cluster would be left, or it is gone.
    """
    check_present(model, [cluster])
    clusters_of, cluster_centers, sizes, inertia = _copies(model)
    own = clusters_of == cluster
    if not (clusters_of[~own] != OUTLIER).any():
        raise UsageError(f"drop {cluster}: no other cluster would be left")
    sizes[cluster] = inertia[cluster] = 0
    parts, statistics = (
        Centers(model.centers, np.where(own, OUTLIER, clusters_of)),
        model.statistics,
    )
    if not outlier:
        parts = Centers(model.centers[~own], clusters_of[~own])
        statistics = statistics and statistics[~own]
    dropped = _with(model, parts, cluster_centers, sizes, inertia, statistics)
    return noted(dropped, what="drop", clusters=[cluster], outlier=outlier)


def split(model: Model, cluster: int, statistics: Statistics) -> Model:
    """A cluster in parts: the largest keeps its number and name, the others get new numbers.

    Args:
        statistics: of the rows of the M parts, as the model compares them.

    Raises:
        UsageError: the cluster is gone.
    """
    check_present(model, [cluster])
    statistics = statistics[np.argsort(-statistics.weights, kind="stable")]
    numbers = [cluster, *range(model.n_clusters, model.n_clusters + len(statistics.weights) - 1)]
    parted = _in_place(model, cluster, numbers, statistics)
    return noted(parted, what="split", clusters=[cluster], into=numbers)


def _in_place(model: Model, cluster: int, numbers: list[int], statistics: Statistics) -> Model:
    means = statistics.means.astype(np.float32)
    if model.metric == "cosine":
        means /= np.linalg.norm(means, axis=1, keepdims=True).clip(1e-30)
    clusters_of, cluster_centers, sizes, inertia = _copies(model)
    rest = clusters_of != cluster
    parts = Centers(
        np.concatenate([model.centers[rest], means]),
        np.append(clusters_of[rest], np.array(numbers, np.int64)),
    )
    arrays = []
    new = (means, statistics.weights, statistics.deviations)
    for values, found in zip((cluster_centers, sizes, inertia), new, strict=True):
        arrays.append(np.concatenate([values, found[1:].astype(values.dtype)]))
        arrays[-1][cluster] = found[0]
    kept = model.statistics
    return _with(model, parts, *arrays, kept and kept[rest].joined(statistics))


def rename(model: Model, cluster: int, name: str) -> Model:
    """With a name that was given by hand, which names found in texts do not replace.

    Raises:
        UsageError: the cluster is gone.
    """
    check_present(model, [cluster])
    return noted(_named(model, cluster, name), what="name", clusters=[cluster], name=name)


def noted(model: Model, **entry: Any) -> Model:
    """With one more entry in its history, and the time."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return replace(model, history=[*model.history, {"when": now, **entry}])


def _named(model: Model, cluster: int, name: str) -> Model:
    names = list(model.all_names)
    names[cluster] = name
    return replace(model, names=names, named_by_hand=sorted({*model.named_by_hand, cluster}))


def _copies(model: Model) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Clusters of the centres (C,); means (K, D), sizes (K,) and inertia (K,) of the clusters."""
    inertia = model.training.get("metrics", {}).get("cluster_inertia") or [0.0] * model.n_clusters
    return (
        model.center_clusters.copy(),
        model.cluster_centers.copy(),
        model.cluster_sizes.copy(),
        np.array(inertia, np.float64),
    )


def _with(
    model: Model,
    parts: Centers,
    cluster_centers: np.ndarray,
    sizes: np.ndarray,
    inertia: np.ndarray,
    statistics: Statistics | None,
) -> Model:
    more = len(sizes) - model.n_clusters
    metrics = model.training.get("metrics", {}) | {"cluster_inertia": inertia.tolist()}
    return replace(
        model,
        cluster_centers=cluster_centers,
        cluster_sizes=sizes,
        parts=parts,
        statistics=statistics,
        names=[*model.names, *[""] * more] if model.names else [],
        terms=[*model.terms, *[[] for _ in range(more)]] if model.terms else [],
        training=model.training | {"metrics": metrics},
    )
