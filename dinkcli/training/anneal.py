"""Deterministic annealing: the shrink loss at a falling temperature (Rose 1998).

Warm responsibilities pull every centre towards all rows, which keeps early mistakes from being
confirmed; cold ones make crisp clusters. Batches are small and many: running averages of the sums
take the place of full passes (stepwise EM, Cappe and Moulines 2009).

Shapes: B rows in a batch, K clusters, D features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dinkcli.nearest.index import CenterIndex, chunk_rows
from dinkcli.nearest.limits import largest_value
from dinkcli.nearest.products import has_short_products, products
from dinkcli.nearest.scores import Scratch
from dinkcli.nearest.sums import Statistics, row_dots, segment_sums
from dinkcli.training.sample import Sample
from dinkcli.training.schedule import seeding_size, step_sizes, temperatures

_START = 0.5  # of the median merge temperature
_POWER_ITERATIONS = 4
_REPORTS = 12
REPORT_ROWS = 2048  # for an estimate of the inertia
_LEAST_EXPONENT = -60.0
_PROBE_ROWS = 512
# Few of many centres have a part in a row: sums of these few cost a tenth of a product in float64
# with all, and inertia ends the same to 0.05 %.
_MANY_CLUSTERS = 160
_KEPT = 4
_CACHED_ELEMENTS = 1 << 19
_LEAST_KEPT = 1e-3
_WIDEST = 1024.0  # times the usual size
# Short products serve where their error moves no exponent 2 <z, c> / T by more than a tenth.
_SHORT_PRODUCTS = 20.0
# Where the mean squared distance is this share of the mean squared norm, what bfloat16 products are
# off by does not matter: 2**-7 of the norm at most, and in 30 dimensions a tenth of that for
# differences of squared distances.
_WIDE = 2.0**-5


@dataclass
class Annealing:
    """Where an annealing stands: with the sample, all that its next update depends on.

    Attributes:
        centers: (K, D).
        shares: (K,) running average of the share of rows in each cluster.
        sums: (K, D) running average of the sum of their rows over all rows.
        start_temperature: of the first update.
        short_above: the temperature from which on short products serve.
        rough: clusters are so wide that any of the centres about as near will do.
        temperature: of the last update.
        done: updates so far.
        position: first row of the next batch in the sample.
    """

    centers: Tensor
    shares: Tensor
    sums: Tensor
    start_temperature: float
    short_above: float
    rough: bool
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
        short_above = _SHORT_PRODUCTS * _product_error(probe.everywhere(probe.z), centers)
        shares, sums = torch.zeros_like(centers[:, 0]), torch.zeros_like(centers)
        rough = part[:REPORT_ROWS].mean_inertia(centers) >= _WIDE * sample.moments[1]
        return cls(centers, shares, sums, start, short_above, rough)


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
    grids = _grids(sample, batch_size)
    # Centres that divide as they cool grow differences from the last bits of a sum: in float32 one
    # run of three ended elsewhere when several processes shared the rows. Many GPUs have next to no
    # float64.
    on_cpu = at.centers.device.type == "cpu"
    room = torch.empty_like(at.centers, dtype=torch.float64 if on_cpu else None)
    while at.done < len(schedule):
        at.temperature, step_size = schedule[at.done], sizes[at.done]
        if at.position + batch_size > len(sample):
            at.position = 0  # the sample is in random order already
        batch = sample[at.position : at.position + batch_size]
        at.position += batch_size
        weight = max(batch.total_weight, 1e-30)
        counts, total = _tempered_sums(batch, at, grids, room)
        batch.group.sum_(counts, total)
        at.shares.lerp_((counts / weight).to(at.shares), step_size)
        at.sums.lerp_(total.div_(weight).to(at.sums), step_size)
        fading = dilation * at.temperature / schedule[0]
        at.centers = sample.project(Statistics(at.shares, at.sums).means(at.centers, fading))
        at.done += 1
        yield batch[:REPORT_ROWS].mean_inertia(at.centers) if at.done % every == 0 else None


def updates_per_report(steps: int) -> int:
    return max(1, steps // _REPORTS)


def _product_error(z: Tensor, centers: Tensor) -> float:
    """How far short products of ``z`` and the centres are off (root mean square); infinity where
    there are none to be had."""
    if not has_short_products(z.device, z.dtype):
        return math.inf
    with products(z.device, short=True):
        found = z @ centers.T
    with products(z.device):
        return float((found - z @ centers.T).square().mean().sqrt())


def _grids(sample: Sample, batch_size: int) -> tuple[float, float]:
    """Numbers that round responsibilities (times weights) and rows when they are added in float32
    and taken away again: to so few bits that sums over a batch of their products are exact in
    float64, and so the same in whatever order and however rows are shared between processes.

    0, which rounds nothing, where a few huge ones would leave the others no digits."""
    bits = (53 - batch_size.bit_length()) // 2
    heaviest = 1.0 if sample.weights is None else largest_value(sample.weights)
    limits = sample.group.largest(largest_value(sample.z), heaviest)
    usual = (sample.moments[1] / sample.z.shape[1]) ** 0.5, sample.total_weight / len(sample)
    row, weight = (
        1.5 * 2.0 ** (math.frexp(limit)[1] + 23 - bits) if limit <= _WIDEST * typical else 0.0
        for limit, typical in zip(limits, usual, strict=True)
    )
    return weight, row


def _tempered_sums(
    batch: Sample, at: Annealing, grids: tuple[float, float], room: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight (K,) and sum of weighted rows (K, D) under the responsibilities, of the rows here, in
    the dtype of ``room`` (K, D), where the sums go: fresh pages would cost as much as they do.
    """
    centers, temperature = at.centers, at.temperature
    sums = room.zero_()
    counts = torch.zeros_like(sums[:, 0])
    on_cpu = centers.device.type == "cpu"
    if on_cpu and len(centers) >= _MANY_CLUSTERS:
        _add_few(counts, sums, batch, at, grids)
        return counts, sums
    bias = centers.square().sum(1) / -temperature
    done = 0
    for z in batch.z.split(chunk_rows(*centers.shape)):
        # ||z||^2 is the same for all centres of a row and drops out of the softmax.
        with products(z.device, short=temperature >= at.short_above):
            r = _softmax_(torch.addmm(bias, z, centers.T, alpha=2 / temperature))
            if batch.weights is not None:
                r *= batch.weights[done : done + len(z), None]
            if on_cpu:
                r.add_(grids[0]).sub_(grids[0])
                z = z.add(grids[1]).sub_(grids[1])
            r, z = r.to(sums), z.to(sums)
            counts += r.sum(0)
            sums.addmm_(r.T, z)
        done += len(z)
    return counts, sums


