"""First centres: k-means++ on a sample, random rows, or Xavier.

Shapes: N rows of the sample, K clusters, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dinkcli.errors import InputError
from dinkcli.lloyd import wide
from dinkcli.sample import Sample


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
        return sample.z[:n_clusters].clone()  # the sample is in random order
    centers = kmeans_plus_plus(sample[:part], n_clusters, generator)
    if len(centers) < n_clusters and part < len(sample):
        centers = kmeans_plus_plus(sample, n_clusters, generator)
    if len(centers) < n_clusters:
        raise too_few_rows(len(centers), n_clusters)
    return centers


def kmeans_plus_plus(sample: Sample, n_clusters: int, generator: torch.Generator) -> Tensor:
    """Rows drawn one after the other with probability proportional to the squared distance to
    the nearest row drawn so far (Arthur and Vassilvitskii 2007); (K, D), or all the distinct
    rows when they are fewer.
    """
    z = sample.z
    norms = z.square().sum(1)
    # Rounding leaves about this much where the distance is truly zero.
    noise = 4 * torch.finfo(z.dtype).eps * z.shape[1] ** 0.5 * norms
    chosen: list[Tensor] = []
    mass = torch.ones_like(norms)
    distances = torch.full_like(norms, torch.inf)
    for _ in range(min(n_clusters, len(z))):
        cumulative = sample.weigh(mass).cumsum(0, dtype=wide(z.device))
        if not cumulative[-1] > 0:
            break
        draw = torch.rand(1, generator=generator, dtype=torch.float64).to(cumulative)
        row = torch.searchsorted(cumulative, draw * cumulative[-1], right=True)
        row = row.clamp_(max=len(z) - 1)
        chosen.append(row)
        new = torch.addmv(norms, z, z[row[0]], alpha=-2).add_(norms[row])
        distances = torch.minimum(distances, torch.where(new > noise, new, 0.0))
        distances[row] = 0.0
        mass = distances
    centers = z[torch.cat(chosen)].clone()
    if len(centers) < n_clusters:
        # What is left is zero, or zero to rounding: then any other rows will do.
        distinct = torch.unique(z, dim=0)
        return distinct[:n_clusters] if len(distinct) > len(centers) else centers
    return centers


def too_few_rows(distinct: int, n_clusters: int) -> InputError:
    return InputError(
        f"the data have {distinct} distinct rows, fewer than the {n_clusters} clusters asked "
        f"for; use -k {distinct} or less"
    )
