"""One cluster looked into: its rows nearest to and farthest from the centre, and near-duplicates.

Near-duplicates are rows nearer to each other than a third of what two rows of one cluster usually
are: their squared distance is at most a tenth of twice the mean squared distance of all rows to
their centres. On embeddings of norm 1 that comes to a cosine similarity of about 0.95.

Shapes: N rows, M rows of the cluster, K clusters, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dinkcli.assigning.jobs.groups import Groups
from dinkcli.data.dataset import DataSet
from dinkcli.insight.exemplars import Exemplar, Exemplars
from dinkcli.insight.names import TERMS, Terms
from dinkcli.insight.quality import FirstPass
from dinkcli.insight.survey import survey
from dinkcli.models.model import Model

if TYPE_CHECKING:
    import torch

_NEAR = 0.1 * 2
_MOST_COMPARED = 10_000
_COMPARED_AT_ONCE = 512


@dataclass(frozen=True)
class Inside:
    """What rows say of one cluster.

    Attributes:
        cluster: its number.
        sizes: (K,) rows of each cluster.
        inertia: (K,) sums of squared distances to the centres.
        nearest, farthest: rows of the cluster by their distance, the most extreme first.
        near: the distance up to which rows are near-duplicates.
        compared: rows that were compared with each other: all M, or the first of many.
        groups: of near-duplicates, through others or directly; the largest first.
        terms: K lists of distinctive terms of the texts, or empty without texts.
        bad_rows: those left out, of all clusters.
    """

    cluster: int
    sizes: np.ndarray
    inertia: np.ndarray
    nearest: list[Exemplar]
    farthest: list[Exemplar]
    near: float
    compared: int
    groups: list[list[Exemplar]]
    terms: list[list[str]]
    bad_rows: int


def look_inside(
    model: Model,
    data: DataSet,
    cluster: int,
    number: int,
    device: torch.device | str = "cpu",
    on_rows: Callable[[int], None] = lambda done: None,
) -> Inside:
    """Looks at every row once, and keeps those of the cluster as far as they are compared.

    Args:
        number: how many of the nearest and of the farthest rows to give.

    Raises:
        InputError: rows that the model cannot take.
    """
    first = FirstPass(model.n_clusters, model.n_features)
    k = model.n_clusters
    nearest, farthest = Exemplars(k, number), Exemplars(k, number, farthest=True)
    kept, vectors, n_kept = Exemplars(k, _MOST_COMPARED), [], 0
    terms, text = Terms(model.n_clusters), data.columns.text
    for view in survey(model, data, device):
        first.add(view)
        if text is not None and view.carried is not None:
            terms.see(view.carried.column(text), view.labels.tolist())
        here = np.flatnonzero(view.labels == cluster)
        members = view.at(here)
        nearest.add(members)
        farthest.add(members)
        some = view.at(here[: _MOST_COMPARED - n_kept])
        kept.add(some)
        vectors.append(some.z)
        n_kept += len(some)
        on_rows(view.end)
    sizes, inertia = first.sizes, first.inertia
    near = math.sqrt(_NEAR * inertia.sum() / sizes.sum())
    z = np.concatenate(vectors) - model.cluster_centers[cluster]
    by_row = sorted(kept.of_clusters()[cluster], key=lambda each: each.row)
    return Inside(
        cluster=cluster,
        sizes=sizes,
        inertia=inertia,
        nearest=nearest.of_clusters()[cluster],
        farthest=farthest.of_clusters()[cluster],
        near=near,
        compared=len(z),
        groups=[[by_row[i] for i in group] for group in groups_within(z, near)],
        terms=terms.of_clusters(TERMS) if text is not None else [],
        bad_rows=first.bad_rows,
    )


def groups_within(z: np.ndarray, near: float) -> list[list[int]]:
    """Rows of ``z`` (M, D) that pairs at a distance of at most ``near`` connect; the largest group
    first, then the one with the first row. Rows alone are left out."""
    m = len(z)
    found = Groups(m)
    squares = np.einsum("ij,ij->i", z, z, dtype=np.float64)
    for start in range(0, m, _COMPARED_AT_ONCE):
        part = z[start : start + _COMPARED_AT_ONCE]
        apart = squares[start : start + len(part), None] + squares[start:] - 2 * part @ z[start:].T
        pairs = np.argwhere(apart <= near**2) + start
        found.join(pairs[found.apart(pairs)])
    roots = found.roots(np.arange(m))
    order = np.argsort(roots, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(roots[order])) + 1)
    several = [group.tolist() for group in groups if len(group) > 1]
    return sorted(several, key=lambda group: (-len(group), group[0]))
