"""A cluster of a model in parts, by its rows."""

from __future__ import annotations

import numpy as np
import torch

from dinkcli.data.array import ArrayReader
from dinkcli.data.dataset import DataSet
from dinkcli.errors import UsageError
from dinkcli.insight.survey import survey
from dinkcli.models import edit
from dinkcli.models.model import Model
from dinkcli.models.statistics import Statistics
from dinkcli.models.tree import squared_distances
from dinkcli.options import TrainOptions
from dinkcli.training.rows import RowSource
from dinkcli.training.trainer import Trainer


def split(
    model: Model, cluster: int, data: DataSet, n_parts: int, seed: int, device: torch.device
) -> Model:
    """The model with a cluster in ``n_parts``, found by training on those of its rows that
    ``data`` has."""
    if n_parts < 2:
        raise UsageError(f"split {cluster}:{n_parts}: expected two or more parts")
    edit.check_present(model, [cluster])
    z = np.concatenate([view.z[view.labels == cluster] for view in survey(model, data, device)])
    if len(z) < n_parts:
        raise UsageError(f"split {cluster}:{n_parts}: {data.name} has {len(z)} of its rows")
    metric = "cosine" if model.metric == "cosine" else "euclidean"
    rows = RowSource(DataSet([ArrayReader(z)]), metric, device)
    trainer = Trainer(rows, TrainOptions(n_parts, metric=metric, seed=seed))
    for _ in trainer.steps():
        pass
    centers = trainer.cluster_centers.double().numpy()
    squares = squared_distances(z, centers)
    of_rows = z, squares.argmin(1), squares.min(1), np.ones(len(z)), centers
    parts = Statistics.of_rows(*of_rows, edit.statistics_of(model).first_bin)
    return edit.split(model, cluster, parts)
