"""Distances and probabilities agree with float64, on data that float32 products get wrong."""

import numpy as np
import pytest
import torch
from conftest import distances_float64

from dinkcli import DinkClusterHead
from dinkcli.assigning.assigner import Assigner
from dinkcli.models.model import Model
from dinkcli.options import AssignOptions

KINDS = ("scales", "pairs", "hierarchy", "offset", "directions", "coarse", "copies")
WIDTHS = (1, 2, 3, 8, 33, 64, 257, 1030, 4097)


def nasty(seed):
    """Centres (K, D), rows (N, D) near them, a temperature, and a metric."""
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    d, k = int(rng.choice(WIDTHS)), int(rng.integers(2, 301))
    n = max(20, 40_000 // (d + k))
    centers = rng.normal(size=(k, d))
    metric, noise = "euclidean", 0.3
    if kind == "scales":  # a fine structure at the origin, and one centre far away
        centers *= 10.0 ** rng.integers(-6, 0)
        noise = np.abs(centers).mean() / 3
        centers[0] += 10.0 ** rng.integers(1, 5)
    elif kind == "pairs":
        centers[1::2] = centers[: len(centers[1::2]) * 2 : 2]
        centers[1::2] += rng.normal(size=centers[1::2].shape) * 10.0 ** rng.integers(-5, -1)
    elif kind == "hierarchy":
        groups = rng.normal(size=(max(1, k // 2), d))
        groups *= 240 / np.linalg.norm(groups, axis=1, keepdims=True)
        step = rng.normal(size=(k, d))
        centers = groups[np.arange(k) % len(groups)]
        centers += 0.045 * step / np.linalg.norm(step, axis=1, keepdims=True)
        noise = 0.02 / d**0.5
    elif kind == "offset":
        centers += 10.0 ** rng.integers(2, 6)
    elif kind == "directions":
        metric, noise = "cosine", 0.05
    elif kind == "coarse":
        centers = np.round(centers)
    else:
        centers[k // 2 :] = centers[: len(centers[k // 2 :])]
    centers = centers.astype(np.float32)
    if metric == "cosine":
        centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    rows = centers[rng.integers(0, k, n)] + rng.normal(size=(n, d)) * noise
    nearest = distances_float64(centers[:50], centers) ** 2
    typical = np.median(np.partition(nearest, 1, axis=1)[:, 1])
    temperature = float(max(1e-12, typical) * 10.0 ** rng.uniform(-4, 2))
    return kind, centers, rows.astype(np.float32), temperature, metric


def check(seed):
    kind, centers, rows, temperature, metric = nasty(seed)
    model = Model(centers, np.ones(len(centers)), metric)
    z = rows.astype(np.float64)
    if metric == "cosine":
        z = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    distances = distances_float64(z, centers)
    squares = distances**2
    expected = np.exp(-(squares - squares.min(1, keepdims=True)) / temperature)
    expected /= expected.sum(1, keepdims=True)
    options = AssignOptions(soft=True, distance=True, temperature=temperature)
    found = Assigner(model, options=options)(rows, np.arange(len(rows)))
    what = f"seed {seed}: {kind}, {centers.shape}, T {temperature:.3g}"
    # Under cosine the rows themselves are rounded when they are scaled.
    noise = 1e-6 if metric == "cosine" else 0.0
    np.testing.assert_allclose(
        found.columns["distance"], distances.min(1), rtol=1e-5, atol=noise, err_msg=what
    )
    tolerance = 1e-4 + 4 * noise / temperature
    np.testing.assert_allclose(
        found.columns["probabilities"], expected, rtol=0, atol=tolerance, err_msg=what
    )
    assert (found.columns["probabilities"].argmax(1) == found.columns["cluster"]).all(), what
    half = AssignOptions(soft=True, temperature=temperature, probability_type="float16")
    found = Assigner(model, options=half)(rows, np.arange(len(rows)))
    assert (found.columns["probabilities"].argmax(1) == found.columns["cluster"]).all(), what
    top = AssignOptions(top=2, temperature=temperature)
    found = Assigner(model, options=top)(rows, np.arange(len(rows)))
    assert (found.columns["clusters"][:, 0] == found.columns["cluster"]).all(), what
    best = -np.sort(-expected, axis=1)[:, :2]
    np.testing.assert_allclose(
        found.columns["probabilities"], best, rtol=0, atol=tolerance, err_msg=what
    )


@pytest.mark.parametrize("seed", range(2 * len(KINDS)))
def test_nasty_data(seed):
    check(seed)


@pytest.mark.slow
def test_a_hundred_more():
    for seed in range(100, 200):
        check(seed)


def test_tight_pairs_far_from_the_origin():
    """20 groups of norm 240, two clusters 0.09 apart in each."""
    rng = np.random.default_rng(0)
    groups = rng.normal(size=(20, 64))
    groups *= 240 / np.linalg.norm(groups, axis=1, keepdims=True)
    step = rng.normal(size=(20, 64))
    step *= 0.045 / np.linalg.norm(step, axis=1, keepdims=True)
    centers = np.concatenate([groups - step, groups + step]).astype(np.float32)
    rows = (centers[np.arange(4000) % 40] + rng.normal(size=(4000, 64)) * 0.003).astype(np.float32)
    distances = distances_float64(rows, centers)
    squares = distances**2
    expected = np.exp(-(squares - squares.min(1, keepdims=True)) / 0.01)
    expected /= expected.sum(1, keepdims=True)
    options = AssignOptions(soft=True, distance=True, temperature=0.01, min_prob=0.5)
    found = Assigner(Model(centers, np.ones(40)), options=options)(rows, np.arange(4000))
    assert (found.columns["cluster"] == distances.argmin(1))[expected.max(1) > 0.5].all()
    own = expected.max(1)
    np.testing.assert_allclose(found.columns["probabilities"].max(1), own, rtol=1e-5)
    np.testing.assert_allclose(found.columns["distance"], distances.min(1), rtol=1e-5)


@pytest.mark.parametrize("d", [1, 64])
def test_a_fine_structure_and_one_centre_far_away(d):
    rng = np.random.default_rng(d)
    centers = np.concatenate([rng.normal(size=(9, d)) * 1e-3, np.full((1, d), 1e4)])
    centers = centers.astype(np.float32)
    rows = (centers[rng.integers(0, 9, 3000)] + rng.normal(size=(3000, d)) * 1e-3).astype(
        np.float32
    )
    found = Assigner(Model(centers, np.ones(10)), options=AssignOptions(distance=True))(
        rows, np.arange(3000)
    )
    distances = distances_float64(rows, centers)
    np.testing.assert_array_equal(found.columns["cluster"], distances.argmin(1))
    np.testing.assert_allclose(found.columns["distance"], distances.min(1), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_soft_clusters_of_the_head(dtype):
    """softmax of minus the plain distance; a row that is a centre is at distance 0 from it."""
    rng = np.random.default_rng(0)
    centers = (rng.normal(size=(30, 16)) + 500).astype(np.float32)
    centers[1] = centers[0] + np.float32(1e-3)
    z = np.concatenate([centers, centers[0] + rng.normal(size=(200, 16)).astype(np.float32)])
    head = DinkClusterHead(30, 16).to(dtype)
    head.reset_cluster_centers(torch.from_numpy(centers).to(dtype))
    found = head.cluster(torch.from_numpy(z).to(dtype), soft=True).numpy()
    distances = distances_float64(z, centers)
    expected = np.exp(-(distances - distances.min(1, keepdims=True)))
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
