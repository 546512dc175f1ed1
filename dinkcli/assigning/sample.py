"""Samples by clusters: equal or proportional shares, prototypes, or rows unlike each other.

The same rows whatever the order of files and of rows in them: a row's key, a hash of its numbers
and of its id, decides in place of a random draw.

Shapes: N rows, B rows of a cluster, K clusters, n rows in the sample, q of them in a cluster.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from dinkcli.assigning.layout import Layout, Rows, as_arrow, rows_at, table_of, without_nulls
from dinkcli.assigning.survey import OnStep, RowsByCluster, mixed, survey
from dinkcli.assigning.torch_backend import prepared
from dinkcli.data.dataset import DataSet
from dinkcli.data.inputs import open_inputs
from dinkcli.data.machine import default_memory
from dinkcli.data.sidefiles import read_weights
from dinkcli.errors import InputError, UsageError
from dinkcli.models.file import as_model
from dinkcli.models.model import Model
from dinkcli.options import SampleOptions
from dinkcli.processes.device import resolve_device
from dinkcli.results import NAME, Result, Sheet

_SHOWN_CLUSTERS = 20
_NUMBERS = {"rank": pa.int64(), "probability": pa.float64(), "distance": pa.float32()}
COLUMNS = without_nulls({"cluster": pa.int32()} | _NUMBERS)


@dataclass(frozen=True)
class Sample(Result):
    """The rows of a sample, by cluster and in each in the order in which they were chosen.

    Attributes:
        model, data: the model and all rows.
        by: how they were chosen.
        rows: (n,) int64, their numbers.
        columns: (n,) each: cluster, rank in the cluster from 0, the probability with which a row is
            in such a sample (1 where chance has no part), the distance to the centre.
        sizes: (K,) rows that each cluster has.
        shares: (K,) rows of each in the sample.
    """

    model: Model
    data: DataSet
    by: str
    rows: np.ndarray
    columns: dict[str, np.ndarray]
    sizes: np.ndarray
    shares: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: the numbers that ``--json`` gives, without those of the output."""
        return {
            "fingerprint": self.model.fingerprint,
            "n_clusters": self.model.n_clusters,
            "rows": int(self.sizes.sum()),
            "sample": len(self.rows),
            "by": self.by,
            "clusters_in_sample": int((self.shares > 0).sum()),
            "shares": self.shares.tolist(),
        }

    def to_arrow(self) -> pa.Table:
        """The rows of the sample: number or id, ``columns``, and those that travel along."""
        layout = Layout(None, COLUMNS, self.data.columns.id, self.data.carried)
        return table_of(layout, self.written())

    def sentence(self) -> str:
        taken = self.shares[self.shares > 0]
        each = f"{taken.min()} to {taken.max()}" if taken.min() < taken.max() else taken.min()
        return (
            f"{len(self.rows)} of {self.sizes.sum()} rows, {each} from each of {len(taken)} "
            "clusters"
        )

    def sheets(self) -> list[Sheet]:
        sheet = Sheet("cluster", NAME, "rows", "in the sample", title=self.sentence())
        for j in np.argsort(-self.sizes, kind="stable")[:_SHOWN_CLUSTERS].tolist():
            sheet.add(j, self.model.all_names[j], int(self.sizes[j]), int(self.shares[j]))
        return [sheet]

    def written(self) -> Iterator[Rows]:
        """The rows, with inputs read once more for columns that travel along."""
        carried = _carried(self.data, self.rows) if self.data.carried.names else None
        yield Rows(self.rows, self.columns, carried)


