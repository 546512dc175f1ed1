"""Labels from pass to pass, with bounds, are those of a full search."""

import numpy as np
import pytest
import torch
from conftest import nearest_float64

import dinkcli
from dinkcli.nearest.bounds import Bounds
from dinkcli.nearest.index import CenterIndex


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("scale", [0.0, 1e-3, 0.03, 0.5])
def test_labels_are_those_of_a_full_search(seed, scale, monkeypatch):
    rng = np.random.default_rng(seed)
    offset = (0, 0, 1e4)[seed % 3]
    centers = rng.normal(size=(12, 3)).astype(np.float32)
    # Some rows lie in the middle between two centres, some on a centre.
    pairs = rng.integers(0, 12, (200, 2))
    middle = centers[pairs].mean(1) + rng.normal(size=(200, 3)) * 1e-6
    z = np.concatenate([rng.normal(size=(2000, 3)), middle, centers]).astype(np.float32) + offset
    centers += np.float32(offset)
    if seed == 4:
        centers[3] = centers[7]
    bounds, rows = Bounds(), torch.from_numpy(z)
    searched = []
    nearest_two = CenterIndex.nearest_two

    def spy(index, rows):
        searched.append(len(rows))
        return nearest_two(index, rows)

    for _ in range(8):
        index = CenterIndex(torch.from_numpy(centers))
        bounds.begin(index)
        expected = index.nearest(rows)
        with monkeypatch.context() as patch:
            patch.setattr(CenterIndex, "nearest_two", spy)
            parts = [bounds.nearest(i, part) for i, part in enumerate(rows.split(1000))]
        labels = torch.cat([part.labels for part in parts])
        np.testing.assert_array_equal(labels, nearest_float64(z, centers))
        assert torch.equal(labels, expected.labels)
        squares = torch.cat([part.squared_distances for part in parts])
        assert torch.equal(squares, expected.squared_distances)
        # Few move far, most a little, as at the end of a training.
        moves = rng.normal(size=centers.shape) * scale
        moves[1:] *= 0.1 ** rng.integers(0, 4, (11, 1))
        centers = (centers + moves).astype(np.float32)
    if scale == 1e-3 and not offset:
        assert sum(searched) < 3.5 * len(z)  # of 8


def test_blocks_that_a_pass_has_left_out_are_searched():
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.normal(size=(100, 2)).astype(np.float32))
    bounds = Bounds()
    for moved in (0.0, 5.0, 0.0):
        index = CenterIndex(torch.tensor([[moved, 0.0], [1.0, 1.0]]))
        bounds.begin(index)
        if moved == 0.0:
            assert torch.equal(bounds.nearest(3, z).labels, index.labels(z))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_training_is_the_same_without_bounds(metric, monkeypatch):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(6000, 6)).astype(np.float32)
    weights = rng.uniform(0.5, 2, 6000).astype(np.float32)
    monkeypatch.setattr("dinkcli.nearest.device._BLOCK_ROWS", 1024)
    options = {
        "metric": metric,
        "sample_weight": weights,
        "device": "cpu",
        "tol": 1e-9,
        "refine": False,
    }
    ours = dinkcli.train(z, 30, **options)
    monkeypatch.setattr(Bounds, "nearest", lambda self, number, z: self._index.nearest(z))
    whole = dinkcli.train(z, 30, **options)
    np.testing.assert_array_equal(ours.cluster_centers, whole.cluster_centers)
    assert ours.training["metrics"] == whole.training["metrics"]
    assert sum(step["phase"] == "pass" for step in ours.training["history"]) > 2
