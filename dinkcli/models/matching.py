"""Clusters of a new model matched to those of an old one, so that ids survive a retrain.

Ids follow the assignment of new centres to old ones with the least sum of Euclidean distances
between partners, or between models of different metrics with the most rows in common. How clusters
drifted is told from nearest centres, so that an id whose old cluster is gone is not reported as a
cluster that moved far. Shapes: K new clusters, J old ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from dinkcli.errors import ModelError, UsageError
from dinkcli.models.model import Model
from dinkcli.models.tree import squared_distances
from dinkcli.results import Field, Result, Sheet

_MOST_SHOWN = 20  # ids in a table


@dataclass(frozen=True)
class Drift:
    """What became of one id.

    Attributes:
        fate: "kept" (the new centre is nearer to this old one than to any other old one),
            "split" (kept, and other new centres are nearest to this old one too), "vanished" (the
            new centre with this id is nearer to another old one, or there is none), or "new" (an
            id that the old model did not have). By shared rows, an old cluster is nearest to a
            new one that has most of its rows from it, and "kept" holds most of its own.
        moved: distance between the old and the new centre; None without one of them, or by rows.
        relative: ``moved`` over the old centre's distance to its nearest neighbour.
        parts: ids of all new clusters nearest to this old one.
    """

    id: int
    fate: str
    moved: float | None
    relative: float | None
    parts: tuple[int, ...]


@dataclass(frozen=True)
class Matching(Result):
    """Ids for the clusters of a new model.

    Attributes:
        ids: (K,) int64, of each new cluster; those without a partner come after the old ids.
        drift: one entry for each id.
    """

    old: Model
    ids: np.ndarray
    drift: tuple[Drift, ...]

    @property
    def n_ids(self) -> int:
        """The larger of J and K, and more where ids of the old model are gone."""
        return len(self.drift)

    def counts(self) -> dict[str, int]:
        """Ids by fate."""
        fates = [drift.fate for drift in self.drift]
        return {fate: fates.count(fate) for fate in ("kept", "split", "vanished", "new")}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return self._summary() | {"drift": list(map(asdict, self.drift))}

    def sentence(self) -> str:
        """How many ids were kept, split, vanished and are new, and how far clusters moved."""
        said = ", ".join(f"{count} {fate}" for fate, count in self.counts().items())
        still = [d.moved for d in self.drift if d.fate in ("kept", "split")]
        moved = [distance for distance in still if distance is not None]
        if moved:
            said += f"; moved {median(moved):.3g} in the median, {max(moved):.3g} at most"
        return said

    def sheets(self) -> list[Sheet]:
        """A table of what changed most: ids that were not kept, then those that moved."""
        others = sorted((d for d in self.drift if d.fate != "kept"), key=lambda d: (d.fate, d.id))
        kept = [d for d in self.drift if d.fate == "kept" and d.moved]
        changed = [*others, *sorted(kept, key=lambda d: -(d.relative or 0))]
        hidden = len(changed) - _MOST_SHOWN
        sheet = Sheet(
            *("id", Field("fate"), "moved", "of gap", Field("continued by")),
            title="what changed most",
            notes=[f"and {hidden} more; --json lists all" if hidden > 0 else ""],
        )
        for drift in changed[:_MOST_SHOWN]:
            far = "-" if drift.moved is None else f"{drift.moved:.3g}"
            gap = "-" if drift.relative is None else f"{drift.relative:.0%}"
            sheet.add(drift.id, drift.fate, far, gap, ", ".join(map(str, drift.parts)) or "-")
        return [sheet] if changed else []

    def _summary(self) -> dict[str, Any]:
        return {"fingerprint": self.old.fingerprint, **self.counts()}

    def renumber(self, model: Model) -> Model:
        """The new model with its clusters in the order of their ids, one for each."""
        if self.n_ids > model.n_clusters:
            raise UsageError(f"{self.n_ids} ids for the {model.n_clusters} clusters of the model")
        order, old, names = np.argsort(self.ids), self.old, self.names(model)
        training = model.training | {"match": self._summary()}
        metrics = training.get("metrics", {})
        if "cluster_inertia" in metrics:
            inertia = [metrics["cluster_inertia"][j] for j in order]
            training["metrics"] = metrics | {"cluster_inertia": inertia}
        return replace(
            model,
            cluster_centers=model.cluster_centers[order],
            cluster_sizes=model.cluster_sizes[order],
            statistics=model.statistics and model.statistics[order],
            training=training,
            names=names,
            named_by_hand=[j for j in old.named_by_hand if names[j] == old.names[j]],
            terms=[model.terms[j] for j in order] if model.terms else [],
        )

    def names(self, model: Model) -> list[str]:
        """The name of each id: that of the old model where its cluster goes on, else that of the
        new one; empty where neither has names."""
        if not (self.old.names or model.names):
            return []
        names = [""] * self.n_ids
        for id_, name in zip(self.ids.tolist(), model.all_names, strict=True):
            names[id_] = name
        for entry, name in zip(self.drift, self.old.names, strict=False):
            if entry.fate in ("kept", "split") and name:
                names[entry.id] = name
        return names


def ids_of(matching: Matching | None, n_clusters: int) -> tuple[np.ndarray, int]:
    """(K,) the ids of the clusters, by default their positions; and how many ids there are."""
    if matching is None:
        return np.arange(n_clusters), n_clusters
    return matching.ids, matching.n_ids


def check_matchable(
    old: Model, n_features: int, n_clusters: int | None = None, feature_names: Sequence[str] = ()
) -> None:
    """Raises ModelError where a model of other dimensions or columns could not be matched, and
    UsageError where ``n_clusters``, stored by their ids, are fewer than those of ``old``."""
    if n_features != old.n_features:
        raise ModelError(
            f"`match`: features of the old model {old.n_features}, of the new one {n_features}; "
            "clusters can only be matched between models of the same kind of embeddings"
        )
    old.means_by_name(feature_names)
    if n_clusters is not None and n_clusters < old.n_clusters:
        raise UsageError(
            f"`match`: the old model has {old.n_clusters} clusters, the new one {n_clusters}, and "
            f"some could not keep their ids; train with `n_clusters` {old.n_clusters} or more, or "
            "match when assigning (dink assign --match)"
        )


def match(old: Model, new: Model, shared: np.ndarray | None = None) -> Matching:
    """Gives the clusters of ``new`` the ids of those of ``old`` that they continue. Where metrics
    differ, partners are chosen by ``shared`` (K, J), the rows of each new cluster that each old one
    has (see ``assigning.assigner.match_on``). Raises ModelError where models do not go together."""
    from scipy.optimize import linear_sum_assignment  # takes longer to load than to run

    check_matchable(old, new.n_features)
    old_means = old.means_by_name(new.feature_names)
    by_rows = old.metric != new.metric
    if not by_rows:
        costs = np.sqrt(squared_distances(new.means, old_means))
    elif shared is not None:
        costs = -shared.astype(np.float64)
    else:
        raise ModelError(
            f"metric of the old model {old.metric}, of the new one {new.metric}; clusters of "
            "different metrics are matched by the rows that they share"
        )
    n_new, n_old = costs.shape
    present = np.intersect1d(old.center_clusters, np.arange(n_old))  # ids are never used again
    rows, partners = linear_sum_assignment(costs[:, present])
    ids = np.full(n_new, -1, np.int64)
    ids[rows] = present[partners]
    ids[ids < 0] = np.arange(n_old, n_old + (ids < 0).sum())
    costs[:, np.setdiff1d(np.arange(n_old), present)] = np.inf
    return Matching(old, ids, _drift(costs, ids, None if by_rows else old_means))


def _drift(costs: np.ndarray, ids: np.ndarray, old_means: np.ndarray | None) -> tuple[Drift, ...]:
    """What became of each id, by ``costs`` (K, J): distances to ``old_means`` (J, D), or without
    them minus the rows in common; infinite for old clusters that are gone."""
    n_old, nearest_old, drift = costs.shape[1], costs.argmin(1), []
    scales = np.full(n_old, np.inf)
    if old_means is None:
        nearest_old[costs.min(1) == 0] = -1
    else:
        apart = np.sqrt(squared_distances(old_means, old_means))
        np.fill_diagonal(apart, np.inf)
        scales = apart.min(1)
    for id_, scale in enumerate(scales.tolist()):
        new = np.flatnonzero(ids == id_)
        parts = tuple(sorted(ids[nearest_old == id_].tolist()))
        if id_ not in parts:
            fate = "vanished"
        elif len(parts) > 1:
            fate = "split"
        elif old_means is None and 2 * costs[new, id_].sum() >= costs[:, id_].sum():
            fate = "vanished"  # most of its rows are elsewhere
        else:
            fate = "kept"
        moved = float(costs[new[0], id_]) if len(new) and old_means is not None else None
        relative = None if moved is None or not 0 < scale < np.inf else moved / scale
        drift.append(Drift(id_, fate, moved, relative, parts))
    for id_ in range(n_old, int(ids.max()) + 1):
        drift.append(Drift(id_, "new", None, None, (id_,)))
    return tuple(drift)