def _add_few(
    counts: Tensor, sums: Tensor, batch: Sample, at: Annealing, grids: tuple[float, float]
) -> None:
    """Adds the ``_KEPT`` largest responsibilities of each row, and the row times these."""
    labels, distances = CenterIndex(at.centers).nearest_few(batch.z, _KEPT, at.rough)
    # Along rows in memory: otherwise the last bits would depend on where in the batch a row is.
    r = _softmax_(distances.T.contiguous().div_(-at.temperature))
    r.mul_(r > _LEAST_KEPT)
    if batch.weights is not None:
        r *= batch.weights[:, None]
    r = r.add_(grids[0]).sub_(grids[0]).double().flatten()
    labels = labels.T.flatten()
    counts.index_add_(0, labels, r)
    scratch = Scratch(batch.z.device)
    used = r.nonzero()[:, 0]
    for some in used.split(max(1, _CACHED_ELEMENTS // batch.z.shape[1])):
        shape = len(some), batch.z.shape[1]
        z = scratch("rows", shape, batch.z.dtype)
        torch.index_select(batch.z, 0, some // _KEPT, out=z).add_(grids[1]).sub_(grids[1])
        weighted = scratch("weighted", shape, torch.float64).copy_(z).mul_(r[some, None])
        sums.index_add_(0, labels[some], weighted)


def _softmax_(scores: Tensor) -> Tensor:
    """Responsibilities (B, M), in other memory; below ``_LEAST_EXPONENT`` they would be denormal
    numbers, on which products take ten times as long."""
    scores.sub_(scores.amax(1, keepdim=True)).clamp_(min=_LEAST_EXPONENT)
    return scores.softmax(1)


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
