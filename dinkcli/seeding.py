"""First centres: k-means++ on a sample, random rows, or Xavier.

Shapes: S rows of the sample, N of them in this process, K clusters, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dinkcli.errors import InputError
from dinkcli.lloyd import wide
from dinkcli.nearest import chunk_rows
from dinkcli.products import products
from dinkcli.sample import Sample

_BATCH_SHARE = 4  # a batch of seeds is this part of those drawn before


def seed_centers(
    sample: Sample, n_clusters: int, init: str, generator: torch.Generator, part: int
) -> Tensor:
    """K centres (K, D), by one of ``options.SEEDINGS``.

    Args:
        part: rows of the sample that k-means++ draws from; it takes all of them when these do
            not have K distinct ones.

    Raises:
        InputError: k-means++ on fewer than K distinct rows.
    """
    if init == "xavier":
        bound = (6 / (n_clusters + sample.z.shape[1])) ** 0.5
        uniform = torch.rand(n_clusters, sample.z.shape[1], generator=generator)
        return ((uniform * 2 - 1) * bound).to(sample.z)
    if init == "random":
        first = torch.arange(min(n_clusters, len(sample)), device=sample.z.device)
        return sample.at(first, sample.z)  # the sample is in random order
    centers = kmeans_plus_plus(sample[:part], n_clusters, generator)
    if len(centers) < n_clusters and part < len(sample):
        centers = kmeans_plus_plus(sample, n_clusters, generator)
    if len(centers) < n_clusters:
        raise too_few_rows(len(centers), n_clusters)
    return centers


def kmeans_plus_plus(sample: Sample, n_clusters: int, generator: torch.Generator) -> Tensor:
    """Rows drawn with probability proportional to the squared distance to the nearest row drawn
    so far (Arthur and Vassilvitskii 2007); (K, D), or all the distinct rows when they are fewer.

    The first are drawn one after the other; then in batches, each a fraction of those before, as
    k-means|| does (Bahmani et al. 2012). One batch costs one product, so that all of it costs
    about one pass over the sample, where drawing one by one would cost K.
    """
    z = sample.z
    norms = z.square().sum(1)
    # Rounding leaves about this much where the distance is truly zero.
    noise = 4 * torch.finfo(z.dtype).eps * z.shape[1] ** 0.5 * norms
    chosen = torch.empty(0, dtype=torch.int64, device=z.device)
    mass = torch.ones_like(norms)
    distances = torch.full_like(norms, torch.inf)
    while len(chosen) < min(n_clusters, len(sample)):
        cumulative = sample.everywhere(sample.weigh(mass)).cumsum(0, dtype=wide(z.device))
        if not cumulative[-1] > 0:
            break
        number = min(max(1, len(chosen) // _BATCH_SHARE), n_clusters - len(chosen))
        drawn = _draw(sample, cumulative, number, generator)
        chosen = torch.cat([chosen, drawn])
        seeds = sample.at(drawn, z)
        new = _nearest_of(z, seeds, sample.at(drawn, norms)).add_(norms)
        distances = torch.minimum(distances, torch.where(new > noise, new, 0.0))
        distances[sample.here(drawn)[1]] = 0.0
        mass = distances
    centers = sample.at(chosen, z)
    if len(centers) < n_clusters:
        # What is left is zero, or zero to rounding: then any other rows will do.
        distinct = torch.unique(z, dim=0)[:n_clusters]
        distinct = torch.unique(sample.group.gather(distinct), dim=0)[:n_clusters]
        return distinct if len(distinct) > len(centers) else centers
    return centers


def _nearest_of(z: Tensor, centers: Tensor, squared_norms: Tensor) -> Tensor:
    """Squared distance to the nearest of ``centers`` (M, D) less the row's squared norm, (N,)."""
    rows = chunk_rows(*centers.shape)
    with products(z.device):
        parts = [
            torch.addmm(squared_norms, part, centers.T, alpha=-2).amin(1) for part in z.split(rows)
        ]
    return torch.cat(parts)


def _draw(sample: Sample, cumulative: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Positions of at most ``number`` distinct rows, by their cumulative mass (S,)."""
    draws = torch.rand(number, generator=generator, dtype=torch.float64).to(cumulative)
    rows = torch.searchsorted(cumulative, draws * cumulative[-1], right=True)
    rows = rows.clamp_(max=len(sample) - 1)
    if number == 1:
        return rows
    # Copies of one row count once, the lowest of them.
    rows = rows.unique()
    _, copies = torch.unique(sample.at(rows, sample.z), dim=0, return_inverse=True)
    first = torch.full((len(rows),), len(sample), device=rows.device)
    first.scatter_reduce_(0, copies, rows, "amin")
    return first[first < len(sample)]


def too_few_rows(distinct: int, n_clusters: int) -> InputError:
    return InputError(
        f"the data have {distinct} distinct rows, fewer than the {n_clusters} clusters asked "
        f"for; use -k {distinct} or less"
    )
