"""What ``dink assign`` writes, read by foreign readers and compared with float64 references."""

import io
import json
import os
import shutil
import subprocess
import threading
from dataclasses import replace

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import distances_float64, softmax_float64, usual_softmax

import dinkcli
from dinkcli.assigning.assigner import Assigner, assign, block_rows
from dinkcli.assigning.layout import Layout, Rows
from dinkcli.assigning.writers import encoding_of, open_writer, stream_writer
from dinkcli.data.array import ArrayReader
from dinkcli.data.dataset import DataSet
from dinkcli.nearest.hardware import chunk_rows
from dinkcli.options import AssignOptions


@pytest.fixture
def data(tmp_path, blobs):
    """x.npy, and x.parquet with columns to carry; a model; distances in float64."""
    z = blobs[0]
    np.save(tmp_path / "x.npy", z)
    names = [f'row {i}, "quoted" \\ é\n' if i % 50 == 0 else f"=SUM({i})" for i in range(len(z))]
    columns = {
        "key": names,
        "e": list(z),
        "weight": np.where(np.arange(len(z)) % 7 == 0, np.nan, np.arange(len(z)) / 3),
        "tags": [[f"t{i}", None] for i in range(len(z))],
        "blob": [b"\xff"] * len(z),
        "when": pd.date_range("2026-01-01", periods=len(z), tz="UTC"),
    }
    table = pa.table(columns).append_column(
        "kind", pa.array(["a", None, "@c"] * 100).dictionary_encode()
    )
    pq.write_table(table, tmp_path / "x.parquet")
    # Off the true centres, so that probabilities differ from 0 and 1.
    centers = np.array([[2, 1, 1, 2, 1], [5, 2, 1, 5, 2], [1, 5, 1, 1, 5], [3, 3, 1, 3, 3]])
    model = dinkcli.Model(centers.astype(np.float32), np.ones(4))
    model.save(tmp_path / "m.safetensors")
    return model, names, distances_float64(z, centers)


READERS = {
    "csv": {
        "pandas": pd.read_csv,
        "polars": lambda path: pl.read_csv(path).to_pandas(),
        "duckdb": lambda path: duckdb.sql(f"from '{path}'").df(),
    },
    "csv.gz": {"pandas": pd.read_csv, "duckdb": lambda path: duckdb.sql(f"from '{path}'").df()},
    "csv.zst": {"polars": lambda path: pl.read_csv(path).to_pandas()},
    "jsonl": {
        "pandas": lambda path: pd.read_json(path, lines=True),
        "polars": lambda path: pl.read_ndjson(path).to_pandas(),
        "duckdb": lambda path: duckdb.sql(f"from read_json('{path}')").df(),
    },
    "jsonl.gz": {"duckdb": lambda path: duckdb.sql(f"from read_json('{path}')").df()},
    "parquet": {
        "pandas": pd.read_parquet,
        "polars": lambda path: pl.read_parquet(path).to_pandas(),
        "duckdb": lambda path: duckdb.sql(f"from '{path}'").df(),
    },
    "arrow": {
        "pandas": pd.read_feather,
        "polars": lambda path: pl.read_ipc(path).to_pandas(),
    },
    "arrows": {
        "polars": lambda path: pl.read_ipc_stream(path).to_pandas(),
        "pyarrow": lambda path: pa.ipc.open_stream(path).read_pandas(),
    },
}
CASES = [(suffix, reader) for suffix, readers in READERS.items() for reader in readers]


def lists(frame, name, n):
    """A list column, or the n columns that csv has instead, as an array."""
    if name in frame:
        return np.stack([np.asarray(row, float) for row in frame[name]])
    single = {"clusters": "cluster", "probabilities": "probability"}[name]
    first = 0 if f"{single}_0" in frame else 1
    return frame[[f"{single}_{j}" for j in range(first, first + n)]].to_numpy()


