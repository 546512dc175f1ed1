"""Train, assign and export through the real command line, checked by independent readers."""

import csv
import io
import itertools
import json
import os
import re
import stat
import subprocess

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import (
    SAMPLES,
    distances_float64,
    environment,
    inertia_float64,
    nearest_float64,
    python,
    usual_softmax,
)
from safetensors.numpy import load_file
from sklearn.metrics import normalized_mutual_info_score

import dinkcli


@pytest.fixture
def model(tmp_path, blobs):
    """A trained model of the blobs, its data file, and its centres."""
    np.save(tmp_path / "x.npy", blobs[0])
    trained = dinkcli.train(tmp_path / "x.npy", 3, device="cpu")
    trained.save(tmp_path / "m.safetensors")
    return trained


def test_train_prints_the_model_path_alone(dink, tmp_path, blobs):
    np.save(tmp_path / "my emb.npy", blobs[0])
    result = dink("train", "my emb.npy", "-k", 3)
    assert result.stdout == "my emb.dink.safetensors\n"
    assert "300 rows x 5 features (float32)" in result.stderr
    assert "cluster sizes: smallest" in result.stderr
    centers = load_file(tmp_path / "my emb.dink.safetensors")["cluster_centers"]
    assert (centers.shape, centers.dtype) == ((3, 5), np.float32)
    inertia = float(result.stderr.split("inertia ")[-1].split()[0])
    assert inertia == pytest.approx(inertia_float64(blobs[0], centers), rel=1e-5)
    assert sorted(os.listdir(tmp_path)) == ["my emb.dink.safetensors", "my emb.npy"]
    umask = os.umask(0)
    os.umask(umask)
    mode = stat.S_IMODE(os.stat(tmp_path / "my emb.dink.safetensors").st_mode)
    assert mode == 0o666 & ~umask


@pytest.mark.parametrize("seed", range(5))
def test_digits_are_found(dink, digits, seed):
    _, truth = digits
    dink("train", SAMPLES / "digits.npy", "-k", 10, "--seed", seed, "-q", "-o", "m.safetensors")
    result = dink("assign", "m.safetensors", SAMPLES / "digits.npy")
    labels = pd.read_csv(io.StringIO(result.stdout))["cluster"]
    assert normalized_mutual_info_score(truth, labels) >= 0.70


def test_the_same_run_gives_the_same_bytes(dink, tmp_path):
    command = ["train", SAMPLES / "digits.npy", "-k", 10, "-q", "-o"]
    for name in ("a", "b"):  # each with its own seed of Python's hashes
        dink(*command, f"{name}.safetensors", fresh=True)
    first, second = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("a", "b"))
    assert first == second
    dink("train", SAMPLES / "digits.npy", "-k", 10, "--seed", 1, "-o", "a.safetensors", "-q")
    assert (tmp_path / "a.safetensors").read_bytes() != first


def test_train_options_reach_the_model(dink, tmp_path):
    options = [
        "--metric",
        "cosine",
        "--no-refine",
        "--n-init",
        "2",
        "--epochs",
        "3",
    ]
    options += ["--batch-size", "500", "--dilation", "0.1", "--init", "random", "--seed", "4"]
    dink("train", SAMPLES / "stdlib.parquet", "-k", 8, "-o", "m.safetensors", *options)
    model = dinkcli.load(tmp_path / "m.safetensors")
    assert model.metric == "cosine"
    assert model.column == "embedding"
    assert model.training["options"] == {
        "n_clusters": 8,
        "init": "random",
        "metric": "cosine",
        "temperature": "auto",
        "dilation": 0.1,
        "refine": False,
        "n_init": 2,
        "epochs": 3,
        "max_size": None,
        "batch_size": 500,
        "tol": 1e-4,
        "seed": 4,
    }
    phases = {step["phase"] for step in model.training["history"]}
    assert phases == {"anneal", "pass"}
    np.testing.assert_allclose(np.linalg.norm(model.cluster_centers, axis=1), 1, rtol=1e-5)


def test_literal_objective_warns_and_diverges_as_the_algebra_says(dink, tmp_path):
    result = dink("train", SAMPLES / "digits.npy", "-k", 10, "--temperature", "inf", "-o", "m")
    assert "Warning: at temperature inf the losses see fixed embeddings only" in result.stderr
    history = dinkcli.load(tmp_path / "m").training["history"]
    total = [step["dilation_loss"] + step["shrink_loss"] for step in history]
    assert all(later < earlier for earlier, later in itertools.pairwise(total))
    assert history[-1]["inertia"] > history[0]["inertia"]


def test_train_from_given_centres(dink, tmp_path, model, blobs):
    np.save(tmp_path / "c.npy", model.cluster_centers)
    for init in ("c.npy", "m.safetensors"):
        dink("train", "x.npy", "-k", 3, "--init", init, "-o", "again.safetensors", "-q")
        again = dinkcli.load(tmp_path / "again.safetensors")
        np.testing.assert_allclose(again.cluster_centers, model.cluster_centers, rtol=1e-4)
    result = dink("train", "x.npy", "-k", 4, "--init", "c.npy", code=2)
    assert "centres of shape (3, 5), expected (4, 5)" in result.stderr


