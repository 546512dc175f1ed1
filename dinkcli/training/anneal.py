"""Deterministic annealing: the shrink loss at a falling temperature (Rose 1998).

Warm responsibilities pull every centre towards all rows, which keeps early mistakes from being
confirmed; cold ones make crisp clusters. Batches are small and many: running averages of the sums
take the place of full passes.

Shapes: N rows of the sample in this process, K clusters, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from dinkcli.nearest.sums import row_dots
from dinkcli.training.sample import REPORT_ROWS, Averages, Sample
from dinkcli.training.schedule import cooling, seeding_size

# Of the median merge temperature, where the first update begins: warmer, and centres merge for good
# (docs/objective.md, "The temperature, measured").
_START = 0.5
_POWER_ITERATIONS = 4  # to the largest eigenvalue of each cluster's covariance
_REPORTS = 12  # of an annealing
Report = TypeVar("Report")


class Update(NamedTuple):
    """What an update has made: its number from 1, its temperature, the centres (K, D), the share
    of the rows in each cluster (K,), and the inertia per row of a part of its batch."""

    number: int
    temperature: float
    centers: Tensor
    shares: Tensor
    mean_inertia: float


def anneal(
    sample: Sample,
    centers: Tensor,
    labels: Tensor | None,
    batch_size: int,
    steps: int,
    dilation: float,
    report: Callable[[Update], Report],
) -> Generator[Report, None, tuple[Tensor, bool]]:
    """Cools from a temperature that suits the first ``centers`` (K, D) to a twentieth of it.

    The weight of the dilation loss fades with the temperature, so that the last centres are means
    of their rows.

    Args:
        labels: (N,) the nearest of the centres of the first rows, where they are known.

    Yields:
        Every twelfth of the way, what ``report`` makes of an update.

    Returns:
        The centres, and whether clusters overlap.
    """
    part = sample[: seeding_size(len(sample), len(centers))]
    labels = part.labels(centers) if labels is None else labels
    centers = part.means(centers, labels)
    start = start_temperature(part, centers, labels)
    overlap = sample.overlap(centers)
    averages = Averages(sample, centers, batch_size, overlap)
    first = 0
    for number, (temperature, step_size) in enumerate(cooling(start, steps), 1):
        if first + batch_size > len(sample):
            first = 0  # the sample is in random order already
        averages.update(first, centers, temperature, step_size)
        centers = averages.means(centers, dilation * temperature / start)
        if number % updates_per_report(steps) == 0:
            inertia = sample[first : first + min(batch_size, REPORT_ROWS)].mean_inertia(centers)
            yield report(Update(number, temperature, centers, averages.shares, inertia))
        first += batch_size
    return centers, overlap


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
