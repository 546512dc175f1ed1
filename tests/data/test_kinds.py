"""Variants of text files, and files that dink does not read, by values through the command line."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import re
import sqlite3
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet as pq
import pytest
import scipy.sparse
import torch
from conftest import nearest_float64

from dinkcli.data.base import Columns
from dinkcli.data.inputs import open_data
from dinkcli.models.file import load
from dinkcli.models.model import Model

# An error keeps the frames that hold temporary files until the garbage is collected.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*unclosed file", "ignore::pytest.PytestUnraisableExceptionWarning"
)
N, D, K = 30, 5, 3
VECTORS = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
CENTERS = VECTORS[:K] * 0.5
LISTS = [row.tolist() for row in VECTORS]
TEXTS = [str(row) for row in LISTS]
BARE = [text[1:-1].replace(" ", "") for text in TEXTS]
COUNTED = [str(i) for i in range(N)]
WORDS = [f"w{i} {row.replace(',', ' ')}\n" for i, row in enumerate(BARE)]


def lines(form, rows=TEXTS, head=""):
    return head + "".join(form.format(i=i, v=row) for i, row in enumerate(rows))


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def objects():
    return [{"id": i, "date": "2024-01-02", "e": row} for i, row in enumerate(LISTS)]


# Contents, options, and the ids that have to come out.
READ = {
    "R row names": (lines('"r{i}",{v}\n', BARE, '"a","b","c","d","e"\n'), "", ""),
    "crlf": (lines('{i:04},"{v}"\r\n', head="id,e\r\n") + "\r\n", "--ids id", "04"),
    "no header": (lines('"{v}"\n'), "", None),
    "semicolons": (lines("{i};{v}\n", head="id;e\n"), "--ids id", ""),
    "tabs and bare commas": (lines("{i}\t{v}\n", BARE), "--ids f0", ""),
    "stray quotes": (lines('"{i}\t{v}\n'), "--ids f0", '"'),
    "pipes with a mark": (lines("{i}|{v}\n", head="\ufeffid|e\n"), "--ids id", ""),
    "utf-16": (lines("{i},{v}\n", BARE).encode("utf-16"), "--ids f0", ""),
    "utf-16 without a mark": (lines("é\t{v}\n").encode("utf-16-le"), "", None),
    "array()": (lines('"array({v}, dtype=float32)"\n', head="e\n"), "", None),
    "tensor()": (lines('"tensor({v})"\n', head="e\n"), "", None),
    "NumPy scalars": (
        lines('"[{v}]"\n', [", ".join(f"np.float32({x})" for x in r) for r in LISTS], "e\n"),
        "",
        None,
    ),
    "two comments": (lines("{v}\n", BARE, "# a\n# b, c\n"), "", None),
    "a separator at the end": (lines("{v},\n", BARE), "", None),
    "text on both sides": (lines("{i},a,{v},b\n", BARE), "--ids f0", ""),
    "columns of one name": (lines("x,y,{v}\n", BARE, "t,t,a0,a1,a2,a3,a4\n"), "", None),
    "a break in quotes": (
        lines('{i},"a\nb, {i}",{v}\n', BARE, "id,t,a0,a1,a2,a3,a4\n"),
        "--ids id",
        "",
    ),
    "a price with commas": (
        lines('{i},"1,234.5",{v}\n', BARE, "id,price,a0,a1,a2,a3,a4\n"),
        "--ids id",
        "",
    ),
    "tokens beside": (lines('"[1, 2]","{v}"\n', head="tokens,e\n"), "", None),
    "names and rows apart": (
        pd.DataFrame(objects()).to_json(orient="split", double_precision=15),
        "--ids id",
        "",
    ),
    "array of objects": (json.dumps(objects(), indent=3), "--ids id", ""),
    "bz2": (bz2.compress(jsonl(objects()).encode()), "--ids id", ""),
    "xz": (lzma.compress(jsonl(objects()).encode()), "--ids id", ""),
    "two gzip streams": (
        gzip.compress(jsonl(objects()[:9]).encode()) + gzip.compress(jsonl(objects()[9:]).encode()),
        "--ids id",
        "",
    ),
    "blank lines and a mark": ("\ufeff" + jsonl(objects()).replace("\n", "\r\n\r\n"), "", None),
    "brackets in strings": (
        json.dumps([{"t": 'a]}[{"\\', "e": row} for row in LISTS]),
        "--column e",
        None,
    ),
    "an answer in depth": (
        json.dumps({"a": {"items": [{"v": {"e": r}, "k": str(i)} for i, r in enumerate(LISTS)]}}),
        "--ids a.items.k",
        "",
    ),
    "a name in each array": (jsonl([[f"r{i}", *r] for i, r in enumerate(LISTS)]), "", None),
    "a name before the array": (jsonl([[f"r{i}", r] for i, r in enumerate(LISTS)]), "", None),
    "a row number in each array": (jsonl([[i, *r] for i, r in enumerate(LISTS)]), "", None),
    "a comma behind each object": (jsonl(objects()).replace("}\n", "},\n"), "", None),
    "blank lines before": (lines("{v}\n", BARE, "\n \na0,a1,a2,a3,a4\n"), "", None),
    "the header again": (
        lines("{v}\n", [*BARE[:9], "a0,a1,a2,a3,a4", *BARE[9:]], "a0,a1,a2,a3,a4\n"),
        "",
        None,
    ),
    "lists without quotes": (lines("r{i},{v}\n"), "", None),
    "numbers as texts": (jsonl([{"v": [str(x) for x in row]} for row in LISTS]), "", None),
    "MongoDB's numbers": (
        jsonl(
            {"_id": {"$oid": f"m{i}"}, "v": [{"$numberDouble": str(x)} for x in row]}
            for i, row in enumerate(LISTS)
        ),
        "--ids _id",
        "m",
    ),
    "names in one array": (json.dumps([[f"r{i}", *r] for i, r in enumerate(LISTS)]), "", None),
    "row numbers in one array": (json.dumps([[i, r] for i, r in enumerate(LISTS)]), "", None),
    "objects by index": (
        jsonl([{"id": i, "v": {str(j): x for j, x in enumerate(r)}} for i, r in enumerate(LISTS)]),
        "",
        None,
    ),
    "a row number in each record": (lines("{i},{v}\n", BARE), "", None),
    "\\r ends lines of csv": (lines("{v}\r", BARE, "a,b,c,d,e\r"), "", None),
    "\\r ends lines of arrays": (jsonl(LISTS).replace("\n", "\r"), "", None),
    "\\r ends lines of words": ("".join(WORDS).replace("\n", "\r"), "", "w"),
    "arrays over several lines": ("".join(json.dumps(r, indent=1) + "\n" for r in LISTS), "", None),
    "a comma behind each named array": (
        jsonl([[f"r{i}", r] for i, r in enumerate(LISTS)]).replace("\n", ",\n"),
        "",
        None,
    ),
    "Spark's vectors": (
        jsonl({"v": {"type": 1, "size": None, "indices": None, "values": r}} for r in LISTS),
        "",
        None,
    ),
    "one vector a list": (jsonl([{"id": i, "e": [r]} for i, r in enumerate(LISTS)]), "", None),
}


@pytest.fixture
def labels(invoke):
    """``labels(content, options)`` writes the file and gives the ids and labels of assign."""

    def run(content, options=""):
        data = content if isinstance(content, bytes) else content.encode()
        Path("x").write_bytes(data)
        Model(CENTERS, np.ones(K)).save("m")
        out = invoke("assign", "-q", *options.split(), "m", "x").stdout
        found = pd.read_csv(io.StringIO(out), dtype=str, keep_default_na=False)
        return found[found.columns[0]].to_list(), found["cluster"].astype(int).to_numpy()

    return run


@pytest.mark.parametrize("name", READ)
def test_variants_are_read(labels, name):
    content, options, form = READ[name]
    ids, found = labels(content, options)
    np.testing.assert_array_equal(found, nearest_float64(VECTORS, CENTERS))
    if form == "04":
        assert ids == [f"{i:04}" for i in range(N)]
    elif form:
        assert ids == [f"{form}{i}" for i in range(N)]
    else:
        assert ids == COUNTED


def test_ids_keep_their_text(labels):
    ids = ["NULL", "00007", "9007199254740995", "9007199254740997", "18446744073709551617", ""]
    rows = [f"{name},{row}\n" for name, row in zip(ids, BARE, strict=False)]
    assert labels("id,a0,a1,a2,a3,a4\n" + "".join(rows), "--ids id")[0] == ids
    numbers = [int(name) for name in ids[2:5]]
    rows = [{"id": i, "e": row} for i, row in zip(numbers, LISTS, strict=False)]
    assert labels(jsonl(rows), "--ids id")[0] == ids[2:5]
    assert labels(json.dumps(rows), "--ids id")[0] == ids[2:5]
    columns = {"id": numbers, "e": LISTS[:3]}
    assert labels(json.dumps(columns), "--ids id")[0] == ids[2:5]


def test_decimal_commas(labels):
    content = "-3,85;-4,1;0,5;1;2,25\n1,5;2,25;-0,125;7;8\n"
    rows = [[-3.85, -4.1, 0.5, 1, 2.25], [1.5, 2.25, -0.125, 7, 8]]
    np.testing.assert_array_equal(labels(content)[1], nearest_float64(np.array(rows), CENTERS))


def test_decimal_commas_are_read_twice(tmp_path):
    """Beside a cell that is no number, which is seen only on the way."""
    (tmp_path / "x.csv").write_text(
        "a;b\n" + "".join(f"{i},5;2,{i}\n" for i in range(9)) + "x;1,5\n"
    )
    (reader,) = open_data([tmp_path / "x.csv"], bad_rows="skip").readers
    for _ in range(2):
        (block,) = reader.blocks(N)
        assert block.bad.tolist() == [False] * 9 + [True]
        np.testing.assert_array_equal(block.vectors[:9, 0], np.arange(9) + 0.5)


def test_words(labels):
    names = ["at name@domain.com", ". . .", "3.5", "\u00a0", '"']
    text = "".join(f"{w} {r.replace(',', ' ')}\n" for w, r in zip(names, BARE, strict=False))
    for content in (text, f"5 {D}\n{text}", f"5 {D}\n" + text.replace("\n", " \n")):
        ids, found = labels(content)
        assert ids == names
        np.testing.assert_array_equal(found, nearest_float64(VECTORS[:5], CENTERS))
    rows = np.arange(3 * D).reshape(3, D) - 7
    text = "".join(f"w{i} {' '.join(map(str, row))}\n" for i, row in enumerate(rows))
    ids, found = labels(f"3 {D}\n{text}")  # integers alone
    assert ids == ["w0", "w1", "w2"]
    np.testing.assert_array_equal(found, nearest_float64(rows, CENTERS))


REFUSED = {
    "elided": ('e\n"[0.1 0.2 ... 0.3 0.4]"\n', r"in place of most numbers, which are lost"),
    "thousands": ('a;b\n"1,234.5";"2,345.5"\n"1,1";"2,2"\n', r"'1,234.5' have separators between"),
    "blank thousands": (lines("1 2{i:02}.5;2 345.5\n", BARE), "have blanks between thousands"),
    "percent": (lines("1.5%,2.5%\n", BARE, "a,b\n"), "have signs around"),
    "a column of percents": (lines("{v},{i}.5%\n", BARE, "a,b,c,d,e,f\n"), "'f' holds .* '0.5%'"),
    "a column of thousands": (lines('{v},"1,2{i:02}.5"\n', BARE, "a,b,c,d,e,f\n"), "'1,200.5'"),
    "a column of apostrophes": (
        lines("{v},1'2{i:02}.5\n", BARE, "d0,d1,d2,d3,d4,d5\n"),
        "'d5' holds",
    ),
    "accounts": (
        lines("{v},({i}.5)\n", BARE, "a,b,c,d,e,f\n"),
        r"'f' holds numbers such as '\(0.5\)'",
    ),
    "ARFF": ("% x\n@RELATION r\n@ATTRIBUTE a NUMERIC\n@DATA\n1.5\n", "an ARFF file; .*loadarff"),
    "Matrix Market": ("%%MatrixMarket matrix array real general\n2 1\n1\n2\n", "scipy.io.mmread"),
    "libsvm": (lines("1 1:{i}.5 2:2\n"), "a libsvm file; .*load_svmlight_file"),
    "frame by index": (pd.DataFrame(VECTORS).to_json(orient="index"), "a key for each row"),
    "cut line": (jsonl(objects()[:4]) + '{"e": [1,\n' + jsonl(objects()), "row 4 is cut"),
    "single quotes": (str(objects()), "text in single quotes, as Python prints"),
    "sparse": ("id,e\n" + 'a,"{1:0.5,3:1}/5"\n' * 3, "'e' holds sparse vectors, .*::vector"),
    "texts are no raw numbers": ("12.5%a 13.1%b\n" * 400, "no format that dink reads"),
    "an array without an end": (json.dumps(objects())[:-1], "row 30 is cut, .* no end"),
    "only a header": ("id,a0,a1\n", "a header and no rows"),
    "no elements": ("[]", "no rows in this json file"),
    "ragged": ("a,b\n1.5,2\n3,4,5\n2,1\n", "line 3 has 3 fields between commas, and most have 2"),
    "latin-1": ("id,t,a,b\n1,é,0.5,1\n".encode("latin-1"), "iconv -f latin1 -t utf-8 x.csv"),
    "by index": (json.dumps({f"r{i}": r for i, r in enumerate(objects())}), r'orient="records"'),
    "by column": (json.dumps({"e": {f"r{i}": r for i, r in enumerate(LISTS)}}), "a key for each"),
    "keyed": (json.dumps({"e": {"0": LISTS[0], "1": LISTS[1]}}), r'orient="records"'),
    "by word": (json.dumps({"a": LISTS[0], "b": LISTS[1]}), r'write one a line: \{"id": "a"'),
    "cut array": (jsonl([["a", LISTS[0]]] * 3) + '["b", [1.5', "row 3 is cut, or no JSON"),
    "deep": ('{"a":' * 5000, "cannot be read as json"),
    "mixed ids": (jsonl([{"id": 1, "e": [1.5]}, {"id": "a", "e": [1.5]}]), "row 1: 'id' is of"),
    "several": (jsonl([{"e": [row, row]} for row in LISTS]), "--column e.0 takes the first"),
    "short words": (f"{N + 1} {D}\n" + "".join(WORDS), "promises 31 words, 30 could be read"),
    "pickle": (pickle.dumps(VECTORS), r"pickle, .*pickle\.load\(open\('x\.csv', 'rb'\)\)"),
    "SQLite": (b"SQLite format 3\0" + bytes(100), r"SQLite database; .*pd\.read_sql"),
    "ORC": (b"ORC" + bytes(100), r"ORC file; .*pyarrow\.orc\.read_table"),
    "cut gzip": (gzip.compress(jsonl(objects()).encode())[:-50], "truncated or damaged"),
    "empty gzip": (gzip.compress(b""), "nothing is in this gzip file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_named(invoke, name):
    content, message = REFUSED[name]
    Path("x.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    Model(CENTERS, np.ones(K)).save("m")
    args: list[str] = ["info", "x.csv"]
    if name in ("mixed ids", "several"):  # seen only where ids, or rows, are read
        args = ["assign", "m", "x.csv", *(["--ids", "id"] * (name[0] == "m"))]
    shown = " ".join(invoke(*args, code=1).stderr.split())
    assert re.search(message, shown), shown


def test_files_of_other_libraries_are_named(invoke):
    torch.save(torch.tensor(VECTORS), "x.pt")
    index = faiss.IndexFlatL2(D)
    index.add(VECTORS)
    faiss.write_index(index, "x.faiss")
    scipy.sparse.save_npz("x.npz", scipy.sparse.csr_matrix(VECTORS))
    pa.orc.write_table(pa.table({"e": LISTS}), "x.orc")
    sqlite3.connect("x.db").execute("create table t (a)")
    for folder, mark in (("x.zarr", ".zarray"), ("y.zarr", "zarr.json"), ("x.lance", "_versions")):
        Path(folder).mkdir()
        Path(folder, mark).touch()
    for path, line in {
        "x.pt": r"np\.save\('embeddings\.npy', torch\.load\('x\.pt', weights_only=True\)",
        "x.faiss": r"faiss\.read_index\('x\.faiss'\)",
        "x.orc": r"pyarrow\.orc\.read_table\('x\.orc'\)",
        "x.db": "sqlite3.connect",
        "x.npz": r"scipy\.sparse\.load_npz\('x\.npz'\)\.toarray\(\)",
        "x.zarr": r"zarr\.open\('x\.zarr'\)",
        "y.zarr": r"zarr\.open\('y\.zarr'\)",
        "x.lance": r"lance\.dataset\('x\.lance'\)",
    }.items():
        assert re.search(line, " ".join(invoke("info", path, code=1).stderr.split())), path


def test_notes(invoke):
    Path("counted.csv").write_text(lines("{i},{v}\n", BARE))
    shown = " ".join(invoke("info", "counted.csv").stderr.split())
    assert "its first field counts the rows: it is not read as a coordinate" in shown
    Path("sides.csv").write_text(lines("a,{v},b\n", BARE))
    assert "f1 to f5, not f0, f6" in " ".join(invoke("info", "sides.csv").stderr.split())
    pq.write_table(pa.table({"tokens": [[1, 2, 3]] * 5}), "tokens.parquet")
    assert "may be tokens" in " ".join(invoke("info", "tokens.parquet").stderr.split())
    bits = np.packbits(np.random.default_rng(0).random((300, 256)) > 0.5, axis=1)
    np.save("bits.npy", bits)
    assert "looks like packed bits" in " ".join(invoke("info", "bits.npy").stderr.split())


@pytest.mark.parametrize(
    "form", ["embedding[{}]", "('emb', '{}')", "{}.0", "dim-{}", "emb_{:03}", "x.{}", "{}", "e({})"]
)
@pytest.mark.parametrize("write", [pd.DataFrame.to_csv, pd.DataFrame.to_parquet])
def test_numbered_columns_are_in_the_order_of_their_numbers(form, write, tmp_path):
    rows = np.random.default_rng(1).normal(size=(9, 12)).astype(np.float32)
    names = np.array([form.format(i) for i in range(12)])
    for order in (np.arange(12), np.random.default_rng(2).permutation(12)):
        path = tmp_path / "x"
        write(pd.DataFrame(rows[:, order], columns=names[order]), path, index=False)
        data = open_data([path])
        again = open_data([path], Columns(vectors=data.column)) if data.column else data
        for each in (data, again):
            np.testing.assert_array_equal(np.concatenate([b.vectors for b in each.blocks()]), rows)


@pytest.mark.parametrize("cell", ["#N/A", "x", None])
@pytest.mark.parametrize("row", [slice(4, 5), slice(None)])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_model_with_names_makes_bad_rows_of_odd_cells(invoke, cell, row, kind):
    frame = pd.DataFrame(VECTORS, columns=[f"dim_{i}" for i in range(D)]).astype(object)
    Model(CENTERS, np.ones(K), feature_names=list(frame.columns)).save("m")
    frame.iloc[row, 2] = cell
    if cell:
        frame["dim_2"] = frame["dim_2"].astype(str)
    getattr(frame, f"to_{kind}")("x", index=False)
    out = invoke("assign", "m", "x", "-q", "--bad-rows", "label").stdout
    expected = nearest_float64(VECTORS, CENTERS)
    expected[row] = -1
    np.testing.assert_array_equal(pd.read_csv(io.StringIO(out))["cluster"], expected)


@pytest.mark.parametrize("cell", ["#N/A", "?", "-", "true"])
@pytest.mark.parametrize("header", [True, False])
def test_a_cell_that_is_no_number_makes_a_bad_row(labels, invoke, cell, header):
    rows = [row.split(",") for row in BARE]
    rows[4][2] = cell
    content = "d_0,d_1,d_2,d_3,d_4\n" * header + "".join(",".join(row) + "\n" for row in rows)
    expected = nearest_float64(VECTORS, CENTERS)
    expected[4] = -1
    np.testing.assert_array_equal(labels(content, "--bad-rows label")[1], expected)
    name = "d_2" if header else "f2"
    error = " ".join(invoke("assign", "m", "x", code=1).stderr.split())
    assert f"row 4: column '{name}' holds '{cell}', expected a number" in error


@pytest.mark.parametrize("cell", ["?", "#N/A", True, None, [1.5], {"a": 1}])
@pytest.mark.parametrize("row", [0, 4])
@pytest.mark.parametrize("form", ["element", "vector", "column", "array", "document"])
def test_an_odd_value_in_json_makes_a_bad_row(labels, cell, row, form):
    rows = [list(each) for each in LISTS]
    if form == "vector":
        rows[row] = cell
    else:
        rows[row][2] = cell
    if form == "column":
        written = [{"id": i, **{f"d{j}": x for j, x in enumerate(r)}} for i, r in enumerate(rows)]
    elif form == "array":
        written = rows
    else:
        written = [{"id": i, "v": r} for i, r in enumerate(rows)]
    content = json.dumps({"data": written}) if form == "document" else jsonl(written)
    expected = nearest_float64(VECTORS, CENTERS)
    expected[row] = -1
    np.testing.assert_array_equal(labels(content, "--bad-rows label")[1], expected)


def test_a_cut_line_of_words_is_a_bad_row(labels):
    rows = list(WORDS)
    rows[9] = "w9 1.5 2\n"
    filled = "".join(f"x {row}" for row in WORDS) * 4  # a word of two, past what is looked at
    ids, found = labels(filled + "".join(rows), "--bad-rows label")
    expected = np.tile(nearest_float64(VECTORS, CENTERS), 5)
    expected[4 * N + 9] = -1
    np.testing.assert_array_equal(found, expected)
    assert ids[:2] == ["x w0", "x w1"] and ids[-1] == f"w{N - 1}"


@pytest.mark.parametrize("type_", [pa.string(), pa.list_(pa.string()), pa.list_(pa.string(), 3)])
def test_integers_in_text_are_vectors_if_named(type_, tmp_path):
    rows = np.arange(12).reshape(4, 3)
    is_list = type_ != pa.string()
    cells = [list(map(str, row)) if is_list else str(row.tolist()) for row in rows]
    pq.write_table(pa.table({"t": pa.array(cells, type_), "e": [[0.5]] * 4}), tmp_path / "x")
    blocks = open_data([tmp_path / "x"], Columns(vectors="t")).blocks()
    np.testing.assert_array_equal(np.concatenate([block.vectors for block in blocks]), rows)


def test_info_names_the_cell(invoke):
    Path("x.csv").write_text("dim_0,dim_1\n1.5,2\n1,NaN\n")
    assert "row 1: column 'dim_1' is null" in " ".join(invoke("info", "x.csv").stdout.split())


def test_a_batch_row_that_failed_is_a_bad_row(labels, invoke):
    rows = [{"custom_id": f"r{i}", "response": {"data": [{"e": r}]}} for i, r in enumerate(LISTS)]
    rows[3]["response"], rows[5]["response"] = {"error": "x"}, None
    ids, found = labels(jsonl(rows), "--ids custom_id --bad-rows label")
    expected = nearest_float64(VECTORS, CENTERS)
    expected[[3, 5]] = -1
    np.testing.assert_array_equal(found, expected)
    assert ids == [f"r{i}" for i in range(N)]
    error = " ".join(invoke("assign", "m", "x", code=1).stderr.split())
    assert "row 3: column 'response.data.e' is null" in error


@pytest.mark.parametrize("shift", [0, 128])
def test_packed_bits_and_a_model_that_remembers(invoke, shift):
    signs = np.where(VECTORS > 0, 1, -1)
    packed = (np.packbits(VECTORS > 0, axis=1).astype(np.int16) - shift).astype(
        np.int8 if shift else np.uint8
    )
    np.save("x.npy", packed)
    invoke("train", "x.npy", "--bits", "--dim", D, "-k", K, "-q", "-o", "m", "--device", "cpu")
    centers = load("m").cluster_centers
    out = invoke("assign", "m", "x.npy", "-q").stdout
    found = pd.read_csv(io.StringIO(out))["cluster"]
    distances = ((signs[:, None] - centers[None].astype(float)) ** 2).sum(2)
    np.testing.assert_allclose(distances[range(N), found], distances.min(1), rtol=1e-6)
    assert np.abs(centers).max() <= 1
