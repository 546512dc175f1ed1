"""Deterministic annealing: the shrink loss at a falling temperature (Rose 1998).

Warm responsibilities pull every centre towards all rows, which keeps early mistakes from being
confirmed; cold ones make crisp clusters. Batches are small and many: running averages of the sums
take the place of full passes (stepwise EM, Cappe and Moulines 2009).

Shapes: B rows in a batch, K clusters, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dinkcli.nearest.float_range import largest_value
from dinkcli.nearest.sums import Statistics, row_dots, segment_sums
from dinkcli.nearest.tempered import (
    RunningAverages,
    TemperedSums,
    clusters_overlap,
    low_precision_temperature,
)
from dinkcli.training.sample import Sample
from dinkcli.training.schedule import seeding_size, step_sizes, temperatures

# Of the median merge temperature, where the first update begins: warmer, and centres merge for good
# (docs/objective.md, "The temperature, measured").
_START = 0.5
_POWER_ITERATIONS = 4  # to the largest eigenvalue of each cluster's covariance
_REPORTS = 12  # of an annealing
REPORT_ROWS = 2048  # for an estimate of the inertia
_PROBE_ROWS = 512  # that tell whether low_precision products serve


@dataclass
class Annealing:
    """Where an annealing stands: with the sample, all that its next update depends on.

    Attributes:
        centers: (K, D).
        shares: (K,) running average of the share of rows in each cluster.
        sums: (K, D) running average of the sum of their rows over all rows.
        start_temperature: of the first update.
        low_precision_above: the temperature from which on low_precision products serve.
        approximate: clusters are so wide that any of the centres about as near will do.
        temperature: of the last update.
        done: updates so far.
        position: first row of the next batch in the sample.
    """

    centers: Tensor
    shares: Tensor
    sums: Tensor
    start_temperature: float
    low_precision_above: float
    approximate: bool
    temperature: float = 0.0
    done: int = 0
    position: int = 0

    @classmethod
    def begin(cls, sample: Sample, centers: Tensor, labels: Tensor | None = None) -> Annealing:
        """From the means of the clusters that the first centres make of a part of the sample, at a
        temperature that suits them. ``labels`` are these clusters, where they are known."""
        part = sample[: seeding_size(len(sample), len(centers))]
        labels = part.labels(centers) if labels is None else labels
        centers = part.means(centers, labels)
        start = start_temperature(part, centers, labels)
        probe = part[:_PROBE_ROWS]
        low_precision_above = low_precision_temperature(probe.everywhere(probe.z), centers)
        shares, sums = torch.zeros_like(centers[:, 0]), torch.zeros_like(centers)
        approximate = clusters_overlap(part[:REPORT_ROWS].mean_inertia(centers), sample.moments[1])
        return cls(centers, shares, sums, start, low_precision_above, approximate)


def anneal(
    sample: Sample, at: Annealing, batch_size: int, steps: int, dilation: float
) -> Iterator[float | None]:
    """Moves ``at`` on to the last and coldest update.

    Yields after every update: the inertia per row of a part of its batch at each twelfth of the
    way, None in between. The weight of the dilation loss fades with the temperature, so that the
    last centres are means of their rows.
    """
    schedule = temperatures(at.start_temperature, steps)
    sizes = step_sizes(len(schedule))
    every = updates_per_report(steps)
    update = _updates(sample, at, batch_size) if at.done < len(schedule) else None
    while update is not None and at.done < len(schedule):
        at.temperature, step_size = schedule[at.done], sizes[at.done]
        if at.position + batch_size > len(sample):
            at.position = 0  # the sample is in random order already
        start, at.position = at.position, at.position + batch_size
        update(start, step_size)
        fading = dilation * at.temperature / schedule[0]
        at.centers = sample.project(Statistics(at.shares, at.sums).means(at.centers, fading))
        at.done += 1
        if at.done % every:
            yield None
            continue
        yield sample[start : start + min(batch_size, REPORT_ROWS)].mean_inertia(at.centers)


def _updates(sample: Sample, at: Annealing, batch_size: int) -> Callable[[int, float], None]:
    """What takes the batch from a row on into the running averages, with a weight."""
    if sample.z.device.type != "cpu" and sample.group.alone:
        averages = RunningAverages(sample.z, sample.weights, at.shares, at.sums, batch_size)
        at.shares, at.sums = averages.shares, averages.sums

        def update_there(start: int, step_size: float) -> None:
            low_precision = at.temperature >= at.low_precision_above
            averages.update(start, at.centers, at.temperature, low_precision, step_size)

        return update_there
    add_up = _sums_of(sample, at.centers, batch_size)

    def update(start: int, step_size: float) -> None:
        batch = sample[start : start + batch_size]
        weight = max(batch.total_weight, 1e-30)
        low_precision = at.temperature >= at.low_precision_above
        counts, total = add_up(
            batch.z, batch.weights, at.centers, at.temperature, low_precision, at.approximate
        )
        batch.group.sum_(counts, total)
        at.shares.lerp_((counts / weight).to(at.shares), step_size)
        at.sums.lerp_(total.div_(weight).to(at.sums), step_size)

    return update


def updates_per_report(steps: int) -> int:
    return max(1, steps // _REPORTS)


def _sums_of(sample: Sample, centers: Tensor, batch_size: int) -> TemperedSums:
    """What adds up batches of the sample, the same in every process."""
    heaviest = 1.0 if sample.weights is None else largest_value(sample.weights)
    largest = sample.group.largest(largest_value(sample.z), heaviest)
    usual = (sample.moments[1] / sample.z.shape[1]) ** 0.5, sample.total_weight / len(sample)
    return TemperedSums(centers, batch_size, largest, usual)


def start_temperature(sample: Sample, centers: Tensor, labels: Tensor) -> float:
    """Half of the temperature at which the typical pair of neighbouring centres would merge.

    A centre splits (or two merge) when the temperature falls (or rises) past twice the largest
    eigenvalue of its cluster's covariance (Rose 1998). Power iteration finds that eigenvalue
    for all clusters at once. The median ignores clusters of one row; 0 when most are such.

    Args:
        centers: (K, D) the means of the clusters.
        labels: (N,) the cluster of each row here.
    """
    z, group, n_clusters = sample.z, sample.group, len(centers)
    counts = torch.bincount(labels, minlength=n_clusters)
    group.sum_(counts)
    counts = counts.clamp(min=1).to(z.dtype)
    residuals = z - centers[labels]
    # Any start that is not orthogonal to the largest direction does; the farthest row of each
    # cluster has a large part of it.
    everyone = torch.arange(len(z), device=z.device)
    squares = torch.linalg.vecdot(residuals, residuals)
    direction = sample.farthest(squares, labels, residuals, n_clusters, everyone)
    eigenvalue = torch.zeros(n_clusters, dtype=z.dtype, device=z.device)
    for _ in range(_POWER_ITERATIONS):
        direction = torch.nn.functional.normalize(direction, dim=1)
        along = row_dots(residuals, direction, labels)
        sums = segment_sums(residuals, labels, n_clusters, along)
        group.sum_(sums)
        direction = (sums / counts[:, None]).to(z.dtype)
        eigenvalue = direction.norm(dim=1)
    start = _START * 2 * float(eigenvalue.median())
    return start if math.isfinite(start) else 0.0
