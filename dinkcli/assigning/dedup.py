"""Near-duplicates: which rows repeat others, and which row of each group stays.

A group is what hangs together through rows that are close. No pair of these is missed: let a row x
of cluster a and a row y of cluster b be at most t apart. The border between a and b is the plane
halfway between the centres; x lies (|x - b|^2 - |x - a|^2) / (2 |a - b|) on its side of it, y
likewise on the other, and these two together are at most t. So at least one of them is within t / 2
of the plane. A row is therefore compared with the rows of its own cluster, and with those of every
cluster whose plane is that near (it visits it). Each pair that counts was computed from the rows
themselves in float64.

Shapes: N rows, M of them good, B rows or pairs, P pairs, R residents (rows of a cluster), V visits,
K clusters, D features.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from dinkcli.assigning.layout import Layout, Rows, table_of, without_nulls
from dinkcli.assigning.survey import MOST_BYTES, Groups, OnStep, RowsByCluster, survey
from dinkcli.assigning.torch_backend import scaled
from dinkcli.data.dataset import SKIP, DataSet
from dinkcli.data.inputs import open_inputs
from dinkcli.data.machine import default_memory
from dinkcli.data.sidefiles import NOTHING_BESIDE, read_keep
from dinkcli.errors import InputError, UsageError
from dinkcli.models.file import as_model
from dinkcli.models.model import Model
from dinkcli.nearest.hardware import accumulator_dtype, products
from dinkcli.nearest.index import CenterIndex
from dinkcli.options import DedupOptions
from dinkcli.processes.device import resolve_device
from dinkcli.results import Result, Sheet

_SHOWN_GROUPS = 10
_WRITTEN_ROWS = 1 << 18
# Of squared norms: float32 distances are off by a hundredth of this.
_SLACK = 1e-5
_TABLE_NUMBERS = 1 << 26  # 256 MB of distances between centres
_BLOCK = 1024  # rows compared with as many at once: scores that a core keeps close
_UNIT_NORM = 1e-3
_USUAL_DISTANCE = 0.1**0.5  # between rows of norm 1 whose cosine similarity is 0.95


@dataclass(frozen=True)
class Duplicates(Result):
    """What was found about the N rows.

    Attributes:
        model, data: the model and the rows.
        labels: (N,) int32, -1 for an outlier or a bad row.
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
    def n_bad(self) -> int:
        return int(np.isnan(self.distances).sum())

    @property
    def seen(self) -> np.ndarray:
        """(N,) bool: all rows, or where bad ones are to be skipped the others."""
        return ~np.isnan(self.distances) | (self.data.bad_rows != SKIP)

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
            "bad_rows": self.n_bad,
        }

    def to_arrow(self, keep_only: bool = False) -> pa.Table:
        """A row for each row, or each that stays: its number or id, cluster, group, whether it
        stays, distance to the row that stays, and columns that travel along."""
        schema = schema_of(self.old_rows is not None)
        layout = Layout(None, schema, self.data.columns.id, self.data.carried)
        return table_of(layout, self.written(keep_only))

    def sentence(self) -> str:
        bad = f", {self.n_bad} bad row{'s' * (self.n_bad > 1)}" if self.n_bad else ""
        return (
            f"{self.stay.sum()} of {self.seen.sum()} rows stay, {(~self.kept).sum()} "
            f"near-duplicates go, from {self.n_groups} groups ({self.n_exact} exact repeats){bad}"
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
        columns = {"cluster": self.labels, "group": self.groups, "kept": self.kept}
        columns |= {"distance": self.distances, "old_row": self.old}
        if data.carried.names:
            blocks = ((block.start, len(block), block.carried) for block in data.blocks())
        else:
            starts = range(0, len(keep), _WRITTEN_ROWS)
            blocks = ((start, min(_WRITTEN_ROWS, len(keep) - start), None) for start in starts)
        for start, number, carried in blocks:
            where = slice(start, start + number)
            values = {name: column[where] for name, column in columns.items()}
            rows = Rows(np.arange(start, start + number), values, carried)
            yield rows[np.flatnonzero(keep[where])]


def schema_of(against: bool) -> pa.Schema:
    """What is written about each row."""
    types = {"cluster": pa.int32(), "group": pa.int64(), "kept": pa.bool_()}
    types |= {"distance": pa.float32()} | ({"old_row": pa.int64()} if against else {})
    return without_nulls(types)


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
            "first", or the one with the largest number in a column or a file.
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
    beside = {"ids": ids, "keep": options.column, "others": tuple(columns)}
    data = open_inputs(inputs, column, bad_rows, model=model, **beside).repeatable()
    # Old rows come first: the lowest row of a group is an old one where there is one.
    n_old, readers = 0, list(data.readers)
    if against is not None:
        before = open_inputs(against, column, bad_rows, model=model).repeatable()
        n_old, readers = before.known_rows, [*before.readers, *readers]
    both = replace(data, beside=NOTHING_BESIDE, readers=readers)
    if model.map is not None:
        raise UsageError(
            "the model has a learned metric, under which rows that follow each other are near "
            "though they differ; look for near-duplicates with a model trained with `metric` "
            "euclidean or cosine"
        )
    distance = _USUAL_DISTANCE if max_distance is None else max_distance
    border = Border(torch.from_numpy(model.centers).to(where), distance)

    def look(vectors: np.ndarray, centers: np.ndarray, numbers: np.ndarray) -> None:
        if max_distance is None and model.metric != "cosine":
            _check_norms(vectors, numbers, both.name)
        z = scaled(vectors, model.metric, where)
        border.look(z, torch.from_numpy(centers).to(where), numbers)

    seen = survey(model, both, where, on_step, look)
    if not (seen.centers >= 0).any():
        raise InputError(f"{both.name}: all rows are bad; nothing to compare")
    rows = RowsByCluster(both, seen.centers, len(model.centers), memory, on_step)
    pairs = Pairs(rows, model, distance, memory // 4)
    exact = pairs.join_equal(seen.keys)
    visitors, visited = map(np.concatenate, zip(*border.visits, strict=True))
    _compare(pairs, exact, visitors, visited, rows.rows < n_old, on_step)

    roots = np.arange(len(seen.labels))  # a bad row is alone
    roots[rows.rows] = rows.rows[pairs.groups.roots(np.arange(len(rows)))]
    if options.column is None:
        scores = seen.distances * {"nearest": 1, "farthest": -1, "first": 0}[keep]
    else:
        scores = np.concatenate([np.zeros(n_old), -read_keep(data)])
    kept = kept_of(roots, scores, n_old)
    apart = np.full(len(roots), np.nan, np.float32)
    apart[rows.rows] = 0
    others = np.flatnonzero(kept != np.arange(len(kept)))
    apart[others] = pairs.distances(rows.positions[np.stack([others, kept[others]], 1)])
    first = np.full(len(roots), len(roots))
    np.minimum.at(first, roots[n_old:], np.arange(n_old, len(roots)))
    kept = kept[n_old:]
    return Duplicates(
        model,
        data,
        labels=seen.labels[n_old:],
        groups=first[roots[n_old:]] - n_old,
        kept=kept == np.arange(n_old, len(roots)),
        distances=apart[n_old:],
        old=np.where(kept < n_old, kept, -1),
        old_rows=None if against is None else n_old,
        n_exact=len(exact),
        compared=pairs.compared,
        visits=len(visitors),
    )


def _check_norms(vectors: np.ndarray, rows: np.ndarray, name: str) -> None:
    """Raises InputError for rows (B, D) that the usual distance is not meant for."""
    norms = np.linalg.norm(vectors, axis=1)
    for wrong in np.flatnonzero(np.abs(norms - 1) > _UNIT_NORM):
        raise InputError(
            f"{name}: row {rows[wrong]} has norm {norms[wrong]:.4g}, and the model is euclidean: "
            f"the usual distance, {_USUAL_DISTANCE:.3f}, is one between rows of norm 1; give a "
            "`max_distance`"
        )


class Border:
    """Finds the clusters whose border a row is near; ``visits`` are the numbers of rows (V,) and
    these clusters, block by block."""

    def __init__(self, centers: Tensor, distance: float):
        self._index, self._distance = CenterIndex(centers), distance
        self.visits = [(np.empty(0, np.int64), np.empty(0, np.int32))]
        self._table = None  # distances between all centres, (K, K)
        if len(centers) ** 2 <= _TABLE_NUMBERS:
            exact = self._index.centers.to(accumulator_dtype(centers.device))
            with products(exact.device):
                self._table = torch.cdist(exact, exact).float()

    def look(self, z: Tensor, labels: Tensor, numbers: np.ndarray) -> None:
        """Adds the visits of prepared rows ``z`` (B, D)."""
        index, start = self._index, 0
        for part, own in zip(index.chunks(z), index.chunks(labels), strict=True):
            squared, row_squares = index.scorer.squared_distances(part)
            mine = squared.gather(1, own[:, None])
            slack = _SLACK * (row_squares[:, None] + index.scorer.largest**2)
            near = squared - (mine + slack) <= self._distance * self._between(own)
            near.scatter_(1, own[:, None], False)
            row, cluster = near.nonzero().cpu().numpy().T
            self.visits.append((numbers[start + row], cluster.astype(np.int32)))
            start += len(part)

    def _between(self, own: Tensor) -> Tensor:
        """Distances from the centre of each row to all centres, (B, K)."""
        if self._table is not None:
            return self._table[own]
        centers = self._index.centers
        with products(centers.device):
            return torch.cdist(centers[own], centers)


class Pairs:
    """Compares rows exactly, of which as many are held as ``memory`` has bytes for; what cannot be
    close by float32 products is left out first."""

    def __init__(self, rows: RowsByCluster, model: Model, distance: float, memory: int):
        self.rows, self._model, self._distance = rows, model, distance
        self._cosine = model.metric == "cosine"
        self.groups = Groups(len(rows))  # of positions (M,), joined by close pairs
        self._most = memory // (8 * model.n_features)  # rows
        # Of a pair at once; both rows, in float64, and once more to scale them.
        self._step = max(64, min(memory, MOST_BYTES) // (32 * model.n_features))
        self.compared = 0  # pairs

    def distances(self, pairs: np.ndarray) -> np.ndarray:
        """(P,) float64, of the rows at pairs (P, 2) of positions; at norm 1 under cosine."""
        apart = np.empty(len(pairs))
        for where, *both in self._both(pairs):
            x, y = (rows.astype(np.float64) for rows in both)
            if self._cosine:
                x, y = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, y))
            apart[where] = np.linalg.norm(x - y, axis=1)
        return apart

    def join_equal(self, keys: np.ndarray) -> np.ndarray:
        """Joins rows with the same numbers, by the ``keys`` (N,) of all rows. Pairs (P, 2) of
        positions: the first of such rows, and a later one."""
        keys = keys[self.rows.rows]
        order = np.argsort(keys, kind="stable")
        same = np.append(False, keys[order[1:]] == keys[order[:-1]])
        begins = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
        pairs = np.stack([order[begins], order], 1)[same]
        equal = np.empty(len(pairs), bool)
        for where, x, y in self._both(pairs):
            equal[where] = (x == y).all(1)
        self.groups.join(pairs[equal])
        return pairs[equal]

    def join_close(self, label: int, residents: np.ndarray, visitors: np.ndarray) -> None:
        """Joins near-duplicates among the residents, and between residents and visitors of a
        cluster, all given by position."""
        positions = np.concatenate([residents, visitors])
        held = self._load(positions, label) if len(positions) <= self._most else None

        def some(where: slice) -> Tensor:
            return self._load(positions[where], label) if held is None else held[where]

        for first in range(0, len(residents), _BLOCK):
            a = some(slice(first, min(first + _BLOCK, len(residents))))
            for second in range(first, len(positions), _BLOCK):
                b = some(slice(second, second + _BLOCK))
                self.compared += len(a) * len(b)
                near = self._near(a, b) + np.array([first, second])
                self._join(positions[near[near[:, 0] < near[:, 1]]])

    def _load(self, positions: np.ndarray, label: int) -> Tensor:
        """Rows (B, D) float32 about the centre, where differences keep their digits."""
        vectors = self.rows.at(positions).astype(np.float32, copy=False)
        center = torch.from_numpy(self._model.centers[label])
        return scaled(vectors, self._model.metric, "cpu") - center

    def _near(self, a: Tensor, b: Tensor) -> np.ndarray:
        """Pairs (P, 2) of the rows of ``a`` and ``b`` that may be close, given the rounding."""
        half_a, half_b = a.square().sum(1) / 2, b.square().sum(1) / 2
        largest = float(torch.maximum(half_a.max(), half_b.max()))
        # A row of norm 1 is off by its last bit, which the centre does not take away.
        distance = self._distance + (1e-6 if self._cosine else 0.0)
        least = -(distance**2) / 2 - 2 * _SLACK * largest
        # Minus half of the squared distance.
        scores = torch.addmm(half_b, a, b.T, beta=-1)
        rows = (scores.amax(1) >= half_a + least).nonzero()[:, 0]
        near = (scores[rows] >= (half_a[rows] + least)[:, None]).nonzero()
        near[:, 0] = rows[near[:, 0]]
        return near.numpy()

    def _join(self, pairs: np.ndarray) -> None:
        """Joins those of the pairs (P, 2) of positions that are close, looking at both rows."""
        # Multiples of a row are at distance 0 but for the last bits.
        distance = self._distance + (4e-15 if self._cosine else 0.0)
        while len(pairs):
            pairs = pairs[self.groups.apart(pairs)]  # what is joined already need not be looked at
            some, pairs = pairs[: self._step], pairs[self._step :]
            self.groups.join(some[self.distances(some) <= distance])

    def _both(self, pairs: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """Both rows of each pair (P, 2) as the inputs give them, of as many at once as fit."""
        for start in range(0, len(pairs), self._step):
            where = slice(start, start + self._step)
            yield where, self.rows.at(pairs[where, 0]), self.rows.at(pairs[where, 1])


def _compare(
    pairs: Pairs,
    exact: np.ndarray,
    visitors: np.ndarray,
    visited: np.ndarray,
    is_old: np.ndarray,
    on_step: OnStep,
) -> None:
    """Joins all near-duplicates, cluster by cluster, given pairs (P, 2) of positions of equal rows,
    the first before all others; the numbers of ``visitors`` (V,) and the clusters that they visit;
    and by position (M,) which rows are old."""
    rows = pairs.rows
    # Whatever repeats a row is close to what the row is close to; but old rows are not compared
    # with each other, so they do not stand for new ones.
    alone = np.ones(len(rows), bool)
    alone[exact[is_old[exact[:, 0]] == is_old[exact[:, 1]], 1]] = False
    positions = rows.positions[visitors]
    positions, visited = positions[alone[positions]], visited[alone[positions]]
    order, n_clusters = np.argsort(visited, kind="stable"), len(rows.starts) - 1
    ends = np.searchsorted(visited[order], np.arange(1, n_clusters))
    for label, visitors in enumerate(np.split(positions[order], ends)):
        first, stop = rows.starts[label : label + 2].tolist()
        residents = first + np.flatnonzero(alone[first:stop])
        older, residents = residents[is_old[residents]], residents[~is_old[residents]]
        newer = visitors[~is_old[visitors]]
        if len(older) and len(newer):
            pairs.join_close(label, newer, older)
        if len(residents):
            pairs.join_close(label, residents, np.concatenate([older, visitors]))
        on_step("comparing", stop, len(rows))


def kept_of(roots: np.ndarray, scores: np.ndarray, n_old: int = 0) -> np.ndarray:
    """(N,) the row that stays of each row's group, whose number ``roots`` (N,) has: one of the
    ``n_old`` first rows where there is one, then that of the lowest of ``scores`` (N,), NaN after
    all numbers, then the first."""
    order = np.lexsort((scores, np.arange(len(roots)) >= n_old, roots))  # stable
    _, first, group = np.unique(roots[order], return_index=True, return_inverse=True)
    kept = np.empty_like(roots)
    kept[order] = order[first][group]
    return kept
