"""Near-duplicates: which rows repeat others, and which row of each group stays.

A group is what hangs together through rows that are close. Rows of a cluster are compared with each
other and with those that visit it (``near``): no pair is missed, and each that counts was computed
from the rows themselves in float64.

Shapes: N rows, M of them good, K clusters.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from dinkcli.assigning.assigner import Assigner
from dinkcli.assigning.groups import Groups
from dinkcli.assigning.layout import Layout, Rows, table_of, without_nulls
from dinkcli.assigning.near import Border, Closeness, Pairs
from dinkcli.assigning.survey import MOST_BYTES, OnStep, RowsByCluster, Survey, survey
from dinkcli.assigning.torch_backend import prepared
from dinkcli.data.dataset import DataSet
from dinkcli.data.inputs import open_inputs
from dinkcli.data.memory import default_memory
from dinkcli.data.sidefiles import read_numbers
from dinkcli.data.spool import repeatable
from dinkcli.errors import InputError, UsageError
from dinkcli.models.file import as_model
from dinkcli.models.model import Model
from dinkcli.nearest.index import CenterIndex
from dinkcli.options import AssignOptions, DedupOptions
from dinkcli.processes.device import resolve_device
from dinkcli.results import Result, Sheet

_WRITTEN_ROWS = 1 << 18
_SHOWN_GROUPS = 10


@dataclass(frozen=True)
class Duplicates(Result):
    """What was found about the N rows.

    Attributes:
        model, data: the model and the rows.
        labels: (N,) int32, -1 for a bad row.
        groups: (N,) int64, the number of the first row of the group.
        kept: (N,) bool.
        distances: (N,) float32, to the row of the group that stays; NaN for a bad row.
        old: (N,) int64, the number of the old row that is repeated, or -1.
        old_rows: how many there are; None where the rows are compared with each other alone.
        n_exact: rows of all that have the same numbers as another one before them.
        compared: pairs that were compared.
        visits: rows that were compared with those of one more cluster.
    """

    model: Model
    data: DataSet
    labels: np.ndarray
    groups: np.ndarray
    kept: np.ndarray
    distances: np.ndarray
    old: np.ndarray
    old_rows: int | None
    n_exact: int
    compared: int
    visits: int

    @property
    def n_groups(self) -> int:
        """Groups with more than one row, old rows included."""
        return len(np.unique(self.groups[~self.kept]))

    @property
    def seen(self) -> np.ndarray:
        """(N,) bool: all rows, or where bad ones are to be skipped the others."""
        return (self.labels >= 0) | (self.data.bad_rows != "skip")

    @property
    def stay(self) -> np.ndarray:
        """(N,) bool, those of ``seen`` that stay."""
        return self.kept & self.seen

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: the numbers that ``--json`` gives, without those of the output."""
        return {
            "fingerprint": self.model.fingerprint,
            "n_clusters": self.model.n_clusters,
            "rows": int(self.seen.sum()),
            "kept": int(self.stay.sum()),
            "removed": int((~self.kept).sum()),
            "groups": self.n_groups,
            "exact_repeats": self.n_exact,
            "old_rows": self.old_rows or 0,
            "recall": 1.0,
            "compared_pairs": self.compared,
            "border_visits": self.visits,
            "bad_rows": int((self.labels < 0).sum()),
        }

    def to_arrow(self, keep_only: bool = False) -> pa.Table:
        """A row for each row, or each that stays: its number or id, cluster, group, whether it
        stays, distance to the row that stays, and columns that travel along."""
        schema = schema_of(self.old_rows is not None)
        layout = Layout(None, schema, self.data.columns.id, self.data.carried)
        return table_of(layout, self.written(keep_only))

    def sentence(self) -> str:
        facts = self.to_dict()
        bad = facts["bad_rows"]
        return (
            f"{facts['kept']} of {facts['rows']} rows stay, {facts['removed']} near-duplicates "
            f"go, from {facts['groups']} groups ({facts['exact_repeats']} exact repeats)"
            + f", {bad} bad row{'s' * (bad > 1)}"
            * (bad > 0)
        )

    def sheets(self) -> list[Sheet]:
        first, sizes = np.unique(self.groups, return_counts=True)
        largest = np.argsort(-sizes, kind="stable")[:_SHOWN_GROUPS]
        sheet = Sheet("rows", "first row", title="largest groups")
        for group in largest[sizes[largest] > 1].tolist():
            sheet.add(int(sizes[group]), int(first[group]))
        return [Sheet(title=self.sentence()), *([sheet] if sheet.rows else [])]

    def written(self, keep_only: bool = False) -> Iterator[Rows]:
        """What is said of each row, or each that stays, in their order; inputs are read once more
        only for columns that travel along."""
        keep, data = self.stay if keep_only else self.seen, self.data
        columns = {
            "cluster": self.labels,
            "group": self.groups,
            "kept": self.kept,
            "distance": self.distances,
            "old_row": self.old,
        }
        if data.carried.names:
            blocks = ((block.start, len(block), block.carried) for block in data.blocks())
        else:
            starts = range(0, len(keep), _WRITTEN_ROWS)
            blocks = ((start, min(_WRITTEN_ROWS, len(keep) - start), None) for start in starts)
        for start, number, carried in blocks:
            where = slice(start, start + number)
            values = {name: column[where] for name, column in columns.items()}
            whole = Rows(np.arange(where.start, where.stop), values, carried)
            yield whole[np.flatnonzero(keep[where])]


