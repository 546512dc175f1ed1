"""First centres: k-means++ on a sample, random rows, Xavier, or given ones.

Shapes: N rows of the sample, K clusters, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dinkcli.errors import InputError


def seed_centers(
    z: Tensor, weights: Tensor | None, n_clusters: int, init: str, generator: torch.Generator
) -> Tensor:
    """K centres (K, D) from the sample ``z`` (N, D), by one of ``SEEDINGS``."""
    if init == "xavier":
        bound = (6 / (n_clusters + z.shape[1])) ** 0.5
        uniform = torch.rand(n_clusters, z.shape[1], generator=generator)
        return ((uniform * 2 - 1) * bound).to(z)
    if init == "random":
        return z[torch.randperm(len(z), generator=generator)[:n_clusters].to(z.device)].clone()
    return kmeans_plus_plus(z, weights, n_clusters, generator)


def kmeans_plus_plus(
    z: Tensor,
    weights: Tensor | None,
    n_clusters: int,
    generator: torch.Generator,
    candidates: int = 1,
) -> Tensor:
    """Rows drawn one after the other with probability proportional to the squared distance to
    the nearest row drawn so far (Arthur and Vassilvitskii 2007); the best of ``candidates``
    draws is kept each time (the greedy variant).

    Raises:
        InputError: fewer than ``n_clusters`` distinct rows.
    """
    if n_clusters > len(z):
        raise too_few_rows(len(z), n_clusters)
    norms = z.square().sum(1)
    # Rounding leaves about this much where the distance is truly zero.
    noise = 4 * torch.finfo(z.dtype).eps * z.shape[1] ** 0.5 * norms
    chosen: list[Tensor] = []
    distances = torch.full_like(norms, torch.inf)
    for k in range(n_clusters):
        mass = torch.ones_like(norms) if k == 0 else distances
        if weights is not None:
            mass = mass * weights
        cumulative = mass.cumsum(0, dtype=torch.float64 if z.device.type != "mps" else None)
        total = cumulative[-1]
        if not total > 0:
            return _distinct_rows(z, n_clusters)
        draws = torch.rand(candidates, generator=generator, dtype=torch.float64)
        rows = torch.searchsorted(cumulative, draws.to(cumulative) * total, right=True)
        rows = rows.clamp_(max=len(z) - 1)
        new = torch.addmm(norms[rows], z, z[rows].T, alpha=-2).add_(norms[:, None])
        new = torch.where(new > noise[:, None], new, 0.0)
        new[rows, torch.arange(len(rows), device=z.device)] = 0.0
        torch.minimum(new, distances[:, None], out=new)
        totals = new.sum(0) if weights is None else weights @ new
        best = int(totals.argmin())
        distances = new[:, best].contiguous()
        chosen.append(rows[best])
    return z[torch.stack(chosen)].clone()


def _distinct_rows(z: Tensor, n_clusters: int) -> Tensor:
    """K distinct rows when the squared distances left are all zero, or zero to rounding."""
    distinct = torch.unique(z, dim=0)
    if len(distinct) < n_clusters:
        raise too_few_rows(len(distinct), n_clusters)
    return distinct[:n_clusters].clone()


def too_few_rows(distinct: int, n_clusters: int) -> InputError:
    return InputError(
        f"the data have {distinct} distinct rows, fewer than the {n_clusters} clusters asked "
        f"for; use -k {distinct} or less"
    )