@pytest.mark.parametrize(("suffix", "reader"), CASES)
def test_foreign_readers_see_the_same(invoke, data, tmp_path, suffix, reader):
    model, _, distances = data
    path = tmp_path / f"y.{suffix}"
    read = READERS[suffix][reader]
    invoke("assign", "m.safetensors", "x.npy", "--distance", "--top", 2, "-o", path)
    frame = read(str(path))
    assert list(frame)[:3] == ["row", "cluster", "distance"]
    np.testing.assert_array_equal(frame["row"], np.arange(300))
    np.testing.assert_array_equal(frame["cluster"], distances.argmin(1))
    np.testing.assert_allclose(frame["distance"], distances.min(1), rtol=1e-5)
    order = distances.argsort(1)[:, :2]
    np.testing.assert_array_equal(lists(frame, "clusters", 2), order)
    expected = np.take_along_axis(usual_softmax(model, distances), order, 1)
    np.testing.assert_allclose(lists(frame, "probabilities", 2), expected, rtol=1e-4)
    invoke("assign", "m.safetensors", "x.npy", "--soft", "--temperature", 0.5, "-o", path)
    found = lists(read(str(path)), "probabilities", 4)
    np.testing.assert_allclose(found, softmax_float64(distances, 0.5), rtol=1e-4, atol=1e-7)


def test_types_and_metadata(invoke, data, tmp_path):
    model, _, _ = data
    for suffix, read in (
        ("parquet", pq.read_schema),
        ("arrow", lambda p: pa.ipc.open_file(p).schema),
    ):
        path = tmp_path / f"y.{suffix}"
        options = ["--soft", "--distance"]
        invoke("assign", "m.safetensors", "x.npy", *options, "-o", path)
        schema = read(path)
        assert [str(type_) for type_ in schema.types] == [
            "int64",
            "int32",
            "float",
            "fixed_size_list<element: float not null>[4]",
        ]
        assert not any(field.nullable for field in schema)
        expected = {
            b"dink.model": b"m.safetensors",
            b"dink.fingerprint": model.fingerprint.encode(),
        }
        assert expected.items() <= schema.metadata.items()
        for name in ("cluster", "distance", "probabilities"):
            assert expected.items() <= schema.field(name).metadata.items()
    found = duckdb.sql(f"select key, value from parquet_kv_metadata('{tmp_path / 'y.parquet'}')")
    assert (b"dink.fingerprint", model.fingerprint.encode()) in found.fetchall()


def test_the_fingerprint_is_that_of_centres_and_metric(data):
    import hashlib

    model, _, _ = data
    bytes_ = b"euclidean 4 5 " + model.cluster_centers.astype("<f4").tobytes()
    assert model.fingerprint == hashlib.sha256(bytes_).hexdigest()[:16]
    others = [
        dinkcli.Model(model.cluster_centers, np.ones(4), metric="cosine"),
        dinkcli.Model(model.cluster_centers + np.float32(1e-6), np.ones(4)),
        dinkcli.Model(model.cluster_centers.reshape(5, 4), np.ones(5)),
    ]
    assert len({model.fingerprint, *(other.fingerprint for other in others)}) == 4
    same = dinkcli.Model(np.asfortranarray(model.cluster_centers), np.zeros(4), column="e")
    assert same.fingerprint == model.fingerprint


def test_npy_is_plain_for_one_value_and_structured_for_several(invoke, data, tmp_path):
    model, _, distances = data

    def written(*options):
        invoke("assign", "m.safetensors", "x.npy", *options, "-o", "y.npy")
        return np.load(tmp_path / "y.npy")

    labels = written()
    assert (labels.dtype, labels.shape) == (np.int32, (300,))
    np.testing.assert_array_equal(labels, distances.argmin(1))
    soft = written("--soft")
    assert (soft.dtype, soft.shape) == (np.float32, (300, 4))
    np.testing.assert_allclose(
        soft,
        usual_softmax(model, distances),
        rtol=1e-3,
        atol=1e-7,
    )
    several = written("--top", 3, "--distance")
    assert several.dtype.names == ("cluster", "distance", "clusters", "probabilities")
    np.testing.assert_array_equal(several["clusters"], distances.argsort(1)[:, :3])
    np.testing.assert_allclose(several["distance"], distances.min(1), rtol=1e-5)
    marked = written("--soft", "--max-distance", 3)
    np.testing.assert_array_equal(marked["cluster"] == -1, distances.min(1) > 3)
    np.testing.assert_allclose(
        marked["probabilities"],
        usual_softmax(model, distances),
        rtol=1e-4,
        atol=1e-7,
    )


