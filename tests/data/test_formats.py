"""Every format and every kind of column, as the tools of the field write them, reads the same."""

import contextlib
import io
import json
import os
import subprocess
from pathlib import Path

import datasets
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import torch
from conftest import environment, python
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

import dinkcli
from dinkcli.data.base import Columns
from dinkcli.data.inputs import open_data
from dinkcli.errors import InputError, UsageError
from dinkcli.insight.info import info

N, DIM = 300, 12
SPARK = pa.struct(
    {
        "type": pa.int8(),
        "size": pa.int32(),
        "indices": pa.list_(pa.int32()),
        "values": pa.list_(pa.float64()),
    }
)


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(N, DIM)).astype(np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(*paths, rows=77, **columns):
    data = open_data([str(path) for path in paths], Columns(**columns)).repeatable()
    assert data.n_rows == sum(len(block) for block in data.blocks(rows))
    return np.concatenate([block.vectors for block in data.blocks(rows)])


def vecs(path, array):
    records = np.empty(len(array), [("d", "<i4"), ("v", array.dtype, (DIM,))])
    records["d"], records["v"] = DIM, array
    records.tofile(path)


def stream(path, table):
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=40)


def table_of(vectors):
    values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM)
    return pa.table({"id": range(N), "e": values})


def frame_of(vectors):
    return pd.DataFrame(vectors, columns=[f"dim_{j}" for j in range(DIM)])


