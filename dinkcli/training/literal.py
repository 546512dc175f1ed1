"""The paper's literal objective, shrink + w * dilation (Eq. 5 and 6), by Adam (docs/objective.md).

Shapes: K clusters, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch

from dinkcli.head.head import DinkClusterHead
from dinkcli.nearest.sums import full_pass
from dinkcli.options import TrainOptions
from dinkcli.training.passes import Pass
from dinkcli.training.progress import Descending, Progress
from dinkcli.training.rows import RowSource
from dinkcli.training.schedule import annealing_batch

_EPOCHS = 50
_LEARNING_RATE = 1e-3


def descend(
    rows: RowSource, options: TrainOptions, at: Progress, loop: Descending
) -> Iterator[Pass | None]:
    """Moves ``at`` on by gradient descent, epoch by epoch; yields the state before the first and
    after each, and None where the training could rest as well."""
    limit = options.epochs or _EPOCHS
    size = options.batch_size or annealing_batch(rows.n_rows, len(at.centers))
    head = DinkClusterHead(*at.centers.shape).to(at.centers.device)
    head.reset_cluster_centers(loop.weights)
    loop.weights = head.cluster_centers.detach()
    optimizer = torch.optim.Adam(head.parameters(), lr=_LEARNING_RATE)
    loop.resume(optimizer, head.cluster_centers)
    while loop.done <= limit:
        if loop.done:
            batches = rows.batches(size, options.seed, loop.done)
            for batch in islice(batches, loop.blocks, None):
                dilation, shrink = head(batch)
                optimizer.zero_grad()
                (shrink + options.dilation_weight * dilation).backward()
                optimizer.step()
                loop.updates += 1
                loop.blocks += 1
                yield None
        at.centers = rows.project(loop.weights.clone())
        found = full_pass(rows.blocks(), at.centers)
        at.measured(found)
        loop.done += 1
        loop.blocks = 0
        yield Pass(loop.done - 1, limit, found)