def test_outliers_are_marked(invoke, data, tmp_path):
    _, _, distances = data
    labels, least = distances.argmin(1), distances.min(1)
    own = softmax_float64(distances, 20).max(1)
    far, unsure = np.quantile(least, 0.8), np.quantile(own, 0.3)
    warm = ["--temperature", 20]
    cases = (
        (["--max-distance", far], least > far),
        ([*warm, "--min-prob", unsure], own < unsure),
        ([*warm, "--max-distance", far, "--min-prob", unsure], (least > far) | (own < unsure)),
    )
    for options, outlier in cases:
        result = invoke("assign", "m.safetensors", "x.npy", *options, "--json", "-o", "y.npy")
        expected = np.where(outlier, -1, labels)
        np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)
        summary = json.loads(result.stdout)
        assert summary["outliers"] == outlier.sum() > 0
        np.testing.assert_array_equal(
            summary["cluster_sizes"], np.bincount(expected[~outlier], minlength=4)
        )
    near = dinkcli.assign(tmp_path / "m.safetensors", tmp_path / "x.npy", max_distance=float(far))
    np.testing.assert_array_equal(near, np.where(least > far, -1, labels))


def test_columns_travel_along(invoke, data, tmp_path):
    _, names, distances = data
    source = pq.read_table(tmp_path / "x.parquet")
    columns = ["--ids", "key", "--columns", "weight,tags, when,blob,kind"]
    for suffix in ("parquet", "arrow"):
        invoke("assign", "m.safetensors", "x.parquet", *columns, "-o", f"y.{suffix}")
    for table in (
        pq.read_table(tmp_path / "y.parquet"),
        pa.ipc.open_file(tmp_path / "y.arrow").read_all(),
    ):
        assert table.column_names == ["key", "cluster", "weight", "tags", "when", "blob", "kind"]
        for name in table.column_names:
            if name != "cluster":
                assert table[name].type == source[name].type
                assert str(table[name].to_pylist()) == str(source[name].to_pylist())  # NaN too
    columns = ["--ids", "key", "--columns", "weight,tags,when,kind"]
    invoke("assign", "m.safetensors", "x.parquet", *columns, "-o", "y.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "y.jsonl").read_text().splitlines()]
    assert [row["key"] for row in rows] == names
    assert [row["cluster"] for row in rows] == distances.argmin(1).tolist()
    assert [row["tags"] for row in rows] == source["tags"].to_pylist()
    assert [row["kind"] for row in rows] == source["kind"].to_pylist()
    weights = [None if np.isnan(w) else w for w in source["weight"].to_pylist()]
    assert [row["weight"] for row in rows] == weights
    assert pd.Timestamp(rows[3]["when"]) == source["when"][3].as_py()
    columns = ["--ids", "key", "--columns", "weight,when,kind"]
    invoke("assign", "m.safetensors", "x.parquet", *columns, "-o", "y.csv")
    frame = pd.read_csv(tmp_path / "y.csv")
    assert frame["key"].tolist() == names
    assert frame["kind"].fillna("none").tolist() == ["a", "none", "@c"] * 100


def test_csv_safe_stops_formulas(invoke, tmp_path, data):
    cells = ["=1+1", "+1", "-1", "@A1", "\t=1", "\r=1", "1=1", "'=", "", "a\n=b"]
    table = pa.table({"=key": cells, "e": list(np.zeros((10, 5), np.float32))})
    pq.write_table(table, tmp_path / "f.parquet")
    arguments = ["assign", "m.safetensors", "f.parquet", "--ids", "=key"]
    plain = pd.read_csv(io.BytesIO(invoke(*arguments).stdout_bytes), keep_default_na=False)
    assert plain["=key"].tolist() == cells
    safe = invoke(*arguments, "--csv-safe").stdout_bytes
    frame = pd.read_csv(io.BytesIO(safe), keep_default_na=False)
    expected = [
        f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") and cell else cell
        for cell in cells
    ]
    assert frame["'=key"].tolist() == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--format", "parquet"],
            "parquet on standard output: a parquet file is read from its end",
        ),
        (["--format", "arrow"], "choose one of csv, jsonl, npy, arrows"),
        (["--format", "xml"], "'--format': 'xml' is not one of 'csv', 'jsonl'"),
        (["-o", "y.npy.gz"], "npy is not compressed as a whole"),
        (["--json"], "--json writes to standard output, and so do the rows"),
        (["-o", "y.parquet.gz"], "parquet is not compressed as a whole"),
        (["-o", "y.parquet", "--csv-safe"], "--csv-safe is about csv, and the output is parquet"),
        (["--soft", "--top", "2"], "--soft gives all probabilities, --top only some"),
        (["--top", "5"], "--top 5: the model has 4 clusters"),
        (["--top", "0"], "--top 0: expected at least 1"),
        (["--temperature", "0"], "--temperature 0.0: expected a number above 0"),
        (["--min-prob", "2"], "--min-prob 2.0: expected a number from 0 to 1"),
        (["--max-distance", "-1"], "--max-distance -1.0: expected at least 0"),
        (["--columns", "nothing"], "--columns nothing: no such column in"),
        (["--columns", "tags"], "column 'tags' of the input is list<"),
        (
            ["--columns", "blob", "--format", "jsonl"],
            "'blob' of the input is binary: JSON holds no",
        ),
        (["--columns", "weight", "-o", "y.npy"], "--columns weight: an npy file has no columns"),
        (
            ["--rows-per-file", "10"],
            "--rows-per-file writes into a folder of parts: name it with -o",
        ),
        (["--rows-per-file", "0", "-o", "parts"], "--rows-per-file 0: expected at least 1"),
        (["-o", "y.csv", "--resume"], "--resume goes on with a folder of parts"),
        (["-o", "y.csv", "--json-file", "no/j"], "no/j: no such folder"),
        (["-o", "/dev/null", "--format", "csv"], "/dev/null: is no regular file; for a pipe use"),
    ],
)
def test_usage_errors(invoke, data, tmp_path, arguments, message):
    before = sorted(os.listdir(tmp_path))
    result = invoke("assign", "m.safetensors", "x.parquet", *arguments, code=2)
    assert message in result.stderr
    of_the_parser = message.startswith("'--")  # which says first how the command is used
    assert result.stderr.count("\n") == (4 if of_the_parser else 1)
    assert result.stdout == ""
    assert sorted(os.listdir(tmp_path)) == before


