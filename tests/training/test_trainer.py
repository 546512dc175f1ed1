"""What training promises, on data whose answer is known."""

import math
import re

import numpy as np
import pytest
import torch
from conftest import inertia_float64, nearest_float64
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

import dinkcli
from dinkcli.data.array import ArrayReader
from dinkcli.data.dataset import DataSet
from dinkcli.errors import InputError, UsageError
from dinkcli.nearest.index import CenterIndex
from dinkcli.nearest.sums import Statistics, tempered_statistics
from dinkcli.training.rows import RowSource
from dinkcli.training.sample import Sample
from dinkcli.training.seeding import kmeans_plus_plus


def fit(z, k, **options):
    return dinkcli.train(z, k, device="cpu", **options)


def labels_of(model, z):
    return dinkcli.assign(model, z, device="cpu")


@pytest.mark.slow
def test_blobs_are_found(blobs):
    z, truth = blobs
    for seed in range(5):
        assert adjusted_rand_score(truth, labels_of(fit(z, 3, seed=seed), z)) == 1


@pytest.mark.slow
def test_it_beats_ten_restarts_of_kmeans_on_digits(digits):
    z, _ = digits
    peer = KMeans(10, n_init=10, random_state=0).fit(z).inertia_
    found = [inertia_float64(z, fit(z, 10, seed=seed).cluster_centers) for seed in range(3)]
    assert np.mean(found) <= 1.001 * peer


def test_final_centres_are_centroids_and_metrics_are_true(blobs):
    z, _ = blobs
    model = fit(z, 4, tol=0.0)
    labels = nearest_float64(z, model.cluster_centers)
    np.testing.assert_array_equal(np.bincount(labels), model.cluster_sizes)
    for j in range(4):
        np.testing.assert_allclose(
            model.cluster_centers[j], z[labels == j].mean(0), rtol=1e-5, atol=1e-5
        )
    metrics, c = model.training["metrics"], model.cluster_centers.astype(float)
    assert metrics["inertia"] == pytest.approx(inertia_float64(z, c), rel=1e-5)
    pairs = [((a - b) ** 2).sum() for a in c for b in c]
    assert metrics["dilation_loss"] == pytest.approx(-sum(pairs) / 12, rel=1e-5)
    shrink = np.mean([((row - c) ** 2).sum(1).mean() for row in z.astype(float)])
    assert metrics["shrink_loss"] == pytest.approx(shrink, rel=1e-5)


def test_history_has_every_figure_of_every_step(blobs):
    history = fit(blobs[0], 3, n_init=1).training["history"]
    assert [step["phase"] for step in history] == sorted(
        (step["phase"] for step in history), key=["anneal", "refine", "pass"].index
    )
    warm = [step["temperature"] for step in history if step["phase"] == "anneal"]
    assert warm == sorted(warm, reverse=True)
    assert len(warm) == 12
    assert warm[-1] == pytest.approx(warm[0] * 0.05 ** (220 / 239))
    for step in history:
        assert 0 < step["smallest"] <= 1 / 3 + 0.1 <= 3 * step["largest"]
        assert math.isfinite(step["inertia"])


def test_training_far_from_the_origin_is_as_good(blobs):
    z, truth = blobs
    assert adjusted_rand_score(truth, labels_of(fit(z + 1e4, 3), z + 1e4)) == 1


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 2, 299, 300])
def test_every_number_of_clusters_up_to_the_rows(blobs, k, metric):
    z = blobs[0] + 1
    model = fit(z, k, metric=metric)
    assert np.isfinite(model.cluster_centers).all()
    assert (np.bincount(labels_of(model, z), minlength=k) > 0).all()