def test_progress_is_plain_lines_off_a_terminal_and_quiet_is_silent(dink, tmp_path, model):
    for again in (False, True):
        result = dink("train", "x.npy", "-k", 3)
        assert "\x1b" not in result.stderr
        lines = result.stderr.splitlines()
        assert lines[0].startswith("Note: x.dink.safetensors replaces an earlier model") is again
        assert re.match(r"start 1/4, looking for clusters: \d+ of \d+ steps$", lines[again])
    for word in ("T ", "dilation", "shrink", "rows/s"):
        assert word not in result.stderr
    detailed = dink("train", "x.npy", "-k", 3, "--verbose").stderr
    steps = re.findall(r"^(anneal|refine|pass) \d+/\d+  inertia \S+  T \S+  dil", detailed, re.M)
    assert len(steps) == len(dinkcli.load(tmp_path / "x.dink.safetensors").training["history"])
    assert "paper losses: dilation" in detailed
    assert dink("train", "x.npy", "-k", 3, "--quiet").stderr == ""
    assert dink("assign", "m.safetensors", "x.npy", "-o", "y.csv", "-q").stderr == ""
    assert dink("export", "m.safetensors", "-o", "y.npy", "-q").stderr == ""


def test_json_summary(dink, tmp_path, model, blobs):
    result = dink("train", "x.npy", "-k", 3, "--json")
    summary = json.loads(result.stdout)
    assert (summary["model"], result.stderr) == ("x.dink.safetensors", "")
    assert summary["rows"] == sum(summary["cluster_sizes"]) == 300
    z, labels = blobs[0].astype(float), dinkcli.assign(tmp_path / summary["model"], blobs[0])
    whole = ((z - z.mean(0)) ** 2).sum()
    within = sum(((z[labels == j] - z[labels == j].mean(0)) ** 2).sum() for j in range(3))
    assert summary["explained_variance"] == pytest.approx(1 - within / whole, rel=1e-4)
    learned = json.loads(dink("train", "x.npy", "-k", 3, "--json", "--metric", "learned").stdout)
    with_map = dinkcli.load(tmp_path / learned["model"])
    mapped, labels = (z - with_map.origin) @ with_map.map, dinkcli.assign(with_map, blobs[0])
    within = sum(((mapped[labels == j] - mapped[labels == j].mean(0)) ** 2).sum() for j in range(3))
    whole = ((mapped - mapped.mean(0)) ** 2).sum()
    assert learned["explained_variance"] == pytest.approx(1 - within / whole, rel=1e-3)
    assert "history" not in summary and len(result.stdout) < 1000
    more = json.loads(dink("train", "x.npy", "-k", 3, "--json", "--verbose").stdout)
    assert more["history"][-1]["inertia"] == more["inertia"] == summary["inertia"]
    summary = json.loads(dink("assign", "m.safetensors", "x.npy", "-o", "y.npy", "--json").stdout)
    assert (summary["rows"], summary["output"]) == (300, "y.npy")


def test_assign_hard_to_every_format(dink, tmp_path, model, blobs):
    truth = nearest_float64(blobs[0], model.cluster_centers)
    printed = dink("assign", "m.safetensors", "x.npy")
    assert printed.stderr == ""
    rows = list(csv.reader(io.StringIO(printed.stdout)))
    assert rows[0] == ["row", "cluster"]
    assert [int(row) for row, _ in rows[1:]] == list(range(300))
    np.testing.assert_array_equal([int(cluster) for _, cluster in rows[1:]], truth)
    for suffix in ("parquet", "csv", "npy"):
        result = dink("assign", "m.safetensors", "x.npy", "-o", f"y.{suffix}")
        assert result.stdout == ""
        assert f"y.{suffix}: 300 rows assigned" in result.stderr
    labels = np.load(tmp_path / "y.npy")
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, truth)
    assert (tmp_path / "y.csv").read_text() == printed.stdout
    found = duckdb.sql(f"select * from '{tmp_path / 'y.parquet'}'")
    assert found.columns == ["row", "cluster"]
    assert [str(type_) for type_ in found.types] == ["BIGINT", "INTEGER"]
    np.testing.assert_array_equal(found.fetchnumpy()["cluster"], truth)


