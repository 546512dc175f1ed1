"""Samples by clusters: equal or proportional shares, prototypes, or rows unlike each other.

The same rows whatever the order of files and of rows in them: a row's key, a hash of its numbers
and of its id, decides in place of a random draw.

Shapes: N rows, K clusters, n rows in the sample, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from dinkcli.assigning.jobs import choose, quotas
from dinkcli.assigning.jobs.asked import SampleOptions
from dinkcli.assigning.jobs.shelves import Shelves
from dinkcli.assigning.jobs.survey import OnStep, mixed, rows_by_cluster, survey
from dinkcli.assigning.jobs.workplace import Workplace
from dinkcli.assigning.with_torch import prepared
from dinkcli.assigning.writers.base import Rows, without_nulls
from dinkcli.data.dataset import DataSet
from dinkcli.data.sidefiles import read_weights
from dinkcli.data.spool import repeatable
from dinkcli.errors import UsageError
from dinkcli.models.model import Model
from dinkcli.models.tree import parents

_MOST_BYTES = 64 << 20
_ROWS = 1 << 16
COLUMNS = without_nulls(
    {
        "cluster": pa.int32(),
        "rank": pa.int64(),
        "probability": pa.float64(),
        "distance": pa.float32(),
    }
)


@dataclass(frozen=True)
class SampleJob:
    """A model, the data, and what sample is wanted."""

    model: Model
    data: DataSet
    options: SampleOptions
    model_name: str = "model"

    @property
    def identity(self) -> dict[str, Any]:
        """What the work depends on, as plain JSON."""
        return {
            "model": self.model.fingerprint,
            "input": self.data.fingerprint(),
            "bad_rows": self.data.bad_rows,
            "id_column": self.data.columns.id,
            **asdict(self.options),
            **self.data.beside_identity(),
        }


@dataclass(frozen=True)
class Sample:
    """The rows of a sample, by cluster and in each in the order in which they were chosen.

    Attributes:
        rows: (n,) int64, their numbers.
        columns: (n,) each: cluster, rank in the cluster from 0, the probability with which a row is
            in such a sample (1 where chance has no part), the distance to the centre.
        sizes: (K,) rows that each cluster has.
        shares: (K,) rows of each in the sample.
    """

    rows: np.ndarray
    columns: dict[str, np.ndarray]
    sizes: np.ndarray
    shares: np.ndarray


def sample(
    job: SampleJob,
    work: Workplace,
    device: torch.device | str = "cpu",
    memory: int = 1 << 30,
    on_step: OnStep = lambda phase, done, total: None,
) -> Sample:
    """Chooses the rows.

    Raises:
        UsageError: more rows are wanted than there are.
    """
    options, model = job.options, job.model
    data = repeatable(job.data)
    weights = read_weights(data)
    seen = survey(model, data, device, work, on_step=on_step)
    keys = seen.keys
    if job.data.columns.id is not None:
        ids = work.all_arrays({"ids": lambda: {"keys": _keys_of_ids(job.data, on_step)}})
        keys = mixed(keys ^ ids[0]["keys"])
    keys = mixed(keys, options.seed)
    eligible = seen.labels >= 0
    if weights is not None:
        eligible &= weights > 0
    labels = np.where(eligible, seen.labels, -1).astype(np.int32)
    sizes = rows_by_cluster(labels, model.n_clusters)
    shares = _shares(job, sizes, labels, weights)
    shelves = None
    if options.by == "diverse":
        limit = min(memory // 4, _MOST_BYTES)
        shelves = Shelves(data, labels, model.n_clusters, work, limit, on_step)
    pool = _Pool(job, seen.distances, keys, weights, shelves, memory)
    # By cluster, and in each by key: nothing below knows in what order the rows came.
    order = np.lexsort((keys, labels))
    members = np.split(order[len(order) - sizes.sum() :], sizes.cumsum()[:-1])
    rows, probabilities, done = [np.empty(0, np.int64)], [np.empty(0)], shares.cumsum()
    for label in np.flatnonzero(shares).tolist():
        found, sure = pool.chosen(label, members[label], int(shares[label]))
        rows.append(members[label][found])
        probabilities.append(sure)
        on_step("choose", int(done[label]), int(done[-1]))
    chosen = np.concatenate(rows)
    columns = {
        "cluster": labels[chosen],
        "rank": np.concatenate([np.arange(share) for share in shares]),
        "probability": np.concatenate(probabilities),
        "distance": seen.distances[chosen],
    }
    return Sample(chosen, columns, sizes, shares)


def wanted_rows(options: SampleOptions, n_clusters: int) -> int:
    """Rows of the sample that is asked for."""
    if options.quota is not None:
        return int(quotas.read_quotas(options.quota, n_clusters).sum())
    assert options.number is not None
    return options.number


def _shares(
    job: SampleJob, sizes: np.ndarray, labels: np.ndarray, weights: np.ndarray | None
) -> np.ndarray:
    options, n_clusters = job.options, len(sizes)
    if options.quota is not None:
        shares = quotas.read_quotas(options.quota, n_clusters)
        short = np.flatnonzero(shares > sizes)
        if len(short):
            raise UsageError(
                f"--quota {options.quota}: {shares[short[0]]} rows of cluster {short[0]}, which "
                f"has {sizes[short[0]]}"
            )
        return shares
    number = options.number
    assert number is not None
    if number > sizes.sum():
        more = "" if weights is None else " of a weight above 0"
        raise UsageError(f"-n {number}: {job.data.name} has {sizes.sum()} usable rows{more}")
    if options.by == "proportional":
        amounts = np.bincount(labels + 1, weights, n_clusters + 1)[1:]
        return quotas.proportional(amounts.astype(np.float64), sizes, number)
    if options.levels:
        tree = job.model.tree
        groups = [parents(tree, level) for level in options.levels]
        return quotas.on_levels(sizes, number, groups)
    return quotas.balanced(sizes, number)


@dataclass(frozen=True)
class _Pool:
    """The rows that a sample is taken from, each with its distance, key and perhaps weight (N,)."""

    job: SampleJob
    distances: np.ndarray
    keys: np.ndarray
    weights: np.ndarray | None
    shelves: Shelves | None
    memory: int

    def chosen(self, label: int, members: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        """``number`` q of the rows of a cluster: positions among its ``members``, and the
        probabilities with which they are chosen (q,)."""
        options, keys = self.job.options, self.keys[members]
        if options.by == "prototypes":
            return choose.prototypes(keys, self.distances[members], number), np.ones(number)
        if self.shelves is not None:
            return self._diverse(self.shelves, members, number), np.ones(number)
        if self.weights is not None:
            start = float(choose.unit(mixed(np.array([label], np.uint64), options.seed))[0])
            return choose.by_weight(keys, self.weights[members], number, start)
        return choose.by_chance(keys, number)

    def _diverse(self, shelves: Shelves, members: np.ndarray, number: int) -> np.ndarray:
        """Of a cluster that does not fit in memory, among as many of its rows as do."""
        fit = max(number, self.memory // 2 // (8 * self.job.data.n_features))
        some = members[:fit]
        places = shelves.places[some]
        order = np.argsort(places)  # from the file in its order
        vectors = shelves.at(places[order])[np.argsort(order)].astype(np.float32)
        z = prepared(vectors, self.job.model, "cpu")
        return choose.diverse(z, int(self.distances[some].argmin()), number)


def _keys_of_ids(data: DataSet, on_step: OnStep) -> np.ndarray:
    """(N,) uint64, a hash of the id of each row."""
    name, found, done = data.columns.id, [], 0
    for block in data.blocks(nonzero=False):
        assert block.carried is not None and name is not None
        ids = block.carried.column(name)
        if pa.types.is_integer(ids.type) and not ids.null_count:
            found.append(mixed(ids.cast(pa.int64()).to_numpy(zero_copy_only=False).view(np.uint64)))
        else:
            texts = (repr(value).encode("utf-8", "surrogatepass") for value in ids.to_pylist())
            hashed = (hashlib.blake2b(text, digest_size=8).digest() for text in texts)
            found.append(np.frombuffer(b"".join(hashed), "<u8").astype(np.uint64))
        done += len(block)
        on_step("read ids", done, data.n_rows or 0)
    return np.concatenate(found)


def sampled_rows(data: DataSet, found: Sample, first: int, stop: int | None) -> Iterator[Rows]:
    """The rows of the places [first, stop) in a sample, reading the inputs once more for columns
    that travel along.

    Args:
        stop: None for all the others.
    """
    numbers = found.rows[first:stop]
    columns = {name: values[first:stop] for name, values in found.columns.items()}
    carried = _carried(data, numbers) if data.carried.names else None
    # Parts go by the place in the sample.
    whole = Rows(np.arange(first, first + len(numbers)), columns, carried, numbers)
    for start in range(0, len(whole), _ROWS):
        yield whole[start : start + _ROWS]


def _carried(data: DataSet, rows: np.ndarray) -> pa.RecordBatch:
    """The columns that travel along of the rows of these numbers (n,), in their order."""
    order = np.argsort(rows)
    ascending, batches = rows[order], []
    for block in data.blocks():
        first, stop = np.searchsorted(ascending, [block.start, block.start + len(block)])
        if first < stop:
            assert block.carried is not None
            batches.append(block.carried.take(pa.array(ascending[first:stop] - block.start)))
    if not batches:
        return pa.RecordBatch.from_pylist([], data.carried)
    table = pa.Table.from_batches(batches, data.carried).combine_chunks()
    return table.take(pa.array(np.argsort(order))).combine_chunks().to_batches()[0]
