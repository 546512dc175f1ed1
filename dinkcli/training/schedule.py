"""How much of what: temperatures, batch and sample sizes, as functions of the data.

The constants come from experiments of 2026-11-24 (efforts) and 2026-11-25 in docs/LOG.md.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from dinkcli.nearest.sums import row_dots
from dinkcli.training.sample import Sample

MAX_PASSES = 30  # over all rows, where nothing else ends them
# Of the median merge temperature, where the first update begins: warmer, and centres merge for good
# (docs/objective.md, "The temperature, measured").
_START = 0.5
_POWER_ITERATIONS = 4  # to the largest eigenvalue of each cluster's covariance
_END = 0.05  # of the first temperature, and of the first step size
_STEPS = 240  # updates while annealing: with half, inertia ends 0.07 % higher
_ANNEALING_EPOCHS = 6  # times that each row of a small sample is used at most
# Multiplications of a pass over the sample, as ``effort`` counts: some 5 and 1 ms on two cores.
# Below the first the effort is thorough, below the second four starts cost nothing.
_CHEAP_PASS = 250 * 10**6
_TINY_PASS = 40 * 10**6
_FEW_CLUSTERS = 64  # for which an update takes as long as calling it
_MANY_CLUSTERS = 512  # which are fine, and need two thirds of the features as axes
# Features between which main axes pay: with fewer the products are short already, with more the
# axes take longer to find than they save.
_FEW_FEATURES = 96
_MANY_FEATURES = 4096
_MOST_AXES = 256
_BREATHING_PRODUCT = 10**8  # multiplications of a pass that makes breaths take longer than passes


class Effort(NamedTuple):
    """Starts, updates while annealing, and what ``refine`` works on and when it ends."""

    n_init: int
    annealing_steps: int  # of each start
    annealing_batch: int  # rows of one
    breathing_rows: int  # that breaths are judged by; 0 for no breaths
    moves: int  # centres that the first breath moves
    tol: float  # a round that lowers the inertia by a smaller share of it is a poor one
    patience: int  # poor rounds in a row that end a number of moves, or the swaps


def effort(n_rows: int, n_clusters: int, n_features: int) -> Effort:
    """Thorough where a pass over the sample is a matter of milliseconds, brief elsewhere."""
    few = min(5, n_clusters)
    # Looking at a row at all costs as much as some clusters or features.
    cost = n_rows * (n_clusters + 64) * (n_features + 128)
    if cost <= _CHEAP_PASS:
        n_init = 4 if cost <= _TINY_PASS else 1
        batch, moves = annealing_batch(n_rows, n_clusters), max(few, n_clusters // 2)
        return Effort(n_init, _STEPS, batch, n_rows, moves, tol=1e-4, patience=2)
    # Of few clusters, a small update costs little more than calling it.
    least, most = (512, _STEPS // 2) if n_clusters <= _FEW_CLUSTERS else (256, _STEPS)
    batch = annealing_batch(n_rows, n_clusters, least)
    steps = max(_STEPS // 4, min(most, _ANNEALING_EPOCHS * n_rows // batch))
    rows = min(n_rows, max(8192, 256 * n_clusters))
    if rows * n_clusters * n_features > _BREATHING_PRODUCT:
        rows = 0
    return Effort(1, steps, batch, rows, few, tol=1e-3, patience=1)


def annealing_batch(n_rows: int, n_clusters: int, least: int = 256) -> int:
    """Rows per update while annealing: many noisy updates beat few exact ones of the same cost."""
    return min(n_rows, max(least, 2 * n_clusters))


def sample_size(n_rows: int, n_clusters: int, n_features: int, memory: int) -> int:
    """Rows on which centres are annealed and refined before the passes over all rows."""
    fits = max(seeding_size(n_rows, n_clusters), memory // (4 * n_features))
    return min(n_rows, max(65536, 512 * n_clusters), fits)


def seeding_size(n_rows: int, n_clusters: int) -> int:
    """Rows from which the first centres are drawn."""
    return min(n_rows, max(2048, 32 * n_clusters))


def most_axes(n_clusters: int, n_features: int) -> int:
    """Axes that the sample may be reduced to; 0 where it is not worth while."""
    if not _FEW_FEATURES <= n_features <= _MANY_FEATURES:
        return 0
    # Many clusters are fine ones, which need more axes, and worth the milliseconds to find them.
    return min(_MOST_AXES, 2 * n_features // 3 if n_clusters > _MANY_CLUSTERS else n_features // 2)


def cooling(start: float, steps: int) -> list[tuple[float, float]]:
    """The temperature of each update, and the weight of its batch in the running averages, which
    fall from ``start`` and from 1; none where the start is 0."""
    ratios = [_END ** (step / max(1, steps - 1)) for step in range(steps if start else 0)]
    return [(start * ratio, ratio) for ratio in ratios]


def start_temperature(sample: Sample, centers: Tensor, labels: Tensor) -> float:
    """Half of the temperature at which the typical pair of neighbouring ``centers`` (K, D), means
    of the clusters ``labels`` (N,), would merge.

    A centre splits (or two merge) when the temperature falls (or rises) past twice the largest
    eigenvalue of its cluster's covariance (Rose 1998). Power iteration finds that eigenvalue
    for all clusters at once. The median ignores clusters of one row; 0 when most are such.
    """
    z, n_clusters = sample.z, len(centers)
    counts = sample.sums(torch.ones_like(z[:, 0]), labels, n_clusters).clamp(min=1).to(z.dtype)
    residuals = z - centers[labels]
    # Any start that is not orthogonal to the largest direction does; the farthest row of each
    # cluster has a large part of it.
    squares = torch.linalg.vecdot(residuals, residuals)
    rows = torch.arange(len(z), device=z.device)
    direction = sample.farthest(rows, squares, labels, n_clusters) - centers
    for _ in range(_POWER_ITERATIONS):
        direction = torch.nn.functional.normalize(direction, dim=1)
        along = row_dots(residuals, direction, labels)
        sums = sample.sums(residuals, labels, n_clusters, along)
        direction = (sums / counts[:, None]).to(z.dtype)
    start = _START * 2 * float(direction.norm(dim=1).median())
    return start if math.isfinite(start) else 0.0
