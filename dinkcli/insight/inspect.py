"""What rows say of clusters: the nearest to each centre, and one cluster looked into.

Near-duplicates are rows nearer to each other than a third of what two rows of one cluster usually
are: their squared distance is at most a tenth of twice the mean squared distance of all rows to
their centres. On embeddings of norm 1 that comes to a cosine similarity of about 0.95.

Shapes: N rows, B rows in a block, M rows of the cluster, K clusters, D features.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from dinkcli.assigning.groups import Groups
from dinkcli.data.dataset import DataSet
from dinkcli.insight.evaluate import FirstPass
from dinkcli.insight.names import TERMS, Terms, names_of
from dinkcli.insight.survey import View, survey
from dinkcli.models.model import Model
from dinkcli.models.statistics import root_mean
from dinkcli.models.tree import squared_distances

if TYPE_CHECKING:
    import torch

_NEAR = 0.1 * 2
_MOST_COMPARED = 10_000
_COMPARED_AT_ONCE = 512
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True)
class Exemplar:
    """A row near its centre.

    Attributes:
        row: its number over all inputs.
        distance: to the centre.
        carried: its values of the carried columns, by name.
    """

    row: int
    distance: float
    carried: dict[str, object]


class Exemplars:
    """Keeps the ``number`` rows nearest to each of K centres, or of those that belong to it the
    ``farthest``; memory for these alone."""

    def __init__(self, n_clusters: int, number: int, farthest: bool = False):
        self._n_clusters, self._number = n_clusters, number
        self._sign = -1 if farthest else 1
        # Labels, distances and numbers of the rows.
        self._held = [np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64)]
        self._carried: pa.Table | None = None

    def add(self, view: View) -> None:
        new = [view.labels, view.distances, view.rows]
        keep = self._nearest(*new)  # before columns of all rows are copied
        held = [np.append(old, values[keep]) for old, values in zip(self._held, new, strict=True)]
        best = self._nearest(*held)
        self._held = [values[best] for values in held]
        if view.carried is not None:
            carried = pa.Table.from_batches([view.carried]).take(pa.array(keep))
            if self._carried is not None:
                carried = pa.concat_tables([self._carried, carried])
            self._carried = carried.take(pa.array(best)).combine_chunks()

    def of_clusters(self) -> list[list[Exemplar]]:
        """K lists, each nearest (or farthest) first and shorter for a cluster of few rows."""
        labels, distances, rows = (values.tolist() for values in self._held)
        values = [{} for _ in rows] if self._carried is None else self._carried.to_pylist()
        result: list[list[Exemplar]] = [[] for _ in range(self._n_clusters)]
        for label, row, distance, carried in zip(labels, rows, distances, values, strict=True):
            result[label].append(Exemplar(row, distance, carried))
        return result

    def _nearest(self, labels: np.ndarray, distances: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Positions of the nearest rows of each label: by label, distance, then row."""
        order = np.lexsort((rows, self._sign * distances, labels))
        sizes = np.bincount(labels, minlength=self._n_clusters)
        rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return order[rank < self._number]


@dataclass(frozen=True)
class Inside:
    """What rows say of one cluster.

    Attributes:
        farthest: rows of the cluster by their distance, the farthest first.
        near: the distance up to which rows are near-duplicates.
        compared: rows that were compared with each other: all M, or the first of many.
        groups: of near-duplicates, through others or directly; the largest first.
    """

    farthest: list[Exemplar]
    near: float
    compared: int
    groups: list[list[Exemplar]]


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
    device: torch.device | str = "cpu",
    cluster: int | None = None,
    with_terms: bool = False,
    on_rows: Callable[[int], None] = lambda done: None,
) -> Seen:
    """Looks at every row once; of a ``cluster`` to be looked into, rows are kept as far as they are
    compared.

    Args:
        number: how many of the nearest and of the farthest rows to give.
        with_terms: find those of the texts that ``data`` carries.

    Raises:
        InputError: rows that the model cannot take.
    """
    k, text = model.n_clusters, data.columns.text if with_terms else None
    first, terms = FirstPass(k), Terms(k)
    nearest, farthest = Exemplars(k, number), Exemplars(k, number, farthest=True)
    kept, vectors, n_kept = Exemplars(k, _MOST_COMPARED), [], 0
    for view in survey(model, data, device):
        first.add(view)
        if text is not None and view.carried is not None:
            terms.see(view.carried.column(text), view.labels.tolist())
        if cluster is not None:
            places = np.flatnonzero(view.labels == cluster)
            view, compared = view.at(places), view.at(places[: _MOST_COMPARED - n_kept])
            farthest.add(view)
            kept.add(compared)
            vectors.append(compared.z)
            n_kept += len(compared)
        nearest.add(view)
        on_rows(view.end)
    inside = None
    if cluster is not None:
        near = math.sqrt(_NEAR * first.inertia.sum() / first.sizes.sum())
        z = np.concatenate(vectors) - model.cluster_centers[cluster]
        rows = sorted(kept.of_clusters()[cluster], key=lambda each: each.row)
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


def prompt(seen: Seen) -> str:
    """What to ask a language model, or a colleague: rows and terms of each cluster. The answers,
    one line each, are what ``names.parse_names`` reads."""
    lines = [
        "Name each of the following clusters in two to five words that tell it from the others.",
        "Answer with one line for each cluster and nothing else: its number, a colon, its name.",
    ]
    for j, (terms, rows) in enumerate(zip(seen.terms, seen.nearest, strict=True)):
        lines += ["", f"## cluster {j}", "terms: " + ", ".join(terms), "typical rows:"]
        lines += [f"- {text}" for text in typical_texts(rows)]
    return "\n".join(lines) + "\n"


def typical_texts(rows: list[Exemplar]) -> list[str]:
    """What ``rows`` carry, a short line each."""
    texts = [" ".join(str(v) for v in row.carried.values() if v is not None) for row in rows]
    return [" ".join(_CONTROL.sub(" ", text).split())[:300] for text in texts]


def groups_within(z: np.ndarray, near: float) -> list[list[int]]:
    """Rows of ``z`` (M, D) that pairs at a distance of at most ``near`` connect; the largest group
    first, then the one with the first row. Rows alone are left out."""
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
