"""One pass over all rows: where each belongs, how far it is from its centre, and its key.

Shapes: N rows, B rows in a block, K clusters, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from dinkcli.assigning.assigner import Assigner, block_rows
from dinkcli.assigning.jobs.workplace import Workplace
from dinkcli.assigning.with_torch import prepared
from dinkcli.data.dataset import DataSet
from dinkcli.models.model import Model
from dinkcli.options import AssignOptions

_UNIT_ROWS = 1 << 16  # between two saves: a second of work, and a file of 1 or 2 MB
Look = Callable[[Tensor, Tensor, np.ndarray], dict[str, np.ndarray]]
OnStep = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Survey:
    """What is known of each row.

    Attributes:
        labels: (N,) int32, -1 for a bad row.
        distances: (N,) float32, Euclidean, to the nearest centre.
        keys: (N,) uint64, a hash of the row's numbers.
        more: what else was looked for, by name: arrays of any length, in the order of rows.
    """

    labels: np.ndarray
    distances: np.ndarray
    keys: np.ndarray
    more: dict[str, np.ndarray]


def survey(
    model: Model,
    data: DataSet,
    device: torch.device | str,
    work: Workplace,
    look: Look | None = None,
    on_step: OnStep = lambda phase, done, total: None,
) -> Survey:
    """Looks at all rows of repeatable inputs once.

    Args:
        look: called with prepared rows (B, D), their labels (B,) and their numbers (B,) for more
            to be found out about them.

    Raises:
        InputError: the data's dimension is not the model's, or a row is bad.
    """
    data = model.rows_of(data)
    assigner = Assigner(model, device, AssignOptions(distance=True))
    n_rows = data.known_rows
    makes = {}
    for start in range(0, n_rows, _UNIT_ROWS):
        part = data.part(start, min(n_rows, start + _UNIT_ROWS))
        make = partial(_part, assigner, part, look, n_rows, on_step)
        makes[f"survey-{start // _UNIT_ROWS:05d}"] = make
    units = work.all_arrays(makes)
    whole = {name: np.concatenate([unit[name] for unit in units]) for name in units[0]}
    labels, distances, keys = (whole.pop(name) for name in ("labels", "distances", "keys"))
    return Survey(labels, distances, keys, whole)


def _part(
    assigner: Assigner, data: DataSet, look: Look | None, n_rows: int, on_step: OnStep
) -> dict[str, np.ndarray]:
    """The fields of ``Survey`` for a part of all rows."""
    model, parts = assigner.model, []
    rows = block_rows(model.n_clusters, model.n_features, 1, assigner.device)
    direction = model.metric == "cosine"
    for block in data.blocks(rows, nonzero=direction):
        assigner.check_range(block.vectors, data.name, block.start)
        numbers = np.arange(block.start, block.start + len(block))
        assigned = assigner(block.vectors, numbers)
        assert assigned.distances is not None
        good = np.ones(len(block), bool) if block.bad is None else ~block.bad
        found = {
            "labels": np.where(good, assigned.labels, -1).astype(np.int32),
            "distances": assigned.distances,
            "keys": keys_of(block.vectors),
        }
        if look is not None:
            some = block.vectors if good.all() else block.vectors[good]
            z = prepared(some, model, assigner.device)
            labels = torch.from_numpy(found["labels"][good].astype(np.int64))
            found |= look(z, labels.to(assigner.device), numbers[good])
        parts.append(found)
        on_step("assign", block.start + len(block), n_rows)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def rows_by_cluster(labels: np.ndarray, n_clusters: int) -> np.ndarray:
    """(K,) int64, how many of the labels are of each cluster; -1 is none."""
    return np.bincount(labels + 1, minlength=n_clusters + 1)[1:]


def keys_of(vectors: np.ndarray) -> np.ndarray:
    """A hash of each of the ``vectors`` (B, D) float32, (B,) uint64: the same numbers, the same
    key, wherever the row is."""
    words = np.ascontiguousarray(vectors, "<f4").view("<u4").astype(np.uint64)
    factors = mixed(np.arange(1, vectors.shape[1] + 1, dtype=np.uint64)) | np.uint64(1)
    return mixed(np.einsum("ij,j->i", words, factors))


def mixed(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """``values`` uint64 as other numbers that look random (the finaliser of splitmix64)."""
    with np.errstate(over="ignore"):
        values = values + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % (1 << 64))
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
