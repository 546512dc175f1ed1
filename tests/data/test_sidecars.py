"""Files beside the vectors, through the real command and against the values that were written."""

import gzip
import io
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import dinkcli
from dinkcli.cli import app
from dinkcli.data.inputs import open_inputs
from dinkcli.data.sidefiles import columns_of
from dinkcli.errors import UsageError

N, DIM, K = 60, 4, 3
rng = np.random.default_rng(0)
TRUE = rng.integers(0, K, N)
VECTORS = (np.eye(K, DIM)[TRUE] * 9 + rng.normal(size=(N, DIM))).astype(np.float32)
TEXTS = [f'"{i}", ünïcode; {("red", "green", "blue")[t]} | x' for i, t in enumerate(TRUE)]
TEXTS[7] = ""  # a blank line is a row
IDS = [f"{i:05}" for i in range(N)]
FRAME = pd.DataFrame({"n": range(N), "id": IDS, "text": TEXTS, "topic": [f"t{t}" for t in TRUE]})
LINES = ("\n".join(TEXTS) + "\n").encode()


def arrow_file(path):
    table = pa.Table.from_pandas(FRAME)
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


# How the texts are written, and what --texts has to be.
WRITERS = {
    "t.txt": lambda path: path.write_bytes(LINES),
    "windows.txt": lambda path: path.write_bytes(b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n")),
    "utf16.txt": lambda path: path.write_bytes(LINES.decode().encode("utf-16")),
    "t.txt.gz": lambda path: path.write_bytes(gzip.compress(LINES[:-1])),
    "m.csv:text": lambda path: FRAME.to_csv(path, index=False),
    "one.csv": lambda path: FRAME[["text"]].to_csv(path, index=False),
    "m.tsv": lambda path: FRAME.to_csv(path, index=False, sep="\t"),
    "semi.csv:text": lambda path: FRAME.to_csv(path, index=False, sep=";"),
    "m.jsonl": lambda path: FRAME.to_json(path, orient="records", lines=True),
    "m.json.gz": lambda path: FRAME.to_json(path, orient="records"),
    "list.json": lambda path: path.write_text(json.dumps(TEXTS)),
    "lines.jsonl": lambda path: path.write_text("".join(json.dumps(t) + "\n" for t in TEXTS)),
    "m.parquet": lambda path: FRAME.to_parquet(path, row_group_size=11),
    "m.arrow:text": arrow_file,
    "t.npy": lambda path: np.save(path, np.array(TEXTS)),
    "bytes.npy": lambda path: np.save(path, np.array([t.encode() for t in TEXTS])),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with x.npy, x.parquet (everything in it), m (a model) and the texts."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", VECTORS)
    FRAME.assign(e=VECTORS.tolist()).to_parquet("x.parquet")
    dinkcli.train(VECTORS, K, device="cpu").save(tmp_path / "m")
    (tmp_path / "t.txt").write_bytes(LINES)
    (tmp_path / "ids.txt").write_text("\n".join(IDS))
    FRAME.to_csv("m.csv", index=False)
    return tmp_path


@pytest.mark.parametrize("file", WRITERS)
def test_every_format_gives_the_texts(invoke, here, file):
    WRITERS[file](here / file.partition(":")[0])
    found = json.loads(
        invoke("inspect", "m", "x.npy", "--texts", file, "--exemplars", N, "--json").stdout
    )
    seen = {near["row"]: near["text"] for c in found["clusters"] for near in c["exemplars"]}
    assert seen == dict(enumerate(TEXTS))


def test_numbers_stay_numbers_and_ids_keep_their_zeros(invoke, here):
    np.save("n.npy", np.arange(N)[::-1] * 7)
    invoke("assign", "m", "x.npy", "--ids", "n.npy", "-q", "-o", "o.parquet")
    found = pq.read_table("o.parquet")
    assert found.schema.field("id").type == pa.int64()
    assert found["id"].to_pylist() == (np.arange(N)[::-1] * 7).tolist()
    text = invoke("assign", "m", "x.npy", "--ids", "m.csv", "-q").stdout
    assert pd.read_csv(io.StringIO(text), dtype=str)["id"].to_list() == IDS


# What a command says with a column of the input, it says with a file beside the vectors.
COMMANDS = [
    ("inspect", "--json", "--ids id --texts text"),
    ("evaluate", "--json", "--labels topic"),
    ("name", "--json -o named.safetensors", "--texts text"),
    ("name", "--prompt", "--texts text"),
    ("assign", "--soft", "--ids id"),
    ("sample", "-n 9", "--ids id"),
    ("dedup", "--max-distance 0.5", "--ids id"),
]


@pytest.mark.parametrize(("command", "options", "columns"), COMMANDS)
def test_a_file_stands_in_for_a_column(invoke, here, command, options, columns):
    expected = invoke(command, "m", "x.parquet", *options.split(), *columns.split()).stdout
    files = {"id": "m.csv", "topic": "m.csv:topic", "text": "m.csv:text"}
    beside = [files.get(word, word) for word in columns.split()]
    found = invoke(command, "m", "x.npy", *options.split(), *beside).stdout
    assert found == expected and len(found) > 100


@pytest.mark.slow
def test_train_and_report_take_them(invoke, here):
    for name, arguments in (
        ("a", ("x.parquet", "--texts", "text")),
        ("b", ("x.npy", "--texts", "t.txt")),
    ):
        invoke("train", *arguments, "-k", K, "-q", "-o", f"{name}.safetensors")
    first, second = dinkcli.load("a.safetensors"), dinkcli.load("b.safetensors")
    assert first.names == second.names and first.terms == second.terms and all(first.names)
    invoke("report", "m", "x.npy", "--texts", "t.txt", "--ids", "m.csv", "-q", "-o", "r.html")
    page = (here / "r.html").read_text()
    assert "00013" in page and "ünïcode" in page


def test_several_inputs_have_one_file_or_one_each(invoke, here):
    np.save("a.npy", VECTORS[:20])
    np.savetxt("b.csv", VECTORS[20:], delimiter=",")  # of unknown length until it is read
    (here / "a.txt").write_text("\n".join(IDS[:20]))
    FRAME[20:].to_csv("b_meta.csv", index=False)
    line = ("assign", "m", "a.npy", "b.csv", "-q")
    expected = invoke("assign", "m", "x.npy", "--ids", "ids.txt", "-q").stdout
    assert "00000" in expected
    assert invoke(*line, "--ids", "ids.txt").stdout == expected
    assert invoke(*line, "--ids", "a.txt", "--ids", "b_meta.csv").stdout == expected
    assert invoke(*line, "--ids", "a.txt", "--ids", "b_meta.csv:id").stdout == expected
    swapped = invoke("assign", "m", "a.npy", "x.npy", *("--ids", "ids.txt") * 2, "-q", code=1)
    assert "--ids ids.txt: 60 ids for the 20 rows of a.npy" in swapped.stderr
    thrice = invoke(*line, *("--ids", "ids.txt") * 3, code=2)
    assert "--ids is given 3 times for 2 inputs" in thrice.stderr


def test_standard_input_is_either_of_them(here):
    def run(*arguments, stdin):
        result = CliRunner().invoke(app, arguments, input=stdin)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    expected = run("assign", "m", "x.npy", "--ids", "ids.txt", "-q", stdin=None)
    npy, text = (here / "x.npy").read_bytes(), "\n".join(IDS)
    assert run("assign", "m", "-", "--ids", "ids.txt", "-q", stdin=npy) == expected
    assert run("assign", "m", "x.npy", "--ids", "-", "-q", stdin=text) == expected
    csv = "\n".join(",".join(map(str, row)) for row in VECTORS.tolist())
    assert run("assign", "m", "-", "--ids", "ids.txt", "-q", stdin=csv) == expected
    texts = run("inspect", "m", "-", "--texts", "t.txt", "--json", stdin=csv)
    assert texts == run("inspect", "m", "x.npy", "--texts", "t.txt", "--json", stdin=None)
    both = CliRunner().invoke(app, ["assign", "m", "-", "--ids", "-"], input="")
    assert both.exit_code == 2 and "--ids -: standard input is read once" in both.stderr


def test_bad_rows_parts_and_shares_keep_the_right_ids(invoke, here):
    vectors = VECTORS.copy()
    vectors[[3, 40]] = np.nan
    np.save("bad.npy", vectors)
    out = invoke("assign", "m", "bad.npy", "--ids", "ids.txt", "--bad-rows", "skip", "-q").stdout
    kept = [id_ for i, id_ in enumerate(IDS) if i not in (3, 40)]
    assert pd.read_csv(io.StringIO(out), dtype=str)["id"].to_list() == kept
    parts = ("-o", "parts", "--rows-per-file", 13, "--ids", "ids.txt", "-q")
    invoke("assign", "m", "x.npy", *parts, "--shard", "2/2")
    invoke("assign", "m", "x.npy", *parts, "--shard", "1/2")
    assert pq.read_table("parts")["id"].to_pylist() == IDS
    sorted((here / "parts").glob("*.parquet"))[1].unlink()
    invoke("assign", "m", "x.npy", *parts, "--resume")
    assert pq.read_table("parts")["id"].to_pylist() == IDS
    invoke("assign", "m", "x.npy", *parts[:-3], "--ids", "m.csv:text", "--resume", code=2)


def refusals(here):
    (here / "short.txt").write_text("\n".join(IDS[:50]))
    (here / "blank.txt").write_bytes(LINES + b"\n")
    pd.Series(IDS).to_csv("bare.csv", index=False, header=False)
    np.savetxt("x.csv", VECTORS, delimiter=",")
    np.save("flat.npy", np.zeros((N, 2)))
    np.save("objects.npy", np.array([{}] * N), allow_pickle=True)
    (here / "empty.txt").write_bytes(b"")
    (here / "latin.txt").write_bytes(b"ok\n" * 100_000 + "straße\n".encode("latin-1"))
    (here / "damaged.parquet").write_bytes(b"PAR1 and then nothing")


REFUSALS = [
    ("x.npy", "short.txt", 1, "--ids short.txt: 50 ids for the 60 rows of x.npy"),
    ("x.csv", "short.txt", 1, "--ids short.txt: 50 ids for the 60 rows of x.csv"),
    ("x.csv", "blank.txt", 1, "61 ids for the 60 rows of x.csv; expected one for each row (the la"),
    ("x.npy", "bare.csv", 1, "59 ids for the 60 rows of x.npy; expected one for each row (the fi"),
    ("x.npy", "nowhere.txt", 2, "--ids nowhere.txt: no such file, and no such column in x.npy"),
    ("x.npy", "m.csv:nope", 2, "m.csv: no column 'nope'; it has 'n', 'id', 'text', 'topic'"),
    ("x.npy", "x.npy:id", 2, "x.npy:id names a column, but an .npy file has none"),
    ("x.npy", "flat.npy", 1, "flat.npy: float64 of shape (60, 2), expected texts or numbers"),
    ("x.npy", "objects.npy", 1, "Python objects (a pickle), which dink never loads; save texts as"),
    ("x.npy", "empty.txt", 1, "--ids empty.txt: nothing is in it, expected one id a row"),
    ("x.npy", "latin.txt", 1, "latin.txt: line 100001 is not UTF-8 text"),
    ("x.npy", "damaged.parquet", 1, "damaged.parquet: cannot be read as parquet"),
    ("x.npy", "m", 1, "m: it starts with"),
]


def test_what_does_not_fit_is_refused_in_one_line(invoke, here):
    refusals(here)
    for data, file, code, message in REFUSALS:
        found = invoke("assign", "m", data, "--ids", file, "-q", "-o", "o.csv", code=code)
        assert message in found.stderr and found.stderr.count("\n") == 1, (file, found.stderr)
        assert not (here / "o.csv").exists() and not list(here.glob("*.tmp*"))
    line = ("inspect", "m", "x.npy", "--texts")
    FRAME.rename(columns={"text": "body"})[["body", "topic"]].to_csv("two.csv", index=False)
    asked = invoke(*line, "two.csv", code=2).stderr
    assert "2 columns, 'body', 'topic'; say which one holds the texts, as in two.csv:body" in asked
    twice = invoke("inspect", "m", "x.parquet", "--texts", "text", "--texts", "t.txt", code=2)
    assert "--texts text: no such file" in twice.stderr
    (here / "id").write_text("\n".join(IDS))
    both = invoke("assign", "m", "x.parquet", "--ids", "id", code=2).stderr
    assert "--ids id: is a file, and a column of x.parquet; write ./id for the file" in both
    expected = invoke("assign", "m", "x.parquet", "--ids", "x.parquet:id", "-q").stdout
    assert invoke("assign", "m", "x.parquet", "--ids", "./id", "-q").stdout == expected
    same = invoke(*line, "m.csv:id", "--ids", "x.parquet:id", code=2).stderr
    assert "its column 'id' has the name of one of --texts" in same
    assert "about rows: give INPUT" in invoke("inspect", "m", "--texts", "t.txt", code=2).stderr
    own = invoke(
        "assign", "m", "x.npy", "--ids", "ids.txt", "-o", "ids.txt", "--format", "csv", code=2
    )
    assert "ids.txt: is an input of this run" in own.stderr


def test_values_from_memory_stand_beside_arrays():
    data = open_inputs(VECTORS, labels=TRUE, texts=TEXTS)
    (block,) = data.blocks()
    assert block.carried.column("text").to_pylist() == TEXTS
    assert block.carried.column("label").to_pylist() == TRUE.tolist()
    assert (data.columns.label, data.columns.text, data.columns.id) == ("label", "text", None)
    with pytest.raises(UsageError, match="59 ids for the 60 rows of array"):
        open_inputs(VECTORS, ids=IDS[1:])


def test_a_file_and_values_from_memory_stand_side_by_side(here):
    data = open_inputs(VECTORS, ids="ids.txt", texts=TEXTS, labels="m.csv:topic")
    (block,) = data.blocks()
    assert block.carried.column("text").to_pylist() == TEXTS
    assert block.carried.column("topic").to_pylist() == FRAME["topic"].to_list()
    assert block.carried.column(data.columns.id).to_pylist() == IDS


@pytest.mark.parametrize(
    ("reference", "is_file"),
    [
        ("ids.txt", True),
        ("m.csv:id", True),
        ("part-*.csv:id", True),
        ("-", True),
        ("https://host/ids.txt", True),
        ("https://host/m.csv:id", True),
        ("folder/", True),
        ("folder", False),  # a column of that name is likelier
        ("id", False),
        ("doc.id", False),
        ("nowhere.csv:id", False),
        ("text[0]", False),
    ],
)
def test_a_reference_is_a_file_where_one_is_there(here, reference, is_file):
    (here / "folder").mkdir()
    FRAME.to_csv("part-0.csv", index=False)
    found = columns_of(ids=reference)
    assert (found.files, found.id) == (({"id": (reference,)}, None) if is_file else ({}, reference))


# Weights of 60 rows of which row 5 is bad: the row, its weight, and what is said of it.
ALONE = [
    (5, np.nan, None),
    (5, -1, None),
    (7, np.nan, "row 7: {what} is nan, expected a finite number, not negative (counting from 0)"),
    (7, -1, "row 7: {what} is -1, expected a finite number, not negative (counting from 0)"),
    (7, np.inf, "row 7: {what} is inf"),
]


@pytest.mark.parametrize("name", ["w.npy", "w.txt", "w.parquet:v", "w"])
@pytest.mark.parametrize(("row", "value", "message"), ALONE)
def test_only_weights_of_usable_rows_count(invoke, here, name, row, value, message):
    vectors, weights = VECTORS.copy(), np.where(np.arange(N) % 2, 3.0, 1.0)
    vectors[5], weights[row] = np.nan, value
    np.save("x.npy", vectors)
    table = pa.table({"u": weights, "v": weights})
    pq.write_table(
        table.append_column("w", table["u"]).append_column("e", [vectors.tolist()]), "x.parquet"
    )
    np.save("w.npy", weights)
    np.savetxt("w.txt", weights)
    pq.write_table(table, "w.parquet")
    data, what = ("x.parquet", "column 'w'") if name == "w" else ("x.npy", "the weight")
    column = ("--column", "e") if name == "w" else ()
    line = ("train", data, *column, "-k", 1, "--sample-weight", name, "-o", "weighted", "-q")
    if message is not None:
        found = invoke(*line, "--bad-rows", "skip", code=1).stderr
        file = data if name == "w" else name.partition(":")[0]
        assert f"{file}: {message.format(what=what)}" in found
        return
    assert "row 5" in invoke(*line, code=1).stderr
    invoke(*line, "--bad-rows", "skip")
    good = np.arange(N) != 5
    expected = np.average(VECTORS[good].astype(np.float64), axis=0, weights=weights[good])
    np.testing.assert_allclose(dinkcli.load("weighted").cluster_centers[0], expected, atol=1e-5)