def sample(
    model: Model | str | os.PathLike[str],
    inputs: Any,
    number: int | None = None,
    *,
    by: str = "balanced",
    quota: Mapping[int, int] | str | os.PathLike[str] | None = None,
    levels: Sequence[int] = (),
    seed: int = 0,
    ids: Any = None,
    columns: Sequence[str] = (),
    sample_weight: Any = None,
    column: str | None = None,
    bad_rows: str = "stop",
    device: str = "auto",
    memory: int | None = None,
    on_step: OnStep = lambda phase, done, total: None,
) -> Sample:
    """Draws a sample of N rows in which all clusters have their share, the same whatever their
    order.

    Args:
        model: a model or the path of one.
        inputs, column, bad_rows, device: as for ``assign``.
        number: n, how many rows the sample is to have.
        by: "balanced" (equal shares of the clusters), "proportional", or equal shares of
            "prototypes" (rows nearest to their centre) or "diverse" rows (farthest-first).
        quota: rows by cluster, or the path of a file of them, in place of ``number``.
        levels: numbers of groups of clusters, such as (10, 100), which have equal shares first.
        seed: of all random draws.
        ids: what rows are called: a column, a file, or (N,) values.
        columns: of the inputs that travel along.
        sample_weight: a column, a file, or (N,) values; rows are drawn in proportion to them.
        memory: bytes for rows, a quarter of the machine's by default.
        on_step: called with a phase, the position in it, and its length.

    Raises:
        UsageError: more rows are wanted than there are, or a file of quotas that is not there.
        InputError: rows, weights or quotas that cannot be used.
    """
    given, weighted = None if quota is None else "file", sample_weight is not None
    options = SampleOptions(number, by, given, tuple(levels), weighted, seed)
    model, where = as_model(model), resolve_device(device)
    memory = default_memory() if memory is None else memory
    beside = {"ids": ids, "others": tuple(columns), "sample_weight": sample_weight}
    again = open_inputs(inputs, column, bad_rows, model=model, **beside).repeatable()
    weights = read_weights(again)
    options = replace(options, weighted=weights is not None)
    wanted = None if quota is None else read_quotas(quota, model.n_clusters)
    seen = survey(model, again, where, on_step)
    keys = seen.keys
    if again.columns.id is not None:
        keys = mixed(keys ^ _keys_of_ids(again, on_step))
    keys = mixed(keys, options.seed)
    usable = seen.labels >= 0 if weights is None else (seen.labels >= 0) & (weights > 0)
    labels = np.where(usable, seen.labels, -1).astype(np.int32)
    amounts = np.bincount(labels + 1, weights, model.n_clusters + 1)[1:].astype(np.float64)
    sizes = np.bincount(labels + 1, minlength=model.n_clusters + 1)[1:]
    shares = _shares(model, options, wanted, sizes, amounts, again.name)
    by_cluster = None
    if options.by == "diverse":
        by_cluster = RowsByCluster(again, labels, model.n_clusters, memory, on_step)
    fit = memory // 2 // (8 * model.n_features)
    # By cluster, and in each by key: nothing below knows in what order the rows came.
    order = np.lexsort((keys, labels))
    members = np.split(order[len(order) - sizes.sum() :], sizes.cumsum()[:-1])
    stops = shares.cumsum().tolist()
    rows, probabilities = np.empty(stops[-1], np.int64), np.ones(stops[-1])
    for label in np.flatnonzero(shares).tolist():
        own, share = members[label], int(shares[label])
        inside = slice(stops[label] - share, stops[label])
        if by_cluster is not None:
            # Of a cluster that does not fit in memory, among as many of its rows as do.
            own = own[: max(share, fit)]
            positions = by_cluster.positions[own]
            by_place = np.argsort(positions)  # from the file in its order
            vectors = by_cluster.at(positions[by_place])[np.argsort(by_place)]
            z = prepared(vectors.astype(np.float32), model, "cpu")
            chosen = diverse(z, int(seen.distances[own].argmin()), share)
        elif options.by == "prototypes":
            chosen = np.argsort(seen.distances[own], kind="stable")[:share]
        elif weights is None:
            chosen, probabilities[inside] = np.arange(share), share / len(own)
        else:
            key = int(mixed(np.array([label], np.uint64), options.seed)[0])
            start = (key >> 11) * 2.0**-53
            chosen, probabilities[inside] = by_weight(weights[own], share, start)
        rows[inside] = own[chosen]
        on_step("choosing", inside.stop, len(rows))
    values = {
        "cluster": labels[rows],
        "rank": np.concatenate([np.arange(share) for share in shares]),
        "probability": probabilities,
        "distance": seen.distances[rows],
    }
    return Sample(model, again, by, rows, values, sizes, shares)


def by_weight(weights: np.ndarray, number: int, start: float) -> tuple[np.ndarray, np.ndarray]:
    """``number`` q of the rows, each with a probability in proportion to its weight (B,), or 1
    where that would be more: a systematic sample in the order of the rows, which ``start``, from 0
    to below 1, decides. Positions and probabilities (q,)."""
    probabilities = inclusion(weights, number)
    ends = probabilities.cumsum()
    ends *= number / ends[-1]  # to the last bit
    chosen = np.searchsorted(ends, start + np.arange(number), "right")
    return chosen, probabilities[chosen]


def inclusion(weights: np.ndarray, number: int) -> np.ndarray:
    """(B,) probabilities in proportion to the weights that sum to ``number``, none above 1."""
    sure = np.zeros(len(weights), bool)
    while True:
        rest = np.where(sure, 0.0, weights)
        total, left = rest.sum(), number - int(sure.sum())
        probabilities = np.where(sure, 1.0, left * rest / total if total else 0.0)
        more = ~sure & (probabilities >= 1)
        if not more.any():
            return probabilities
        sure |= more


def diverse(z: Tensor, first: int, number: int) -> np.ndarray:
    """Farthest-first: each next row of ``z`` (B, D) is the one farthest from all before it
    (Gonzalez, 1985), of equal ones the first. Positions (q,)."""
    squares = z.square().sum(1)
    nearest = torch.full((len(z),), torch.inf)
    chosen = np.empty(number, np.int64)
    for index in range(number):
        chosen[index] = first
        distances = (squares - 2 * (z @ z[first])).add_(squares[first]).clamp_(min=0)
        nearest = torch.minimum(nearest, distances)
        nearest[first] = -1
        first = int(nearest.argmax())
    return chosen


