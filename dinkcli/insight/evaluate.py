"""``dink evaluate``: how good clusters are, with known classes and without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dinkcli.data.dataset import DataSet
from dinkcli.errors import InputError, UsageError
from dinkcli.insight.agreement import Agreement, Contingency, agreement
from dinkcli.insight.quality import FirstPass, Quality, SecondPass, quality
from dinkcli.insight.survey import View, survey
from dinkcli.models.model import Model

if TYPE_CHECKING:
    import torch

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
    on_rows: OnRows = lambda phase, done: None,
) -> Evaluation:
    """Measures the clusters that ``model`` makes of ``data``, in two passes over it.

    Args:
        data: its column of labels, if it carries one, has the true classes.
        on_rows: called with the pass's name and the rows seen so far.

    Raises:
        InputError: rows that the model cannot take, or no labelled row at all.
        UsageError: SciPy is needed for labels, and is not installed.
    """
    first = FirstPass(model.n_clusters, model.n_features)
    counts = Contingency(model.n_clusters)
    unlabelled, label = 0, data.columns.label
    for view in survey(model, data, device):
        first.add(view)
        on_rows("assign", view.end)
        if label is not None and view.carried is not None:
            unlabelled += count_labels(counts, view.carried.column(label), view)
    second = SecondPass(first)
    for view in survey(model, data, device):
        second.add(view)
        on_rows("spread", view.end)
    measured = quality(first, second)
    if label is None:
        return Evaluation(measured)
    if not counts.classes:
        raise InputError(f"{data.name}: every label is null, nothing to compare the clusters with")
    order = _sorted(counts.classes)
    table = counts.table[order]
    classes = [counts.classes[i] for i in order]
    return Evaluation(measured, agreement(table), classes, table, unlabelled)


def count_labels(counts: Contingency, labels: pa.Array, view: View) -> int:
    """Counts a block's labels; returns how many are null or NaN."""
    if pa.types.is_nested(labels.type):
        raise UsageError(f"labels are {labels.type}, expected numbers, text or booleans")
    clusters = view.labels
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
