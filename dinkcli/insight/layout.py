"""A map of rows in the plane on which neighbours stay near each other.

The centres come first: they are few, and stress majorisation (de Leeuw 1977) gives them places
whose distances follow their true ones. Rows start around their centres and follow a neighbour
embedding: each is drawn to its nearest rows and pushed off all others, with the forces of t-SNE
(van der Maaten and Hinton 2008). Of many rows some go first, and the others join where their
nearest ones are.

Shapes: P rows, K clusters, D features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import fft

from dinkcli.models.tree import squared_distances
from dinkcli.training.neighbours import nearest_others

# docs/LOG.md has the figures of each.
NEIGHBOURS = 15
_FIRST = 8000  # rows that are laid out from nothing
_PHASES = ((200, 12.0), (200, 1.0))  # steps, and how much stronger the attraction is
_JOINING = ((20, 6.0), (40, 1.0))  # the same, once all rows are there
_SPREAD = 0.25  # of the start, times the root of the rows: half of what the descent ends in
_MOST_MAJORISED = 1024  # centres; more keep the plane of their principal axes
_MAJORISATIONS = 100
# Of the grid that repulsion is computed on, in the units of the potential.
_SPACING = 0.7  # of nodes, in the units of the potential
_MOST_NODES = 576  # a side; beyond, nodes are further apart
_SIDES = [2**a * 3**b for a in range(4, 10) for b in (0, 1) if 2**a * 3**b <= _MOST_NODES]


def map_of_rows(
    z: np.ndarray,
    labels: np.ndarray,
    cluster_centers: np.ndarray,
    seed: int = 0,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """Places (P, 2) float32 of the rows.

    Args:
        z: (P, D) float32.
        labels: (P,) the cluster of each.
        cluster_centers: (K, D).
        on_step: called with the steps done and their number.
    """
    if len(z) <= NEIGHBOURS + 1:  # each is a neighbour of each
        return places_of_centers(z)
    # Far from the origin float32 would not tell neighbours apart.
    rows = torch.from_numpy(z - z.mean(0, dtype=np.float64).astype(np.float32))
    rng = np.random.default_rng(seed)
    middles = places_of_centers(cluster_centers)
    scale = np.sqrt(middles.var(0).sum()) or 1.0
    many = len(z) > 2 * _FIRST
    first = np.sort(rng.permutation(len(z))[:_FIRST]) if many else np.arange(len(z))
    total = sum(steps for steps, _ in _PHASES + _JOINING * many)
    on_step(0, total)
    points = middles[labels[first]] / scale
    points += rng.normal(0, 0.05, points.shape).astype(np.float32)
    points *= np.float32(_SPREAD * len(points) ** 0.5)
    descent = _Descent(rows[torch.from_numpy(first)], seed)
    points, done = descent.run(points, _PHASES, 0, lambda i: on_step(i, total))
    if many:
        descent = _Descent(rows, seed)
        points = _joined(points, first, descent.neighbours, rng)
        points *= np.float32(np.sqrt(len(z) / len(first)))
        points, done = descent.run(points, _JOINING, done, lambda i: on_step(i, total))
    return points - points.mean(0)


def principal_plane(z: np.ndarray) -> tuple[np.ndarray, float]:
    """(the rows (P, 2) float64 on their two main axes, the share of the variance there)."""
    residuals = z - z.mean(0, dtype=np.float64)
    values, axes = np.linalg.eigh(residuals.T @ residuals)
    places = residuals @ axes[:, ::-1][:, :2]
    if places.shape[1] == 1:
        places = np.pad(places, ((0, 0), (0, 1)))
    # The sign of an axis is arbitrary: its largest part is made positive, so that maps repeat.
    places *= np.where(places[np.abs(places).argmax(0), [0, 1]] < 0, -1, 1)
    total = values.clip(min=0).sum()
    return places, float(values[::-1][:2].sum() / total) if total > 0 else 1.0


def places_of_centers(centers: np.ndarray) -> np.ndarray:
    """(K, 2) float32 places of the centres (K, D), whose distances follow the true ones."""
    k = len(centers)
    places, _ = principal_plane(centers)
    if 2 < k <= _MOST_MAJORISED:
        wanted = np.sqrt(squared_distances(centers, centers))
        for _ in range(_MAJORISATIONS):
            have = np.sqrt(squared_distances(places, places).clip(min=1e-24))
            ratio = np.where(have > 1e-9, wanted / have, 0.0)
            np.fill_diagonal(ratio, 0)
            places = (ratio.sum(1)[:, None] * places - ratio @ places) / k
    return places.astype(np.float32)


def _joined(
    points: np.ndarray, first: np.ndarray, neighbours: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Places (P, 2) of all rows where those ``first`` have ``points``: the others at their
    neighbours that have one, step by step along the graph."""
    places = np.zeros((len(neighbours), 2), np.float32)
    known = np.zeros(len(neighbours), bool)
    places[first], known[first] = points, True
    while not known.all():
        new = np.flatnonzero(~known)
        near = neighbours[new]
        has = known[near]
        reached = has.any(1)
        if not reached.any():
            places[new] = points[rng.integers(0, len(points), len(new))]
            break
        new, near, has = new[reached], near[reached], has[reached]
        # The nearest three that have a place; a mean of all would pull everything together.
        has &= has.cumsum(1) <= 3
        weight = has[:, :, None].astype(np.float32)
        places[new] = (places[near] * weight).sum(1) / weight.sum(1)
        known[new] = True
    spread = np.float32(1e-2)
    return places + rng.normal(0, spread, places.shape).astype(np.float32)


