"""Rows that do not fit in memory: shuffled batches, bounded buffers, the same results."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import inertia_float64

import dinkcli
from dinkcli.data.inputs import open_data
from dinkcli.data.machine import default_memory, parse_size
from dinkcli.errors import UsageError
from dinkcli.training.rows import RowSource

CPU = torch.device("cpu")


def numbered(n_rows, n_features=8, dtype=np.float32):
    """Rows that say their number in two features, exactly in float16 too."""
    rows = np.zeros((n_rows, n_features), dtype)
    rows[:, 0], rows[:, 1] = np.arange(n_rows) // 1000, np.arange(n_rows) % 1000
    return rows


def numbers_of(rows):
    return (rows[:, 0] * 1000 + rows[:, 1]).round().long().numpy()


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("batch", [1, 7, 256, 5000])
def test_every_row_once_an_epoch(tmp_path, dtype, batch, in_memory):
    """Over two files and a size that no block or batch divides."""
    n_rows = 300 if batch == 1 else 20_011
    rows = numbered(n_rows, 64, dtype)
    np.save(tmp_path / "a.npy", rows[: n_rows // 3])
    pq.write_table(pa.table({"e": list(rows[n_rows // 3 :])}), tmp_path / "b.parquet")
    data = open_data([str(tmp_path / "a.npy"), str(tmp_path / "b.parquet")])
    source = RowSource(data, "euclidean", CPU, 1 << 30 if in_memory else n_rows * 100)
    assert source.in_memory == in_memory
    orders = []
    for epoch in (0, 1):
        parts = list(source.batches(batch, 0, epoch))
        assert {len(z) for z in parts[:-1]} <= {batch}
        assert len(parts[-1]) == n_rows - batch * (len(parts) - 1)
        found = numbers_of(torch.cat(parts) + source.shift)
        np.testing.assert_array_equal(np.sort(found), np.arange(n_rows))
        orders.append(found)
    assert (orders[0] != orders[1]).mean() > 0.9
    again = torch.cat(list(source.batches(batch, 0, 0))) + source.shift
    np.testing.assert_array_equal(numbers_of(again), orders[0])


def test_bad_rows_are_in_no_batch_and_no_sample(tmp_path):
    rows = numbered(5000)
    bad = np.arange(0, 5000, 7)
    rows[bad, 3] = np.nan
    np.save(tmp_path / "x.npy", rows)
    data = open_data([str(tmp_path / "x.npy")], bad_rows="skip")
    for memory in (1000, 1 << 30):
        source = RowSource(data, "euclidean", CPU, memory=memory)
        sample = source.sample(5000, torch.Generator().manual_seed(0)).z
        assert (source.n_rows, source.n_bad, source.total_weight) == (4285, 715, 4285)
        expected = np.setdiff1d(np.arange(5000), bad)
        for z in (
            sample,
            torch.cat([z for z, _ in source.blocks()]),
            torch.cat(list(source.batches(100, 0, 0))),
        ):
            np.testing.assert_array_equal(np.sort(numbers_of(z + source.shift)), expected)


def clustered(n_clusters=40, per_cluster=500, n_features=16):
    """Rows sorted by cluster, and a shuffled copy."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(n_clusters, n_features)) * 3
    rows = np.repeat(centers, per_cluster, 0) + rng.normal(size=(n_clusters * per_cluster, 16))
    rows = rows.astype(np.float32)
    return rows, rng.permutation(rows)


@pytest.mark.slow
def test_a_file_sorted_by_cluster_trains_like_a_shuffled_one(tmp_path):
    found = []
    for rows in clustered():
        np.save(tmp_path / "x.npy", rows)
        model = dinkcli.train(tmp_path / "x.npy", 40, memory=400_000, device="cpu")
        found.append(inertia_float64(rows, model.cluster_centers))
    assert found[0] == pytest.approx(found[1], rel=0.01)


def test_literal_training_in_little_memory_is_close_to_that_in_memory(tmp_path):
    rows, _ = clustered()
    np.save(tmp_path / "x.npy", rows)
    options = {"temperature": float("inf"), "epochs": 2, "init": rows[::500], "device": "cpu"}
    held = dinkcli.train(tmp_path / "x.npy", 40, **options)
    streamed = dinkcli.train(tmp_path / "x.npy", 40, memory=800_000, **options)
    # Adam moves by signs, which noise flips where a gradient is near 0: hence the mean.
    moved = np.abs(held.cluster_centers - rows[::500]).mean()
    assert np.abs(streamed.cluster_centers - held.cluster_centers).mean() < 0.1 * moved


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_float16_in_memory_gives_the_centres_of_float32(tmp_path, metric):
    half = clustered(8, 100)[0].astype(np.float16)
    models = []
    for dtype in (np.float16, np.float32):
        np.save(tmp_path / "x.npy", half.astype(dtype))
        models.append(dinkcli.train(tmp_path / "x.npy", 8, metric=metric, n_init=1, device="cpu"))
    np.testing.assert_allclose(
        models[0].cluster_centers, models[1].cluster_centers, rtol=1e-3, atol=1e-4
    )


def test_sizes():
    texts = {"500MB": 5e8, "2GB": 2e9, "1.5GiB": 1.5 * 2**30, "1000": 1000, "3 kb": 3000}
    for text, expected in texts.items():
        assert parse_size(text) == expected
    for text in ("", "2XB", "-1GB", "0", "GB"):
        with pytest.raises(UsageError, match=r"`memory` .*expected a size such as"):
            parse_size(text)
    assert 0 < default_memory() < 1 << 50
