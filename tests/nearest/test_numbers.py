"""Numbers at the ends of their types: correct, or a clear error; never NaN in a model."""

import math

import numpy as np
import pytest
import torch
from conftest import SAMPLES, nearest_float64
from sklearn.metrics import adjusted_rand_score

import dinkcli
from dinkcli.data.array import ArrayReader
from dinkcli.data.dataset import DataSet
from dinkcli.data.inputs import open_data
from dinkcli.errors import InputError, RunError, UsageError
from dinkcli.nearest.hardware import chunk_rows
from dinkcli.nearest.index import CenterIndex
from dinkcli.nearest.prepare import normalize_
from dinkcli.nearest.sums import Statistics, tempered_statistics
from dinkcli.processes.device import in_pieces
from dinkcli.training.refine import State, removal_costs
from dinkcli.training.rows import RowSource
from dinkcli.training.sample import Sample


def finite(model):
    steps = model.training["history"]
    numbers = [v for step in steps for v in step.values() if isinstance(v, (int, float))]
    return all(
        np.isfinite(values).all()
        for values in (model.cluster_centers, model.cluster_sizes, numbers)
    )


def fit(z, k=3, **options):
    return dinkcli.train(z, k, device="cpu", **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "temperature"),
    [(1e-14, "auto"), (1e16, "auto"), (1e-14, math.inf), (1e16, 0.0), (1, 1e-30), (1, 1e300)],
)
def test_any_scale_that_float32_can_square(blobs, scale, temperature):
    z, truth = blobs
    z = (z * scale).astype(np.float32)
    model = fit(z, temperature=temperature, epochs=4)
    assert finite(model)
    if temperature == "auto":
        labels = dinkcli.assign(model, z, device="cpu")
        assert adjusted_rand_score(truth, labels) == 1
        np.testing.assert_array_equal(labels, nearest_float64(z, model.cluster_centers))
        assert np.isfinite(dinkcli.assign(model, z, soft=True, device="cpu")).all()


@pytest.mark.parametrize("memory", [None, 1000])
@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (1e-42, "squared distances would vanish in float32"),
        (1e-17, "squared distances would vanish in float32"),
        (1e18, "row 0 holds .* squared distances would overflow float32"),
        (1e30, "row 0 holds .* squared distances would overflow float32"),
    ],
)
def test_scales_beyond_are_refused(blobs, scale, message, memory):
    with np.errstate(under="ignore"), pytest.raises(InputError, match=message):
        fit((blobs[0] * scale).astype(np.float32), memory=memory)


@pytest.mark.parametrize("scale", [1e-42, 1e-25, 1e36])
def test_cosine_takes_norms_that_float32_cannot_square(blobs, scale):
    z, truth = blobs
    z = ((z + 20) * scale).astype(np.float32)
    model = fit(z, metric="cosine")
    assert finite(model)
    assert adjusted_rand_score(truth, dinkcli.assign(model, z, device="cpu")) == 1


def test_normalising_equals_float64(blobs):
    scales = 10.0 ** np.linspace(-44, 36, len(blobs[0]))
    z = (blobs[0] * scales[:, None]).astype(np.float32)
    wide = z.astype(np.float64)
    expected = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    rows = torch.from_numpy(z.copy())
    normalize_(rows)
    np.testing.assert_allclose(rows.numpy(), expected, rtol=1e-6, atol=1e-7)
    zero = torch.zeros(2, 3)
    assert (normalize_(zero) == 0).all() and (zero == 0).all()


def test_float16_near_its_largest_value(blobs):
    z, truth = blobs
    z = (z * 5500).clip(-65504, 65504).astype(np.float16)
    assert np.abs(z).max() > 60000
    model = fit(z)
    assert finite(model)
    assert adjusted_rand_score(truth, dinkcli.assign(model, z, device="cpu")) == 1


def test_one_huge_row_is_found_when_assigning(blobs):
    model = fit(blobs[0])
    z = blobs[0].copy()
    z[17, 2] = 1e30
    with pytest.raises(
        InputError, match=r"row 17 holds 1e\+30 in feature 2; squared distances would overflow"
    ):
        dinkcli.assign(model, z, device="cpu")


@pytest.mark.parametrize(
    ("weight", "message"), [(1e30, "sample weights reach 1e"), (1e-40, "sample weights reach 1e-")]
)
def test_weights_beyond_float32_sums_are_refused(blobs, weight, message):
    with pytest.raises(UsageError, match=message):
        fit(blobs[0], sample_weight=np.full(300, weight))


