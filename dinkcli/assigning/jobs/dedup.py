"""Near-duplicates: which rows repeat others, and which row of each group stays.

Rows are near-duplicates when they are close enough (``closeness``), and a group is what hangs
together through them. Rows of a cluster are compared with each other and with those that visit it
(``border``): no pair is missed, and each that counts was computed from the rows themselves in
float64.

Shapes: N rows, M of them good, K clusters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from dinkcli.assigning.jobs.asked import DedupOptions
from dinkcli.assigning.jobs.border import Border, visitors
from dinkcli.assigning.jobs.closeness import Axes, Closeness
from dinkcli.assigning.jobs.groups import FARTHEST, FIRST, KEEPS, NEAREST, Groups, kept_of
from dinkcli.assigning.jobs.pairs import Pairs, write_on_axes
from dinkcli.assigning.jobs.shelves import Shelves
from dinkcli.assigning.jobs.survey import OnStep, Survey, survey
from dinkcli.assigning.jobs.workplace import Workplace
from dinkcli.assigning.writers.base import without_nulls
from dinkcli.data.dataset import DataSet
from dinkcli.data.sidefiles import read_numbers
from dinkcli.data.spool import repeatable
from dinkcli.errors import InputError, UsageError
from dinkcli.models.model import Model
from dinkcli.nearest.index import CenterIndex

_UNIT_ROWS = 1 << 16  # of clusters compared between two saves
_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class DedupJob:
    """A model, the data, and what counts as a near-duplicate.

    Attributes:
        data: the rows that are judged.
        old: rows that stay whatever repeats them; they are compared with those of ``data`` only.
        model_name: what the output's metadata call the model.
    """

    model: Model
    data: DataSet
    options: DedupOptions
    old: DataSet | None = None
    model_name: str = "model"

    @property
    def identity(self) -> dict[str, Any]:
        """What the work depends on, as plain JSON."""
        return {
            "model": self.model.fingerprint,
            "input": self.data.fingerprint(),
            "against": None if self.old is None else self.old.fingerprint(),
            "bad_rows": self.data.bad_rows,
            **asdict(self.options),
        }


@dataclass(frozen=True)
class Duplicates:
    """What was found about the N rows of ``data``.

    Attributes:
        labels: (N,) int32, -1 for a bad row.
        groups: (N,) int64, the number of the first row of the group.
        kept: (N,) bool.
        likeness: (N,) float32, the cosine similarity with the row of the group that stays, or the
            distance to it; NaN for a bad row.
        old: (N,) int64, the number of the old row that is repeated, or -1.
        n_exact: rows of all that have the same numbers as another one before them.
        compared: pairs that were compared, on the axes at least; by this run.
        visits: rows that were compared with those of one more cluster.
    """

    labels: np.ndarray
    groups: np.ndarray
    kept: np.ndarray
    likeness: np.ndarray
    old: np.ndarray
    n_exact: int
    compared: int
    visits: int

    @property
    def n_groups(self) -> int:
        """Groups with more than one row, old rows included."""
        return len(np.unique(self.groups[~self.kept]))


def dedup(
    job: DedupJob,
    work: Workplace,
    device: torch.device | str = "cpu",
    memory: int = 1 << 30,
    on_step: OnStep = lambda phase, done, total: None,
) -> Duplicates:
    """Finds all near-duplicates.

    Args:
        memory: bytes for rows. Beside them, some 40 for each row stay in memory.

    Raises:
        InputError: rows that cannot be used, or compared by a cosine similarity.
    """
    return _Search(job, work, device, memory, on_step).found()


@dataclass
class _Search:
    job: DedupJob
    work: Workplace
    device: torch.device | str
    memory: int
    on_step: OnStep

    def __post_init__(self) -> None:
        job = self.job
        if job.model.map is not None:
            raise UsageError(
                "the model has a learned metric, under which rows that follow each other are near "
                "though they differ; look for near-duplicates with a model trained with --metric "
                "euclidean or cosine"
            )
        self.closeness = Closeness.asked(job.model.metric, job.options)
        new = repeatable(job.data)
        old = None if job.old is None else repeatable(job.old)
        # Old rows come first: the lowest row of a group is an old one where there is one.
        self.n_old = 0 if old is None else old.known_rows
        self.data = replace(new, beside=None)
        if old is not None:
            self.data = replace(self.data, readers=[*old.readers, *new.readers])

    @cached_property
    def seen(self) -> Survey:
        model = self.job.model
        index = CenterIndex(torch.from_numpy(model.cluster_centers).to(self.device))
        border = Border(index, self.closeness.distance)

        def look(z: Tensor, labels: Tensor, numbers: np.ndarray) -> dict[str, np.ndarray]:
            if len(numbers):  # a block can be all bad
                self.closeness.check(z.cpu().numpy(), self.data.name, int(numbers[0]))
            return border(z, labels, numbers)

        return survey(model, self.data, self.device, self.work, look, self.on_step)

    @cached_property
    def shelves(self) -> Shelves:
        n_clusters, limit = self.job.model.n_clusters, min(self.memory // 4, _MOST_BYTES)
        return Shelves(self.data, self.seen.labels, n_clusters, self.work, limit, self.on_step)

    def found(self) -> Duplicates:
        if not (self.seen.labels >= 0).any():
            raise InputError(f"{self.data.name}: all rows are bad; nothing to compare")
        exact = self._repeats()
        shelves = self.shelves
        groups = Groups(len(shelves))
        groups.join(exact)
        alone = np.ones(len(shelves), bool)
        # Whatever repeats a row is close to what the row is close to; but old rows are not compared
        # with each other, so they do not stand for new ones.
        is_old = shelves.rows[exact] < self.n_old
        alone[exact[is_old[:, 0] == is_old[:, 1], 1]] = False
        axes = Axes(self.data, self.seen.labels, self.closeness)
        path = self.work.file("axes.bin", partial(write_on_axes, shelves, axes))
        pairs = Pairs(shelves, self.closeness, path, self.memory // 4)
        visiting = visitors(shelves, self.seen, alone)
        makes = {
            f"pairs-{first:06d}": partial(self._compare, first, stop, pairs, visiting, alone)
            for first, stop in self._units()
        }
        for found in self.work.all_arrays(makes):
            groups.join(found["pairs"])
        n_visits = len(self.seen.more["visits"])
        return self._judged(groups, len(exact), pairs.compared, n_visits)

    def _repeats(self) -> np.ndarray:
        """Pairs (P, 2) of positions: a row, and a later one with the same numbers."""
        shelves, keys = self.shelves, self.seen.keys[self.shelves.rows]
        order = np.argsort(keys, kind="stable")
        same = keys[order[1:]] == keys[order[:-1]]
        begins = np.maximum.accumulate(np.where(np.append(False, same), 0, np.arange(len(order))))
        later = np.flatnonzero(np.append(False, same))
        pairs = np.stack([order[begins[later]], order[later]], 1)
        step = max(1, min(self.memory // 4, _MOST_BYTES) // (8 * self.data.n_features))
        equal = [
            (shelves.at(part[:, 0]) == shelves.at(part[:, 1])).all(1)
            for part in (pairs[i : i + step] for i in range(0, len(pairs), step))
        ]
        return pairs[np.concatenate([np.empty(0, bool), *equal])]

    def _units(self) -> Iterator[tuple[int, int]]:
        """Runs of clusters of about so many rows."""
        starts = self.shelves.starts
        first = 0
        while first < len(starts) - 1:
            stop = int(np.searchsorted(starts, starts[first] + _UNIT_ROWS))
            stop = min(max(stop, first + 1), len(starts) - 1)
            yield first, stop
            first = stop

    def _compare(
        self, first: int, stop: int, pairs: Pairs, visits: list[np.ndarray], alone: np.ndarray
    ) -> dict[str, np.ndarray]:
        """What belongs together through the clusters [first, stop), (P, 2) positions."""
        shelves, found = self.shelves, [np.empty((0, 2), np.int64)]
        for label in range(first, stop):
            where = shelves.cluster(label)
            residents = where.start + np.flatnonzero(alone[where])
            visiting = visits[label]
            if self.n_old:
                is_old = shelves.rows[residents] < self.n_old
                old, residents = residents[is_old], residents[~is_old]
                new = visiting[shelves.rows[visiting] >= self.n_old]
                if len(old) and len(new):
                    found.append(pairs.within(new, old))
                visiting = np.concatenate([old, visiting])
            if len(residents):
                found.append(pairs.within(residents, visiting))
            self.on_step("compare", where.stop, len(shelves))
        return {"pairs": np.concatenate(found)}

    def _judged(self, groups: Groups, n_exact: int, compared: int, n_visits: int) -> Duplicates:
        shelves, seen, n_old = self.shelves, self.seen, self.n_old
        n_rows = len(seen.labels)
        roots = np.arange(n_rows)  # a bad row is alone
        roots[shelves.rows] = shelves.rows[groups.roots(np.arange(len(shelves)))]
        is_old = np.arange(n_rows) < n_old
        kept = kept_of(roots, self._scores(), is_old)
        likeness = self._likeness(kept)[n_old:]
        new = slice(n_old, None)
        first = np.full(n_rows, n_rows)
        np.minimum.at(first, roots[new], np.arange(n_old, n_rows))
        return Duplicates(
            labels=seen.labels[new],
            groups=first[roots[new]] - n_old,
            kept=kept[new] == np.arange(n_old, n_rows),
            likeness=likeness,
            old=np.where(kept[new] < n_old, kept[new], -1),
            n_exact=n_exact,
            compared=compared,
            visits=n_visits,
        )

    def _scores(self) -> np.ndarray:
        """(N,): of a group, the row with the lowest stays."""
        keep, distances = self.job.options.keep, self.seen.distances
        if keep == NEAREST:
            return distances
        if keep == FARTHEST:
            return -distances
        if keep == FIRST:
            return np.zeros(len(distances))
        values = read_numbers(keep, self.job.data, f"--keep {', '.join(KEEPS)} or a column:")
        return np.concatenate([np.zeros(self.n_old), -values])

    def _likeness(self, kept: np.ndarray) -> np.ndarray:
        """(N,) float32, of each row and the one that stays."""
        shelves = self.shelves
        found = np.full(len(kept), np.nan, np.float32)
        found[shelves.rows] = self.closeness.best
        others = np.flatnonzero(kept != np.arange(len(kept)))
        step = max(64, min(self.memory // 4, _MOST_BYTES) // (32 * self.data.n_features))
        for start in range(0, len(others), step):
            some = others[start : start + step]
            x, y = (shelves.at(shelves.places[rows]) for rows in (some, kept[some]))
            found[some] = self.closeness.of(x, y)
        return found


def schema_of(options: DedupOptions, against: bool) -> pa.Schema:
    """What is written about each row."""
    kind = "similarity" if options.threshold is not None else "distance"
    columns = {"cluster": pa.int32(), "group": pa.int64(), "kept": pa.bool_(), kind: pa.float32()}
    if against:
        columns["old_row"] = pa.int64()
    return without_nulls(columns)