def test_assign_soft_to_every_format(dink, tmp_path, model, blobs):
    expected = usual_softmax(model, distances_float64(blobs[0], model.cluster_centers))
    for suffix in ("parquet", "csv", "npy"):
        dink("assign", "m.safetensors", "x.npy", "--soft", "-o", f"y.{suffix}")
    found = np.load(tmp_path / "y.npy")
    assert (found.shape, found.dtype) == ((300, 3), np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
    frame = pd.read_csv(tmp_path / "y.csv")
    assert list(frame) == ["row", "cluster", *(f"probability_{j}" for j in range(3))]
    np.testing.assert_allclose(frame.iloc[:, 2:], expected, rtol=1e-4, atol=1e-7)
    table = pq.read_table(tmp_path / "y.parquet")
    assert table.schema.field("probabilities").type.list_size == 3
    lists = duckdb.sql(f"select probabilities from '{tmp_path / 'y.parquet'}'").fetchall()
    np.testing.assert_allclose([row[0] for row in lists], expected, rtol=1e-4, atol=1e-7)


def test_ids_and_order_are_kept_over_many_files(dink, tmp_path, model, blobs):
    order = np.random.default_rng(0).permutation(300)
    for name, part in (("a", order[:120]), ("b", order[120:])):
        columns = {"key": [f"id,{i}" for i in part], "e": list(blobs[0][part])}
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet", row_group_size=50)
    truth = nearest_float64(blobs[0], model.cluster_centers)[order]
    inputs = ["a.parquet", "b.parquet", "--ids", "key"]
    printed = pd.read_csv(io.StringIO(dink("assign", "m.safetensors", *inputs).stdout))
    dink("assign", "m.safetensors", *inputs, "-o", "y.parquet")
    for frame in (printed, pd.read_parquet(tmp_path / "y.parquet")):
        assert list(frame) == ["key", "cluster"]
        assert frame["key"].tolist() == [f"id,{i}" for i in order]
        np.testing.assert_array_equal(frame["cluster"], truth)


def test_the_model_remembers_its_column(dink, tmp_path, blobs):
    z = blobs[0]
    columns = {"other": list(z[:, ::-1] * 5), "e": list(z)}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    dink("train", "x.parquet", "-k", 3, "--column", "e", "-o", "m.safetensors", "-q")
    np.save(tmp_path / "x.npy", z)
    printed = {dink("assign", "m.safetensors", name).stdout for name in ("x.parquet", "x.npy")}
    assert len(printed) == 1


def test_weights_from_a_column_or_a_file(dink, tmp_path, blobs):
    weights = np.random.default_rng(0).integers(1, 5, 300)
    columns = {"e": list(blobs[0]), "w": weights}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    np.save(tmp_path / "w.npy", weights)
    for source in ("w", "w.npy"):
        dink("train", "x.parquet", "-k", 3, "--sample-weight", source, "-o", "m.safetensors", "-q")
        model = dinkcli.load(tmp_path / "m.safetensors")
        labels = nearest_float64(blobs[0], model.cluster_centers)
        np.testing.assert_array_equal(np.bincount(labels, weights), model.cluster_sizes)
        mean = np.average(blobs[0][labels == 0], axis=0, weights=weights[labels == 0])
        np.testing.assert_allclose(model.cluster_centers[0], mean, rtol=1e-4, atol=1e-4)


def test_cosine_ignores_the_length_of_rows(dink, tmp_path, blobs):
    z = blobs[0] + 2
    np.save(tmp_path / "x.npy", z)
    scale = np.random.default_rng(0).uniform(0.1, 10, (300, 1)).astype(np.float32)
    np.save(tmp_path / "scaled.npy", z * scale)
    dink("train", "x.npy", "-k", 3, "--metric", "cosine", "-o", "m.safetensors", "-q")
    first = dink("assign", "m.safetensors", "x.npy").stdout
    assert dink("assign", "m.safetensors", "scaled.npy").stdout == first


def test_export_to_every_format(dink, tmp_path, model):
    centers = model.cluster_centers
    for suffix in ("npy", "parquet", "csv", "json", "safetensors"):
        result = dink("export", "m.safetensors", "-o", f"c.{suffix}")
        assert "3 centres of 5 features" in result.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), centers)
    frame = pd.read_csv(tmp_path / "c.csv")
    assert list(frame) == ["cluster", *(f"dim_{d}" for d in range(5))]
    np.testing.assert_array_equal(frame.iloc[:, 1:].to_numpy(np.float32), centers)
    document = json.loads((tmp_path / "c.json").read_text())
    np.testing.assert_array_equal(np.float32(document["cluster_centers"]), centers)
    assert document["metric"] == "euclidean"
    rows = duckdb.sql(f"select * from '{tmp_path / 'c.parquet'}'").fetchall()
    assert [cluster for cluster, _ in rows] == [0, 1, 2]
    np.testing.assert_array_equal(np.float32([center for _, center in rows]), centers)
    state = load_file(tmp_path / "c.safetensors")
    assert list(state) == ["cluster_centers"]
    np.testing.assert_array_equal(state["cluster_centers"], centers)
    dink("export", "m.safetensors", "-o", "plain", "--format", "npy")
    np.testing.assert_array_equal(np.load(tmp_path / "plain"), centers)


def test_a_closed_pipe_ends_quietly(dink, tmp_path, model, blobs):
    np.save(tmp_path / "big.npy", np.repeat(blobs[0], 2000, 0))
    command = f"{python()} -m dinkcli assign m.safetensors big.npy | head -n 2"
    script = f"{command}; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, env=environment()
    )
    lines = result.stdout.splitlines()
    assert lines[0] == "row,cluster"
    assert lines[2] == "141"
    assert result.stderr == ""


def test_help_version_and_no_arguments(dink):
    assert dink("--version").stdout == f"dink {dinkcli.__version__}\n"
    assert "train" in dink("--help").stdout
    for command in ("train", "assign", "export"):
        assert "Usage: dink " + command in dink(command, "--help").stdout
