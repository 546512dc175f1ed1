"""dink sample: equal shares, the same rows whatever their order, honest probabilities."""

import json

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.spatial.distance import cdist

import dinkcli
from dinkcli.assigning.sample import by_weight, inclusion, on_levels, proportional
from dinkcli.models.tree import parents, ward

SHARES = [200, 100, 60, 30, 7, 3]
KINDS = ("balanced", "proportional", "prototypes", "diverse")


@pytest.fixture
def data(tmp_path):
    """400 rows in clusters of 200 to 3, in parquet with an id, a text and a weight."""
    rng = np.random.default_rng(0)
    centers = 30 * np.eye(6, 8)
    labels = rng.permutation(np.repeat(np.arange(6), SHARES))
    z = (centers[labels] + rng.normal(size=(400, 8))).astype(np.float32)
    z[1], labels[1] = z[0], labels[0]  # the same numbers, another id
    write(tmp_path / "x.parquet", z, np.arange(400))
    dinkcli.Model(centers.astype(np.float32), np.ones(6)).save(tmp_path / "m.safetensors")
    return z, dinkcli.assign(tmp_path / "m.safetensors", z)


def write(path, z, ids):
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(z.reshape(-1)), z.shape[1])
    columns = {"id": [f"r{i}" for i in ids], "text": [f"text {i}" for i in ids]}
    pq.write_table(pa.table({**columns, "weight": 1.0 + ids % 5, "v": vectors}), path)


@pytest.mark.parametrize(
    ("number", "truth"),
    [(6, [1] * 6), (20, [5, 4, 4, 4, 0, 3]), (100, None), (400, SHARES)],
)
def test_equal_shares(invoke, data, number, truth):
    _, labels = data
    invoke("sample", "m.safetensors", "x.parquet", "-n", number, "-o", "s.parquet")
    found = pq.read_table("s.parquet").to_pandas()
    sizes = np.bincount(labels, minlength=6)
    shares = np.bincount(found["cluster"], minlength=6)
    assert shares.sum() == number and len(set(found["row"])) == number
    roomy = shares < sizes
    if roomy.any():
        assert np.ptp(shares[roomy]) <= 1 and shares[~roomy].max(initial=0) <= shares.max()
    np.testing.assert_array_equal(labels[found["row"]], found["cluster"])
    np.testing.assert_allclose(
        found["probability"], (shares / np.maximum(sizes, 1))[found["cluster"]]
    )


