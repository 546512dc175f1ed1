"""``dink evaluate``: how good clusters are, with known classes and without; and names
of clusters by the known labels of their rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinkcli.data.dataset import DataSet
from dinkcli.data.formats.types import is_text
from dinkcli.errors import InputError, UsageError
from dinkcli.insight.agreement import Agreement, Contingency, agreement
from dinkcli.insight.quality import OnRows, Quality, measured
from dinkcli.insight.survey import View, survey
from dinkcli.models.model import Model

if TYPE_CHECKING:
    import torch

_ENOUGH = 0.8  # of the rows of a cluster, for its name
_MOST = 3  # labels in it


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
    counts = Contingency(model.n_clusters)
    label = data.columns.label
    found = measured(model, data, device, on_rows, lambda view: count_labels(counts, label, view))
    if label is None:
        return Evaluation(found)
    if not counts.classes:
        raise InputError(f"{data.name}: every label is null, nothing to compare the clusters with")
    order = _sorted(counts.classes)
    table = counts.table[order]
    classes = [counts.classes[i] for i in order]
    return Evaluation(found, agreement(table), classes, table, counts.unlabelled)


def count_labels(counts: Contingency, label: str | None, view: View) -> None:
    """Counts the labels in the column ``label`` of a view, where there is one."""
    if label is None or view.carried is None:
        return
    labels = view.carried.column(label)
    if pa.types.is_nested(labels.type):
        raise UsageError(f"labels are {labels.type}, expected numbers, text or booleans")
    if pa.types.is_dictionary(labels.type):
        labels = labels.dictionary_decode()
    if is_text(labels.type):  # a blank is no class
        blank = pc.equal(pc.utf8_trim_whitespace(labels), "")
        labels = pc.if_else(blank, pa.scalar(None, labels.type), labels)
    labelled = ~labels.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
    counts.unlabelled += len(labels) - int(labelled.sum())
    if labelled.any():
        encoded = labels.filter(pa.array(labelled)).dictionary_encode()
        values, codes = encoded.dictionary.to_pylist(), encoded.indices
        clusters = view.labels[labelled]
        counts.add(values, codes.to_numpy(zero_copy_only=False), clusters)


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


def names_by_labels(
    model: Model,
    data: DataSet,
    device: torch.device | str = "cpu",
    on_rows: Callable[[int], None] = lambda done: None,
) -> list[str]:
    """K names: the commonest label of each cluster, and the next ones, at most three, until most of
    its rows have one of them; "" for a cluster without labelled rows.

    Raises:
        InputError: rows that the model cannot take.
        UsageError: labels that are no labels: lists, or as many as rows.
        ValueError: the data carry no labels.
    """
    if data.columns.label is None:
        raise ValueError(f"{data.name}: without a column of labels")
    counts = Contingency(model.n_clusters)
    for view in survey(model, data, device):
        count_labels(counts, data.columns.label, view)
        on_rows(view.end)
    return [_name(counts.classes, column) for column in counts.table.T]


def _name(classes: list[Any], counts: np.ndarray) -> str:
    order = [i for i in (-counts).argsort(kind="stable")[:_MOST].tolist() if counts[i]]
    chosen: list[str] = []
    rows = 0
    for i in order:
        if rows >= _ENOUGH * counts.sum():
            break
        chosen.append(str(classes[i]))
        rows += int(counts[i])
    return ", ".join(chosen)