class _Descent:
    """Gradient descent of the rows ``z`` (P, D) with momentum; the forces follow neighbours."""

    def __init__(self, z: torch.Tensor, seed: int):
        n = len(z)
        self.neighbours = nearest_others(z, min(NEIGHBOURS, n - 1), seed)
        ends = self.neighbours.ravel().astype(np.int64)
        begins = np.repeat(np.arange(n), self.neighbours.shape[1])
        # Each pair once, with the share that both ends give it: of both 1, of one a half.
        pairs = np.minimum(begins, ends) * n + np.maximum(begins, ends)
        pairs, count = np.unique(pairs, return_counts=True)
        a, b = np.divmod(pairs, n)
        order = np.concatenate([a, b]).argsort(kind="stable")
        self._to = np.concatenate([b, a])[order]
        share = np.concatenate([count, count])[order] / (2 * count.sum())
        self._share = share.astype(np.float32)
        self._degree = np.bincount(self._to, minlength=n)  # of the graph, which is symmetric
        self._starts = np.cumsum(self._degree) - self._degree
        self._repulsion = Repulsion(np.random.default_rng(seed))

    def run(
        self,
        points: np.ndarray,
        phases: tuple[tuple[int, float], ...],
        done: int,
        on_step: Callable[[int], None],
    ) -> tuple[np.ndarray, int]:
        """(the points (P, 2) after the steps of all ``phases``, the steps done with these)."""
        velocity, gain = np.zeros_like(points), np.ones_like(points)
        for steps, exaggeration in phases:
            rate = np.float32(len(points) / exaggeration)
            momentum = np.float32(0.5 if exaggeration > 4 else 0.8)
            for _ in range(steps):
                with fft.set_workers(torch.get_num_threads()):
                    gradient = self._gradient(points, exaggeration)
                # As usual for t-SNE: a coordinate that keeps its direction goes faster.
                turned = (gradient > 0) == (velocity > 0)
                gain = np.where(turned, gain * 0.8, gain + 0.2).clip(0.01).astype(np.float32)
                velocity = momentum * velocity - rate * gain * gradient
                points = points + velocity
                done += 1
                on_step(done)
        return points, done

    def _gradient(self, points: np.ndarray, exaggeration: float) -> np.ndarray:
        """(P, 2) of the Kullback-Leibler divergence, with the attraction exaggerated."""
        at = points.view(np.complex64)[:, 0]  # as one number a point is gathered at once
        along = at.repeat(self._degree) - at.take(self._to)
        along *= self._share / (1 + along.real**2 + along.imag**2)
        attraction = np.add.reduceat(along, self._starts)[:, None].view(np.float32)
        push, total = self._repulsion(points)
        return 4 * np.float32(exaggeration) * attraction + push * np.float32(2 / total)


class Repulsion:
    """Repulsion of points in the plane by one convolution on a grid (particle mesh).

    The potential of a point is 1 / (1 + d^2), as Student's t has it; its force is minus the
    gradient. Points are spread over a grid by quadratic B-splines, the grid is convolved with the
    potential by FFT, and splines read it off again. Their smoothing is divided out in between, so
    that what is left are errors of one percent or so at a spacing of 0.7. O(P + G log G) for P
    points and G nodes. The transform of the potential is kept between calls.

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
        felt = np.einsum("pij,pi,pj->p", near, weight[:, 0], weight[:, 1])
        gradient = np.empty_like(points)
        gradient[:, 0] = np.einsum("pij,pi,pj->p", near, slope[:, 0], weight[:, 1])
        gradient[:, 1] = np.einsum("pij,pi,pj->p", near, weight[:, 0], slope[:, 1])
        gradient /= np.float32(spacing)
        return gradient, float(felt.sum(dtype=np.float64)) - len(points)

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