def schema_of(against: bool) -> pa.Schema:
    """What is written about each row."""
    types = {"cluster": pa.int32(), "group": pa.int64(), "kept": pa.bool_()}
    types["distance"] = pa.float32()
    return without_nulls(types | ({"old_row": pa.int64()} if against else {}))


def dedup(
    model: Model | str | os.PathLike[str],
    inputs: Any,
    *,
    max_distance: float | None = None,
    keep: str = "nearest",
    against: Any = None,
    ids: Any = None,
    columns: Sequence[str] = (),
    column: str | None = None,
    bad_rows: str = "stop",
    device: str = "auto",
    memory: int | None = None,
    on_step: OnStep = lambda phase, done, total: None,
) -> Duplicates:
    """Finds all near-duplicates among N rows, also across the borders of clusters, and chooses
    which rows stay.

    Args:
        model: a model or the path of one.
        inputs, column, bad_rows, device: as for ``assign``.
        max_distance: the largest Euclidean distance of near-duplicates, between rows of norm 1
            where the metric is cosine; None is that of a cosine similarity of 0.95.
        keep: which row of a group stays: the one "nearest" to its centre, the "farthest", the
            "first", or the one with the largest number in a column of that name.
        against: as ``inputs``, rows that stay whatever repeats them; they are compared with those
            of ``inputs`` only.
        ids: what rows are called: a column, a file, or (N,) values.
        columns: of the inputs that travel along.
        memory: bytes for rows, a quarter of the machine's by default. Beside them, some 60 for
            each row stay in memory.
        on_step: called with a phase, the position in it, and its length.

    Raises:
        InputError: rows that cannot be used, or that the usual distance is not meant for.
        UsageError: a model with a learned metric.
    """
    options, model = DedupOptions(max_distance, keep), as_model(model)
    memory, where = default_memory() if memory is None else memory, resolve_device(device)
    beside = {"ids": ids, "others": tuple(columns)}
    new = repeatable(open_inputs(inputs, column, bad_rows, model=model, **beside))
    old = None
    if against is not None:
        old = repeatable(open_inputs(against, column, bad_rows, model=model))
    return _found(model, new, options, old, where, memory, on_step)


