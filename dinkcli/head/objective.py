"""The two losses of Dink-Net in closed form, and the tempered shrink loss that dink trains with.

Shapes: B rows in a batch, K clusters, D features. ``z`` is (B, D), ``cluster_centers`` is (K, D).

Source: Liu et al., "Dink-Net: Neural Clustering on Large Graphs", ICML 2023, Eq. 5 and 6.
docs/objective.md has the algebra, and why the literal losses see fixed data only by its mean.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dinkcli.nearest.hardware import at_least_float32
from dinkcli.nearest.probabilities import responsibilities

# Rows are shifted in pieces of this many elements, so that the shifted copy stays in cache.
_CHUNK_ELEMENTS = 1 << 19


def dilation_loss(cluster_centers: Tensor) -> Tensor:
    """Eq. 5: minus the mean squared distance over ordered pairs of distinct centres, a scalar.

    -1/((K-1)K) sum_{i != j} ||C_i - C_j||^2  =  -2/(K-1) sum_j ||C_j - mean C||^2.
    O(KD); 0 for K = 1.
    """
    return _Dilation.apply(cluster_centers.to(at_least_float32(cluster_centers.dtype)))


class _Dilation(torch.autograd.Function):
    """Eq. 5 with its gradient written out: a third of the memory traffic of autograd's own."""

    @staticmethod
    def forward(ctx: Any, cluster_centers: Tensor) -> Tensor:
        # Twice: the mean itself is rounded when the centres lie far from the origin.
        c = cluster_centers - cluster_centers.mean(0)
        c -= c.mean(0)
        ctx.save_for_backward(c)
        return torch.linalg.vecdot(c, c).sum() * (-2.0 / max(1, len(c) - 1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (c,) = ctx.saved_tensors
        return c * (grad * (-4.0 / max(1, len(c) - 1)))


def shrink_loss(z: Tensor, cluster_centers: Tensor) -> Tensor:
    """Eq. 6: the mean squared distance over all pairs of a row and a centre, a scalar.

    1/(BK) sum_{ij} ||Z_i - C_j||^2 = mean ||Z_i||^2 + mean ||C_j||^2 - 2 <mean Z, mean C>,
    with Z and C both shifted by the mean centre first. O(BD + KD); never a (B, K) matrix.
    """
    dtype = at_least_float32(torch.promote_types(z.dtype, cluster_centers.dtype))
    return _Shrink.apply(z.to(dtype), cluster_centers.to(dtype))


class _Shrink(torch.autograd.Function):
    """Eq. 6 with its gradient written out: half the memory traffic of autograd's own, or less."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, cluster_centers: Tensor) -> Tensor:
        n_rows = len(z)
        shift = cluster_centers.mean(0)
        c = cluster_centers - shift
        mean_c = c.mean(0)
        sum_z, sum_squares = torch.zeros_like(shift), z.new_zeros(())
        for rows in z.split(max(1, _CHUNK_ELEMENTS // z.shape[1])):
            rows = rows - shift
            sum_z += rows.sum(0)
            sum_squares += torch.linalg.vector_norm(rows).square()
        mean_z = sum_z / n_rows
        ctx.save_for_backward(z, c, shift + mean_c, mean_z)
        return sum_squares / n_rows + c.square().sum(1).mean() - 2.0 * (mean_z @ mean_c)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        z, c, mean_center, mean_z = ctx.saved_tensors
        grad_z = grad_c = None
        if ctx.needs_input_grad[0]:
            grad_z = (z - mean_center).mul_(grad * (2.0 / len(z)))
        if ctx.needs_input_grad[1]:
            grad_c = (c - mean_z).mul_(grad * (2.0 / len(c)))
        return grad_z, grad_c


def tempered_shrink_loss(z: Tensor, cluster_centers: Tensor, temperature: float) -> Tensor:
    """The shrink loss with a temperature T, a scalar.

    1/B sum_{ij} r_ij ||z_i - c_j||^2 with r = softmax_j(-||z_i - c_j||^2 / T). T = infinity is
    Eq. 6 and T = 0 the k-means objective. r counts as a constant in the gradient, which makes it
    2/B sum_i r_ij (c_j - z_i): the gradient of the free energy -T/B sum_i log sum_j exp(-d_ij/T).
    """
    if math.isinf(temperature):
        return shrink_loss(z, cluster_centers)
    dtype = at_least_float32(torch.promote_types(z.dtype, cluster_centers.dtype))
    shift = cluster_centers.detach().to(dtype).mean(0)
    z, c = z.to(dtype) - shift, cluster_centers.to(dtype) - shift
    distances = z.square().sum(1, keepdim=True) + c.square().sum(1) - 2.0 * (z @ c.T)
    r = responsibilities(distances.detach(), temperature)
    return (r * distances).sum() / len(z)