def test_weights_of_very_different_size(blobs):
    weights = np.where(np.arange(300) % 2, 1e-20, 1e12)
    model = fit(blobs[0], sample_weight=weights)
    assert finite(model)
    assert model.cluster_sizes.sum() == pytest.approx(weights.astype(np.float32).sum(), rel=1e-6)


def test_centres_to_start_from_are_checked(blobs):
    with pytest.raises(UsageError, match="`init`: centres that are not all finite"):
        fit(blobs[0], init=np.full((3, 5), np.nan, np.float32))
    with pytest.raises(InputError, match=r"`init`: row 1 is 3e\+38 away from the mean"):
        fit(blobs[0], init=np.float32([[0] * 5, [3e38] * 5, [1] * 5]))


def test_counts_beyond_the_integers_of_float32(blobs):
    """2^24 + 1 is no float32: sums over blocks of rows are taken in float64."""
    block = torch.ones(1 << 16, 1)
    index = CenterIndex(torch.zeros(1, 1))
    found = Statistics.zeros(index.centers)
    for _ in range(257):
        found.add(tempered_statistics(block, None, index, 0.0))
    assert found.counts.item() == found.sums.item() == found.inertia == 257 << 16
    z = np.zeros((100_000, 1), np.float32)
    rows = RowSource(DataSet([ArrayReader(z)]), "euclidean", torch.device("cpu"))
    assert max(len(z) for z, _ in rows.blocks()) <= 1 << 16


@pytest.mark.parametrize("k", [1, 1000, 1 << 20, 1 << 31])
def test_scores_come_in_chunks_that_an_int32_can_count(k):
    rows = chunk_rows(k, 1)
    assert rows == 1 or rows * k <= 1 << 24


def test_pairs_of_clusters_beyond_int32():
    """K x K = 4.9e9: pairs of a centre and its second nearest have numbers up to that."""
    k = 70_000
    sample = Sample(torch.zeros(k, 1), None, lambda centers: centers)
    few = State.of(sample[:2], torch.zeros(2, 1)).near
    here, there = torch.arange(k), torch.arange(1, k + 1) % k
    near = few._replace(
        labels=here,
        squared_distances=torch.full((k,), 0.25),
        second_labels=there,
        second_squared_distances=torch.full((k,), 0.75),
    )
    state = State(torch.zeros(k, 1), near, sizes=torch.ones(k), inertia=0.25 * k, rows=k)
    cost, receiver = removal_costs(sample, state)
    assert torch.equal(receiver, there)
    torch.testing.assert_close(cost, torch.full((k,), 0.25, dtype=torch.float64))


def test_more_numbers_than_an_int32_can_count(tmp_path):
    """N x D = 2^31 + 2^20, in a sparse file that takes no room on the disk."""
    n, d = (1 << 11) + 1, 1 << 20
    array = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.int8, (n, d))
    array[-1, -1] = 100
    del array
    reader = open_data([str(tmp_path / "x.npy")]).readers[0]
    last = next(iter(reader.blocks(1, n - 1))).vectors
    assert last.shape == (1, d)
    assert (np.flatnonzero(last) == [d - 1]).all()


def test_out_of_memory_on_the_device_halves_the_work():
    """Stands in for CUDA, whose allocator raises this error."""

    def work(where):
        if where.stop - where.start > 300:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return list(range(where.start, where.stop))

    parts = list(in_pieces(work, 1000))
    assert [len(part) for part in parts] == [250] * 4
    assert [row for part in parts for row in part] == list(range(1000))

    def never(where):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(RunError, match="out of memory even for 62 rows at a time; free some"):
        list(in_pieces(never, 1000))


def test_training_survives_a_device_that_is_full(monkeypatch):
    """Half the memory is gone: passes are taken in pieces, with the same sums."""
    import dinkcli.training.rows as module

    z = np.load(SAMPLES / "digits.npy")
    whole = fit(z, 10)
    original = module.tempered_statistics

    def full(z, *arguments):
        if len(z) > 500:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return original(z, *arguments)

    monkeypatch.setattr(module, "tempered_statistics", full)
    pieces = fit(z, 10)
    np.testing.assert_allclose(pieces.cluster_centers, whole.cluster_centers, atol=1e-5)
    np.testing.assert_array_equal(pieces.cluster_sizes, whole.cluster_sizes)
