"""Where deterministic annealing begins, and how often it reports.

Shapes: N rows of the sample in this process, K clusters, D features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dinkcli.nearest.sums import row_dots
from dinkcli.training.sample import Sample

# Of the median merge temperature, where the first update begins: warmer, and centres merge for good
# (docs/objective.md, "The temperature, measured").
_START = 0.5
_POWER_ITERATIONS = 4  # to the largest eigenvalue of each cluster's covariance
_REPORTS = 12  # of an annealing


def updates_per_report(steps: int) -> int:
    return max(1, steps // _REPORTS)


def start_temperature(sample: Sample, centers: Tensor, labels: Tensor) -> float:
    """Half of the temperature at which the typical pair of neighbouring centres would merge.

    A centre splits (or two merge) when the temperature falls (or rises) past twice the largest
    eigenvalue of its cluster's covariance (Rose 1998). Power iteration finds that eigenvalue
    for all clusters at once. The median ignores clusters of one row; 0 when most are such.

    Args:
        centers: (K, D) the means of the clusters.
        labels: (N,) the cluster of each row here.
    """
    z, n_clusters = sample.z, len(centers)
    counts = sample.sums(torch.ones_like(z[:, 0]), labels, n_clusters).clamp(min=1).to(z.dtype)
    residuals = z - centers[labels]
    # Any start that is not orthogonal to the largest direction does; the farthest row of each
    # cluster has a large part of it.
    squares = torch.linalg.vecdot(residuals, residuals)
    rows = torch.arange(len(z), device=z.device)
    direction = sample.farthest(squares, labels, residuals, n_clusters, rows)
    for _ in range(_POWER_ITERATIONS):
        direction = torch.nn.functional.normalize(direction, dim=1)
        along = row_dots(residuals, direction, labels)
        sums = sample.sums(residuals, labels, n_clusters, along)
        direction = (sums / counts[:, None]).to(z.dtype)
    start = _START * 2 * float(direction.norm(dim=1).median())
    return start if math.isfinite(start) else 0.0
