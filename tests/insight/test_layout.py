"""The map: forces against loops in float64, neighbours against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

import dinkcli
from dinkcli.insight.layout import map_of_rows, places_of_centers, repulsion
from dinkcli.training.neighbours import nearest_others

pytestmark = pytest.mark.usefixtures("one_thread")


def neighbours(z, number):
    return NearestNeighbors(n_neighbors=number).fit(z).kneighbors(return_distance=False)


def kept(z, points):
    """The share of each row's 10 nearest rows that are among its 30 nearest points."""
    true, near = neighbours(z, 10), neighbours(points, 30)
    return np.mean([np.isin(a, b).mean() for a, b in zip(true, near, strict=True)])


@pytest.mark.parametrize("spread", [1.0, 15.0])
def test_repulsion_is_that_of_all_pairs(spread):
    rng = np.random.default_rng(0)
    points = (rng.normal(size=(1500, 2)) * spread).astype(np.float32)
    apart = points[:, None].astype(np.float64) - points
    potential = 1 / (1 + (apart**2).sum(2))
    gradient = -2 * (potential[:, :, None] ** 2 * apart).sum(1)
    rng = np.random.default_rng(1)
    found = [repulsion(points, rng) for _ in range(64)]
    assert np.mean([total for _, total in found]) == pytest.approx(potential.sum() - 1500, rel=0.01)
    error = np.mean([each for each, _ in found], axis=0) - gradient
    assert np.linalg.norm(error) < 0.1 * np.linalg.norm(gradient)


def test_neighbours_are_found_among_many_rows():
    rng = np.random.default_rng(0)
    z = (rng.normal(size=(30, 16))[rng.integers(0, 30, 6000)] * 2).astype(np.float32)
    z += rng.normal(size=(6000, 4)).astype(np.float32) @ rng.normal(size=(4, 16)).astype(np.float32)
    true, found = neighbours(z, 15), nearest_others(torch.from_numpy(z), 15)
    assert np.mean([np.isin(a, b).mean() for a, b in zip(true, found, strict=True)]) > 0.9
    assert all(len(set(each)) == 15 for each in found.tolist())
    assert not (found == np.arange(6000)[:, None]).any()
    few = nearest_others(torch.from_numpy(z[:300]), 5)
    np.testing.assert_array_equal(np.sort(few), np.sort(neighbours(z[:300], 5)))


def test_centers_in_the_plane_keep_their_distances():
    """What has a place in the plane gets it; the stress of more is below that of the main axes."""
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(12, 2)) @ np.linalg.qr(rng.normal(size=(9, 9)))[0][:2]

    def distances(z):
        return np.linalg.norm(z[:, None] - z, axis=2)

    np.testing.assert_allclose(
        distances(places_of_centers(flat)), distances(flat), rtol=1e-3, atol=1e-3
    )
    z = rng.normal(size=(40, 20))
    centred = z - z.mean(0)
    plane = centred @ np.linalg.svd(centred)[2][:2].T
    stress = [((distances(y) - distances(z)) ** 2).sum() for y in (places_of_centers(z), plane)]
    assert stress[0] < 0.5 * stress[1]


@pytest.mark.slow
def test_neighbours_stay_near_on_the_map(digits):
    z, _ = digits
    model = dinkcli.train(z, 10, device="cpu", n_init=1)
    labels = dinkcli.assign(model, z)
    points = map_of_rows(z.astype(np.float32), labels, model.cluster_centers)
    # PCA 0.31, umap-learn 0.5.12 0.82: docs/LOG.md.
    assert kept(z, points) > 0.8
    again = map_of_rows(z.astype(np.float32), labels, model.cluster_centers)
    np.testing.assert_array_equal(points, again)
    other = map_of_rows(z.astype(np.float32), labels, model.cluster_centers, seed=1)
    assert not np.array_equal(points, other)


@pytest.mark.slow
def test_rows_that_join_later_find_their_place():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 20, 17_000)
    centers = rng.normal(size=(20, 8)) * 9
    z = (centers[labels] + rng.normal(size=(17_000, 8))).astype(np.float32)
    steps = []
    points = map_of_rows(z, labels, centers, on_step=lambda *each: steps.append(each))
    assert steps[-1] == (460, 460)
    some = rng.choice(17_000, 1000, replace=False)
    nearest = NearestNeighbors(n_neighbors=10).fit(points)
    near = nearest.kneighbors(points[some], return_distance=False)
    assert (labels[near] == labels[some][:, None]).mean() > 0.98
