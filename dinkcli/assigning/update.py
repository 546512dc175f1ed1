"""New rows for a model without the old ones: what they change, and what they are like.

Each centre stays the mean of all rows that were ever assigned to it (``Statistics``). Among the
rows that lie farther from their centre than nine in ten of its rows did, sets that gain most from a
centre of their own become clusters. Shapes: B rows, C centres, K clusters, D features.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from dinkcli.assigning.assigner import assigner_for
from dinkcli.data.dataset import DataSet
from dinkcli.data.sidefiles import read_weights
from dinkcli.errors import InputError, ModelError, UsageError
from dinkcli.models.edit import centers_of, noted, statistics_of, with_centers
from dinkcli.models.file import as_model
from dinkcli.models.model import OUTLIER, Model
from dinkcli.models.statistics import VERY_FAR, Statistics, root_mean
from dinkcli.models.tree import squared_distances
from dinkcli.options import AssignOptions, UpdateOptions
from dinkcli.results import NAME, Result, Sheet

_MOST_SHOWN = 20  # clusters in a table
_FAR = 0.9  # of a centre's rows are nearer than what may found a cluster (docs/LOG.md)
_MOST_FAR = 8192  # rows among which clusters are looked for; of more, so many at random
_FOUNDERS = 8  # rows that are tried as the first mean of a cluster
_ROUNDS = 50  # of mean and members in turns
_NEARER = 0.25  # of the members of a new cluster are left out when it is judged
_DEVIATIONS = 4  # standard deviations of a count that a new cluster is above it
_CHUNK_ELEMENTS = 1 << 22


@dataclass
class Update(Result):
    """A model after new rows, and what they are like.

    Attributes:
        model: the new model; the old one itself where the rows were in it already.
        rows: usable ones; ``bad_rows`` the others.
        counts: (K,) weight of the new rows in each cluster.
        spreads: (K,) root mean squared distance of the new rows to their centre; NaN without any.
        old_spreads: (K,) the same of the rows before.
        far: share of the new rows beyond the 99 % distance of their cluster; None where the model
            does not know it.
        born: numbers of new clusters.
        retired: numbers of clusters that are without centres now.
        moved: (K,) distance between the old and the new mean; NaN for a new cluster.
        repeated: the rows were taken in before.
    """

    model: Model
    rows: int
    bad_rows: int
    counts: np.ndarray
    spreads: np.ndarray
    old_spreads: np.ndarray
    far: float | None
    born: list[int]
    retired: list[int]
    moved: np.ndarray
    repeated: bool = False

    _records = "clusters"

    def to_dict(self) -> dict[str, Any]:
        figures = {"rows": self.counts, "spread": self.spreads}
        figures |= {"old_spread": self.old_spreads, "moved": self.moved}
        clusters: list[dict[str, Any]] = []
        for j, name in enumerate(self.model.all_names):
            clusters.append({"cluster": j, "name": name})
            for key, values in figures.items():
                clusters[j][key] = float(values[j]) if np.isfinite(values[j]) else None
        plain = ("rows", "bad_rows", "repeated", "far", "born", "retired")
        return {name: getattr(self, name) for name in plain} | {"clusters": clusters}

    def sheets(self) -> list[Sheet]:
        model, counts = self.model, self.counts
        title = "clusters by new rows (spread: root mean squared distance to the centre)"
        sheet = Sheet("cluster", NAME, "rows", "spread", "before", "moved", title=title)
        for j in (-counts).argsort(kind="stable")[:_MOST_SHOWN].tolist():
            figures = self.spreads[j], self.old_spreads[j], self.moved[j]
            sheet.add(j, model.all_names[j], f"{counts[j]:g}", *map("{:.3g}".format, figures))
        return [sheet]


class Near(NamedTuple):
    """Rows (B, D) float32 as the model compares them, and of each the number of its centre, the
    squared distance to it, and its weight, (B,)."""

    rows: np.ndarray
    labels: np.ndarray
    squared_distances: np.ndarray
    weights: np.ndarray

    def at(self, where: np.ndarray) -> Near:
        """The rows of a mask or at positions."""
        return Near(*(each[where] for each in self))


class _Batch:
    """What is known of the new rows, which are added once, block by block."""

    def __init__(self, model: Model, old: Statistics):
        self._centers = model.centers
        self._far, self._very_far = old.quantiles(_FAR), old.quantiles(VERY_FAR)
        self._far[model.center_clusters == OUTLIER] = np.inf
        self._random = np.random.default_rng(0)
        empty = np.empty((0, model.n_features), np.float32), np.empty(0, np.int64)
        self.far = Near(*empty, np.empty(0), np.empty(0))  # rows that may found clusters
        # But for rows that are far.
        self.statistics = Statistics.empty(model.centers.shape, old.first_bin)
        self.counts, self.squares = np.zeros((2, len(model.centers)))  # and of distances; all rows
        self.very_far = 0.0
        self.rows = self.bad_rows = 0

    def add(self, near: Near) -> None:
        self.rows += len(near.rows)
        c = len(self.counts)
        self.counts += np.bincount(near.labels, near.weights, c)
        self.squares += np.bincount(near.labels, near.weights * near.squared_distances, c)
        beyond = near.squared_distances > self._very_far[near.labels]
        self.very_far += float(near.weights[beyond].sum())
        far = near.squared_distances > self._far[near.labels]
        self.count(near.at(~far))
        self.far = Near(*map(np.concatenate, zip(self.far, near.at(far), strict=True)))
        if len(self.far.rows) > 2 * _MOST_FAR:
            self.thin()

    def count(self, near: Near) -> None:
        """Adds rows to the statistics of their centres."""
        new = Statistics.of_rows(*near, self._centers, self.statistics.first_bin)
        self.statistics = self.statistics.added(new)

    def thin(self) -> Near:
        """Counts all rows that may found clusters but ``_MOST_FAR`` of them, which it gives."""
        kept = np.ones(len(self.far.rows), bool)
        if len(kept) > _MOST_FAR:
            kept[self._random.permutation(len(kept))[_MOST_FAR:]] = False
            self.count(self.far.at(~kept))
            self.far = self.far.at(kept)
        return self.far


def update(
    model: Model,
    data: DataSet,
    options: UpdateOptions,
    device: str = "auto",
    on_rows: Callable[[int], None] = lambda done: None,
) -> Update:
    """Takes new rows, of inputs that can be read twice, into a model. What was taken in before, all
    and in this order, changes nothing. ``on_rows`` is called with the number of rows so far."""
    if model.state is not None:
        raise UsageError("the model is a checkpoint of a training; finish that first")
    old, digest = statistics_of(model), hashlib.sha256()
    batch = _Batch(model, old)
    weights = read_weights(data, nonzero=model.metric == "cosine")
    chosen = AssignOptions(max_size=options.max_size)
    assigner = assigner_for(model, data, device, chosen)
    labels = assigner.chosen
    for block, pair in assigner.pairs(data):
        good = block.good
        batch.bad_rows += int((~good).sum())
        vectors, numbers = block.vectors[good], block.start + np.flatnonzero(good)
        digest.update(np.ascontiguousarray(vectors).data)
        own = pair.labels if labels is None else labels[numbers].astype(np.int64)
        away = pair.z.astype(np.float64) - model.centers[own]
        weight = np.ones(len(own)) if weights is None else weights[numbers].astype(np.float64)
        batch.add(Near(pair.z, own, (away**2).sum(1), weight))
        on_rows(block.start + len(block))
    if not batch.rows:
        raise InputError(f"{data.name}: no usable rows in it")
    name = digest.hexdigest()[:16]
    repeated = not options.again and any(entry.get("batch") == name for entry in model.history)
    result, born, retired = model, list[int](), list[int]()
    if not repeated:
        result, born, retired = _with_batch(model, old, batch, options)
        files = data.fingerprint()["files"]
        what = {"what": "update", "rows": batch.rows, "files": files, "batch": name}
        result = noted(result, **what, born=born, retired=retired)
    owners, unknown = model.center_clusters, [np.nan] * len(born)
    inside = owners != OUTLIER
    counts, squares = (
        np.bincount(owners[inside], each[inside], result.n_clusters)
        for each in (batch.counts, batch.squares)
    )
    apart = result.cluster_centers[: model.n_clusters] - model.cluster_centers
    far = batch.very_far / max(batch.counts.sum(), 1e-300)
    return Update(
        result,
        batch.rows,
        batch.bad_rows,
        counts,
        root_mean(squares, counts),
        np.append(model.spreads, unknown),
        far if model.statistics is not None and model.statistics.distances.any() else None,
        born,
        retired,
        np.append(np.linalg.norm(apart.astype(np.float64), axis=1), unknown),
        repeated,
    )


def join(model: Model | str | os.PathLike[str], other: Model | str | os.PathLike[str]) -> Model:
    """The model with all that ``other`` was given, of another part of the same rows or of other
    rows of the same space.

    A cluster of ``other`` whose mean lies among the rows of a cluster of ``model`` goes into it;
    others become clusters of their own, with their names.

    Raises:
        ModelError: models of different spaces.
    """
    model, other = as_model(model), as_model(other)
    if (other.metric, other.n_features) != (model.metric, model.n_features):
        raise ModelError(
            f"a model of metric {other.metric} and {other.n_features} features cannot be joined to "
            f"one of metric {model.metric} and {model.n_features}"
        )
    if any((model.maps[name] != other.maps[name]).any() for name in model.maps):
        raise ModelError("models with different learned maps cannot be joined")
    batch = other.fingerprint
    if any(entry.get("batch") == batch for entry in model.history):
        return model
    inside = other.center_clusters != OUTLIER
    theirs, old, clusters = statistics_of(other)[inside], statistics_of(model), other.present
    theirs = theirs.gathered(
        np.searchsorted(clusters, other.center_clusters[inside]), len(clusters)
    )
    zero = np.zeros(model.n_features)
    ours = zero if model.offset is None else model.offset
    theirs.means += (zero if other.offset is None else other.offset) - ours
    apart = squared_distances(theirs.means, model.centers)
    apart[:, model.center_clusters == OUTLIER] = np.inf
    nearest = apart.argmin(1)
    reach = np.maximum(old.quantiles(VERY_FAR)[nearest], theirs.quantiles(VERY_FAR))
    new = apart[np.arange(len(nearest)), nearest] > reach
    statistics = old.added(theirs[~new].gathered(nearest[~new], len(old.weights)))
    numbers = np.arange(model.n_clusters, model.n_clusters + new.sum())
    centers = np.concatenate([statistics.means, theirs[new].means])
    joined = with_centers(
        model,
        centers_of(centers, model.metric),
        np.append(model.center_clusters, numbers),
        statistics.joined(theirs[new]),
    )
    names = list(joined.all_names)
    for number, cluster in zip(numbers.tolist(), clusters[new].tolist(), strict=True):
        names[number] = other.all_names[cluster]
    joined = replace(joined, names=names if any(names) else [])
    return noted(joined, what="join", batch=batch, born=numbers.tolist())


def _with_batch(
    model: Model, old: Statistics, batch: _Batch, options: UpdateOptions
) -> tuple[Model, list[int], list[int]]:
    """The model with the new rows, and the clusters that were born and that retired."""
    far, owners = batch.thin(), model.center_clusters
    price = options.birth_price * old.deviations.sum() / max(old.weights.sum(), 1e-300)
    born = []
    while len(far.rows):
        inside, mean, gain = _best_birth(far)
        members = far.at(inside)
        if gain <= price or len(members.rows) < options.min_size:
            break
        if not _stands_out(members, old, batch.counts):
            break
        squared = ((members.rows - mean) ** 2).sum(1)
        near = members._replace(labels=np.zeros(len(squared), int), squared_distances=squared)
        born.append(Statistics.of_rows(*near, mean[None], old.first_bin))
        far = far.at(~inside)
    batch.count(far)
    if options.half_life is not None:
        old = old.faded(0.5 ** (1 / options.half_life))
    statistics = old.added(batch.statistics)
    centers = model.centers if options.freeze else centers_of(statistics.means, model.metric)
    numbers = list(range(model.n_clusters, model.n_clusters + len(born)))
    for each in born:
        statistics = statistics.joined(each)
        centers = np.concatenate([centers, centers_of(each.means, model.metric)])
    owners = np.append(owners, numbers).astype(owners.dtype)
    retired = _retired(owners, statistics.weights) if options.half_life is not None else []
    rest = ~np.isin(owners, retired)
    result = with_centers(model, centers[rest], owners[rest], statistics[rest])
    return result, numbers, retired


def _stands_out(members: Near, old: Statistics, counts: np.ndarray) -> bool:
    """Whether rows are more than rows of the ``counts`` (C,) of their centres would have at such
    distances: a large batch has a tail as well, from which a centre of its own always gains."""
    centers, number, least = np.unique(members.labels), 0.0, []
    for center in centers:
        own = members.at(members.labels == center)
        least.append(np.quantile(own.squared_distances, _NEARER))
        number += own.weights[own.squared_distances >= least[-1]].sum()
    expected = counts[centers] @ old.shares_beyond(centers, np.array(least))
    return number > expected + _DEVIATIONS * np.sqrt(expected + 1)


def _retired(owners: np.ndarray, weights: np.ndarray) -> list[int]:
    """Clusters with less than the weight of one row, but never all of them."""
    present, where = np.unique(owners[owners != OUTLIER], return_inverse=True)
    light = np.bincount(where, weights[owners != OUTLIER]) < 1
    return [] if light.all() else present[light].tolist()


def _best_birth(far: Near) -> tuple[np.ndarray, np.ndarray, float]:
    """The set (B,) bool of rows that gains most from a centre of its own, its mean (D,), and what
    that lowers the inertia by.

    From each of the rows whose neighbours would gain most, mean and members (those nearer to it
    than to their own centre) in turns until they stay.
    """
    step = max(1, _CHUNK_ELEMENTS // len(far.rows))
    parts = (far.rows[start : start + step] for start in range(0, len(far.rows), step))
    # What a centre at each row would lower the inertia by.
    saved = (far.squared_distances - squared_distances(part, far.rows) for part in parts)
    gains = np.concatenate([each.clip(min=0) @ far.weights for each in saved])
    births = []
    for founder in np.argsort(-gains, kind="stable")[:_FOUNDERS]:
        mean, before = far.rows[founder].astype(np.float64), np.zeros(len(far.rows), bool)
        for turn in range(_ROUNDS + 1):
            gain = far.squared_distances - ((far.rows - mean) ** 2).sum(1)
            members = gain > 0
            if turn == _ROUNDS or not members.any() or (members == before).all():
                break
            mean = np.average(far.rows[members], axis=0, weights=far.weights[members])
            before = members
        births.append((members, mean, float(far.weights[members] @ gain[members])))
    return max(births, key=lambda birth: birth[2])
