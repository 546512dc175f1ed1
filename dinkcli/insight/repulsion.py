"""Repulsion of many points in the plane by one convolution on a grid (particle mesh).

The potential of a point is 1 / (1 + d^2), as Student's t has it; its force is minus the gradient.
Points are spread over a grid by quadratic B-splines, the grid is convolved with the potential by
FFT, and splines read it off again. Their smoothing is divided out in between, so that what is left
are errors of one percent or so at a spacing of 0.7. O(P + G log G) for P points and G nodes.
"""

from __future__ import annotations

import numpy as np
from scipy import fft

_SPACING = 0.7  # of nodes, in the units of the potential
_MOST_NODES = 576  # a side; beyond, nodes are further apart
_SIDES = [2**a * 3**b for a in range(4, 10) for b in (0, 1) if 2**a * 3**b <= _MOST_NODES]


class Repulsion:
    """Keeps the transform of the potential between calls.

    Args:
        rng: where the grid lies.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._kernel: tuple[int, float, np.ndarray] | None = None

    def __call__(self, points: np.ndarray) -> tuple[np.ndarray, float]:
        """(the gradient (P, 2) of the potential of all points at each, the sum of potentials over
        all pairs, each pair twice), for points (P, 2) float32."""
        low = points.min(0)
        extent = float((points.max(0) - low).max())
        # Three nodes beyond the points at each end, for the splines.
        side = next((s for s in _SIDES if (s - 6) * _SPACING >= extent), _MOST_NODES)
        spacing = max(_SPACING, extent / (side - 6))
        kernel = self._transformed(side, spacing)
        shift = self._rng.random(2, np.float32) + np.float32(2.5)
        place = (points - low) / np.float32(spacing) + shift
        node = np.rint(place).astype(np.int32)
        weight, slope = _splines(place - node)
        at = (node[:, 0, None, None] + np.arange(-1, 2, dtype=np.int32)[:, None]) * side
        at = at + (node[:, 1, None, None] + np.arange(-1, 2, dtype=np.int32))
        spread = weight[:, 0, :, None] * weight[:, 1, None, :]
        grid = np.bincount(at.ravel(), spread.ravel(), side * side).astype(np.float32)
        padded = (2 * side, 2 * side)
        density = fft.rfft2(grid.reshape(side, side), padded)
        potential = fft.irfft2(density * kernel, padded)[:side, :side].ravel()
        near = potential[at]
        here = np.einsum("pij,pi,pj->p", near, weight[:, 0], weight[:, 1])
        gradient = np.empty_like(points)
        gradient[:, 0] = np.einsum("pij,pi,pj->p", near, slope[:, 0], weight[:, 1])
        gradient[:, 1] = np.einsum("pij,pi,pj->p", near, weight[:, 0], slope[:, 1])
        gradient /= np.float32(spacing)
        return gradient, float(here.sum(dtype=np.float64)) - len(points)

    def _transformed(self, side: int, spacing: float) -> np.ndarray:
        """(2 side, side + 1) the potential's transform over that of the splines, squared."""
        if self._kernel is None or self._kernel[:2] != (side, spacing):
            steps = np.minimum(np.arange(2 * side), 2 * side - np.arange(2 * side)) * spacing
            potential = 1 / (1 + steps[:, None] ** 2 + steps**2)
            kernel = fft.rfft2(potential.astype(np.float32))
            smooth = np.sinc(fft.fftfreq(2 * side)) ** 6
            kernel /= smooth[:, None] * smooth[: side + 1]
            self._kernel = (side, spacing, kernel.astype(np.complex64))
        return self._kernel[2]


def _splines(offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the three nodes around points at ``offset`` (P, 2) from the middle one, and their
    slopes: both (P, 2, 3)."""
    t = offset[:, :, None]
    weight = np.concatenate([(0.5 - t) ** 2 / 2, 0.75 - t**2, (0.5 + t) ** 2 / 2], axis=2)
    slope = np.concatenate([t - 0.5, -2 * t, t + 0.5], axis=2)
    return weight, slope
