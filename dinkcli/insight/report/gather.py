"""What the page shows, gathered in two passes over the rows.

Shapes: N rows, P of them on the map, K clusters, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from dinkcli.data.base import Columns
from dinkcli.data.dataset import DataSet
from dinkcli.data.machine import check_installed, require
from dinkcli.errors import UsageError
from dinkcli.insight.evaluate import OnRows, Quality, measured
from dinkcli.insight.inspect import Exemplar, Exemplars
from dinkcli.insight.layout import map_of_rows, principal_plane
from dinkcli.insight.names import distinctive_terms
from dinkcli.insight.report.colours import Colouring, colouring
from dinkcli.insight.survey import View
from dinkcli.models.model import Model
from dinkcli.models.statistics import root_mean
from dinkcli.models.tree import MOST_CLUSTERS, Merge, members, parents, ward

if TYPE_CHECKING:
    import torch

PROJECTIONS = ("neighbours", "pca", "umap")
# At most this many bytes of names and texts go into the page, which keeps it below 15 MB.
_NAME_BYTES, _TEXT_BYTES = 3 << 20, 6 << 20
_LONGEST = 300
_MOST_GROUPS = 12


@dataclass(frozen=True)
class Material:
    """Everything that the page shows of the rows.

    Attributes:
        name: of the data.
        quality: measures over all N rows.
        spread: (K,) root mean squared distance to the centre; NaN for an empty cluster.
        exemplars: K lists of the rows nearest to each centre.
        terms: K lists of distinctive terms, or None without texts.
        projection: how the map was made, one of PROJECTIONS.
        points: (P, 2) float32, the rows on the map, drawn evenly from all.
        labels: (P,) int32, their clusters.
        distances: (P,) float32, from their centres.
        rows: (P,) int64, their numbers.
        names, texts: P strings each, or None without such a column.
        anchors: (K, 2) float32, the point of each cluster nearest to their middle; NaN for one
            without points.
        explained: share of the variance that a PCA map shows, else None.
        merges: Ward's tree of the clusters that have a centre.
        groups: (K,) the group of each cluster, from 0; -1 for one without a centre. Few clusters
            are a group each.
        group_terms: distinctive terms of each group, or None without texts.
        columns: of the data, by which the rows are called.
        colourings: by columns of the rows.
    """

    name: str
    quality: Quality
    spread: np.ndarray
    exemplars: list[list[Exemplar]]
    terms: list[list[str]] | None
    projection: str
    points: np.ndarray
    labels: np.ndarray
    distances: np.ndarray
    rows: np.ndarray
    names: list[str] | None
    texts: list[str] | None
    anchors: np.ndarray
    explained: float | None
    merges: list[Merge]
    groups: np.ndarray
    group_terms: list[list[str]] | None
    columns: Columns
    colourings: list[Colouring]

    @property
    def stretch(self) -> float:
        """How much further than the other one axis of the map may be drawn, to fill its frame."""
        return 1.0 if self.projection == "pca" else 1.7


def gather(
    model: Model,
    data: DataSet,
    device: torch.device | str = "cpu",
    *,
    n_points: int = 50_000,
    n_exemplars: int = 6,
    projection: str = "neighbours",
    seed: int = 0,
    on_rows: OnRows = lambda phase, done: None,
    on_map: Callable[[int, int], None] = lambda done, total: None,
) -> Material:
    """Looks at every row twice.

    Args:
        n_points: most rows on the map.
        projection: "neighbours", "pca", or "umap", which needs umap-learn and minutes for many
            rows.
        on_rows: called with the pass's name and the rows seen so far.
        on_map: called with the steps of the map that are done, and their number.

    Raises:
        UsageError: no such projection.
        ExtraError: UMAP is not installed.
        InputError: rows that the model cannot take.
    """
    if projection not in PROJECTIONS:
        raise UsageError(f"`projection` {projection}: expected {', '.join(PROJECTIONS)}")
    if projection == "umap":
        check_installed("umap", "umap", "`projection` umap")
    exemplars = Exemplars(model.n_clusters, n_exemplars)
    rng, n_rows = np.random.default_rng(seed), data.known_rows
    chosen = rng.choice(n_rows, min(n_rows, n_points), replace=False)
    drawn: list[View] = []

    def look(view: View) -> None:
        exemplars.add(view)
        # Bad rows may have been chosen; they are in no view.
        drawn.append(view.at(np.flatnonzero(np.isin(view.rows, chosen, assume_unique=True))))

    quality = measured(model, data, device, on_rows, look)
    z = np.concatenate([view.z for view in drawn])
    labels = np.concatenate([view.labels for view in drawn])
    explained = None
    if projection == "pca":
        plane, explained = principal_plane(z)
        points = plane.astype(np.float32)
    elif projection == "umap":
        points = _by_umap(z, seed)
    else:
        points = map_of_rows(z, labels, model.cluster_centers, seed, on_map)
    if projection != "pca":  # directions say nothing: the widest goes across
        points = principal_plane(points)[0].astype(np.float32)
    columns, terms, group_terms = data.columns, None, None
    merges, groups = _grouped(model, quality.sizes)
    if (words := _texts(drawn, columns.text or columns.id)) is not None:
        terms = distinctive_terms(words, labels.tolist(), model.n_clusters)
        group_terms = distinctive_terms(words, groups[labels].tolist(), int(groups.max()) + 1)
    coloured = dict.fromkeys([*filter(None, [columns.label]), *columns.others])
    return Material(
        name=data.name,
        quality=quality,
        spread=root_mean(quality.cluster_inertia, quality.sizes),
        exemplars=exemplars.of_clusters(),
        terms=terms,
        projection=projection,
        points=points,
        labels=labels.astype(np.int32),
        distances=np.concatenate([view.distances for view in drawn]).astype(np.float32),
        rows=np.concatenate([view.rows for view in drawn]),
        names=_texts(drawn, columns.id, _NAME_BYTES),
        texts=_texts(drawn, columns.text, _TEXT_BYTES),
        anchors=middles(points, labels, model.n_clusters),
        explained=explained,
        merges=merges,
        groups=groups,
        group_terms=group_terms,
        columns=columns,
        colourings=[colouring(name, _column(drawn, name)) for name in coloured],
    )


def _grouped(model: Model, sizes: np.ndarray) -> tuple[list[Merge], np.ndarray]:
    """(Ward's tree, the group of each cluster): seven to twelve groups of many clusters, as many as
    where the next merge rises most."""
    present, groups = model.present, np.full(model.n_clusters, -1)
    k = len(present)
    if not 1 < k <= MOST_CLUSTERS:
        groups[present] = 0
        return [], groups
    merges = ward(model.cluster_centers[present], sizes[present])
    order = members(merges)[-1]
    if k <= _MOST_GROUPS:
        groups[present[order]] = np.arange(k)
        return merges, groups
    rises = np.array([rise for _, _, rise in merges])
    levels = np.arange(7, _MOST_GROUPS + 1)
    level = levels[(rises[k - levels] / rises[k - levels - 1].clip(1e-12)).argmax()]
    above = parents(merges, int(level))
    first = {group: i for i, group in enumerate(dict.fromkeys(above[order].tolist()))}
    groups[present] = [first[group] for group in above.tolist()]
    return merges, groups


def _column(views: list[View], name: str) -> pa.ChunkedArray:
    """The values of a carried column."""
    return pa.chunked_array([v.carried.column(name) for v in views if v.carried is not None])


def _texts(views: list[View], name: str | None, budget: float = math.inf) -> list[str] | None:
    """The values of a carried column as text, each cut so that all are at most ``budget`` bytes."""
    if name is None or all(view.carried is None for view in views):
        return None
    n_rows = max(1, sum(map(len, views)))
    limit = None if budget == math.inf else min(_LONGEST, int(budget) // n_rows)
    values = _column(views, name).to_pylist()
    return ["" if value is None else _cut(str(value), limit) for value in values]


def _cut(text: str, n_bytes: int | None) -> str:
    # Lone surrogates have no place in a page.
    encoded = text.encode("utf-8", "replace")
    if n_bytes is None or len(encoded) <= n_bytes:
        return encoded.decode()
    return encoded[: n_bytes - 3].decode("utf-8", "ignore") + "…"


def middles(points: np.ndarray, labels: np.ndarray, n_clusters: int) -> np.ndarray:
    """(K, 2) the point of each cluster that is nearest to their median."""
    middles = np.full((n_clusters, 2), np.nan, np.float32)
    order = labels.argsort(kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=n_clusters))
    for j, part in enumerate(np.split(points[order], ends[:-1])):
        if len(part):
            apart = ((part - np.median(part, axis=0)) ** 2).sum(1)
            middles[j] = part[apart.argmin()]
    return middles


def _by_umap(z: np.ndarray, seed: int) -> np.ndarray:
    """The rows (P, 2) float32 where UMAP puts them."""
    near = min(15, max(2, len(z) - 1))
    umap = require("umap", "umap", "`projection` umap").UMAP
    points = umap(random_state=seed, n_jobs=1, n_neighbors=near).fit_transform(z)
    return points.astype(np.float32)