def test_one_dimension_constant_columns_and_duplicated_rows():
    rng = np.random.default_rng(0)
    line = np.concatenate([rng.normal(m, 0.1, 50) for m in (0, 5, 20)])[:, None]
    assert sorted(np.bincount(labels_of(fit(line, 3), line))) == [50, 50, 50]
    padded = np.hstack([line, np.full((150, 3), 7.0)])
    assert sorted(np.bincount(labels_of(fit(padded, 3), padded))) == [50, 50, 50]
    copies = np.repeat(rng.normal(size=(12, 4)), 40, axis=0)
    assert (np.bincount(labels_of(fit(copies, 12), copies)) == 40).all()
    with pytest.raises(InputError, match="12 distinct rows, fewer than the 13 clusters"):
        fit(copies, 13)


@pytest.mark.parametrize("seed", range(3))
def test_small_clusters_among_large_ones_are_found(seed):
    rng = np.random.default_rng(seed)
    sizes = [10_000, 10_000, 10, 10]
    centers = rng.normal(size=(4, 8)) * 15
    z = np.concatenate([rng.normal(c, 1, (n, 8)) for c, n in zip(centers, sizes, strict=True)])
    labels = labels_of(fit(z, 4, seed=seed), z)
    assert adjusted_rand_score(np.repeat(range(4), sizes), labels) == 1


def test_weights_count_as_repetitions(blobs):
    z, _ = blobs
    weights = np.random.default_rng(0).integers(0, 4, len(z))
    repeated = np.repeat(z, weights, axis=0)
    weighted = fit(z, 6, sample_weight=weights.astype(float), tol=0.0)
    assert weighted.cluster_sizes.sum() == weights.sum()
    found = inertia_float64(repeated, weighted.cluster_centers)
    assert weighted.training["metrics"]["inertia"] == pytest.approx(found, rel=1e-5)
    peer = KMeans(6, n_init=10, random_state=0).fit(repeated).inertia_
    assert found <= 1.002 * peer
    labels = nearest_float64(z, weighted.cluster_centers)
    for j in range(6):
        mean = np.average(z[labels == j], axis=0, weights=weights[labels == j])
        np.testing.assert_allclose(weighted.cluster_centers[j], mean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(3), "3 weights for the 300 rows"),
        (-np.ones(300), "not negative"),
        (np.zeros(300), "not all zero"),
        (np.full(300, np.nan), "finite"),
    ],
)
def test_bad_weights_are_refused(blobs, weights, message):
    with pytest.raises(UsageError, match=message):
        fit(blobs[0], 3, sample_weight=weights)


@pytest.mark.slow
def test_the_best_of_several_starts_is_kept(blobs):
    z = blobs[0]
    history = fit(z, 9, n_init=5).training["history"]
    assert {step["start"] for step in history} == {1, 2, 3, 4, 5}
    ends = [
        [s["inertia"] for s in history if s["phase"] == "refine" and s["start"] == start][-1]
        for start in (1, 2, 3, 4, 5)
    ]
    assert history[-1]["inertia"] <= min(ends) * (1 + 1e-6)


@pytest.mark.slow
def test_two_starts_that_end_alike_are_enough(blobs):
    """Clusters that any start finds; and rows without any, where more starts are worth while."""
    separated, noise = blobs[0], np.random.default_rng(0).normal(size=(300, 8)).astype("f4")
    assert {step["start"] for step in fit(separated, 3).training["history"]} == {1, 2}
    history = fit(noise, 20).training["history"]
    ends = [
        [s["inertia"] for s in history if s["phase"] == "refine" and s["start"] == start][-1]
        for start in range(1, 5)
    ]
    assert history[-1]["inertia"] <= min(ends) * (1 + 1e-6)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_one_cluster_is_the_mean_without_annealing(blobs, metric):
    z = blobs[0] + 1.0
    model = fit(z, 1, metric=metric)
    assert {step["phase"] for step in model.training["history"]} == {"pass"}
    if metric == "cosine":
        mean = (z / np.linalg.norm(z.astype("f8"), axis=1, keepdims=True)).mean(0)
        mean /= np.linalg.norm(mean)
    else:
        mean = z.astype("f8").mean(0)
    np.testing.assert_allclose(model.cluster_centers[0], mean, rtol=1e-5, atol=1e-6)


