"""First centres: k-means++ on a sample, random rows, or Xavier.

Shapes: S rows of the sample, N of them in this process, K clusters, D features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dinkcli.errors import InputError
from dinkcli.nearest.index import nearest_seeds
from dinkcli.nearest.sums import running_sums
from dinkcli.training.sample import Sample
from dinkcli.training.schedule import seeding_size

_BATCH_SHARE = 4  # a batch of seeds is this part of those drawn before
_FIRST_STAGE = 64  # seeds at most; after it, and each time they are four times as many, more rows


class Seeds(NamedTuple):
    """First centres."""

    centers: Tensor  # (K, D)
    labels: Tensor | None = None  # (N,) the nearest of each row here that they were drawn from


def seed_centers(
    sample: Sample, n_clusters: int, init: str, generator: torch.Generator, part: int
) -> Seeds:
    """K centres, by one of ``options.SEEDINGS``. k-means++ draws from the first ``part`` rows, and
    from all when these do not have K distinct ones; an InputError when all have fewer."""
    if init == "xavier":
        bound = (6 / (n_clusters + sample.z.shape[1])) ** 0.5
        uniform = torch.rand(n_clusters, sample.z.shape[1], generator=generator)
        return Seeds(((uniform * 2 - 1) * bound).to(sample.z))
    if init == "random":
        return Seeds(sample[:n_clusters].whole().z.clone())  # the sample is in random order
    seeds = kmeans_plus_plus(sample[:part], n_clusters, generator)
    if len(seeds.centers) < n_clusters and part < len(sample):
        seeds = Seeds(kmeans_plus_plus(sample, n_clusters, generator).centers)
    if len(seeds.centers) < n_clusters:
        raise too_few_rows(len(seeds.centers), n_clusters)
    return seeds


def kmeans_plus_plus(sample: Sample, n_clusters: int, generator: torch.Generator) -> Seeds:
    """Rows drawn with probability proportional to the squared distance to the nearest row drawn
    so far (Arthur and Vassilvitskii 2007); K, or all the distinct rows when they are fewer.

    The first are drawn one after the other; then in batches, each a fraction of those before, as
    k-means|| does (Bahmani et al. 2012), and from more rows as they become more: one by one from
    all would read the sample K times.
    """
    chosen = torch.empty(0, dtype=torch.int64, device=sample.z.device)
    stages = [n_clusters]
    while stages[0] > _FIRST_STAGE:
        stages.insert(0, -(-stages[0] // 4))
    for number in stages:
        last = number == n_clusters
        part = sample if last else sample[: seeding_size(len(sample), number)]
        chosen, labels = _draw_up_to(part, chosen, number, generator)
    centers = sample.select(chosen)
    if len(centers) < n_clusters:
        # What is left is zero, or zero to rounding: then any other rows will do.
        distinct = sample.distinct(n_clusters)
        if len(distinct) > len(centers):
            return Seeds(distinct)
    return Seeds(centers, labels)


def _draw_up_to(
    sample: Sample, chosen: Tensor, n_clusters: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Positions (K,) of those ``chosen`` before and of more, or of fewer when all other rows are
    copies of them; and the nearest one of each row here (N,)."""
    z = sample.z
    norms = torch.linalg.vector_norm(z, dim=1).square_()
    labels = torch.zeros_like(norms, dtype=torch.int64)
    distances = torch.full_like(norms, torch.inf)
    if len(chosen):
        labels, distances = nearest_seeds(z, norms, sample.select(chosen))
    while len(chosen) < min(n_clusters, len(sample)):
        mass = distances if len(chosen) else torch.ones_like(norms)
        cumulative = running_sums(sample.gathered(sample.weigh(mass)))
        if not cumulative[-1] > 0:
            break
        number = min(max(1, len(chosen) // _BATCH_SHARE), n_clusters - len(chosen))
        drawn = _draw(sample, cumulative, number, generator)
        near = nearest_seeds(z, norms, sample.select(drawn))
        nearer = near.squared_distances < distances
        distances = torch.where(nearer, near.squared_distances, distances)
        labels = torch.where(nearer, near.labels + len(chosen), labels)
        distances[sample.local(drawn)[1]] = 0.0
        chosen = torch.cat([chosen, drawn])
    return chosen, labels


def _draw(sample: Sample, cumulative: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Positions of at most ``number`` distinct rows, by their cumulative mass (S,)."""
    draws = torch.rand(number, generator=generator, dtype=torch.float64).to(cumulative)
    rows = torch.searchsorted(cumulative, draws * cumulative[-1], right=True)
    rows = rows.clamp_(max=len(sample) - 1)
    if number == 1:
        return rows
    # Copies of one row count once, the lowest of them.
    rows = rows.unique()
    _, copies = torch.unique(sample.select(rows), dim=0, return_inverse=True)
    first = torch.full((len(rows),), len(sample), device=rows.device)
    first.scatter_reduce_(0, copies, rows, "amin")
    return first[first < len(sample)]


def too_few_rows(distinct: int, n_clusters: int) -> InputError:
    return InputError(
        f"the data have {distinct} distinct rows, fewer than the {n_clusters} clusters asked "
        "for (rows that float32 cannot tell apart count as one); use `n_clusters` "
        f"{distinct} or less"
    )
