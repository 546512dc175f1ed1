"""How much of what: temperatures, batch and sample sizes, as functions of the data.

Shapes: N rows, K clusters, D features. docs/LOG.md has the measurements behind the constants.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dinkcli.lloyd import segment_sums
from dinkcli.nearest import Nearest

ANNEALING_STEPS = 15
_START = 0.5  # of the median merge temperature
_END = 0.05  # of the start
_POWER_ITERATIONS = 6


def annealing_batch(n_rows: int, n_clusters: int) -> int:
    """Rows per update while annealing: all when they are few, else 64 for each centre."""
    batch = max(4096, 64 * n_clusters)
    return n_rows if n_rows <= 2 * batch else batch


def sample_size(n_rows: int, n_clusters: int) -> int:
    """Rows on which centres are annealed and refined before the passes over all rows."""
    return min(n_rows, max(65536, 512 * n_clusters))


def temperatures(start: float, steps: int = ANNEALING_STEPS) -> list[float]:
    """From ``start`` down to a twentieth of it in equal ratios."""
    if start == 0:
        return []
    return [start * _END ** (step / max(1, steps - 1)) for step in range(steps)]


def start_temperature(z: Tensor, centers: Tensor, near: Nearest) -> float:
    """Half of the temperature at which the typical pair of neighbouring centres would merge.

    A centre splits (or two merge) when the temperature falls (or rises) past twice the largest
    eigenvalue of its cluster's covariance (Rose 1998). Power iteration finds that eigenvalue
    for all clusters at once. The median ignores clusters of one row; 0 when most are such.
    """
    labels, n_clusters = near.labels, len(centers)
    counts = torch.bincount(labels, minlength=n_clusters).clamp(min=1).to(z.dtype)
    residuals = z - centers[labels]
    # Any start that is not orthogonal to the largest direction does; the farthest row of each
    # cluster has a large part of it.
    order = near.squared_distances.argsort()
    direction = torch.zeros_like(centers)
    direction[labels[order]] = residuals[order]
    eigenvalue = torch.zeros(n_clusters, dtype=z.dtype, device=z.device)
    for _ in range(_POWER_ITERATIONS):
        direction = torch.nn.functional.normalize(direction, dim=1)
        along = (residuals * direction[labels]).sum(1, keepdim=True)
        direction = segment_sums(residuals * along, labels, n_clusters) / counts[:, None]
        eigenvalue = direction.norm(dim=1)
    start = _START * 2 * float(eigenvalue.median())
    return start if math.isfinite(start) else 0.0