def test_a_column_named_like_one_of_ours_is_refused(invoke, data, tmp_path):
    table = pa.table({"e": list(np.zeros((3, 5), np.float32)), "cluster": [1, 2, 3]})
    pq.write_table(table, tmp_path / "again.parquet")
    result = invoke("assign", "m.safetensors", "again.parquet", "--columns", "cluster", code=2)
    assert "column 'cluster' of the input cannot travel along" in result.stderr


def test_parquet_is_compressed_by_zstd(invoke, data, tmp_path):
    _, _, distances = data
    invoke("assign", "m.safetensors", "x.npy", "-o", "y.parquet")
    column = pq.ParquetFile(tmp_path / "y.parquet").metadata.row_group(0).column(1)
    assert column.compression == "ZSTD"
    found = duckdb.sql(f"select cluster from '{tmp_path / 'y.parquet'}'").fetchnumpy()["cluster"]
    np.testing.assert_array_equal(found, distances.argmin(1))


def test_every_stream_on_standard_output(invoke, data, tmp_path):
    _, _, distances = data
    arguments = ["assign", "m.safetensors", "x.npy", "--format"]
    npy = np.load(io.BytesIO(invoke(*arguments, "npy").stdout_bytes))
    arrow = pa.ipc.open_stream(invoke(*arguments, "arrows").stdout_bytes).read_all()
    jsonl = pd.read_json(io.BytesIO(invoke(*arguments, "jsonl").stdout_bytes), lines=True)
    csv = pd.read_csv(io.BytesIO(invoke(*arguments, "csv").stdout_bytes))
    for found in (npy, arrow["cluster"], jsonl["cluster"], csv["cluster"]):
        np.testing.assert_array_equal(found, distances.argmin(1))


def test_jq_reads_jsonl(invoke, data, tmp_path):
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    _, _, distances = data
    invoke("assign", "m.safetensors", "x.parquet", "--ids", "key", "-o", "y.jsonl")
    found = subprocess.run(
        ["jq", ".cluster", tmp_path / "y.jsonl"], capture_output=True, text=True, check=True
    )
    assert list(map(int, found.stdout.split())) == distances.argmin(1).tolist()


def test_summary_in_a_file(invoke, data, tmp_path):
    model, _, distances = data
    result = invoke("assign", "m.safetensors", "x.npy", "--json-file", "s.json")
    assert result.stderr == ""
    assert result.stdout.startswith("row,cluster\n")
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary["rows"] == 300
    assert summary["output"] is None
    assert summary["fingerprint"] == model.fingerprint
    assert summary["cluster_sizes"] == np.bincount(distances.argmin(1), minlength=4).tolist()


