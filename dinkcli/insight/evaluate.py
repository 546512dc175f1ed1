"""``dink evaluate``: how good clusters are, with known classes and without."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from dinkcli.data.dataset import DataSet
from dinkcli.errors import InputError, UsageError
from dinkcli.insight.agreement import Agreement, Contingency, agreement
from dinkcli.insight.quality import FirstPass, Quality, SecondPass, quality
from dinkcli.insight.survey import View, survey
from dinkcli.models.model import Model

OnRows = Callable[[str, int], None]


@dataclass(frozen=True)
class Evaluation:
    """Everything known about a model's clusters of some rows.

    Attributes:
        quality: measures without classes.
        agreement: measures against classes, or None without labels.
        classes: (C,) the distinct labels, sorted where they can be.
        table: (C, K) int64, rows of each class in each cluster; None without labels.
        unlabelled: rows whose label is null or NaN; only ``quality`` counts them.
    """

    quality: Quality
    agreement: Agreement | None = None
    classes: list[Any] | None = None
    table: np.ndarray | None = None
    unlabelled: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        document = _plain(asdict(self.quality))
        if self.agreement is None or self.table is None:
            return document
        return document | {
            "unlabelled": self.unlabelled,
            "agreement": _plain(asdict(self.agreement)),
            "confusion": {
                "classes": [_plain_label(label) for label in self.classes or ()],
                "counts": self.table.tolist(),
            },
        }


def evaluate(
    model: Model,
    data: DataSet,
    device: torch.device | str = "cpu",
    labels: pa.Array | None = None,
    label_column: str | None = None,
    on_rows: OnRows = lambda phase, done: None,
) -> Evaluation:
    """Measures the clusters that ``model`` makes of ``data``, in two passes over it.

    Args:
        labels: (N,) true classes, in the order of the rows.
        label_column: instead of them, a column that ``data`` carries.
        on_rows: called with the pass's name and the rows seen so far.

    Raises:
        InputError: rows that the model cannot take, or no labelled row at all.
        UsageError: SciPy is needed for labels, and is not installed.
    """
    first = FirstPass(model.n_clusters, model.n_features, device)
    counts = Contingency(model.n_clusters)
    unlabelled = 0
    for view in survey(model, data, device):
        first.add(view)
        on_rows("assign", view.end)
        if labels is not None:
            unlabelled += _count(counts, labels.take(pa.array(view.rows)), view)
        elif label_column is not None and view.carried is not None:
            unlabelled += _count(counts, view.carried.column(label_column), view)
    second = SecondPass(first)
    for view in survey(model, data, device):
        second.add(view)
        on_rows("spread", view.end)
    measured = quality(first, second)
    if labels is None and label_column is None:
        return Evaluation(measured)
    if not counts.classes:
        raise InputError(f"{data.name}: every label is null, nothing to compare the clusters with")
    order = _sorted(counts.classes)
    table = counts.table[order]
    classes = [counts.classes[i] for i in order]
    return Evaluation(measured, agreement(table), classes, table, unlabelled)


def read_labels(path: str, n_rows: int) -> pa.Array:
    """The (N,) labels of a file: a 1-D .npy array, or parquet with one column.

    Raises:
        UsageError: no such file.
        InputError: neither, or not one label for each row.
    """
    if not os.path.isfile(path):
        raise UsageError(f"--labels {path}: no such file; --label-column names a column")
    with open(path, "rb") as file:
        start = file.read(4)
    try:
        labels = _from_parquet(path) if start == b"PAR1" else _from_npy(path)
    except (ValueError, EOFError, pa.ArrowException) as error:
        raise InputError(
            f"{path}: cannot be read as labels: {str(error).splitlines()[0]}; expected a 1-D .npy "
            "array or parquet with one column"
        ) from error
    if len(labels) != n_rows:
        raise InputError(f"{path}: {len(labels)} labels for {n_rows} rows, expected one for each")
    return labels


def _from_npy(path: str) -> pa.Array:
    array = np.load(path, allow_pickle=False)
    if array.ndim != 1:
        raise ValueError(f"shape {array.shape}")
    return pa.array(array)


def _from_parquet(path: str) -> pa.Array:
    table = pq.read_table(path)
    if table.num_columns != 1:
        raise ValueError(f"{table.num_columns} columns")
    return table.column(0).combine_chunks()


def _count(counts: Contingency, labels: pa.Array, view: View) -> int:
    """Counts a block's labels; returns how many are null or NaN."""
    if pa.types.is_nested(labels.type):
        raise UsageError(f"labels are {labels.type}, expected numbers, text or booleans")
    clusters = view.labels.cpu().numpy()
    labelled = labels.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_floating(labels.type):
        labelled &= ~labels.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
    missing = len(labels) - int(labelled.sum())
    if missing:
        labels, clusters = labels.filter(pa.array(labelled)), clusters[labelled]
    if len(labels):
        if pa.types.is_dictionary(labels.type):
            labels = labels.dictionary_decode()
        encoded = labels.dictionary_encode()
        counts.add(
            encoded.dictionary.to_pylist(),
            encoded.indices.to_numpy(zero_copy_only=False),
            clusters,
        )
    return missing


def _sorted(classes: list[Any]) -> list[int]:
    positions = range(len(classes))
    try:
        return sorted(positions, key=lambda i: classes[i])
    except TypeError:
        return list(positions)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()}


def _plain_label(label: Any) -> Any:
    return label if isinstance(label, (bool, int, float, str)) else str(label)