def test_fixed_temperature_trains_its_own_objective(blobs):
    """Centres are fixed points of the tempered means, computed here in float64 loops."""
    z = blobs[0]
    model = fit(z, 3, temperature=40.0, tol=0.0, epochs=300)
    c, z64 = model.cluster_centers.astype(float), z.astype(float)
    d = ((z64[:, None] - c) ** 2).sum(2)
    r = np.exp(-(d - d.min(1, keepdims=True)) / 40.0)
    r /= r.sum(1, keepdims=True)
    np.testing.assert_allclose(c, (r.T @ z64) / r.sum(0)[:, None], rtol=1e-3, atol=1e-3)
    hard = nearest_float64(z, c)
    assert not np.allclose(c[0], z64[hard == 0].mean(0), rtol=1e-3, atol=1e-3)


def test_tempered_statistics_equal_float64_loops(blobs):
    z, _ = blobs
    centers = z[:7].copy()
    weights = np.random.default_rng(1).uniform(0, 2, len(z)).astype(np.float32)
    index = CenterIndex(torch.from_numpy(centers))
    for temperature in (0.0, 3.0, 1e9):
        found = tempered_statistics(
            torch.from_numpy(z), torch.from_numpy(weights), index, temperature
        )
        d = ((z[:, None].astype(float) - centers.astype(float)) ** 2).sum(2)
        if temperature:
            r = np.exp(-(d - d.min(1, keepdims=True)) / temperature)
            r /= r.sum(1, keepdims=True)
        else:
            r = np.eye(7)[d.argmin(1)]
        r *= weights[:, None]
        np.testing.assert_allclose(found.counts, r.sum(0), rtol=1e-4)
        np.testing.assert_allclose(found.sums, r.T @ z, rtol=1e-3, atol=1e-3)
        assert found.shrink == pytest.approx((r * d).sum(), rel=1e-4)
        assert found.inertia == pytest.approx(weights @ d.min(1), rel=1e-4)


@pytest.mark.slow
def test_means_with_dilation_have_a_zero_gradient():
    torch.manual_seed(0)
    z, w = torch.randn(60, 3, dtype=torch.float64), 0.05
    labels = torch.arange(60) % 4
    c = torch.stack([z[labels == j].mean(0) for j in range(4)])
    counts, sums = torch.bincount(labels).double(), c * 15
    for _ in range(200):  # the mean centre on the right-hand side is that of the step before
        c = Statistics(counts, sums).means(c, w)
    c.requires_grad_()
    from dinkcli.head.objective import dilation_loss

    shrink = (z - c[labels]).square().sum() / 60
    (shrink + w * dilation_loss(c)).backward()
    torch.testing.assert_close(c.grad, torch.zeros_like(c), atol=1e-9, rtol=0)


@pytest.mark.slow
def test_no_dilation_weight_makes_centres_fly_away(digits):
    z, _ = digits
    model = fit(z, 10, dilation=1e6)
    assert inertia_float64(z, model.cluster_centers) < 1.05 * inertia_float64(
        z, fit(z, 10).cluster_centers
    )


@pytest.mark.slow
def test_rows_out_of_memory_give_the_same_quality(digits, tmp_path):
    z, _ = digits
    data = DataSet([ArrayReader(z)])
    assert not RowSource(data, "euclidean", torch.device("cpu"), memory=1000).in_memory
    whole = inertia_float64(z, fit(z, 10).cluster_centers)
    streamed = inertia_float64(z, fit(z, 10, memory=1000).cluster_centers)
    assert streamed <= 1.002 * whole
    cosine = fit(z, 10, memory=1000, metric="cosine")
    np.testing.assert_allclose(np.linalg.norm(cosine.cluster_centers, axis=1), 1, rtol=1e-5)