def test_results_do_not_depend_on_blocks_or_order():
    rng = np.random.default_rng(3)
    centers = rng.normal(size=(50, 24)).astype(np.float32)
    a, b = rng.integers(0, 50, (2, 5000))
    middle = (centers[a].astype(float) + centers[b]) / 2
    z = (middle + 1e-7 * rng.normal(size=middle.shape)).astype(np.float32)
    for metric in ("euclidean", "cosine"):
        model = dinkcli.Model(centers, np.ones(50), metric=metric)
        assigner = Assigner(model, options=AssignOptions(distance=True))
        whole = assigner(z, np.arange(5000))
        order = rng.permutation(5000)
        shuffled = assigner(z[order], order)
        np.testing.assert_array_equal(shuffled.columns["cluster"], whole.columns["cluster"][order])
        np.testing.assert_array_equal(
            shuffled.columns["distance"], whole.columns["distance"][order]
        )
        for size in (1, 333):
            for start in range(0, 1998, size * 7 if size == 1 else size):
                part = assigner(z[start : start + size], np.arange(start, start + size))
                np.testing.assert_array_equal(
                    part.columns["cluster"], whole.columns["cluster"][start : start + size]
                )
                np.testing.assert_array_equal(
                    part.columns["distance"], whole.columns["distance"][start : start + size]
                )


def test_the_first_of_the_top_is_the_cluster_even_at_ties():
    centers = np.array([[1, 0], [-1, 0], [1, 0]], np.float32)
    z = np.array([[0, 0], [1, 0], [0, 5]], np.float32)
    found = Assigner(dinkcli.Model(centers, np.ones(3)), options=AssignOptions(top=1))(
        z, np.arange(3)
    )
    assert found.columns["cluster"].tolist() == [0, 0, 0]
    assert found.columns["clusters"].tolist() == [[0], [0], [0]]


def test_assignments_since_a_row_are_those_of_a_whole_run(monkeypatch):
    monkeypatch.setattr("dinkcli.assigning.assigner.block_rows", lambda *_: 64)
    z = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
    model = dinkcli.Model(z[:30], np.ones(30))
    data = DataSet([ArrayReader(z[:400]), ArrayReader(z[400:])])
    soft = AssignOptions(soft=True)

    def rows(first):
        parts = list(assign(Assigner(model, "cpu", soft), data, first))
        return np.concatenate([p.rows for p in parts]), np.concatenate(
            [p.columns["probabilities"] for p in parts]
        )

    numbers, whole = rows(0)
    np.testing.assert_array_equal(numbers, np.arange(1000))
    for first in (1, 64, 399, 400, 450, 999):
        numbers, part = rows(first)
        np.testing.assert_array_equal(numbers, np.arange(first, 1000))
        np.testing.assert_array_equal(part, whole[first:])


LABELS = Layout(
    None, pa.schema([pa.field("cluster", pa.int32(), nullable=False)]), row_type=np.dtype("<i4")
)


def batches(n_rows, size=64):
    """Labels of a known pattern."""
    for start in range(0, n_rows, size):
        rows = np.arange(start, min(start + size, n_rows))
        yield Rows(rows, {"cluster": (rows % 7).astype(np.int32)})


@pytest.mark.parametrize("threads", [1, 5])
def test_blocks_side_by_side(monkeypatch, threads):
    monkeypatch.setattr("dinkcli.assigning.assigner.block_rows", lambda *_: 64)
    monkeypatch.setattr("dinkcli.processes.workers.usable_cores", lambda: 4)
    rng = np.random.default_rng(2)
    centers, z = rng.normal(size=(9, 3)).astype("f4"), rng.normal(size=(1000, 3)).astype("f4")
    z[900, 1] = np.nan
    data = DataSet([ArrayReader(z)])
    options = AssignOptions(soft=True, distance=True)
    assigner = Assigner(dinkcli.Model(centers, np.ones(9)), options=options)
    before, running = torch.get_num_threads(), set(threading.enumerate())
    torch.set_num_threads(threads)
    try:
        parts, rows = [], assign(assigner, data)
        with pytest.raises(dinkcli.DinkError, match="row 900 holds nan"):
            parts.extend(rows)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    # Whole blocks before the bad one, in their order.
    assert [len(part) for part in parts] == [64] * 14
    expected = distances_float64(z[:896], centers)
    np.testing.assert_array_equal(np.concatenate([p.rows for p in parts]), np.arange(896))
    np.testing.assert_array_equal(
        np.concatenate([p.columns["cluster"] for p in parts]), expected.argmin(1)
    )
    distances = np.concatenate([p.columns["distance"] for p in parts])
    np.testing.assert_allclose(distances, expected.min(1), rtol=1e-5)
    some = assign(assigner, data)
    next(some)
    some.close()
    assert set(threading.enumerate()) <= running