@pytest.mark.parametrize("by", KINDS)
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_the_same_bytes_whatever_the_order(invoke, data, tmp_path, by, suffix):
    z, _ = data
    arguments = ["--ids", "id", "--columns", "text", "-n", 50, "--by", by]
    invoke("sample", "m.safetensors", "x.parquet", *arguments, "-o", f"a.{suffix}")
    order = np.random.default_rng(1).permutation(400)
    write(tmp_path / "y.parquet", z[order[:150]], order[:150])
    write(tmp_path / "w.parquet", z[order[150:]], order[150:])
    invoke("sample", "m.safetensors", "w.parquet", "y.parquet", *arguments, "-o", f"b.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    if suffix == "csv":
        rows = duckdb.sql("select id, text, cluster, rank from 'a.csv'").fetchall()
        assert all(text == f"text {name[1:]}" for name, text, *_ in rows)
        assert rows == sorted(rows, key=lambda row: row[2:])


def test_another_seed_is_another_sample(invoke, data):
    found = []
    for seed in (0, 0, 1):
        arguments = ["-n", 60, "--seed", seed, "-o", "s.npy"]
        invoke("sample", "m.safetensors", "x.parquet", *arguments)
        found.append(np.load("s.npy")["row"].tolist())
    assert found[0] == found[1] != found[2]


def test_proportional_shares_and_quotas(invoke, data, tmp_path):
    _, labels = data
    sizes = np.bincount(labels, minlength=6)
    invoke("sample", "m.safetensors", "x.parquet", "-n", 40, "--by", "proportional", "-o", "s.npy")
    shares = np.bincount(np.load("s.npy")["cluster"], minlength=6)
    assert np.abs(shares - 0.1 * sizes).max() < 1
    (tmp_path / "q.csv").write_text("cluster,rows\n4,2\n0,5\n")
    (tmp_path / "q.json").write_text('{"4": 2, "0": 5}')
    for name in ("q.csv", "q.json"):
        invoke("sample", "m.safetensors", "x.parquet", "--quota", name, "-o", "s.npy")
        found = np.load("s.npy")["cluster"]
        assert np.bincount(found, minlength=6).tolist() == [5, 0, 0, 0, 2, 0]


def test_prototypes_are_the_nearest(invoke, data):
    z, labels = data
    invoke("sample", "m.safetensors", "x.parquet", "-n", 18, "--by", "prototypes", "-o", "s.npy")
    found = np.load("s.npy")
    centers = dinkcli.load("m.safetensors").cluster_centers.astype(np.float64)
    distance = np.linalg.norm(z - centers[labels], axis=1)
    for label in range(6):
        own = found[found["cluster"] == label]
        members = np.flatnonzero(labels == label)
        truth = np.sort(distance[members])[: len(own)]
        np.testing.assert_allclose(distance[own["row"]], truth, rtol=1e-5)
    assert (found["probability"] == 1).all()


@pytest.mark.slow
def test_diverse_rows_are_farther_apart_than_others(invoke, tmp_path):
    from sklearn.cluster import kmeans_plusplus

    rng = np.random.default_rng(0)
    z = rng.normal(size=(3000, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", z)
    invoke("train", "x.npy", "-k", 20, "-q")

    def apart(rows):
        distances = cdist(z[rows], z[rows])
        np.fill_diagonal(distances, np.inf)
        return distances.min(1).mean()

    scores = {}
    for by in ("balanced", "diverse"):
        invoke("sample", "x.dink.safetensors", "x.npy", "-n", 200, "--by", by, "-o", "s.npy")
        scores[by] = apart(np.load("s.npy")["row"])
    scores["random"] = apart(rng.choice(3000, 200, replace=False))
    scores["kmeans++"] = apart(kmeans_plusplus(z, 200, random_state=0)[1])
    assert scores["diverse"] > 1.02 * scores["kmeans++"]
    assert scores["diverse"] > 1.1 * max(scores["random"], scores["balanced"])


@pytest.mark.slow
def test_weights_decide_how_often_a_row_is_drawn(invoke, data, tmp_path):
    counts, stated, n_seeds = np.zeros(400), np.zeros(400), 60
    for seed in range(n_seeds):
        arguments = ["-n", 60, "--seed", seed, "--sample-weight", "weight", "-o", "s.npy", "-q"]
        invoke("sample", "m.safetensors", "x.parquet", *arguments)
        found = np.load("s.npy")
        counts[found["row"]] += 1
        stated[found["row"]] = found["probability"]
    heavy = np.arange(400) % 5 == 4
    light = np.arange(400) % 5 == 0
    seen = stated > 0
    # Horvitz and Thompson: counts over probabilities estimate the number of rows.
    assert (counts[seen] / stated[seen]).sum() / n_seeds == pytest.approx(400, rel=0.08)
    assert counts[heavy].sum() > 3 * counts[light].sum()


def test_systematic_samples_have_the_probabilities_that_they_state():
    rng = np.random.default_rng(0)
    weights = rng.exponential(size=30)
    wanted = inclusion(weights, 8)
    assert wanted.sum() == pytest.approx(8) and wanted.max() <= 1
    counts = np.zeros(30)
    for _ in range(4000):
        order = rng.permutation(30)
        chosen, stated = by_weight(weights[order], 8, rng.random())
        chosen = order[chosen]
        assert len(set(chosen)) == 8
        np.testing.assert_allclose(stated, wanted[chosen])
        counts[chosen] += 1
    np.testing.assert_allclose(counts / 4000, wanted, atol=0.04)


def test_shares_add_up():
    rng = np.random.default_rng(0)
    for _ in range(50):
        sizes = rng.integers(0, 50, 12)
        number = int(rng.integers(0, sizes.sum() + 1))
        tree = ward(rng.normal(size=(12, 3)), np.ones(12))
        for shares in (
            on_levels(sizes, number),
            proportional(sizes.astype(float), sizes, number),
            on_levels(sizes, number, [parents(tree, level) for level in (2, 5)]),
        ):
            assert shares.sum() == number and (shares <= sizes).all() and (shares >= 0).all()
    two = parents(ward(np.array([[0.0], [0.1], [0.2], [9.0]]), np.ones(4)), 2)
    assert on_levels(np.full(4, 90), 60, [two]).tolist() == [10, 10, 10, 30]


def test_wrong_use(invoke, data, tmp_path):
    (tmp_path / "q.csv").write_text("cluster,rows\n9,2\n")
    (tmp_path / "much.csv").write_text("cluster,rows\n5,90\n")
    sample = ["sample", "m.safetensors", "x.parquet"]
    for arguments, code, message in (
        ([], 2, "give the rows (-n)"),
        (["-n", 0], 2, "expected at least 1"),
        (["-n", 401], 2, "x.parquet has 400 usable rows"),
        (["--quota", "none.csv"], 2, "no such file"),
        (["--quota", "q.csv"], 1, "cluster 9 with 2 rows, of 6 clusters"),
        (["--quota", "much.csv"], 2, "90 rows of cluster 5, which has"),
        (["-n", 9, "--levels", "9,3"], 2, "expected ascending numbers"),
        (["-n", 9, "--by", "diverse", "--sample-weight", "weight"], 2, "leave out --sample-weight"),
    ):
        assert message in invoke(*sample, *arguments, code=code).stderr


def test_summary_standard_output_and_bad_rows(invoke, data, tmp_path):
    z, labels = data
    z[labels == 5] = np.nan
    np.save(tmp_path / "x.npy", z)
    arguments = ["-n", 10, "--bad-rows", "skip", "--json-file", "s.json"]
    result = invoke("sample", "m.safetensors", "x.npy", *arguments)
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary["sample"] == 10 and summary["rows"] == 400 - (labels == 5).sum()
    assert summary["shares"] == [2] * 5 + [0]
    lines = result.stdout.splitlines()
    assert lines[0] == "row,cluster,rank,probability,distance" and len(lines) == 11
