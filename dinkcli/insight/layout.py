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
from functools import lru_cache

import numpy as np
import torch
from scipy import fft
from scipy.sparse import csr_array

from dinkcli.models.tree import squared_distances
from dinkcli.training.neighbours import nearest_others

# docs/LOG.md has the figures of each.
NEIGHBOURS = 15
_FIRST = 8000  # rows that are laid out from nothing
_STRENGTHS = [12.0] * 200 + [1.0] * 200  # of the attraction, step by step
_JOINING = [6.0] * 20 + [1.0] * 40  # the same, once all rows are there
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
    """Places (P, 2) float32 of the rows (P, D) float32 of clusters ``labels`` (P,), with centres
    (K, D); ``on_step`` is called with the steps done and their number."""
    if len(z) <= NEIGHBOURS + 1:  # each is a neighbour of each
        return places_of_centers(z)
    # Far from the origin float32 would not tell neighbours apart.
    rows = torch.from_numpy(z - z.mean(0, dtype=np.float64).astype(np.float32))
    rng = np.random.default_rng(seed)
    middles = places_of_centers(cluster_centers)
    scale = np.sqrt(middles.var(0).sum()) or 1.0
    many = len(z) > 2 * _FIRST
    first = np.sort(rng.permutation(len(z))[:_FIRST]) if many else np.arange(len(z))
    on_step(0, total := len(_STRENGTHS) + len(_JOINING) * many)
    points = middles[labels[first]] / scale
    points += rng.normal(0, 0.05, points.shape).astype(np.float32)
    points *= np.float32(_SPREAD * len(points) ** 0.5)
    near = nearest_others(rows[torch.from_numpy(first)], NEIGHBOURS, seed)
    points = _descend(points, near, _STRENGTHS, seed, lambda done: on_step(done, total))
    if many:
        near = nearest_others(rows, NEIGHBOURS, seed)
        points = _joined(points, first, near, rng) * np.float32(np.sqrt(len(z) / len(first)))
        before = len(_STRENGTHS)
        points = _descend(points, near, _JOINING, seed, lambda done: on_step(before + done, total))
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
    points: np.ndarray, first: np.ndarray, near: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Places (P, 2) of all rows where those ``first`` have ``points``: the others at their
    neighbours ``near`` (P, M) that have one, step by step along the graph."""
    places = np.full((len(near), 2), np.nan, np.float32)
    places[first] = points
    while len(new := np.flatnonzero(np.isnan(places[:, 0]))):
        beside = places[near[new]]
        has = ~np.isnan(beside[:, :, 0])
        has &= has.cumsum(1) <= 3  # the nearest three; a mean of all would pull all together
        reached = has.any(1)
        if not reached.any():
            places[new] = points[rng.integers(0, len(points), len(new))]
            break
        beside[~has] = 0
        sums = beside[reached].sum(1)
        places[new[reached]] = sums / has[reached].sum(1, dtype=np.float32)[:, None]
    return places + rng.normal(0, 1e-2, places.shape).astype(np.float32)


def _descend(
    points: np.ndarray,
    near: np.ndarray,
    strengths: list[float],
    seed: int,
    on_step: Callable[[int], None],
) -> np.ndarray:
    """The points (P, 2) after a step of gradient descent with momentum for each of the strengths
    of the attraction between neighbours ``near`` (P, M)."""
    n, m = near.shape
    ones = np.ones(n * m, np.float32)
    graph = csr_array((ones, near.ravel(), np.arange(0, n * m + 1, m)), (n, n))
    graph = (graph + graph.T).tocsr()  # of both ends a pair counts twice
    degree, share = np.diff(graph.indptr), graph.data / np.float32(2 * n * m)
    rng = np.random.default_rng(seed)
    velocity, gain = np.zeros_like(points), np.ones_like(points)
    for done, strength in enumerate(strengths, 1):
        # The gradient of the Kullback-Leibler divergence, with the attraction exaggerated.
        at = points.view(np.complex64)[:, 0]  # as one number a point is gathered at once
        along = at.repeat(degree) - at.take(graph.indices)
        along *= share / (1 + along.real**2 + along.imag**2)
        attraction = np.add.reduceat(along, graph.indptr[:-1])[:, None].view(np.float32)
        with fft.set_workers(torch.get_num_threads()):
            push, total = repulsion(points, rng)
        gradient = 4 * np.float32(strength) * attraction + push * np.float32(2 / total)
        # As usual for t-SNE: a coordinate that keeps its direction goes faster.
        turned = (gradient > 0) == (velocity > 0)
        gain = np.where(turned, gain * 0.8, gain + 0.2).clip(0.01).astype(np.float32)
        momentum = np.float32(0.5 if strength > 4 else 0.8)
        velocity = momentum * velocity - np.float32(n / strength) * gain * gradient
        points = points + velocity
        on_step(done)
    return points


def repulsion(points: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """(The gradient (P, 2) of the potential of all points at each, the sum of potentials over all
    pairs, each pair twice), for points (P, 2) float32, by one convolution on a grid.

    The potential of a point is 1 / (1 + d^2), as Student's t has it; its force is minus the
    gradient. Points are spread over a grid by quadratic B-splines, the grid is convolved with the
    potential by FFT, and splines read it off again (particle mesh). Their smoothing is divided out
    in between, so that what is left are errors of one percent or so at a spacing of 0.7.
    O(P + G log G) for P points and G nodes. Where the grid lies is drawn from ``rng``.
    """
    low = points.min(0)
    extent = float((points.max(0) - low).max())
    # Three nodes beyond the points at each end, for the splines.
    side = next((s for s in _SIDES if (s - 6) * _SPACING >= extent), _MOST_NODES)
    spacing = max(_SPACING, extent / (side - 6))
    shift = rng.random(2, np.float32) + np.float32(2.5)
    place = (points - low) / np.float32(spacing) + shift
    node = np.rint(place).astype(np.int32)
    # Of the three nodes around each point: their weights (P, 2, 3), and the slopes of these.
    t = (place - node)[:, :, None]
    weight = np.concatenate([(0.5 - t) ** 2 / 2, 0.75 - t**2, (0.5 + t) ** 2 / 2], axis=2)
    slope = np.concatenate([t - 0.5, -2 * t, t + 0.5], axis=2)
    around = node[:, :, None] + np.arange(-1, 2, dtype=np.int32)
    at = around[:, 0, :, None] * side + around[:, 1, None, :]
    spread = weight[:, 0, :, None] * weight[:, 1, None, :]
    grid = np.bincount(at.ravel(), spread.ravel(), side * side).astype(np.float32)
    padded = (2 * side, 2 * side)
    density = fft.rfft2(grid.reshape(side, side), padded)
    potential = fft.irfft2(density * _kernel(side, spacing), padded)[:side, :side].ravel()
    near = potential[at]
    felt = np.einsum("pij,pi,pj->p", near, weight[:, 0], weight[:, 1])
    gradient = np.empty_like(points)
    gradient[:, 0] = np.einsum("pij,pi,pj->p", near, slope[:, 0], weight[:, 1])
    gradient[:, 1] = np.einsum("pij,pi,pj->p", near, weight[:, 0], slope[:, 1])
    gradient /= np.float32(spacing)
    return gradient, float(felt.sum(dtype=np.float64)) - len(points)


@lru_cache(maxsize=1)  # from step to step the grid is mostly the same
def _kernel(side: int, spacing: float) -> np.ndarray:
    """(2 side, side + 1) the potential's transform over that of the splines, squared."""
    steps = np.minimum(np.arange(2 * side), 2 * side - np.arange(2 * side)) * spacing
    potential = 1 / (1 + steps[:, None] ** 2 + steps**2)
    smooth = np.sinc(fft.fftfreq(2 * side)) ** 6
    kernel = fft.rfft2(potential.astype(np.float32)) / (smooth[:, None] * smooth[: side + 1])
    return kernel.astype(np.complex64)
