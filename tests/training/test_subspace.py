"""Annealing and refining on the main axes of the sample."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from test_checkpoint import in_pieces, saved

import dinkcli
from dinkcli.training.sample import Sample, center_projection
from dinkcli.training.schedule import most_axes
from dinkcli.training.seeding import seed_centers
from dinkcli.training.subspace import Subspace, main_axes, number_of_axes


def wide(n_rows=3000, n_features=160, rank=20, noise=0.05, seed=0, clusters=12):
    """Overlapping clusters in ``rank`` dimensions of ``n_features``, and a little noise in all."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(clusters, rank)) * 1.5
    rows = centers[rng.integers(0, clusters, n_rows)] + rng.normal(size=(n_rows, rank))
    turn = np.linalg.qr(rng.normal(size=(n_features, rank)))[0]
    z = rows @ turn.T + rng.normal(size=(n_rows, n_features)) * noise
    return (z - z.mean(0)).astype(np.float32)


def sample_of(z, weights=None, metric="euclidean"):
    weights = None if weights is None else torch.from_numpy(weights)
    return Sample(torch.from_numpy(z), weights, center_projection(metric))


@pytest.mark.parametrize("weighted", [False, True])
def test_axes_are_the_main_ones(weighted):
    rng = np.random.default_rng(1)
    z = (rng.normal(size=(1000, 120)) * np.geomspace(1, 0.01, 120)).astype(np.float32)
    weights = rng.uniform(0, 5, 1000).astype(np.float32) if weighted else None
    axes = main_axes(sample_of(z, weights), 12).numpy()
    assert axes.shape == (120, 60)
    np.testing.assert_allclose(axes.T @ axes, np.eye(60), atol=2e-4)
    rows = (z if weights is None else z * np.sqrt(weights)[:, None]).astype(np.float64)
    best = np.linalg.svd(rows, full_matrices=False)[2].T
    for number in (10, 32, 60):
        held, most = (np.square(rows @ a[:, :number]).sum() for a in (axes, best))
        assert held > 0.995 * most


def test_axes_of_fewer_rows_than_features():
    z = wide(n_rows=300, n_features=900, rank=40, noise=0.01)
    axes = main_axes(sample_of(z), 12).numpy()
    np.testing.assert_allclose(axes.T @ axes, np.eye(256), atol=2e-3)
    held = np.square(z.astype(np.float64) @ axes[:, :40]).sum()
    best = np.square(np.linalg.svd(z.astype(np.float64), compute_uv=False)[:40]).sum()
    assert held > 0.999 * best


def test_few_features_have_no_axes():
    assert main_axes(sample_of(np.ones((9, 95), np.float32)), 12) is None
    assert [most_axes(12, d) for d in (95, 96, 384, 4096, 4097)] == [0, 48, 192, 256, 0]
    assert most_axes(4096, 384) == 256


def test_as_many_axes_as_the_clusters_are_fine():
    sample = sample_of(wide())
    axes = main_axes(sample, 12)
    seeds = seed_centers(sample, 12, "k-means++", torch.Generator().manual_seed(0), 3000).centers
    assert number_of_axes(sample, axes, seeds) == 32
    # Every row a centre: nothing may be left out.
    assert number_of_axes(sample[:500], axes, sample.z[:500]) == 160
    noise = sample_of(np.random.default_rng(0).normal(size=(2000, 160)).astype(np.float32))
    seeds = noise.z[:10]
    assert number_of_axes(noise, main_axes(noise, 12), seeds) == 160


def test_labels_on_axes_are_those_of_the_same_centers_with_all_features():
    sample = sample_of(wide(noise=0.3))
    space = Subspace.on(sample, main_axes(sample, 12), 32)
    centers = torch.randn(15, 32, generator=torch.Generator().manual_seed(0))
    whole = space.out_of(centers)
    assert whole.shape == (15, 160)
    distances = torch.cdist(sample.z.double(), whole.double())
    labels = space.sample.labels(centers)
    assert (labels == distances.argmin(1)).float().mean() > 0.999
    torch.testing.assert_close(space.into(whole), centers, rtol=1e-3, atol=1e-3)
    on_axes = space.sample.mean_inertia(centers)
    assert on_axes + space.left == pytest.approx(float(distances.amin(1).square().mean()), rel=1e-3)
    means = space.means(centers, None, approximate=False)
    for j in range(15):
        rows = sample.z[labels == j].double()
        expected = rows.mean(0) if len(rows) else whole[j].double()
        torch.testing.assert_close(means[j].double(), expected, rtol=1e-4, atol=1e-5)


def test_on_no_axes_nothing_changes():
    sample = sample_of(wide(n_rows=50))
    for space in (Subspace.on(sample, None, 160), Subspace.on(sample, main_axes(sample, 12), 160)):
        assert space.sample is sample
        assert (
            space.into(sample.z)
            is space.out_of(sample.z)
            is space.means(sample.z, None, False)
            is sample.z
        )
        assert space.left == 0


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_training_on_axes_is_as_good(metric, monkeypatch):
    z = wide(noise=0.1)
    if metric == "cosine":
        z /= np.linalg.norm(z, axis=1, keepdims=True)
    kinds = []
    on = Subspace.on.__func__

    def spy(cls, *arguments):
        kinds.append(arguments[2])
        return on(cls, *arguments)

    monkeypatch.setattr(Subspace, "on", classmethod(spy))
    model = dinkcli.train(z, 12, metric=metric, device="cpu")
    assert set(kinds) == {32}
    if metric == "euclidean":
        peer = KMeans(12, n_init=10, random_state=0).fit(z).inertia_
        assert model.training["metrics"]["inertia"] < 1.001 * peer
    monkeypatch.setattr("dinkcli.training.trainer.main_axes", lambda sample, n_clusters: None)
    whole = dinkcli.train(z, 12, metric=metric, device="cpu")
    ours, theirs = (each.training["metrics"]["inertia"] for each in (model, whole))
    assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"refine": False, "n_init": 2}, {"n_init": 3}])
def test_a_training_on_axes_resumes_exactly(tmp_path, options):
    z = wide(n_rows=800)
    whole = saved(dinkcli.train(z, 9, device="cpu", **options), tmp_path / "whole")
    model, number = in_pieces(z, 9, tmp_path, lambda: 1, **options)
    assert number >= 3
    assert saved(model, tmp_path / "pieces") == whole