WRITERS = {
    "stored.npz": lambda p, v: np.savez(p, v),
    "packed.npz": lambda p, v: np.savez_compressed(p, v),
    "fortran.npz": lambda p, v: np.savez(p, np.asfortranarray(v)),
    "x.safetensors": lambda p, v: save_file({"e": v, "other": v[:, 0].copy()}, p),
    "x.fvecs": vecs,
    "lz4.feather": lambda p, v: pa.feather.write_feather(table_of(v), p),
    "plain.feather": lambda p, v: pa.feather.write_feather(
        table_of(v), p, compression="uncompressed", chunksize=33
    ),
    "x.arrows": lambda p, v: stream(p, table_of(v)),
    "polars.arrow": lambda p, v: pl.DataFrame({"e": v.tolist(), "s": ["x"] * N}).write_ipc(p),
    "array.parquet": lambda p, v: pl.DataFrame({"e": v}).write_parquet(p),
    "list.parquet": lambda p, v: pl.DataFrame({"e": v.tolist()}).write_parquet(p),
    "rows.jsonl": lambda p, v: pd.DataFrame({"id": range(N), "e": list(v)}).to_json(
        p, orient="records", lines=True, double_precision=12
    ),
    "arrays.jsonl": lambda p, v: Path(p).write_text("\n".join(str(r.tolist()) for r in v)),
    "commas.csv": lambda p, v: np.savetxt(p, v, delimiter=","),
    "spaces.csv": lambda p, v: np.savetxt(p, v),
    "counted.csv": lambda p, v: pd.DataFrame(v).to_csv(p),
    "named.csv.gz": lambda p, v: frame_of(v).assign(name="n").to_csv(p, index=False),
    "hf.parquet": lambda p, v: datasets.Dataset.from_dict(
        {"e": v},
        features=datasets.Features({"e": datasets.List(datasets.Value("float32"), length=DIM)}),
    ).to_parquet(p),
    "hf_lists.parquet": lambda p, v: datasets.Dataset.from_dict({"e": v.tolist()}).to_parquet(p),
    "hf_folder": lambda p, v: datasets.Dataset.from_dict({"e": v, "t": ["x"] * N}).save_to_disk(p),
    "hive": lambda p, v: pq.write_to_dataset(
        pa.table({"e": list(v), "part": ["a"] * 100 + ["b"] * 200}), p, partition_cols=["part"]
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WRITERS)
def test_formats(name, vectors):
    with contextlib.redirect_stderr(io.StringIO()):
        WRITERS[name](name, vectors)
    np.testing.assert_allclose(read(name), vectors, rtol=1e-6, atol=1e-7)


def test_duckdb(vectors):
    relation = pa.table({"e": list(vectors)})  # noqa: F841  (DuckDB finds it by name)
    duckdb.sql("copy (select e::double[] as e from relation) to 'x.parquet' (row_group_size 2048)")
    np.testing.assert_array_equal(read("x.parquet"), vectors)


def test_narrow_types_stay_narrow(vectors):
    half = vectors.astype(np.float16)
    save_file({"e": half}, "half.safetensors")
    save_torch({"e": torch.from_numpy(vectors).bfloat16()}, "brain.safetensors")
    vecs("x.bvecs", np.arange(N * DIM, dtype=np.uint8).reshape(N, DIM))
    vecs("x.ivecs", np.arange(N * DIM, dtype="<i4").reshape(N, DIM))
    pl.DataFrame({"e": half}).write_parquet("half.parquet")
    for path in ("half.safetensors", "half.parquet"):
        data = open_data([path])
        assert data.dtype == np.float16
        loaded, _ = data.load_rows(np.empty((data.known_rows, data.n_features), data.dtype))
        assert loaded.dtype == np.float16
        np.testing.assert_array_equal(loaded, half)
    brain = torch.from_numpy(vectors).bfloat16().float().numpy()
    np.testing.assert_array_equal(read("brain.safetensors"), brain)
    assert open_data(["x.bvecs"]).dtype == np.uint8
    for path in ("x.bvecs", "x.ivecs"):
        expected = np.arange(N * DIM).reshape(N, DIM) % (256 if path == "x.bvecs" else 10**9)
        np.testing.assert_array_equal(read(path), expected)


def test_spark_vectors(vectors):
    """As Spark ML writes VectorUDT: dense ones as they are, sparse ones by their indices."""
    rows = [
        {"type": 1, "size": None, "indices": None, "values": row.tolist()}
        if number % 3
        else {
            "type": 0,
            "size": DIM,
            "indices": np.flatnonzero(row > 0).tolist(),
            "values": row[row > 0].tolist(),
        }
        for number, row in enumerate(vectors.astype(float))
    ]
    expected = vectors.copy()
    expected[::3] = np.maximum(vectors[::3], 0)
    pq.write_table(pa.table({"features": pa.array(rows, SPARK)}), "x.parquet", row_group_size=90)
    np.testing.assert_array_equal(read("x.parquet"), expected)
    dense = [row for number, row in enumerate(rows) if number % 3]
    pq.write_table(pa.table({"features": pa.array(dense, SPARK)}), "x.parquet")
    np.testing.assert_array_equal(read("x.parquet"), np.delete(vectors, slice(0, N, 3), 0))
    rows[6] = {**rows[6], "size": 7}
    pq.write_table(pa.table({"features": pa.array(rows, SPARK)}), "x.parquet")
    with pytest.raises(InputError, match=f"row 6 of column .* has 0 elements, expected {DIM}"):
        read("x.parquet")


@pytest.mark.parametrize("type_", [pa.binary(), pa.large_binary(), pa.binary(4 * DIM)])
def test_bytes(vectors, type_):
    blobs = pa.array([row.tobytes() for row in vectors], type_)
    pq.write_table(pa.table({"b": blobs}), "x.parquet", row_group_size=70)
    np.testing.assert_array_equal(read("x.parquet", dim=DIM), vectors)
    half = open_data(["x.parquet"], Columns(dim=2 * DIM))
    assert (half.dtype, half.n_features) == (np.float16, 2 * DIM)
    schema = pa.schema([pa.field("b", type_, metadata={"dim": str(DIM)})])
    pq.write_table(pa.Table.from_arrays([blobs], schema=schema), "y.parquet")
    np.testing.assert_array_equal(read("y.parquet"), vectors)
    with pytest.raises(UsageError, match=r"of 48 bytes a row.*would make `dim` 12"):
        read("x.parquet", vectors="b")
    with pytest.raises(UsageError, match=r"`dim` 13: .* has 48 bytes a row, expected 52"):
        read("x.parquet", dim=13)


def test_dimensions_of_a_text_may_begin_as_integers(vectors):
    vectors[:200] = np.round(vectors[:200])
    frame_of(vectors).assign(id="n").to_csv("x.csv", index=False, float_format="%.9g")
    np.testing.assert_array_equal(read("x.csv"), vectors)


def test_hive_partitions_and_patterns(vectors):
    WRITERS["hive"]("hive", vectors)
    data = open_data(["hive"], Columns(id="part"))
    found = [part for block in data.blocks(50) for part in block.carried["part"].to_pylist()]
    assert found == ["a"] * 100 + ["b"] * 200
    np.testing.assert_array_equal(read("hive/part=b/*.parquet"), vectors[100:])
    np.testing.assert_array_equal(read("hive/**/*.parquet"), vectors)
    with pytest.raises(UsageError, match=r"nothing\*: no file matches this pattern"):
        read("nothing*")


def test_folders_prefer_vectors_to_texts_and_leave_models_out(vectors, blobs):
    os.mkdir("d")
    np.save("d/b.npy", vectors)
    Path("d/a.csv").write_text("1,2\n3,4\n")
    Path("d/_SUCCESS").touch()
    dinkcli.train(blobs[0], 3, device="cpu").save("d/a.dink.safetensors")
    np.testing.assert_array_equal(read("d"), vectors)


def test_members_of_archives(vectors):
    np.savez("x.npz", a=vectors, b=vectors * 2)
    np.testing.assert_array_equal(read("x.npz", vectors="b"), vectors * 2)
    np.testing.assert_array_equal(read("x.npz", usual="b"), vectors * 2)
    with pytest.raises(UsageError, match=r"2 members: a, b; choose one with `column` a"):
        read("x.npz")
    with pytest.raises(UsageError, match="no member 'c'; it has a, b"):
        read("x.npz", vectors="c")
    torch.save(vectors, "x.pt")
    with pytest.raises(InputError, match=r"a pickle, which dink never loads; .*weights_only=True"):
        read("x.pt")


def test_files_without_rows_are_left_out_with_a_note(vectors):
    pq.write_table(pa.table({"e": pa.array([], pa.list_(pa.float32()))}), "empty.parquet")
    pq.write_table(pa.table({"e": list(vectors)}), "x.parquet")
    data = open_data(["empty.parquet", "x.parquet"])
    assert data.notes == ["without rows, left out: empty.parquet"]
    assert data.n_rows == N
    with pytest.raises(InputError, match=r"empty\.parquet: 0 rows"):
        read("empty.parquet")


def bad_rows(vectors):
    rows = [row.tolist() for row in vectors]
    rows[3] = None
    rows[5] = rows[5][:4]
    rows[7] = [None, *rows[7][1:]]
    rows[200][2] = float("inf")
    return rows, np.isin(np.arange(N), [3, 5, 7, 200])


@pytest.mark.parametrize("value", [pa.float32(), pa.float64()])
def test_bad_rows_are_counted_and_marked(vectors, value):
    rows, bad = bad_rows(vectors)
    pq.write_table(pa.table({"e": pa.array(rows, pa.list_(value))}), "x.parquet", row_group_size=90)
    with pytest.raises(
        InputError, match=r"row 3: column 'e' is null.*4 bad rows .*`bad_rows` skip"
    ):
        read("x.parquet")
    for how in ("skip", "label"):
        data = open_data(["x.parquet"], bad_rows=how)
        for rows_per_block in (7, 1000):
            blocks = list(data.blocks(rows_per_block))
            none = [np.zeros(len(b), bool) if b.bad is None else b.bad for b in blocks]
            np.testing.assert_array_equal(np.concatenate(none), bad)
            found = np.concatenate([block.vectors for block in blocks])
            np.testing.assert_array_equal(found, np.where(bad[:, None], 0, vectors))
        kept, numbers = data.load_rows()
        np.testing.assert_array_equal(kept, vectors[~bad])
        np.testing.assert_array_equal(numbers, np.flatnonzero(~bad))
    with pytest.raises(UsageError, match="`bad_rows` drop: expected stop, skip, label"):
        open_data(["x.parquet"], bad_rows="drop")


def test_bad_rows_in_training_and_assigning(vectors):
    rows, bad = bad_rows(vectors)
    pq.write_table(pa.table({"e": pa.array(rows, pa.list_(pa.float32()))}), "x.parquet")
    model = dinkcli.train("x.parquet", 3, bad_rows="skip", device="cpu")
    clean = dinkcli.train(vectors[~bad], 3, device="cpu")
    np.testing.assert_array_equal(model.cluster_centers, clean.cluster_centers)
    assert model.training["input"]["bad_rows"] == 4
    labels = dinkcli.assign(clean, vectors)
    labelled = dinkcli.assign(clean, "x.parquet", bad_rows="label", device="cpu")
    np.testing.assert_array_equal(labelled, np.where(bad, -1, labels))
    skipped = dinkcli.assign(clean, "x.parquet", bad_rows="skip", device="cpu")
    np.testing.assert_array_equal(skipped, labels[~bad])


def test_rows_without_direction_under_cosine(vectors):
    vectors[9] = 0
    model = dinkcli.train(vectors, 3, metric="cosine", bad_rows="skip", device="cpu")
    with pytest.raises(InputError, match=r"row 9 has norm 0, .* 1 such row"):
        dinkcli.assign(model, vectors, device="cpu")
    labels = dinkcli.assign(model, vectors, bad_rows="label", device="cpu")
    np.testing.assert_array_equal(np.flatnonzero(labels == -1), [9])


def test_files_that_change_are_noticed(vectors):
    np.save("x.npy", vectors)
    pq.write_table(pa.table({"e": list(vectors)}), "x.parquet", row_group_size=50)
    for path in ("x.npy", "x.parquet"):
        data = open_data([path])
        blocks = data.blocks(20)
        next(blocks)
        with open(path, "r+b") as file:
            file.truncate(os.path.getsize(path) // 3)
        with pytest.raises(InputError, match=rf"{path}: (ended .* early|changed|cannot be read)"):
            list(blocks)


@pytest.mark.parametrize("name", ["x.npy", "x.arrows"])
def test_standard_input(vectors, blobs, name):
    z = blobs[0]
    model = dinkcli.train(z, 3, device="cpu")
    model.save("m.safetensors")
    if name == "x.npy":
        np.save(name, z)
    else:
        values = pa.FixedSizeListArray.from_arrays(pa.array(z.ravel()), z.shape[1])
        stream(name, pa.table({"e": values}))
    commands = (["assign", "m.safetensors", "-", "-q"], ["train", "-", "-k", "3", "-q", "-o", "n"])
    for command in commands:
        with open(name, "rb") as file:
            process = subprocess.run(
                [python(), "-m", "dinkcli", *command],
                stdin=file,
                capture_output=True,
                env=environment(),
            )
        assert process.returncode == 0, process.stderr
        if command[0] == "assign":
            found = pd.read_csv(io.BytesIO(process.stdout))["cluster"]
            np.testing.assert_array_equal(found, dinkcli.assign(model, z))
    np.testing.assert_array_equal(dinkcli.load("n").cluster_centers, model.cluster_centers)


def test_standard_input_of_any_format(dink, vectors, folder):
    """What has to be read twice, or from anywhere, is copied first."""
    for name in ("array.parquet", "rows.jsonl", "commas.csv", "named.csv.gz", "packed.npz"):
        WRITERS[name](name, vectors)
        result = dink("info", "-", "--json", input=(folder / name).read_bytes(), text=False)
        found = json.loads(result.stdout)
        assert (found["n_rows"], found["n_features"]) == (N, DIM)
        assert found["norms"][2] == pytest.approx(np.linalg.norm(vectors, axis=1).max(), rel=1e-5)


def test_info(vectors, dink):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    rows, _ = bad_rows(unit)
    pq.write_table(pa.table({"id": range(N), "e": rows}), "x.parquet")
    found = info("x.parquet", memory=100)
    assert (found.n_rows, found.n_features, found.dtype) == (N, DIM, "float64")
    assert (found.n_bad, found.n_zero, found.unit, found.held) == (4, 0, True, False)
    assert found.first_bad == "row 3: column 'e' is null, expected a vector"
    assert found.columns == {"id": "int64", "e": "list<element: double>"}
    np.save("y.npy", vectors)
    found = info("y.npy")
    norms = np.linalg.norm(vectors.astype(float), axis=1)
    np.testing.assert_allclose(found.norms, [norms.min(), norms.mean(), norms.max()])
    assert not found.unit
    out = dink("info", "x.parquet").stdout
    assert "features  12\n" in out
    assert "4 rows null, ragged or not finite, 0 of norm 0; first row 3: column 'e'" in out
