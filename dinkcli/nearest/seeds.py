"""Nearest seeds, while first centres are drawn: about as near will do, but copies are at 0."""

from __future__ import annotations

import torch
from torch import Tensor

from dinkcli.nearest.device import chunk_rows
from dinkcli.nearest.index import CenterIndex, Nearest
from dinkcli.nearest.products import has_short_factors, products

_MANY_SEEDS = 48  # for which short products, where a CPU has them, are faster


def nearest_seeds(z: Tensor, norms: Tensor, seeds: Tensor) -> Nearest:
    """The nearest of the ``seeds`` (K, D) of each row of ``z`` (N, D) with squared ``norms`` (N,),
    and about how far it is; copies of a seed are at distance 0."""
    if len(seeds) >= _MANY_SEEDS and z.device.type == "cpu" and has_short_factors():
        return CenterIndex(seeds).nearest_roughly(z)
    squares = seeds.square().sum(1)
    rows = chunk_rows(*seeds.shape, device=z.device)
    with products(z.device):
        parts = [torch.addmm(squares, part, seeds.T, alpha=-2).min(1) for part in z.split(rows)]
    distances = torch.cat([least for least, _ in parts]).add_(norms)
    # Rounding leaves about this much where the distance is truly zero.
    noise = 4 * torch.finfo(z.dtype).eps * z.shape[1] ** 0.5 * norms
    distances[distances <= noise] = 0.0
    return Nearest(torch.cat([label for _, label in parts]), distances)
