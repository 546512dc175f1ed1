"""Small work is done by NumPy, without torch: the same labels, bit for bit, in every format."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from conftest import loads_torch, nearest_float64
from typer.testing import CliRunner

import dinkcli
from dinkcli.assigning.assigner import Assigner, assigner_for
from dinkcli.cli import app
from dinkcli.data.inputs import open_data
from dinkcli.options import AssignOptions

N, K, D = 1500, 24, 17
FORMATS = ("csv", "csv.gz", "jsonl", "npy", "parquet", "arrow", "arrows")
WANTED = {
    "labels": [],
    "distance": ["--distance"],
    "top": ["--top", "3", "--temperature", "5"],
    "soft": ["--soft", "--temperature", "5"],
}


def run_dink(*arguments, code=0):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result


def rows_and_centers(far=0.0):
    """Rows near borders: in the middle of two centres to 1e-7, and copies of centres."""
    rng = np.random.default_rng(3)
    centers = (rng.normal(size=(K, D)) * 2 + far).astype(np.float32)
    centers[K - 1] = centers[0]
    a, b = rng.integers(0, K, (2, N))
    z = (centers[a].astype(np.float64) + centers[b]) / 2
    z += rng.choice([0, 1e-7, 0.5], (N, 1)) * rng.normal(size=(N, D))
    z[:K] = centers
    return z.astype(np.float32), centers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("small")
    z, centers = rows_and_centers()
    np.save(path / "x.npy", z)
    dinkcli.Model(centers, np.ones(K)).save(path / "m.safetensors")
    return path


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("far", [0.0, 300.0])
def test_labels_are_the_same_bit_for_bit(metric, far):
    z, centers = rows_and_centers(far)
    model = dinkcli.Model(centers, np.ones(K), metric)
    options = AssignOptions(soft=True, distance=True, temperature=0.3)
    small, usual = (
        Assigner(model, "cpu", options, small=s)(z, np.arange(N)) for s in (True, False)
    )
    np.testing.assert_array_equal(small.columns["cluster"], usual.columns["cluster"])
    if metric == "euclidean":
        np.testing.assert_array_equal(small.columns["cluster"], nearest_float64(z, centers))
    np.testing.assert_allclose(
        small.columns["distance"], usual.columns["distance"], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        small.columns["probabilities"], usual.columns["probabilities"], atol=2e-4
    )
    assert (small.columns["probabilities"].argmax(1) == small.columns["cluster"]).all()
    seen = z.astype(np.float64)
    if metric == "cosine":
        seen /= np.linalg.norm(seen, axis=1, keepdims=True)
    squares = ((seen[:, None] - centers.astype(np.float64)) ** 2).sum(2)
    exact = np.exp(-(squares - squares.min(1, keepdims=True)) / 0.3)
    exact /= exact.sum(1, keepdims=True)
    np.testing.assert_allclose(small.columns["probabilities"], exact, atol=1e-6)
    np.testing.assert_allclose(small.columns["distance"], np.sqrt(squares.min(1)), rtol=1e-6)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("wanted", WANTED)
def test_what_is_written_is_the_same(folder, format, wanted, monkeypatch):
    """Whoever names a device gets torch."""
    monkeypatch.chdir(folder)
    for name, device in (("small", []), ("usual", ["--device", "cpu"])):
        output = f"{name}.{format}"
        run_dink("assign", "m.safetensors", "x.npy", "-o", output, "-q", *WANTED[wanted], *device)
    small, usual = (read(f"{name}.{format}") for name in ("small", "usual"))
    assert small.keys() == usual.keys()
    for name, values in small.items():
        if values.dtype.kind == "f":
            loose = 2e-3 if wanted == "half" else 2e-4
            np.testing.assert_allclose(values, usual[name], atol=loose, rtol=1e-4)
        elif "clusters" not in name and not name.startswith("cluster_"):
            np.testing.assert_array_equal(values, usual[name])


def read(path):
    """Numbers by column, lists as matrices."""
    if path.endswith("npy"):
        found = np.load(path)
        return {name: found[name] for name in found.dtype.names or ()} or {"all": found}
    if path.endswith("jsonl"):
        with open(path) as file:
            table = pa.Table.from_pylist([json.loads(line) for line in file])
    elif "csv" in path:
        table = pyarrow.csv.read_csv(path)
    elif path.endswith("parquet"):
        table = pq.read_table(path)
    elif path.endswith("arrow"):
        table = pa.ipc.open_file(path).read_all()
    else:
        table = pa.ipc.open_stream(path).read_all()
    return {name: np.array(table[name].to_pylist()) for name in table.column_names}


@pytest.mark.parametrize("device", ["auto", "cpu"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_two_nearest_are_those_of_float64(metric, device):
    z, centers = rows_and_centers(3.0)
    model = dinkcli.Model(centers, np.ones(K), metric)
    found = assigner_for(model, open_data(z), device).backend.nearest_pair(z)
    assert found.z.dtype == np.float32
    x = z.astype(np.float64)
    if metric == "cosine":
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(found.z, x, rtol=1e-6, atol=1e-6)
    apart = np.linalg.norm(x[:, None] - centers.astype(np.float64), axis=2)
    assert (found.labels != found.second_labels).all()
    nearest = np.sort(apart, axis=1)
    for labels, expected in ((found.labels, nearest[:, 0]), (found.second_labels, nearest[:, 1])):
        distances = np.take_along_axis(apart, labels[:, None], 1)[:, 0]
        np.testing.assert_allclose(distances, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("command", ["evaluate", "inspect"])
def test_looking_at_few_rows_takes_no_torch(folder, monkeypatch, command):
    monkeypatch.chdir(folder)
    arguments = command, "m.safetensors", "x.npy", "--json"
    assert not loads_torch(*arguments)
    by_numpy, by_torch = (
        json.loads(run_dink(*arguments, "--device", device).stdout) for device in ("auto", "cpu")
    )
    assert_near(by_numpy, by_torch)


def assert_near(found, expected):
    """The same numbers, but for rounding, in the same JSON."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        found, expected = list(found.values()), list(expected.values())
    if isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_near(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
    else:
        assert found == expected


def test_torch_is_loaded_where_it_is_worth_it(folder, monkeypatch):
    monkeypatch.chdir(folder)
    command = "assign", "m.safetensors", "x.npy", "-q", "-o", "out.csv"
    assert not loads_torch(*command)
    assert not loads_torch(*command, "--top", "2", "--distance", "--min-prob", "0.5")
    assert loads_torch(*command, "--device", "cpu")
    with open("x.jsonl", "w") as file:  # its rows are not counted beforehand
        file.writelines(json.dumps({"v": row.tolist()}) + "\n" for row in np.load("x.npy"))
    assert not loads_torch("assign", "m.safetensors", "x.jsonl", "-q", "-o", "out.csv")
    z = np.random.default_rng(0).normal(size=(2100, 2000)).astype(np.float32)
    np.save("large.npy", z)  # 4.2e9 multiplications with 1000 centres, beyond the bound
    dinkcli.Model(z[:1000], np.ones(1000)).save("large.safetensors")
    assert loads_torch("assign", "large.safetensors", "large.npy", "-q", "-o", "out.npy")


def test_a_row_too_far_away_is_refused_all_the_same(folder, monkeypatch):
    monkeypatch.chdir(folder)
    z = np.load("x.npy")
    z[7] = 3e18
    np.save("far.npy", z)
    result = run_dink("assign", "m.safetensors", "far.npy", "-o", "far.csv", code=1)
    assert "far.npy: row 7 holds 3e+18 in feature 0; squared distances" in result.stderr


def test_outliers_and_ids_of_another_model(folder, monkeypatch):
    """Matching and thresholds are applied after, in one place."""
    monkeypatch.chdir(folder)
    _z, centers = rows_and_centers()
    dinkcli.Model(centers[::-1].copy(), np.ones(K)).save("old.safetensors")
    options = "--match", "old.safetensors", "--soft", "--max-distance", "3", "--min-prob", "0.2"
    for name, device in (("a.parquet", []), ("b.parquet", ["--device", "cpu"])):
        run_dink("assign", "m.safetensors", "x.npy", "-o", name, "-q", *options, *device)
    small, usual = read("a.parquet"), read("b.parquet")
    np.testing.assert_array_equal(small["cluster"], usual["cluster"])
    assert 0 < (small["cluster"] == -1).sum() < N
    np.testing.assert_allclose(small["probabilities"], usual["probabilities"], atol=2e-4)