def _keys_of_ids(data: DataSet, on_step: OnStep) -> np.ndarray:
    """(N,) uint64, a hash of the id of each row."""
    name, keys, done = data.columns.id, [], 0
    for block in data.blocks(nonzero=False):
        assert block.carried is not None and name is not None
        ids = block.carried.column(name)
        if pa.types.is_integer(ids.type) and not ids.null_count:
            keys.append(mixed(ids.cast(pa.int64()).to_numpy(zero_copy_only=False).view(np.uint64)))
        else:
            texts = (repr(value).encode("utf-8", "surrogatepass") for value in ids.to_pylist())
            hashed = (hashlib.blake2b(text, digest_size=8).digest() for text in texts)
            keys.append(np.frombuffer(b"".join(hashed), "<u8").astype(np.uint64))
        done += len(block)
        on_step("reading ids", done, data.n_rows or 0)
    return np.concatenate(keys)


def _shares(
    model: Model,
    options: SampleOptions,
    wanted: np.ndarray | None,
    sizes: np.ndarray,
    amounts: np.ndarray,
    name: str,
) -> np.ndarray:
    """(K,) rows of each cluster in the sample; ``amounts`` are their weights."""
    if wanted is not None:
        for j in np.flatnonzero(wanted > sizes):
            raise UsageError(f"`quota`: {wanted[j]} rows of cluster {j}, which has {sizes[j]}")
        return wanted
    number = options.number or 0
    if number > sizes.sum():
        more = " of a weight above 0" if options.weighted else ""
        raise UsageError(f"`number` {number}: {name} has {sizes.sum()} usable rows{more}")
    if options.by == "proportional":
        return proportional(amounts, sizes, number)
    tree = model.tree if options.levels else []
    return on_levels(sizes, number, [model.groups(level, tree) for level in options.levels])


def proportional(weights: np.ndarray, sizes: np.ndarray, number: int) -> np.ndarray:
    """(K,) int64: shares of ``number`` in proportion to ``weights`` (K,), by largest remainders and
    then by position; never more than the ``sizes`` (K,), whose sum is at least ``number``."""
    shares = np.zeros(len(sizes), np.int64)
    while (left := number - int(shares.sum())) > 0:
        room = np.where(shares < sizes, weights, 0.0)
        wanted = left * room / room.sum()
        whole = np.minimum(np.floor(wanted + 1e-9).astype(np.int64), sizes - shares)
        shares += whole
        left -= int(whole.sum())
        if not whole.any() or left < (shares < sizes).sum():
            rest = np.where((shares < sizes) & (room > 0), wanted - whole, -1.0)
            best = np.argsort(-rest, kind="stable")[:left]
            shares[best[rest[best] >= 0]] += 1
    return shares


def on_levels(sizes: np.ndarray, number: int, levels: Sequence[np.ndarray] = ()) -> np.ndarray:
    """(K,) int64: equal shares of the groups of the first of ``levels`` (K,), of each for its
    groups on the next, and so on down to clusters. Shares of those that have rows left differ by
    one at most."""
    if not levels:
        return proportional(np.ones(len(sizes)), sizes, number)
    group = np.unique(levels[0], return_inverse=True)[1]
    shares = np.zeros(len(sizes), np.int64)
    for index, share in enumerate(on_levels(np.bincount(group, sizes).astype(np.int64), number)):
        inside = group == index
        below = [level[inside] for level in levels[1:]]
        shares[inside] = on_levels(sizes[inside], int(share), below)
    return shares


def read_quotas(quota: Any, n_clusters: int) -> np.ndarray:
    """(K,) int64 from rows by cluster, or from a file of them: csv with the columns cluster and
    rows, or a JSON object. Clusters that are not named have 0."""
    wanted = np.zeros(n_clusters, np.int64)
    try:
        pairs = quota
        if not isinstance(quota, Mapping):
            with open(quota, encoding="utf-8", newline="") as file:
                if os.fspath(quota).lower().endswith(".json"):
                    pairs = json.load(file)
                else:
                    pairs = {line["cluster"]: line["rows"] for line in csv.DictReader(file)}
        for cluster, rows in pairs.items():
            if not 0 <= int(cluster) < n_clusters or int(rows) < 0:
                raise ValueError(f"cluster {cluster} with {rows} rows, of {n_clusters} clusters")
            wanted[int(cluster)] = int(rows)
    except FileNotFoundError:
        raise UsageError(f"`quota` {quota}: no such file") from None
    except (KeyError, ValueError, TypeError, AttributeError, OSError) as error:
        raise InputError(
            f"`quota` {quota}: expected csv with the columns cluster and rows, or a JSON object of "
            f"rows by cluster; found {error}"
        ) from error
    return wanted


def _carried(data: DataSet, rows: np.ndarray) -> pa.RecordBatch:
    """The columns that travel along of the rows of these numbers (n,), in their order."""
    order = np.argsort(rows)
    ascending, batches = rows[order], [pa.RecordBatch.from_pylist([], data.carried)]
    for block in data.blocks():
        first, stop = np.searchsorted(ascending, [block.start, block.start + len(block)])
        if first < stop:
            batches.append(rows_at(block.carried, ascending[first:stop] - block.start))
    table = pa.Table.from_batches(batches).take(as_arrow(np.argsort(order)))
    return table.combine_chunks().to_batches()[0] if len(rows) else batches[0]
