"""What rows say of clusters: the nearest to each centre, and one cluster looked into.

Shapes: N rows, M of them in the cluster, K clusters, D features.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dinkcli.data.dataset import DataSet
from dinkcli.data.inputs import open_inputs
from dinkcli.errors import UsageError
from dinkcli.insight.evaluate import FirstPass
from dinkcli.insight.names import TERMS, Terms, names_of
from dinkcli.insight.survey import View, survey
from dinkcli.models.edit import cluster_of, described
from dinkcli.models.file import as_model
from dinkcli.models.model import Model
from dinkcli.models.statistics import root_mean
from dinkcli.models.tree import Merge, drawn, squared_distances
from dinkcli.results import NAME, Field, Result, Sheet, shortened

if TYPE_CHECKING:
    import torch

# Near-duplicates are rows nearer to each other than a third of what two rows of one cluster usually
# are: their squared distance is at most a tenth of twice the mean squared distance to the centres.
# On embeddings of norm 1 that comes to a cosine similarity of about 0.95.
_NEAR = 0.1 * 2
_MOST_COMPARED = 10_000
_COMPARED_AT_ONCE = 512
_CHUNK_ELEMENTS = 1 << 22  # of distances between centres
_PAIRS, _NEIGHBOURS, _GROUPS = 8, 8, 10  # that are shown
_MEMBERS = 20  # of a group in a table
_TEXT = 60  # characters of one row in a list
_WHOLE_TEXT = 10_000  # of one in a table, which shortens it


@dataclass(frozen=True)
class Exemplar:
    """A row near its centre."""

    row: int  # its number over all inputs
    distance: float
    carried: dict[str, object]  # its values of the carried columns

    def to_dict(self) -> dict[str, Any]:
        carried = {
            name: value if isinstance(value, (int, str, type(None))) else str(value)
            for name, value in self.carried.items()
        }
        return {"row": self.row, "distance": self.distance} | carried

    def text(self, most: int) -> str:
        """What the row is called, or its number, in at most so many characters."""
        texts = [str(value) for value in self.carried.values() if value is not None]
        return shortened(": ".join(texts) or f"row {self.row}", most)


class Exemplars:
    """Keeps ``number`` rows of each of K clusters: nearest to its centre, or the ``farthest``."""

    def __init__(self, n_clusters: int, number: int, farthest: bool = False):
        self._n_clusters, self._number = n_clusters, number
        self._sign = -1 if farthest else 1
        self._held: pa.Table | None = None  # labels, distances, numbers, and what rows carry

    def add(self, view: View) -> None:
        arrays, names = [view.labels, view.distances, view.rows], [""] * 3
        if view.carried is not None:
            arrays, names = [*arrays, *view.carried.columns], names + view.carried.schema.names
        table = pa.Table.from_arrays(list(map(pa.array, arrays)), names)
        if self._held is not None:
            table = pa.concat_tables([self._held, table])
        labels, distances, rows = (column.to_numpy() for column in table.columns[:3])
        order = np.lexsort((rows, self._sign * distances, labels))
        sizes = np.bincount(labels, minlength=self._n_clusters)
        rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        self._held = table.take(pa.array(order[rank < self._number])).combine_chunks()

    def of_clusters(self) -> list[list[Exemplar]]:
        """K lists, each nearest (or farthest) first and shorter for a cluster of few rows."""
        result: list[list[Exemplar]] = [[] for _ in range(self._n_clusters)]
        if self._held is not None:
            labels, distances, rows = (column.to_pylist() for column in self._held.columns[:3])
            carried = self._held.select(range(3, self._held.num_columns)).to_pylist()
            for label, *exemplar in zip(labels, rows, distances, carried, strict=True):
                result[label].append(Exemplar(*exemplar))
        return result


@dataclass(frozen=True)
class Inside:
    """What rows say of one cluster."""

    farthest: list[Exemplar]
    near: float  # the distance up to which rows are near-duplicates
    compared: int  # rows that were compared with each other: all M, or the first of many
    groups: list[list[Exemplar]]  # of near-duplicates, through others or directly; largest first


@dataclass(frozen=True)
class Seen:
    """What rows say of the clusters.

    Attributes:
        sizes: (K,) rows of each cluster.
        spread: (K,) root mean squared distance to the centre; NaN for an empty cluster.
        nearest: K lists of the rows nearest to each centre, the nearest first; where one cluster is
            looked into, of others none.
        terms: K lists of distinctive terms of the texts, or empty where none were wanted.
        bad_rows: those left out, of all clusters.
        inside: more of the cluster looked into, or None.
    """

    sizes: np.ndarray
    spread: np.ndarray
    nearest: list[list[Exemplar]]
    terms: list[list[str]]
    bad_rows: int
    inside: Inside | None = None

    @property
    def names(self) -> list[str]:
        """K names of the terms, "" for a cluster without words."""
        return names_of(self.terms)


def look(
    model: Model,
    data: DataSet,
    number: int,
    device: torch.device | str,
    on_rows: Callable[[int], None],
    cluster: int | None = None,
    with_terms: bool = True,
) -> Seen:
    """Looks at every row once: the ``number`` nearest ones of each cluster or those of one, and
    with terms those of the texts that ``data`` carries."""
    k, text = model.n_clusters, data.columns.text if with_terms else None
    first, terms = FirstPass(k), Terms(k)
    nearest, farthest = Exemplars(k, number), Exemplars(k, number, farthest=True)
    compared: list[View] = []
    for view in survey(model, data, device):
        first.add(view)
        if text is not None and view.carried is not None:
            terms.add(view.carried.column(text).to_pylist(), view.labels.tolist())
        if cluster is not None:
            view = view.at(np.flatnonzero(view.labels == cluster))
            farthest.add(view)
            room = _MOST_COMPARED - sum(map(len, compared))
            compared.append(view.at(np.arange(min(room, len(view)))))
        nearest.add(view)
        on_rows(view.end)
    inside = None
    if cluster is not None:
        near = math.sqrt(_NEAR * first.inertia.sum() / first.sizes.sum())
        z = np.concatenate([view.z for view in compared]) - model.cluster_centers[cluster]
        rows: list[Exemplar] = []
        for view in compared:
            carried = [{}] * len(view) if view.carried is None else view.carried.to_pylist()
            rows += map(Exemplar, view.rows.tolist(), view.distances.tolist(), carried)
        groups = [[rows[i] for i in group] for group in groups_within(z, near)]
        inside = Inside(farthest.of_clusters()[cluster], near, len(z), groups)
    return Seen(
        first.sizes,
        root_mean(first.inertia, first.sizes),
        nearest.of_clusters(),
        terms.of_clusters(TERMS) if text is not None else [],
        first.bad_rows,
        inside,
    )


@dataclass(frozen=True)
class Inspection(Result):
    """A model, and what rows say of all of its clusters or of one.

    Attributes:
        model: the model.
        seen: what the rows say; without rows what the model knows.
        has_rows: whether there were any.
        cluster: the number of the one that is looked into, or None for all of them.
        tree: the merges of ``Model.tree``, or None where it was not asked for.
        history: what was done to the model since its training, or None.
    """

    model: Model
    seen: Seen
    has_rows: bool = False
    cluster: int | None = None
    tree: list[Merge] | None = None
    history: list[dict[str, Any]] | None = None

    _records = "clusters"

    def to_dict(self) -> dict[str, Any]:
        model, seen = self.model, self.seen
        if self.cluster is not None:
            return self._inside(self.cluster)
        clusters = [self._entry(j) for j in model.present.tolist()]
        if seen.nearest:
            for entry in clusters:
                rows = seen.nearest[entry["cluster"]]
                entry["exemplars"] = [row.to_dict() for row in rows]
        names = ("n_clusters", "n_features", "metric", "column")
        document = {name: getattr(model, name) for name in names}
        document["clusters"] = clusters
        document["nearest_pairs"] = [
            {"first": i, "second": j, "distance": distance}
            for i, j, distance in nearest_pairs(model, _PAIRS)
        ]
        document["training"] = model.training
        bad_rows = seen.bad_rows if self.has_rows else None
        more = {"bad_rows": bad_rows, "tree": self.tree, "history": self.history}
        return document | {name: value for name, value in more.items() if value is not None}

    def _entry(self, cluster: int, **more: Any) -> dict[str, Any]:
        model, terms, spread = self.model, self.seen.terms, self.seen.spread[cluster]
        return {
            "cluster": cluster,
            "name": model.names[cluster] if model.names else None,
            "terms": terms[cluster] if terms else None,
            "size": float(self.seen.sizes[cluster]),
            **more,
            "spread": None if math.isnan(spread) else float(spread),
        }

    def _inside(self, cluster: int) -> dict[str, Any]:
        model, seen = self.model, self.seen
        centers = model.cluster_centers.astype(np.float64)
        distances = np.linalg.norm(centers - centers[cluster], axis=1)
        nearest = distances.argsort(kind="stable")
        others = nearest[np.isin(nearest, model.present) & (nearest != cluster)]
        document = self._entry(cluster, share=float(seen.sizes[cluster] / (seen.sizes.sum() or 1)))
        document["neighbours"] = [
            {
                "cluster": j,
                "name": model.names[j] if model.names else None,
                "size": float(seen.sizes[j]),
                "distance": float(distances[j]),
            }
            for j in others[:_NEIGHBOURS].tolist()
        ]
        if (inside := seen.inside) is not None:
            document["nearest"] = [row.to_dict() for row in seen.nearest[cluster]]
            document["farthest"] = [row.to_dict() for row in inside.farthest]
            groups = [[row.to_dict() for row in group] for group in inside.groups]
            document["near_duplicates"] = {
                "distance": inside.near,
                "compared": inside.compared,
                "groups": groups,
            }
            document["bad_rows"] = seen.bad_rows
        return document

    def sheets(self, name: str = "", clusters: int = 20) -> list[Sheet]:
        """Tables for people.

        Args:
            name: of the model.
            clusters: how many to list, the largest first.
        """
        if self.cluster is not None:
            return list(self._sheets_of_one(self.cluster))
        if self.history is not None:
            title = "since the training" if self.history else "as it was trained"
            changes = Sheet("when", Field("what", text=True), title=title)
            for entry in self.history:
                changes.add(entry["when"], described(entry))
            return [self._made(name), changes]
        model, sheets = self.model, [self._made(name), self._by_size(clusters)]
        if self.tree is not None:
            title = "tree of the clusters (Ward, by rows)"
            sheets.append(Sheet(Field(text=True), title=title))
            names = [f"{j} {model.all_names[j]}".rstrip() for j in model.present.tolist()]
            for line in drawn(self.tree, names):
                sheets[-1].add(line)
        columns = Field("clusters"), "distance", Field("names", text=True, drop=1)
        pairs = Sheet(*columns, title="nearest pairs of clusters")
        for i, j, distance in nearest_pairs(model, _PAIRS):
            both = f"{model.names[i]} / {model.names[j]}" if model.names else ""
            pairs.add(f"{i} and {j}", f"{distance:.4g}", both)
        return [*sheets, pairs] if pairs.rows else sheets

    def _made(self, name: str) -> Sheet:
        model, training = self.model, self.model.training
        data, options = training.get("input", {}), training.get("options", {})
        title = f"{name}: {len(model.present)} clusters of {model.n_features} features"
        sheet = Sheet(Field(), Field(), title=title.removeprefix(": "))
        files = ", ".join(data.get("files", [])) or "unknown"
        dtype = ", ".join(data.get("dtype", []))
        sheet.add("trained on", f"{data.get('rows', 0):,} rows ({dtype}) of {files}")
        inertia = training.get("metrics", {}).get("inertia")
        if inertia is not None:
            sheet.add("inertia", f"{inertia:.6g}")
        settings = [f"{name} {value}" for name, value in options.items() if value is not None]
        sheet.add("options", ", ".join(settings))
        versions = training.get("versions", {})
        sheet.add("made by", ", ".join(f"{name} {value}" for name, value in versions.items()))
        return sheet

    def _by_size(self, most: int) -> Sheet:
        sizes, spread, nearest = self.seen.sizes, self.seen.spread, self.seen.nearest
        present = self.model.present
        order = present[(-sizes[present]).argsort(kind="stable")].tolist()
        smaller = f" and {len(order) - most} smaller ones (--clusters {len(order)} shows all)"
        named = bool(self.model.names)
        last = 4 if named else 0  # where names say what is inside, rows may go
        sheet = Sheet(
            "cluster",
            NAME,
            "rows",
            Field("share", "right", drop=1),
            Field("spread", "right", drop=2),
            Field(drop=3, bar=10 if nearest else 20 if named else 40),
            Field("nearest rows", text=True, drop=last),
            title="clusters by size",
            notes=[
                smaller if len(order) > most else "",
                "spread: the root of the mean squared distance to the centre",
            ],
        )
        for j in order[:most]:
            sheet.add(
                j,
                self.model.all_names[j],
                f"{sizes[j]:g}",
                f"{sizes[j] / sizes.sum():.1%}",
                "-" if math.isnan(spread[j]) else f"{spread[j]:.3g}",
                sizes[j] / sizes.max(),
                ", ".join(row.text(_TEXT) for row in nearest[j]) if nearest else "",
            )
        return sheet

    def _sheets_of_one(self, cluster: int) -> Iterator[Sheet]:
        facts, seen = self._inside(cluster), self.seen
        name = f": {facts['name']}" if facts["name"] else ""
        sheet = Sheet(Field(), Field(), title=f"cluster {cluster}{name}")
        sheet.add("rows", f"{facts['size']:g}, {facts['share']:.1%} of all")
        if facts["spread"] is not None:
            sheet.add("spread", f"{facts['spread']:.3g} (root mean squared distance)")
        if facts["terms"]:
            sheet.add("terms", ", ".join(facts["terms"]))
        yield sheet
        title = "nearest clusters, by their centres"
        sheet = Sheet("cluster", NAME, "rows", "distance", title=title)
        for other in facts["neighbours"]:
            name, distance = other["name"] or "", f"{other['distance']:.4g}"
            sheet.add(other["cluster"], name, f"{other['size']:g}", distance)
        if sheet.rows:
            yield sheet
        if (inside := seen.inside) is None:
            return
        for title, rows in (("nearest", seen.nearest[cluster]), ("farthest", inside.farthest)):
            sheet = Sheet("row", "distance", Field(text=True), title=f"{title} rows")
            for row in rows:
                text = row.text(_WHOLE_TEXT) if row.carried else ""
                sheet.add(row.row, f"{row.distance:.4g}", text)
            if rows:
                yield sheet
        yield _near_duplicates(inside, int(seen.sizes[cluster]))


def _near_duplicates(inside: Inside, size: int) -> Sheet:
    of = "" if inside.compared == size else f" of the first {inside.compared}"
    title = f"near-duplicates: rows within {inside.near:.3g} of another one"
    if not inside.groups:
        return Sheet(title=f"{title}: none{of}")
    hidden, members = len(inside.groups) - _GROUPS, sum(map(len, inside.groups))
    more = f"{hidden} more in --json. " if hidden > 0 else ""
    groups = "1 group" if len(inside.groups) == 1 else f"{len(inside.groups)} groups"
    note = f"{more}{members} rows{of} in {groups}; dink dedup finds those across clusters too."
    sheet = Sheet("rows", Field("which", text=True), title=title, notes=[note])
    for group in inside.groups[:_GROUPS]:
        sheet.add(len(group), ", ".join(row.text(_TEXT) for row in group[:_MEMBERS]))
    return sheet


def inspect(
    model: Model | str | os.PathLike[str],
    inputs: Any = None,
    *,
    cluster: int | str | None = None,
    tree: bool = False,
    history: bool = False,
    ids: Any = None,
    texts: Any = None,
    exemplars: int = 5,
    column: str | None = None,
    bad_rows: str = "stop",
    device: str = "auto",
    on_rows: Callable[[int], None] = lambda done: None,
) -> Inspection:
    """A model, and with inputs what is in each cluster.

    Args:
        model: a model or the path of one.
        inputs: as for ``train``; None looks at the model alone.
        cluster: the number, the name or a part of the name of one to look into: its terms and
            neighbours, and with inputs its nearest and farthest rows and its near-duplicates.
        tree: also say which clusters lie together.
        history: also say what was done to the model since its training.
        ids, texts: what N rows are called and stand for: a column, a file, or (N,) values.
        exemplars: how many rows to give of each cluster.
        column, bad_rows, device: as for ``assign``.
        on_rows: called with the rows seen so far.

    Raises:
        UsageError: no such cluster, or several that may be meant.
        InputError: rows that the model cannot take.
    """
    model = as_model(model)
    if inputs is None and not (column is ids is texts is None):
        raise UsageError("`ids`, `texts` and `column` are about rows: give `inputs`")
    if cluster is not None and tree:
        raise UsageError("`cluster` shows one cluster and `tree` all of them: give one of them")
    number = None if cluster is None else cluster_of(model, cluster)
    if inputs is None:
        seen = Seen(model.cluster_sizes, model.spreads, [], model.terms, 0)
    else:
        data = open_inputs(inputs, column, bad_rows, model=model, ids=ids, texts=texts)
        with_terms = number is not None and not model.terms
        seen = look(model, data, exemplars, device, on_rows, number, with_terms)
        seen = replace(seen, terms=seen.terms or model.terms)
    merges, changes = model.tree if tree else None, model.history if history else None
    return Inspection(model, seen, inputs is not None, number, merges, changes)


def groups_within(z: np.ndarray, near: float) -> list[list[int]]:
    """Rows of ``z`` (M, D) that pairs at a distance of at most ``near`` connect; the largest group
    first, then the one with the first row. Rows alone are left out."""
    from dinkcli.assigning.survey import Groups  # and scipy, which take a while to load

    m = len(z)
    joined = Groups(m)
    for start in range(0, m, _COMPARED_AT_ONCE):
        apart = squared_distances(z[start : start + _COMPARED_AT_ONCE], z[start:])
        pairs = np.argwhere(apart <= near**2) + start
        joined.join(pairs[joined.apart(pairs)])
    roots = joined.roots(np.arange(m))
    order = np.argsort(roots, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(roots[order])) + 1)
    several = [group.tolist() for group in groups if len(group) > 1]
    return sorted(several, key=lambda group: (-len(group), group[0]))


def nearest_pairs(model: Model, number: int) -> list[tuple[int, int, float]]:
    """The ``number`` pairs of clusters (lower, higher, distance of their centres), nearest first.
    Takes memory for a chunk of rows of the (K, K) distances."""
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
            distance = float(np.linalg.norm(apart))
            best.append((int(present[start + i]), int(present[j]), distance))
    return sorted(best, key=lambda pair: (pair[2], pair))[:number]
