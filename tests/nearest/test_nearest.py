"""Labels are those of float64 distances, whatever the batch."""

import numpy as np
import pytest
import torch
from conftest import nearest_float64

from dinkcli.nearest.index import CenterIndex


def near_ties(seed=0):
    """Rows about as near to two centres as float32 can tell."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(40, 24)).astype(np.float32)
    a, b = rng.integers(0, 40, (2, 600))
    middle = (centers[a].astype(np.float64) + centers[b]) / 2
    z = (middle + 1e-7 * rng.normal(size=middle.shape)).astype(np.float32)
    return z, centers


def index_of(centers, short):
    """Short products are forced on or off, whatever this machine would choose."""
    index = CenterIndex(torch.from_numpy(centers))
    index.scorer.low_precision_pays = index.scorer.bfloat16_serves = short
    return index


@pytest.mark.parametrize("short", [False, True])
def test_near_ties_get_the_float64_label(short):
    z, centers = near_ties()
    found = index_of(centers, short).labels(torch.from_numpy(z))
    np.testing.assert_array_equal(found.numpy(), nearest_float64(z, centers))


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize(("offset", "spread", "k"), [(0, 1, 500), (100, 1, 30), (0, 1e-3, 200)])
def test_labels_are_those_of_float64(short, offset, spread, k):
    rng = np.random.default_rng(k)
    centers = rng.normal(size=(k, 64)) * spread + offset
    z = centers[rng.integers(0, k, 3000)] + rng.normal(size=(3000, 64)) * 2
    z, centers = z.astype(np.float32), centers.astype(np.float32)
    index = index_of(centers, short)
    expected = nearest_float64(z, centers)
    np.testing.assert_array_equal(index.labels(torch.from_numpy(z)).numpy(), expected)
    near = index.nearest(torch.from_numpy(z))
    np.testing.assert_array_equal(near.labels.numpy(), expected)
    d = ((z.astype(np.float64) - centers[expected]) ** 2).sum(1)
    np.testing.assert_allclose(near.squared_distances.numpy(), d, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("short", "rtol"), [(False, 2.0**-12), (True, 0.01)])
def test_the_few_nearest_are_the_nearest_but_for_rounding(short, rtol):
    rng = np.random.default_rng(5)
    centers = (rng.normal(size=(300, 64)) + 2).astype(np.float32)
    z = (centers[rng.integers(0, 300, 5000)] + rng.normal(size=(5000, 64))).astype(np.float32)
    labels, distances = index_of(centers, short).nearest_few(
        torch.from_numpy(z), 4, approximate=short
    )
    assert labels.shape == distances.shape == (4, 5000)
    exact = ((z[:, None].astype(np.float64) - centers[labels.T]) ** 2).sum(2)
    np.testing.assert_allclose(distances.T, exact, rtol=1e-5)
    everything = ((z[:, None].astype(np.float64) - centers) ** 2).sum(2)
    np.testing.assert_allclose(exact, np.sort(everything, axis=1)[:, :4], rtol=rtol)
    assert all(len(set(row)) == 4 for row in labels.T.tolist())


@pytest.mark.parametrize(("short", "rtol"), [(False, 1e-5), (True, 0.01)])
def test_two_about_the_nearest(short, rtol):
    rng = np.random.default_rng(8)
    centers = rng.normal(size=(200, 64)).astype(np.float32)
    z = (centers[rng.integers(0, 200, 3000)] + rng.normal(size=(3000, 64))).astype(np.float32)
    found = index_of(centers, short).nearest_two(torch.from_numpy(z), approximate=True)
    exact = ((z[:, None].astype(np.float64) - centers) ** 2).sum(2)
    for labels, distances, best in (
        (found.labels, found.squared_distances, np.sort(exact, axis=1)[:, 0]),
        (found.second_labels, found.second_squared_distances, np.sort(exact, axis=1)[:, 1]),
    ):
        chosen = np.take_along_axis(exact, labels.numpy()[:, None], axis=1)[:, 0]
        np.testing.assert_allclose(distances, chosen, rtol=1e-5)
        np.testing.assert_allclose(chosen, best, rtol=rtol)
    assert (found.squared_distances <= found.second_squared_distances).all()
    assert (found.labels != found.second_labels).all()


@pytest.mark.parametrize("k", [1 << 16, (1 << 16) + 1])
def test_more_centers_than_numbers_beside_short_scores(k):
    rng = np.random.default_rng(9)
    centers = rng.normal(size=(k, 3)).astype(np.float32)
    z = np.concatenate([centers[-5:], rng.normal(size=(95, 3)).astype(np.float32)])
    index = index_of(centers, short=True)
    expected = nearest_float64(z, centers)
    np.testing.assert_array_equal(index.labels(torch.from_numpy(z)).numpy(), expected)
    _, distances = index.nearest_few(torch.from_numpy(z), 2, approximate=True)
    exact = ((z.astype(np.float64) - centers[expected]) ** 2).sum(1)
    np.testing.assert_allclose(distances[0], exact, rtol=0, atol=0.1)


@pytest.mark.slow
def test_rough_distances_are_exact_where_they_are_zero():
    rng = np.random.default_rng(6)
    centers = rng.normal(size=(400, 96)).astype(np.float32)
    centers[1::2] = centers[::2] * (1 + 1e-5)  # pairs that bfloat16 cannot tell from each other
    z = np.concatenate([centers, rng.normal(size=(2000, 96)).astype(np.float32)])
    found = index_of(centers, short=True).nearest_approximate(torch.from_numpy(z))
    np.testing.assert_array_equal(found.labels[:400], np.arange(400))
    assert not found.squared_distances[:400].any()
    exact = ((z.astype(np.float64) - centers[found.labels]) ** 2).sum(1)
    np.testing.assert_allclose(found.squared_distances, exact, rtol=0.02)
    everything = ((z[:, None].astype(np.float64) - centers) ** 2).sum(2)
    np.testing.assert_allclose(exact, everything.min(1), rtol=0.02)


def test_the_program_around_keeps_its_precision():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        z, centers = near_ties(2)
        found = index_of(centers, short=False).labels(torch.from_numpy(z))
        np.testing.assert_array_equal(found.numpy(), nearest_float64(z, centers))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_labels_do_not_depend_on_the_batch():
    z, centers = near_ties(1)
    index, z = CenterIndex(torch.from_numpy(centers)), torch.from_numpy(z)
    whole = index.labels(z)
    for size in (1, 7, 64, 599):
        parts = torch.cat([index.labels(part) for part in z.split(size)])
        assert torch.equal(parts, whole)


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("k", [2, 1023, 1025, 16_384, 16_385])
def test_labels_at_the_ends_of_the_room_for_numbers(short, k):
    rng = np.random.default_rng(k)
    z, centers = (rng.normal(size=(n, 5)).astype(np.float32) for n in (211, k))
    z[0] = centers[-1]
    found = index_of(centers, short).nearest_two(torch.from_numpy(z))
    expected = nearest_float64(z, centers)
    np.testing.assert_array_equal(found.labels.numpy(), expected)
    assert (found.second_labels != found.labels).all()
    d = ((z.astype(np.float64) - centers[expected]) ** 2).sum(1)
    np.testing.assert_allclose(found.squared_distances.numpy(), d, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-17, 1e-14, 1e16, 1e18])
def test_labels_of_very_small_and_very_large_numbers(scale):
    rng = np.random.default_rng(5)
    z, centers = ((rng.normal(size=(n, 4)) * scale).astype(np.float32) for n in (99, 12))
    found = index_of(centers, short=False).labels(torch.from_numpy(z))
    np.testing.assert_array_equal(found.numpy(), nearest_float64(z, centers))


def test_exact_ties_go_to_the_lowest_index():
    centers = torch.tensor([[5.0, 0], [1, 0], [-1, 0], [1, 0]])
    index = CenterIndex(centers)
    assert index.labels(torch.zeros(3, 2)).tolist() == [1, 1, 1]
    assert index.labels(torch.tensor([[1.0, 0]])).tolist() == [1]


def test_second_nearest_is_the_second_of_a_sort():
    rng = np.random.default_rng(2)
    z, centers = (rng.normal(size=(n, 6)).astype(np.float32) + 50 for n in (200, 9))
    found = index_of(centers, short=False).nearest_two(torch.from_numpy(z))
    d = ((z[:, None].astype(np.float64) - centers[None].astype(np.float64)) ** 2).sum(2)
    order = d.argsort(1)
    np.testing.assert_array_equal(found.labels.numpy(), order[:, 0])
    np.testing.assert_array_equal(found.second_labels.numpy(), order[:, 1])
    np.testing.assert_allclose(found.squared_distances.numpy(), np.sort(d, 1)[:, 0], rtol=1e-4)
    np.testing.assert_allclose(
        found.second_squared_distances.numpy(), np.sort(d, 1)[:, 1], rtol=1e-4
    )
    short = index_of(centers, short=True).nearest_two(torch.from_numpy(z))
    np.testing.assert_array_equal(short.labels.numpy(), order[:, 0])
    assert (short.second_labels != short.labels).all()
    np.testing.assert_allclose(
        short.second_squared_distances.numpy(), np.sort(d, 1)[:, 1], rtol=0.02
    )


def test_one_centre_takes_every_row():
    found = CenterIndex(torch.ones(1, 3)).nearest_two(torch.zeros(5, 3))
    assert found.labels.tolist() == [0] * 5
    assert torch.isinf(found.second_squared_distances).all()


def test_short_products_without_a_doubtful_row():
    centers = np.eye(64, 100, dtype=np.float32) * 50
    found = index_of(centers, short=True).nearest_two(torch.from_numpy(centers))
    assert found.labels.tolist() == list(range(64))
    assert index_of(centers, short=True).labels(torch.empty(0, 100)).shape == (0,)


def test_many_centres_are_done_in_small_chunks():
    rng = np.random.default_rng(4)
    z, centers = (rng.normal(size=(n, 3)).astype(np.float32) for n in (60, 300_000))
    index = CenterIndex(torch.from_numpy(centers))
    assert len(list(index.chunks(torch.from_numpy(z)))) == 2
    found = index.labels(torch.from_numpy(z))
    np.testing.assert_array_equal(found.numpy(), nearest_float64(z, centers))


def test_short_products_can_be_switched_off(monkeypatch):
    """A machine without them takes the same way."""
    z, centers = near_ties()
    centers = np.concatenate([centers, centers + 9])
    centers = np.tile(centers, (1, 20))  # so many numbers that short products would serve
    z = np.tile(z, (1, 20))
    with_them = CenterIndex(torch.from_numpy(centers)).labels(torch.from_numpy(z))
    monkeypatch.setenv("DINK_LOW_PRECISION", "0")
    index = CenterIndex(torch.from_numpy(centers))
    assert not index.scorer.low_precision_pays and not index.scorer.bfloat16_serves
    np.testing.assert_array_equal(index.labels(torch.from_numpy(z)), with_them)
    np.testing.assert_array_equal(with_them, nearest_float64(z, centers))


@pytest.mark.parametrize("far", [1e2, 1e3, 1e5, 1e9])
@pytest.mark.parametrize("among", ["rows", "centres", "both", "many"])
def test_a_far_row_costs_the_others_no_digits(far, among):
    """Labels are those of float64, and nearly all from the first look."""
    rng = np.random.default_rng(0)
    z, centers = (rng.normal(size=(n, 64)).astype(np.float32) for n in (1500, 200))
    if among in ("rows", "both"):
        z[7] = far
    if among in ("centres", "both"):
        centers[7] = far
    if among == "many":
        z[::3] *= far
        centers[::5] *= far
    index = CenterIndex(torch.from_numpy(centers))
    labels = index.labels(torch.from_numpy(z)).numpy()
    np.testing.assert_array_equal(labels, nearest_float64(z, centers))
    near, limit = index.scorer.two(index.scorer.shifted(torch.from_numpy(z)))
    if among != "many":
        assert (near.second <= limit).sum() < 40
