"""Clusters of limited size: none larger, the least inertia, the same labels again."""

import json
import os

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import dinkcli
from dinkcli.errors import InputError
from dinkcli.nearest.capacity import limited_labels


def least_cost(squared, limit):
    """By the Hungarian method, with ``limit`` places for each cluster."""
    places = np.repeat(squared.astype(np.float64), limit, axis=1)
    rows, columns = linear_sum_assignment(places)
    return places[rows, columns].sum()


def uneven(seed=0, n_rows=240, n_clusters=6):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(n_clusters))
    centers = 2 * rng.normal(size=(n_clusters, 5))
    labels = rng.choice(n_clusters, n_rows, p=shares)
    return (centers[labels] + rng.normal(size=(n_rows, 5))).astype(np.float32), centers


@pytest.mark.parametrize("limit", [40, 41, 50, 80, 240])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_partition_is_the_best_one(seed, limit):
    z, centers = uneven(seed)
    squared = ((z[:, None] - centers) ** 2).sum(2).astype(np.float32)
    order = squared.argsort(1)
    labels = limited_labels(
        order.astype(np.int32), np.take_along_axis(squared, order, 1), limit, len(centers)
    )
    assert np.bincount(labels).max() <= limit
    cost, least = squared[np.arange(len(z)), labels].sum(), least_cost(squared, limit)
    assert least * (1 - 1e-6) <= cost <= least * 1.002
    if limit == 240:
        np.testing.assert_array_equal(labels, squared.argmin(1))


def test_rows_that_are_the_same_part(one_thread):
    z = np.zeros((100, 3), np.float32)
    z[50:] = 1
    model = dinkcli.Model(np.eye(4, 3, dtype=np.float32), np.ones(4))
    labels = dinkcli.assign(model, z, max_size="25")
    assert np.bincount(labels).tolist() == [25, 25, 25, 25]


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("options", ["1.2x", 44, "1x"])
def test_train_and_assign(invoke, tmp_path, metric, options):
    z, _ = uneven()
    np.save(tmp_path / "x.npy", z)
    limit = {"1.2x": 48, 44: 44, "1x": 40}[options]
    result = invoke("train", "x.npy", "-k", 6, "--metric", metric, "--max-size", options)
    model = dinkcli.load("x.dink.safetensors")
    metrics = model.training["metrics"]
    above, free = metrics["inertia"] / metrics["free_inertia"] - 1, metrics["free_inertia"]
    assert f"the inertia is {above:.2%} above the {free:.6g} without it" in result.stderr
    assert model.cluster_sizes.max() <= limit
    if metric == "cosine":
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
    squared = ((z[:, None].astype(np.float64) - model.cluster_centers) ** 2).sum(2)
    assert metrics["inertia"] <= least_cost(squared, limit) * 1.002
    assert metrics["free_inertia"] <= metrics["inertia"]
    arguments = ["assign", "x.dink.safetensors", "x.npy", "--distance", "--max-size", limit]
    invoke(*arguments, "-o", "c.npy")
    found = np.load("c.npy")
    np.testing.assert_array_equal(np.bincount(found["cluster"], minlength=6), model.cluster_sizes)
    distance = np.sqrt(squared[np.arange(len(z)), found["cluster"]])
    np.testing.assert_allclose(found["distance"], distance, rtol=1e-4)
    # In parts, gone on with after some are lost, the labels are the same.
    invoke(*arguments, "-o", "parts", "--rows-per-file", 50, "--format", "npy")
    os.unlink("parts/part-00002.npy")
    invoke(*arguments, "-o", "parts", "--rows-per-file", 50, "--format", "npy", "--resume")
    parts = [np.load(f"parts/part-{i:05d}.npy") for i in range(5)]
    np.testing.assert_array_equal(np.concatenate(parts), found)


def test_bad_rows_take_no_room(invoke, tmp_path):
    z, _ = uneven()
    z[::10] = np.nan
    np.save(tmp_path / "x.npy", z)
    dinkcli.Model(z[1:5].copy(), np.ones(4)).save(tmp_path / "m.safetensors")
    arguments = ["assign", "m.safetensors", "x.npy", "-o", "c.npy", "--max-size", "1x", "--json"]
    result = invoke(*arguments, "--bad-rows", "label")
    labels = np.load("c.npy")
    assert np.bincount(labels + 1).tolist() == [24, 54, 54, 54, 54]
    assert json.loads(result.stdout)["cluster_sizes"] == [54] * 4


@pytest.mark.slow
def test_bad_rows_of_a_stream_count_once():
    # The limit takes a second sample: rows left out for the first one are not left out again.
    z, _ = uneven()
    z = np.concatenate([z + 3 + i / 100 for i in range(30)])
    z[::10] = np.nan
    for memory in (None, z.nbytes // 4):
        model = dinkcli.train(z, 4, max_size="1x", memory=memory, bad_rows="skip")
        assert model.training["input"]["bad_rows"] == len(z) // 10
        last = model.training["history"][-1]
        assert last["phase"] == "limit"
        assert last["largest"] == pytest.approx(0.25)


def test_wrong_limits(invoke, tmp_path):
    z, _ = uneven()
    np.save(tmp_path / "x.npy", z)
    invoke("train", "x.npy", "-k", 6, "-q")
    model = "x.dink.safetensors"
    for arguments, message in (
        (["train", "x.npy", "-k", 6, "--max-size", 39], "give at least 40, or 1x"),
        (["train", "x.npy", "-k", 6, "--max-size", "0.9x"], "cannot hold"),
        (["train", "x.npy", "-k", 6, "--max-size", "many"], "expected a number of rows, or"),
        (["train", "x.npy", "-k", 6, "--max-size", 50, "--temperature", "inf"], "--temperature"),
        (["assign", model, "x.npy", "--max-size", 39], "give at least 40, or 1x"),
        (["assign", model, "x.npy", "--max-size", 50, "--soft"], "leave out --soft"),
    ):
        assert message in invoke(*arguments, code=2).stderr


def test_distances_that_overflow_end_in_an_error():
    """No price would ever be found for what is infinitely far. Files of such models are refused."""
    z, centers = np.full((40, 5), 2e17, np.float32), np.zeros((4, 5), np.float32)
    centers[0], centers[1] = 8.15e18, -8.15e18
    model = dinkcli.Model(centers, np.ones(4))
    with pytest.raises(InputError, match="distances overflow float32"):
        dinkcli.assign(model, z, max_size="1x")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4])
def test_training_beats_exact_passes_from_the_free_centres(one_thread, seed):
    """Lloyd's algorithm with the Hungarian method in place of nearest centres."""
    z, _ = uneven(seed, n_rows=240, n_clusters=6)
    centers = dinkcli.train(z, n_clusters=6, seed=0).cluster_centers
    wide = z.astype(np.float64)
    least = np.inf
    while True:
        squared = ((wide[:, None] - centers) ** 2).sum(2)
        rows, places = linear_sum_assignment(np.repeat(squared, 48, axis=1))
        inertia = squared[rows, places // 48].sum()
        if inertia > least * (1 - 1e-9):
            break
        least = inertia
        centers = np.stack([wide[places // 48 == label].mean(0) for label in range(6)])
    model = dinkcli.train(z, n_clusters=6, seed=0, max_size=48)
    assert model.training["metrics"]["inertia"] < least