def _found(
    model: Model,
    data: DataSet,
    options: DedupOptions,
    before: DataSet | None,
    device: torch.device,
    memory: int,
    on_step: OnStep,
) -> Duplicates:
    if model.map is not None:
        raise UsageError(
            "the model has a learned metric, under which rows that follow each other are near "
            "though they differ; look for near-duplicates with a model trained with --metric "
            "euclidean or cosine"
        )
    closeness = Closeness.of_options(model.metric, options.max_distance)
    # Old rows come first: the lowest row of a group is an old one where there is one.
    n_old = 0 if before is None else before.known_rows
    readers = [*(() if before is None else before.readers), *data.readers]
    both = replace(data, beside=None, readers=readers)

    index = CenterIndex(torch.from_numpy(model.cluster_centers).to(device))
    border = Border(index, closeness.distance)

    def look(vectors: np.ndarray, labels: np.ndarray, numbers: np.ndarray) -> None:
        closeness.check(vectors, numbers, both.name)
        z = prepared(vectors, model, device)
        border.look(z, torch.from_numpy(labels.astype(np.int64)).to(device), numbers)

    seen = survey(Assigner(model, device, AssignOptions(distance=True)), both, on_step, look)
    if not (seen.labels >= 0).any():
        raise InputError(f"{both.name}: all rows are bad; nothing to compare")
    part = min(memory // 4, MOST_BYTES)
    rows = RowsByCluster(both, seen.labels, model.n_clusters, part, on_step)
    exact = _repeats(rows, seen.keys, max(1, part // (8 * model.n_features)))
    groups = Groups(len(rows))
    groups.join(exact)
    alone = np.ones(len(rows), bool)
    # Whatever repeats a row is close to what the row is close to; but old rows are not compared
    # with each other, so they do not stand for new ones.
    is_old = rows.rows < n_old
    alone[exact[is_old[exact[:, 0]] == is_old[exact[:, 1]], 1]] = False
    pairs = Pairs(rows, model, closeness, memory // 4)
    visits = border.visits()
    for label, visitors in enumerate(_visitors(rows, visits, alone)):
        where = rows.cluster(label)
        residents = where.start + np.flatnonzero(alone[where])
        if n_old:
            older, residents = residents[is_old[residents]], residents[~is_old[residents]]
            newer = visitors[~is_old[visitors]]
            if len(older) and len(newer):
                groups.join(pairs.within(label, newer, older))
            visitors = np.concatenate([older, visitors])
        if len(residents):
            groups.join(pairs.within(label, residents, visitors))
        on_step("comparing", where.stop, len(rows))

    roots = np.arange(len(seen.labels))  # a bad row is alone
    roots[rows.rows] = rows.rows[groups.roots(np.arange(len(rows)))]
    kept = kept_of(roots, _scores(options.keep, seen, data, n_old), n_old)
    apart = _distances(rows, kept, closeness, max(64, part // (32 * model.n_features)))
    first = np.full(len(roots), len(roots))
    np.minimum.at(first, roots[n_old:], np.arange(n_old, len(roots)))
    return Duplicates(
        model=model,
        data=data,
        labels=seen.labels[n_old:],
        groups=first[roots[n_old:]] - n_old,
        kept=kept[n_old:] == np.arange(n_old, len(roots)),
        distances=apart[n_old:],
        old=np.where(kept[n_old:] < n_old, kept[n_old:], -1),
        old_rows=None if before is None else n_old,
        n_exact=len(exact),
        compared=pairs.compared,
        visits=len(visits[0]),
    )


def _repeats(rows: RowsByCluster, keys: np.ndarray, step: int) -> np.ndarray:
    """Pairs (P, 2) of positions: a row, and a later one with the same numbers; ``step`` of them are
    looked at together."""
    keys = keys[rows.rows]
    order = np.argsort(keys, kind="stable")
    same = np.append(False, keys[order[1:]] == keys[order[:-1]])
    begins = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    pairs = np.stack([order[begins], order], 1)[same]
    equal = [np.empty(0, bool)]
    for start in range(0, len(pairs), step):
        x, y = (rows.at(side) for side in pairs[start : start + step].T)
        equal.append((x == y).all(1))
    return pairs[np.concatenate(equal)]


def _visitors(
    rows: RowsByCluster, visits: tuple[np.ndarray, np.ndarray], alone: np.ndarray
) -> list[np.ndarray]:
    """Of each cluster, the positions of the rows that visit it to be compared with its rows.

    Args:
        visits: numbers of rows, and clusters.
        alone: (M,) bool by position, rows that repeat no other exactly; the others do not visit.
    """
    positions, visited = rows.positions[visits[0]], visits[1]
    positions, visited = positions[alone[positions]], visited[alone[positions]]
    order = np.argsort(visited, kind="stable")
    ends = np.searchsorted(visited[order], np.arange(1, len(rows.starts) - 1))
    return np.split(positions[order], ends)


def _scores(keep: str, seen: Survey, data: DataSet, n_old: int) -> np.ndarray:
    """(N,): of a group, the row with the lowest stays."""
    if keep == "nearest":
        return seen.distances
    if keep == "farthest":
        return -seen.distances
    if keep == "first":
        return np.zeros(len(seen.distances))
    values = read_numbers(keep, data, "--keep nearest, farthest, first or a column:")
    return np.concatenate([np.zeros(n_old), -values])


def kept_of(roots: np.ndarray, scores: np.ndarray, n_old: int = 0) -> np.ndarray:
    """(N,) the row that stays of the group of each row: an old one where there is one, then that of
    the lowest score, then the first.

    Args:
        roots: (N,) the group of each row.
        scores: (N,), NaN after all numbers.
        n_old: rows that are old, the first ones.
    """
    numbers = np.arange(len(roots))
    order = np.lexsort((numbers, scores, numbers >= n_old, roots))
    grouped = roots[order]
    first = np.append(True, grouped[1:] != grouped[:-1])
    kept = np.empty_like(roots)
    kept[order] = order[first][np.cumsum(first) - 1]
    return kept


def _distances(
    rows: RowsByCluster, kept: np.ndarray, closeness: Closeness, step: int
) -> np.ndarray:
    """(N,) float32, of each row and the one that stays; ``step`` are looked at together."""
    found = np.full(len(kept), np.nan, np.float32)
    found[rows.rows] = 0
    others = np.flatnonzero(kept != np.arange(len(kept)))
    for start in range(0, len(others), step):
        some = others[start : start + step]
        x, y = (rows.at(rows.positions[each]) for each in (some, kept[some]))
        found[some] = closeness.distances(x, y)
    return found
