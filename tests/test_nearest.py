"""Labels are those of float64 distances, whatever the batch."""

import numpy as np
import torch
from conftest import nearest_float64

from dinkcli.nearest import CenterIndex


def near_ties(seed=0):
    """Rows about as near to two centres as float32 can tell."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(40, 24)).astype(np.float32)
    a, b = rng.integers(0, 40, (2, 600))
    middle = (centers[a].astype(np.float64) + centers[b]) / 2
    z = (middle + 1e-7 * rng.normal(size=middle.shape)).astype(np.float32)
    return z, centers


def test_near_ties_get_the_float64_label():
    z, centers = near_ties()
    found = CenterIndex(torch.from_numpy(centers)).nearest(torch.from_numpy(z)).labels
    np.testing.assert_array_equal(found.numpy(), nearest_float64(z, centers))


def test_labels_do_not_depend_on_the_batch():
    z, centers = near_ties(1)
    index, z = CenterIndex(torch.from_numpy(centers)), torch.from_numpy(z)
    whole = index.nearest(z).labels
    for size in (1, 7, 64, 599):
        parts = torch.cat([index.nearest(part).labels for part in z.split(size)])
        assert torch.equal(parts, whole)


def test_exact_ties_go_to_the_lowest_index():
    centers = torch.tensor([[5.0, 0], [1, 0], [-1, 0], [1, 0]])
    index = CenterIndex(centers)
    assert index.nearest(torch.zeros(3, 2)).labels.tolist() == [1, 1, 1]
    assert index.nearest(torch.tensor([[1.0, 0]])).labels.tolist() == [1]


def test_second_nearest_is_the_second_of_a_sort():
    rng = np.random.default_rng(2)
    z, centers = (rng.normal(size=(n, 6)).astype(np.float32) + 50 for n in (200, 9))
    found = CenterIndex(torch.from_numpy(centers)).nearest(torch.from_numpy(z))
    d = ((z[:, None].astype(np.float64) - centers[None].astype(np.float64)) ** 2).sum(2)
    order = d.argsort(1)
    np.testing.assert_array_equal(found.second_labels.numpy(), order[:, 1])
    np.testing.assert_allclose(found.squared_distances.numpy(), np.sort(d, 1)[:, 0], rtol=1e-4)
    np.testing.assert_allclose(
        found.second_squared_distances.numpy(), np.sort(d, 1)[:, 1], rtol=1e-4
    )


def test_one_centre_takes_every_row():
    found = CenterIndex(torch.ones(1, 3)).nearest(torch.zeros(5, 3))
    assert found.labels.tolist() == [0] * 5
    assert torch.isinf(found.second_squared_distances).all()


def test_many_centres_are_done_in_small_chunks():
    rng = np.random.default_rng(4)
    z, centers = (rng.normal(size=(n, 3)).astype(np.float32) for n in (50, 300_000))
    index = CenterIndex(torch.from_numpy(centers))
    assert len(list(index.chunks(torch.from_numpy(z)))) == 2
    found = index.nearest(torch.from_numpy(z)).labels
    np.testing.assert_array_equal(found.numpy(), nearest_float64(z, centers))
