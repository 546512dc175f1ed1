"""Types and oddities that people's files have, by the values that come out."""

import datetime
import decimal
import gzip
import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import dinkcli
from dinkcli.cli import app
from dinkcli.data.base import Columns
from dinkcli.data.inputs import open_data
from dinkcli.errors import InputError

N, DIM = 60, 4
TRUE = np.arange(N) % 2
VECTORS = np.random.default_rng(5).normal(size=(N, DIM)).round(6) + 8 * TRUE[:, None]
LISTS = VECTORS.tolist()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def arrow(array, path="x.arrow"):
    table = pa.table({"e": array})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=17)


def decimals(scale, type_):
    cells = [[decimal.Decimal(f"{v:.{scale}f}") for v in column] for column in VECTORS.T]
    return {f"dim_{j}": pa.array(column, type_) for j, column in enumerate(cells)}


VIEWS = {
    "list view": pa.list_view(pa.float32()),
    "large list view": pa.large_list_view(pa.float64()),
    "view of views": pa.list_view(pa.list_view(pa.float32())),
    "struct of a view": pa.struct([("v", pa.list_view(pa.float32()))]),
    "list of one struct": pa.list_(pa.struct([("v", pa.list_view(pa.float32()))])),
    "binary view": pa.binary_view(),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("null", [None, 3])
def test_views(name, null):
    cells = {
        "view of views": [[row] for row in LISTS],
        "struct of a view": [{"v": row} for row in LISTS],
        "list of one struct": [[{"v": row}] for row in LISTS],
        "binary view": [row.tobytes() for row in VECTORS.astype(np.float32)],
    }.get(name, LISTS)
    cells = [None if i == null else cell for i, cell in enumerate(cells)]
    arrow(pa.array(cells, VIEWS[name]))
    data = open_data(["x.arrow"], Columns(dim=DIM), bad_rows="skip")
    loaded, good = data.load_rows()
    expected = np.arange(N) if null is None else np.delete(np.arange(N), null)
    np.testing.assert_array_equal(loaded, VECTORS[expected].astype(np.float32))
    assert (good is None) == (null is None) and data.part(20, 31).load_rows()[0].shape == (11, DIM)


@pytest.mark.parametrize(
    ("scale", "type_"),
    [(6, pa.decimal128(12, 6)), (6, pa.decimal256(50, 6)), (0, pa.decimal128(9))],
)
def test_decimals(scale, type_):
    ids = pa.array([decimal.Decimal(10**30 + i) for i in range(N)], pa.decimal128(38, 0))
    pq.write_table(pa.table({"id": ids, **decimals(scale, type_)}), "x.parquet")
    data = open_data(["x.parquet"], Columns(id="id"))
    np.testing.assert_allclose(data.load_rows()[0], VECTORS.round(scale), rtol=1e-6, atol=1e-6)
    (block,) = data.blocks()
    assert block.carried["id"].to_pylist() == ids.to_pylist()


def test_run_ends_and_views_travel():
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([30, 60], pa.int32()), pa.array(["a", None]))
    views = pa.array([f"v{i}" for i in range(N)], pa.string_view())
    words = pa.array(["no", "yes"], pa.string_view())  # as Polars writes categories
    kinds = pa.DictionaryArray.from_arrays(pa.array(TRUE, pa.uint32()), words)
    table = pa.table({"run": runs, "view": views, "kind": kinds, "e": LISTS})
    with pa.ipc.new_file("x.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=17)
    data = open_data(["x.arrow"], Columns(id="run", others=("view", "kind")))
    blocks = list(data.blocks(7))
    seen = [name for block in blocks for name in block.carried["run"].to_pylist()]
    assert seen == ["a"] * 30 + [None] * 30
    assert [v for b in blocks for v in b.carried["view"].to_pylist()] == views.to_pylist()
    seen = pa.chunked_array([block.carried["kind"].cast(pa.string()) for block in blocks])
    assert seen.to_pylist() == ["yes" if one else "no" for one in TRUE]


def test_booleans():
    flags = VECTORS > 4
    np.save("x.npy", flags)
    np.savez("x.npz", flags=flags, other=np.arange(3))
    for name in ("x.npy", "x.npz"):
        np.testing.assert_array_equal(open_data([name]).load_rows()[0], flags)
    assert open_data(["x.npy"]).dtype == np.uint8


INDEXES = {
    "floats": pd.Index(np.arange(N) * 1000.0),
    "named floats": pd.Index(np.arange(N) * 1000.0, name="f"),
    "two": pd.MultiIndex.from_arrays([np.arange(N) * 0.5, np.arange(N) * 1e3], names=["p", None]),
}


@pytest.mark.parametrize("name", INDEXES)
@pytest.mark.parametrize("format", ["parquet", "stripped", "arrow"])
def test_an_index_of_pandas_is_no_feature(name, format):
    table = pa.Table.from_pandas(
        pd.DataFrame(VECTORS, columns=list("abcd"), index=INDEXES[name]), preserve_index=True
    )
    if format == "stripped":  # another program has written the file again
        named = [n for n in table.schema.names if not n.startswith("__") and n not in "abcd"]
        table = table.replace_schema_metadata(None).drop_columns(named)
    if format == "arrow":
        with pa.ipc.new_file("x.arrow", table.schema) as writer:
            writer.write_table(table)
    else:
        pq.write_table(table, "x.parquet")
    path = "x.arrow" if format == "arrow" else "x.parquet"
    np.testing.assert_array_equal(open_data([path]).load_rows()[0], VECTORS.astype(np.float32))
    for index in set(table.schema.names) - set("abcd"):
        assert open_data([path], Columns(vectors=index)).n_features == 1


def hive(name, values):
    for i, value in enumerate(values):
        home = f"hive/{name}={value}"
        os.makedirs(home)
        pq.write_table(pa.table({"e": LISTS[i * 20 : i * 20 + 20]}), f"{home}/p.parquet")


def test_values_of_hive_folders(invoke):
    values = ["a%2Fb", "__HIVE_DEFAULT_PARTITION__", "100%25 %C3%A4"]
    hive("lang", values)
    seen = [
        name
        for block in open_data(["hive"], Columns(id="lang")).blocks()
        for name in block.carried["lang"].to_pylist()
    ]
    # In the order of the names of the folders.
    assert seen == ["100% ä"] * 20 + [None] * 20 + ["a/b"] * 20
    dinkcli.train(VECTORS, 2, device="cpu").save("m")
    found = json.loads(invoke("evaluate", "m", "hive", "--labels", "lang", "--json").stdout)
    assert found["unlabelled"] == 20 and found["confusion"]["classes"] == ["100% ä", "a/b"]


def twice(file, array=VECTORS):
    np.save(file, array[:30])
    np.save(file, array[30:])


def test_bytes_after_an_array_are_not_left_out(invoke):
    with open("two.npy", "wb") as file:
        twice(file)
    with gzip.open("two.npy.gz", "wb") as file:
        twice(file)
    with zipfile.ZipFile("two.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write("two.npy", "e.npy")
    for name in ("two.npy", "two.npy.gz", "two.npz"):
        with pytest.raises(
            InputError, match=rf"{name}.*: 1088 bytes come after the array of shape"
        ):
            open_data([name])
    np.save("x.npy", VECTORS)
    dinkcli.train(VECTORS, 2, device="cpu").save("m")
    for line in (["assign", "m", "-", "-o", "o.csv"], ["info", "-"], ["train", "-", "-k", "2"]):
        piped = CliRunner().invoke(app, line, Path("two.npy").read_bytes())
        assert piped.exit_code == 1 and "more bytes come after the array" in piped.stderr, line
    with open("labels.npy", "wb") as file:
        twice(file, TRUE)
    found = invoke("evaluate", "m", "x.npy", "--labels", "labels.npy", code=1).stderr
    assert "labels.npy: 368 bytes come after the array of shape (30," in found


@pytest.mark.parametrize("value", [1e25, -3e38, 4e17])
@pytest.mark.parametrize("format", ["npy", "parquet", "csv"])
def test_a_huge_row_is_a_bad_row(invoke, value, format):
    vectors = VECTORS.copy()
    vectors[7, 2] = value
    path = f"x.{format}"
    if format == "npy":
        np.save(path, vectors.astype(np.float32))
    elif format == "parquet":
        pq.write_table(pa.table({"e": vectors.tolist()}), path)
    else:
        np.savetxt(path, vectors, delimiter=",")
    line = ("-k", 2, "-q", "-o", "m", "--n-init", 1)
    assert (
        f"{path}: row 7 holds {value:g} in feature 2" in invoke("train", path, *line, code=1).stderr
    )
    invoke("train", path, *line, "--bad-rows", "skip")
    good = np.delete(VECTORS, 7, 0)
    expected = [good[np.delete(TRUE, 7) == j].mean(0) for j in (0, 1)]
    found = dinkcli.load("m").cluster_centers
    np.testing.assert_allclose(sorted(found.tolist()), expected, atol=1e-5)
    out = invoke("assign", "m", path, "--bad-rows", "label", "-q").stdout
    assert pd.read_csv(io.StringIO(out))["cluster"].tolist().index(-1) == 7
    invoke("train", path, *line, "--metric", "cosine")  # a direction may be of any length


def test_files_that_are_named(invoke):
    Path("old.feather").write_bytes(b"FEA1" + b"\0" * 200 + b"FEA1")
    VECTORS.astype(np.float32).tofile("raw.bin")
    VECTORS.tofile("raw.f64")
    np.tile(VECTORS, 3).astype(np.float16).tofile("half.dat")
    Path("short.bin").write_bytes(np.random.default_rng(1).bytes(64))
    Path("random.bin").write_bytes(np.random.default_rng(0).bytes(1 << 12))
    for name, expected in {
        "old.feather": "a Feather 1 file; convert it: import pandas as pd; pd.read_feather('old.f",
        "raw.bin": "raw float32 numbers, and nothing says how many make a row; convert it, with D",
        "raw.f64": "np.fromfile('raw.f64', 'float64').reshape(-1, D)",
        "half.dat": "np.fromfile('half.dat', 'float16').reshape(-1, D)",
        "random.bin": "no format that dink reads",
        "short.bin": "no format that dink reads",
    }.items():
        assert expected in invoke("train", name, "-k", 2, "-o", "m", code=1).stderr


BLANKS = {
    "l.txt": lambda cells: Path("l.txt").write_text("\n".join(cells) + "\n"),
    "l.csv:label": lambda cells: pd.DataFrame({"i": range(N), "label": cells}).to_csv("l.csv"),
    "l.parquet": lambda cells: pq.write_table(pa.table({"label": cells}), "l.parquet"),
    "l.json": lambda cells: Path("l.json").write_text(json.dumps(cells)),
    "l.npy": lambda cells: np.save("l.npy", np.array(cells)),
}


@pytest.mark.parametrize("name", BLANKS)
@pytest.mark.parametrize("blank", ["", " "])
def test_a_blank_label_is_no_class(invoke, name, blank):
    BLANKS[name]([blank if i % 3 == 0 else f"c{TRUE[i]}" for i in range(N)])
    np.save("x.npy", VECTORS)
    dinkcli.train(VECTORS, 2, device="cpu").save("m")
    found = json.loads(invoke("evaluate", "m", "x.npy", "--labels", name, "--json").stdout)
    assert found["unlabelled"] == 20 and found["confusion"]["classes"] == ["c0", "c1"]
    assert found["agreement"]["accuracy"] == 1


UTC = datetime.timezone.utc
TIMES = [datetime.datetime(2024, 3, 31, 0, 59, 59, 5000 * i, UTC) for i in range(N)]
SPANS = [datetime.timedelta(days=i - 2, milliseconds=250) for i in range(N)]


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_times_and_durations_are_the_same_in_all_texts(invoke, unit):
    columns = {
        "t": pa.array(TIMES, pa.timestamp(unit)),
        "z": pa.array(TIMES, pa.timestamp(unit, "Europe/Paris")),
        "d": pa.array(SPANS, pa.duration(unit)),
    }
    pq.write_table(pa.table({"e": LISTS, **columns}), "x.parquet")
    dinkcli.train(VECTORS, 2, device="cpu").save("m")
    for name, values in columns.items():
        line = ("assign", "m", "x.parquet", "--ids", name, "-q")
        csv = pd.read_csv(io.StringIO(invoke(*line).stdout))[name].to_list()
        text = invoke(*line, "--format", "jsonl").stdout
        jsonl = [json.loads(row)[name] for row in text.splitlines()]
        assert csv == jsonl
        if name == "d":
            assert csv == [span.total_seconds() for span in SPANS]
        else:
            assert pd.to_datetime(csv, utc=True).to_list() == [pd.Timestamp(t) for t in TIMES]
        invoke(*line, "-o", "o.parquet")
        assert pq.read_table("o.parquet")[name].to_pylist() == values.to_pylist()