def test_a_streamed_sample_is_those_rows_in_that_order(blobs):
    z, _ = blobs
    for memory in (0, 1 << 30):
        source = RowSource(DataSet([ArrayReader(z)]), "euclidean", torch.device("cpu"), memory)
        sample = source.sample(50, torch.Generator().manual_seed(3)).z
        chosen = torch.randperm(300, generator=torch.Generator().manual_seed(3))[:50]
        expected = z[chosen.numpy()] - source.shift.numpy()
        np.testing.assert_allclose(sample.numpy(), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("n_features", "wide"), [(2, False), (64, True)])
def test_short_products_serve_where_clusters_are_wide(n_features, wide):
    z = np.random.default_rng(0).uniform(-1, 1, (6000, n_features)).astype(np.float32)
    rows = Sample(torch.from_numpy(z), None, lambda centers: centers)
    assert rows.overlap(rows.means(rows.z[:400], rows.labels(rows.z[:400]))) is wide
    peer = KMeans(400, n_init=1, random_state=0).fit(z)
    assert fit(z, 400).training["metrics"]["inertia"] < peer.inertia_


def test_kmeans_plus_plus_draws_distinct_rows(blobs):
    sample = Sample(torch.from_numpy(blobs[0]).repeat(3, 1), None, lambda centers: centers)
    for k in (7, 200, 300):
        seeds = kmeans_plus_plus(sample, k, torch.Generator().manual_seed(0))
        assert len(torch.unique(seeds.centers, dim=0)) == k
        nearest = nearest_float64(sample.z.numpy(), seeds.centers.numpy())
        np.testing.assert_array_equal(seeds.labels, nearest)
    seeds = kmeans_plus_plus(sample, 301, torch.Generator().manual_seed(0))
    assert len(seeds.centers) == 300


def test_rows_beyond_float32_squares_are_refused(blobs):
    with pytest.raises(InputError, match="squared distances would overflow float32"):
        fit(blobs[0] * 1e30, 3)


def test_tiny_values_are_clustered_too(blobs):
    z, truth = blobs
    small = (z * 1e-12).astype(np.float32)
    assert adjusted_rand_score(truth, labels_of(fit(small, 3), small)) == 1


def test_arrays_are_checked_like_files():
    with pytest.raises(InputError, match=re.escape("array of shape (3,) and dtype float64")):
        fit(np.zeros(3), 1)
    with pytest.raises(InputError, match="array: row 1 holds nan in feature 0"):
        fit(torch.tensor([[0.0], [math.nan]]), 1)


def test_on_step_sees_every_step(blobs):
    steps = []
    model = fit(blobs[0], 3, on_step=steps.append)
    assert [step.as_dict() for step in steps] == model.training["history"]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_trains_as_well_and_reproducibly(digits):
    z, _ = digits
    first, second = (dinkcli.train(z, 10, device="cuda") for _ in range(2))
    np.testing.assert_array_equal(first.cluster_centers, second.cluster_centers)
    on_cpu = inertia_float64(z, fit(z, 10).cluster_centers)
    assert inertia_float64(z, first.cluster_centers) <= 1.002 * on_cpu


@pytest.mark.mps
@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="needs an Apple GPU")
def test_mps_trains_as_well(digits):
    z, _ = digits
    found = dinkcli.train(z, 10, device="mps").cluster_centers
    assert inertia_float64(z, found) <= 1.002 * inertia_float64(z, fit(z, 10).cluster_centers)


@pytest.mark.parametrize("temperature", [1e-31, 5e-324, -1.0, math.nan])
def test_temperatures_that_float32_cannot_hold_are_refused(blobs, temperature):
    with pytest.raises(UsageError, match="expected auto, inf, 0, or a number of at least 1e-30"):
        fit(blobs[0], 3, temperature=temperature)
    with pytest.raises(UsageError, match="expected a number above 0, and at least 1e-30"):
        dinkcli.assign(fit(blobs[0], 3), blobs[0], soft=True, temperature=temperature)
