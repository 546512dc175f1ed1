"""``dink report``: a page about a model and its rows, in one file that needs no network.

``page`` makes HTML of a report and ``svg`` its map alone, with ``colours``.
Shapes: N rows, P of them on the map, K clusters, D features.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from dinkcli.data.atomic import atomic_path, by_suffix
from dinkcli.data.inputs import open_inputs
from dinkcli.data.machine import check_installed, require
from dinkcli.errors import UsageError
from dinkcli.insight.evaluate import Quality, measured
from dinkcli.insight.inspect import Exemplar, Exemplars
from dinkcli.insight.layout import map_of_rows, principal_plane
from dinkcli.insight.names import clusters_of, distinctive_terms, group_names, names_of
from dinkcli.insight.report.colours import Colouring, colouring
from dinkcli.insight.report.page import page, picture
from dinkcli.insight.survey import View
from dinkcli.models.file import as_model
from dinkcli.models.model import OUTLIER, Model
from dinkcli.models.tree import MOST_CLUSTERS, Merge, members
from dinkcli.results import Result

_FORMATS = {"html": "page", "svg": "picture"}
_PROJECTIONS = ("neighbours", "pca", "umap")
# At most this many bytes of ids and texts go into the page, which keeps it below 15 MB.
_ID_BYTES, _TEXT_BYTES = 3 << 20, 6 << 20
_LONGEST = 300  # bytes of one
_LEAST_GROUPS, _MOST_GROUPS = 7, 12
_MOST_NAMED = 24  # groups that have names in the model
_IN_A_GROUP = 2  # terms in the name of a group


@dataclass(frozen=True)
class Report(Result):
    """A page about a model and its rows; in a notebook its map.

    Attributes:
        model: the model.
        name: of the data.
        title: of the page.
        quality: measures over all N rows.
        names: K of the clusters: those of the model, else of their terms, else of their numbers.
        terms: K lists of distinctive terms, or empty where there are no texts.
        examples: K lists of the rows nearest to each centre, the texts of each.
        merges: Ward's tree of the clusters that have a centre.
        groups: (K,) the group of each cluster, from 0; -1 for one without a centre.
        group_names: those of the model, where it has some, else of their terms.
        projection: how the map was made: "neighbours", "pca" or "umap".
        explained: the share of the variance that a map by "pca" shows, else None.
        points: (P, 2) float32, the rows on the map, drawn evenly from all.
        labels: (P,) int32, their clusters.
        distances: (P,) float32, from their centres.
        rows: (P,) int64, their numbers.
        ids, texts: P strings each, or None without such a column.
        colourings: by columns of the rows.
    """

    model: Model
    name: str
    title: str
    quality: Quality
    names: list[str]
    terms: list[list[str]]
    examples: list[list[list[str]]]
    merges: list[Merge]
    groups: np.ndarray
    group_names: list[str]
    projection: str
    explained: float | None
    points: np.ndarray
    labels: np.ndarray
    distances: np.ndarray
    rows: np.ndarray
    ids: list[str] | None
    texts: list[str] | None
    colourings: list[Colouring]

    @cached_property
    def page(self) -> str:
        """The page as HTML text."""
        return page(self)

    @cached_property
    def picture(self) -> str:
        """The map alone as SVG text."""
        return picture(self)

    @property
    def stretch(self) -> float:
        """How much further than the other one axis of the map may be drawn, to fill its frame."""
        return 1.0 if self.projection == "pca" else 1.7

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the page (.html) or the map alone (.svg), whole or not at all.

        Raises:
            UsageError: another suffix.
            OutputError: it could not be written.
        """
        text = getattr(self, by_suffix(os.fspath(path), _FORMATS, advice=""))
        with (
            atomic_path(os.fspath(path)) as temporary,
            open(temporary, "w", encoding="utf-8", newline="") as file,
        ):
            file.write(text)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: the data, how good the clusters are, and number, name and size of each."""
        quality = self.quality
        clusters = enumerate(zip(self.names, quality.sizes.tolist(), strict=True))
        return {
            "name": self.name,
            "rows": quality.rows,
            "bad_rows": quality.bad_rows,
            "inertia": quality.inertia,
            "simplified_silhouette": quality.simplified_silhouette,
            "projection": self.projection,
            "clusters": [{"cluster": j, "name": name, "size": n} for j, (name, n) in clusters],
        }

    def to_arrow(self) -> pa.Table:
        """The rows of the map: number, cluster, distance to its centre, and place."""
        arrays = self.rows, self.labels, self.distances, *self.points.T.copy()
        return pa.table(list(map(pa.array, arrays)), ["row", "cluster", "distance", "x", "y"])

    def _repr_html_(self) -> str:
        return self.picture


def report(
    model: Model | str | os.PathLike[str],
    inputs: Any,
    *,
    ids: Any = None,
    texts: Any = None,
    labels: Any = None,
    columns: Sequence[str] = (),
    points: int = 50_000,
    exemplars: int = 6,
    projection: str = "neighbours",
    title: str | None = None,
    seed: int = 0,
    column: str | None = None,
    bad_rows: str = "stop",
    device: str = "auto",
    on_rows: Callable[[str, int], None] = lambda phase, done: None,
    on_map: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """A page to look at the clusters, from two passes over N rows; ``save`` writes it.

    Args:
        model: a model or the path of one.
        inputs: as for ``train``.
        ids, texts, labels: what the rows are called, stand for, and are: a column, a file, or (N,)
            values.
        columns: of the inputs, by which the map may be coloured: classes, numbers or dates.
        points: most rows on the map.
        exemplars: how many rows to show of each cluster.
        projection: "neighbours", "pca", or "umap", which needs umap-learn and minutes for many
            rows.
        title: of the page.
        seed: by which rows are drawn for the map.
        column, bad_rows, device: as for ``assign``.
        on_rows: called with the pass's name and the rows seen so far.
        on_map: called with the steps of the map that are done, and their number.

    Raises:
        UsageError: no such projection, or a package for it is missing.
        InputError: rows that the model cannot take.
    """
    if projection not in _PROJECTIONS:
        raise UsageError(f"`projection` {projection}: expected {', '.join(_PROJECTIONS)}")
    if projection == "umap":
        check_installed("umap", "umap", "`projection` umap")
    model = as_model(model)
    beside = {"ids": ids, "texts": texts, "labels": labels, "others": tuple(columns)}
    data = open_inputs(inputs, column, bad_rows, model=model, **beside).repeatable()
    nearest = Exemplars(model.n_clusters, exemplars)
    n_points = min(data.known_rows, points)
    chosen = np.random.default_rng(seed).choice(data.known_rows, n_points, replace=False)
    views: list[View] = []

    def look(view: View) -> None:
        nearest.add(view)
        # Bad rows may have been chosen; they are in no view.
        views.append(view.at(np.flatnonzero(np.isin(view.rows, chosen, assume_unique=True))))

    quality = measured(model, data, device, on_rows, look)
    z, clusters, distances, rows = (
        np.concatenate([getattr(view, name) for view in views])
        for name in ("z", "labels", "distances", "rows")
    )
    places = z
    if projection == "neighbours":
        places = map_of_rows(z, clusters, model.cluster_centers, seed, on_map)
    elif projection == "umap":
        near = min(15, max(2, len(z) - 1))
        umap = require("umap", "umap", "`projection` umap").UMAP
        places = umap(random_state=seed, n_jobs=1, n_neighbors=near).fit_transform(z)
    places, explained = principal_plane(places)  # the widest goes across
    merges, groups = _grouped(model)
    known = data.columns
    batches = [view.carried for view in views if view.carried is not None]
    carried = pa.Table.from_batches(batches) if batches else pa.table({})
    words = _texts(carried, known.text or known.id)
    names, terms, of_groups = _named(model, groups, words, clusters)
    shown = [name for name in (known.id, known.text) if name]
    coloured = dict.fromkeys([*filter(None, [known.label]), *known.others])
    return Report(
        model=model,
        name=data.name,
        title=title or f"Clusters of {os.path.basename(data.name)}",
        quality=quality,
        names=names,
        terms=terms,
        examples=[[_texts_of(row, shown) for row in rows] for rows in nearest.of_clusters()],
        merges=merges,
        groups=groups,
        group_names=of_groups,
        projection=projection,
        explained=explained if projection == "pca" else None,
        points=places.astype(np.float32),
        labels=clusters.astype(np.int32),
        distances=distances.astype(np.float32),
        rows=rows,
        ids=_texts(carried, known.id, _ID_BYTES),
        texts=_texts(carried, known.text, _TEXT_BYTES),
        colourings=[colouring(name, carried[name]) for name in coloured],
    )


def _grouped(model: Model) -> tuple[list[Merge], np.ndarray]:
    """(The tree, the group (K,) of each cluster, numbered as they come in the tree): the groups of
    a level that has names in the model, or seven to twelve; where there is a choice, those whose
    next merge rises most. Few clusters without such names are a group each."""
    present, groups = model.present, np.full(model.n_clusters, OUTLIER)
    k = len(present)
    if not 1 < k <= MOST_CLUSTERS:
        groups[present] = 0
        return [], groups
    merges = model.tree
    rises = [rise for _, _, rise in merges]
    levels = range(_LEAST_GROUPS, _MOST_GROUPS + 1) if k > _MOST_GROUPS else [k]
    if model.group_names:
        of_level = {level: model.groups(level, merges) for level in range(2, min(k, _MOST_NAMED))}
        levels = [
            level
            for level, inside in of_level.items()
            if model.group_names.keys() >= set(clusters_of(inside).values())
        ] or levels
    level = max(levels, key=lambda level: rises[k - level] / max(rises[k - level - 1], 1e-12))
    at_level = model.groups(level, merges)
    first = dict.fromkeys(at_level[present[members(merges)[-1]]].tolist())
    numbers = {group: i for i, group in enumerate(first)}
    groups[present] = [numbers[group] for group in at_level[present].tolist()]
    return merges, groups


def _named(
    model: Model, groups: np.ndarray, texts: list[str] | None, labels: np.ndarray
) -> tuple[list[str], list[list[str]], list[str]]:
    """(K names of the clusters, K lists of terms or none, names of the groups): those of the model,
    else of the texts of rows with these labels, else numbers."""
    terms, kept = model.terms, model.group_names
    if texts is not None:
        terms = terms or distinctive_terms(texts, labels.tolist(), model.n_clusters)
        inside = clusters_of(groups)
        own = distinctive_terms(texts, groups[labels].tolist(), len(inside))
        words = {inside[i]: ", ".join(each[:_IN_A_GROUP]) for i, each in enumerate(own) if each}
        kept = {several: name for several, name in words.items() if len(several) > 1} | kept
    of_terms = names_of(terms) or [""] * model.n_clusters
    pairs = zip(model.all_names, of_terms, strict=True)
    names = [name or words or f"cluster {j}" for j, (name, words) in enumerate(pairs)]
    named = replace(model, names=names, terms=terms, group_names=kept)
    return names, terms, list(group_names(named, groups).values())


def _texts_of(row: Exemplar, columns: list[str]) -> list[str]:
    """What a row has in these columns, or its number."""
    values = [row.carried.get(name) for name in columns]
    return [str(value) for value in values if value is not None] or [f"row {row.row:,}"]


def _texts(carried: pa.Table, name: str | None, budget: int | None = None) -> list[str] | None:
    """The values of a carried column as text, each cut so that all are at most ``budget`` bytes."""
    if name is None:
        return None
    values = ["" if value is None else str(value) for value in carried[name].to_pylist()]
    # Lone surrogates have no place in a page.
    texts = [value.encode("utf-8", "replace") for value in values]
    if budget is not None:
        most = min(_LONGEST, budget // max(1, len(texts)))
        end = "…".encode()
        texts = [each if len(each) <= most else each[: most - 3] + end for each in texts]
    return [text.decode("utf-8", "ignore") for text in texts]
