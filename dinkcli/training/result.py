"""What a training has found, as a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dinkcli import __version__
from dinkcli.models.edit import statistics_of
from dinkcli.models.model import Model
from dinkcli.models.statistics import Statistics
from dinkcli.nearest.index import CenterIndex
from dinkcli.options import LEARNED
from dinkcli.training.checkpoint import capture
from dinkcli.training.trainer import Trainer

_LOOKED_AT = 1 << 16  # rows, of which every cluster has some (docs/LOG.md)


def model_of(trainer: Trainer, history: list[dict[str, Any]]) -> Model:
    """The model so far. No clock and no path of the machine goes in: the same data, options and
    seed give the same bytes on the same machine."""
    options, data = trainer.options, trainer.rows.data
    last = history[-1] if history else {}
    names = ("inertia", "dilation_loss", "shrink_loss")
    metrics: dict[str, Any] = {name: last[name] for name in names if name in last}
    if trainer.free_inertia is not None:
        metrics["free_inertia"] = trainer.free_inertia
    metrics["cluster_inertia"] = trainer.at.cluster_inertia.tolist()
    training = {
        "options": options.as_dict(),
        "input": {**data.fingerprint(), "bad_rows": trainer.rows.n_bad},
        "metrics": metrics,
        "versions": {"dink": __version__, "torch": str(torch.__version__)},
        "history": history,
    }
    matrix = origin = None
    if options.metric == LEARNED:
        rows = trainer.rows
        if rows.map is not None:
            matrix, origin = rows.map.matrix.float().cpu().numpy(), rows.shift.numpy()
        else:  # what a checkpoint holds before a map is learned is a model without one
            matrix = np.eye(rows.n_features, dtype=np.float32)
            origin = np.zeros_like(matrix[0])
    return Model(
        trainer.cluster_centers.numpy(),
        trainer.at.counts.cpu().numpy().astype(np.float64),
        options.metric,
        data.column,
        list(data.feature_names),
        training,
        map=matrix,
        origin=origin,
        offset=data.offset,
    )


def row_statistics(trainer: Trainer, model: Model) -> Statistics:
    """Of the rows of each cluster of the trained ``model``; their distances are those of about
    65,536 rows, in blocks that lie evenly among all."""
    rows, group = trainer.rows, trainer.rows.group
    found = statistics_of(model)
    index = CenterIndex(trainer.at.centers)
    step = 1
    for number, (z, weights) in enumerate(rows.blocks()):
        if number == 0:
            step = max(1, rows.n_rows // group.size // max(len(z), _LOOKED_AT))
        if number % step == 0:
            near = index.nearest(z)
            ones = np.ones(len(z)) if weights is None else weights.cpu().numpy()
            found.count(near.labels.cpu().numpy(), near.squared_distances.cpu().numpy(), ones)
    distances = torch.from_numpy(found.distances)
    group.sum_(distances)
    return found


def checkpoint_of(trainer: Trainer, history: list[dict[str, Any]], sums: dict[str, int]) -> Model:
    """The model so far with all that the training needs to go on; ``sums`` tell its rows."""
    model = model_of(trainer, history)
    model.state = capture(trainer, sums)
    return model
