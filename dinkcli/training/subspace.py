"""The sample on its main axes, where the first part of a training costs a fraction.

For centres in the span of some axes, the part of a row that lies outside adds the same to its
squared distance to every centre: labels and sums need the coordinates on the axes alone. What
centres outside the span could save is at most what the axes leave of the rows' squared norm
(Cohen et al. 2015 bound it), so they have to leave little beside the inertia.

Shapes: N rows, K clusters, D features, Q axes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dinkcli.nearest.hardware import products
from dinkcli.training.sample import Sample
from dinkcli.training.schedule import most_axes

_AXES = 32  # their number is a multiple of this
_LEFT = 0.18  # of the inertia of the first centres, which is about twice the last one
# Rows that the axes are found from: 4 for each feature where that is a matter of milliseconds.
_AXES_NUMBERS = 1 << 21
_LEAST_ROWS = 1024
_PROBE_ROWS = 2048
_ITERATIONS = 2
_GRID = 2.0**16


@dataclass(frozen=True)
class Subspace:
    """A sample, and the coordinates that it has on some axes."""

    whole: Sample  # all D features
    sample: Sample  # on the axes; the ``whole`` one where there are none
    axes: Tensor | None = None  # (D, Q) orthonormal but for rounding

    @classmethod
    def on(cls, whole: Sample, axes: Tensor | None, number: int) -> Subspace:
        """On the first ``number`` of the axes; on none when that is D."""
        if axes is None or number == len(axes):
            return cls(whole, whole)
        axes = axes[:, :number].contiguous()
        return cls(whole, replace(whole, z=_product(whole.z, axes)), axes)

    @property
    def left(self) -> float:
        """The mean squared norm of what lies outside."""
        return 0.0 if self.axes is None else self.whole.moments[1] - self.sample.moments[1]

    def into(self, centers: Tensor) -> Tensor:
        """(K, D) to (K, Q)."""
        return centers if self.axes is None else _product(centers, self.axes)

    def out_of(self, centers: Tensor) -> Tensor:
        """(K, Q) to the same points with all features, (K, D)."""
        return centers if self.axes is None else _product(centers, self.axes.T)

    def means(self, centers: Tensor, labels: Tensor | None, approximate: bool) -> Tensor:
        """The means (K, D), with all features, of the clusters that ``centers`` (K, Q) make, whose
        ``labels`` (N,) are found as refining finds them where they are not known."""
        if self.axes is None:
            return centers
        if labels is None:
            labels = self.sample.nearest_two(centers, approximate).labels
        return self.whole.means(self.out_of(centers), labels)


def _product(rows: Tensor, matrix: Tensor) -> Tensor:
    with products(rows.device):
        return rows @ matrix


def main_axes(sample: Sample, n_clusters: int) -> Tensor | None:
    """The axes (D, Q) of the largest squared norm, that first, as many as K clusters may need, or
    None; in float64 and rounded, so that every process finds the same ones."""
    n_features = sample.z.shape[1]
    most = most_axes(n_clusters, n_features)
    if not most:
        return None
    number = max(_LEAST_ROWS, min(4 * n_features, _AXES_NUMBERS // n_features))
    z = _first(sample, number).double()
    moments = z.T @ z if len(z) > n_features else None

    def times_moments(basis: Tensor) -> Tensor:
        return z.T @ (z @ basis) if moments is None else moments @ basis

    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(n_features, most, generator=generator, dtype=torch.float64)
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(times_moments(basis)).Q
    _, turn = torch.linalg.eigh(basis.T @ times_moments(basis))
    axes = basis @ turn.flip(1)
    # Either direction of an axis will do, but always the same one.
    axes *= axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    return axes.mul_(_GRID).round_().div_(_GRID).to(sample.z)


def number_of_axes(sample: Sample, axes: Tensor | None, centers: Tensor) -> int:
    """How many ``axes`` are enough for clusters as fine as those of ``centers`` (K, D), or D."""
    if axes is None:
        return centers.shape[1]
    inertia = sample[:_PROBE_ROWS].mean_inertia(centers)
    rows = _first(sample, _PROBE_ROWS)
    held = (rows @ axes.cpu()).square().mean(0, dtype=torch.float64).cumsum(0)
    left = rows.square().sum(1, dtype=torch.float64).mean() - held
    enough = (left[_AXES - 1 :: _AXES] <= _LEFT * inertia).nonzero()
    return (int(enough[0]) + 1) * _AXES if len(enough) else len(axes)


def _first(sample: Sample, number: int) -> Tensor:
    """The first rows of those of all processes, times the roots of their weights, on the CPU."""
    part = sample[:number]
    z = part.z
    if part.weights is not None:
        z = z * (part.weights * (len(part) / part.total_weight)).sqrt()[:, None]
    return part.gathered(z).cpu()
