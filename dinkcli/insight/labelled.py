"""Names of clusters by the known labels of their rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dinkcli.data.dataset import DataSet
from dinkcli.insight.agreement import Contingency
from dinkcli.insight.evaluate import count_labels
from dinkcli.insight.survey import survey
from dinkcli.models.model import Model

if TYPE_CHECKING:
    import torch

_ENOUGH = 0.8  # of the rows of a cluster
_MOST = 3


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