def test_blocks_are_bounded_by_what_is_read_and_written():
    for k in (1, 10, 1000, 100_000):
        for n_features, written in ((1, 1), (384, 1), (4096, 1), (1, k), (384, k)):
            width, chunk = max(n_features, written), chunk_rows(k, n_features)
            rows = block_rows(k, n_features, written)
            assert rows % chunk == 0
            assert rows * width <= max(3 << 20, chunk * width)
            assert rows * width * 4 <= 64 << 20


def test_npy_of_an_unknown_number_of_rows(tmp_path):
    layout = LABELS
    for n_rows in (0, 1, 1000):
        path = str(tmp_path / "y.npy")
        with open_writer(path, layout, encoding_of(path)) as writer:
            for rows in batches(n_rows):
                writer.write(rows)
        np.testing.assert_array_equal(np.load(path), np.arange(n_rows) % 7)
    reading, writing = os.pipe()
    with open(writing, "wb") as pipe, pytest.raises(dinkcli.DinkError, match="gone back to"):
        stream_writer(pipe, layout, encoding_of(None, "npy")).__enter__()
    os.close(reading)


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet", "arrow", "arrows"])
def test_other_formats_do_not_ask_for_the_number_of_rows(tmp_path, format):
    path = str(tmp_path / f"y.{format}")
    with open_writer(path, LABELS, encoding_of(path)) as writer:
        for rows in batches(100):
            writer.write(rows)
    found = READERS[format][next(iter(READERS[format]))](path)
    np.testing.assert_array_equal(found["cluster"], np.arange(100) % 7)


def test_a_parquet_file_of_many_rows_has_large_row_groups(tmp_path):
    path = str(tmp_path / "y.parquet")
    with open_writer(path, replace(LABELS, n_rows=2_500_000), encoding_of(path)) as writer:
        for rows in batches(2_500_000, 100_000):
            writer.write(rows)
    metadata = pq.ParquetFile(path).metadata
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert groups == [1_100_000, 1_100_000, 300_000]


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_other_devices_give_the_same(blobs, device):
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if not there[device]():
        pytest.skip(f"no {device} here")
    model = dinkcli.train(blobs[0], 3, device="cpu")
    for soft in (False, True):
        here, elsewhere = (
            dinkcli.assign(model, blobs[0], soft=soft, device=d) for d in ("cpu", device)
        )
        np.testing.assert_allclose(elsewhere, here, rtol=1e-4, atol=1e-6)


def test_a_folder_for_each_cluster(dink, tmp_path):
    """DuckDB and pyarrow find the rows of a cluster where they are."""
    import duckdb
    import pyarrow.dataset as ds

    rows = np.random.default_rng(0).normal(size=(500, 3)).astype("f4")
    np.save(tmp_path / "rows.npy", rows)
    model = dinkcli.train(rows, 4, seed=0)
    model.save(tmp_path / "m.safetensors")
    command = ["assign", tmp_path / "m.safetensors", tmp_path / "rows.npy", "-q"]
    command += ["--partition-by-cluster", "--max-distance", "2", "-o", tmp_path / "out"]
    dink(*command)
    squares = ((rows[:, None].astype(float) - model.cluster_centers) ** 2).sum(2)
    expected = np.where(squares.min(1) > 4, -1, squares.argmin(1))
    found = ds.dataset(tmp_path / "out", partitioning="hive").to_table().sort_by("row")
    assert found["cluster"].to_pylist() == expected.tolist()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"cluster={j}" for j in np.unique(expected)
    }
    query = f"select count(*) from read_parquet('{tmp_path}/out/*/*.parquet') where cluster = 2"
    assert duckdb.sql(query).fetchall() == [((expected == 2).sum(),)]
    assert "is there already" in dink(*command, code=2).stderr
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".dink")]
