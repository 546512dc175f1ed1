"""Every command from Python: the table of docs/python.md, and the values of ``--json``."""

import inspect as signatures
import json
import re
import typing

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse
import torch
from conftest import ROOT

import dinkcli
from dinkcli.cli.app import COMMANDS

pytestmark = pytest.mark.usefixtures("one_thread")

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
LINES = dict(re.findall(r"^\| `dink (\w+)` \| (.*?) \|", PAGE, re.MULTILINE))
CALLS = {line: re.findall(r"dinkcli\.(\w+)\(", calls) for line, calls in LINES.items()}
FUNCTIONS = sorted({name for names in CALLS.values() for name in names})
RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 4, 300)
ROWS = (np.eye(4, 6)[TRUTH] * 9 + RNG.normal(size=(300, 6))).astype(np.float32)
ROWS[7] = ROWS[3]
WORDS = [f"{('ant', 'bee <b>', 'cat', 'dog')[j]} hill {i % 9}" for i, j in enumerate(TRUTH)]
NAMES = [f"row-{i}" for i in range(300)]


def test_every_command_is_in_the_table():
    assert sorted(LINES) == sorted(COMMANDS)
    assert all(CALLS.values())
    public = {name for name in dinkcli.__all__ if name[0].islower()}
    assert public == {*FUNCTIONS, "load"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_types_and_say_what_they_take(name):
    function = getattr(dinkcli, name)
    parameters = signatures.signature(function).parameters.values()
    for parameter in parameters:
        assert parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        assert parameter.annotation is not parameter.empty
    text = signatures.getdoc(function)
    assert "Raises:" in text
    names = {parameter.name for parameter in parameters}
    if {"inputs", "column"} <= names:
        assert re.search(r"\bN\b", text)
        said = ", ".join(re.findall(r"^    (\w[\w, \n]*):", text, re.MULTILINE))
        assert names - {"model"} <= set(re.split(r",\s+", said))
    assert signatures.signature(function).return_annotation is not signatures.Signature.empty


def test_pages_import_only_what_is_public():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        if page.name in ("LOG.md", "architecture.md"):
            continue
        for module in re.findall(r"^\s*from (dinkcli[\w.]*) import", page.read_text(), re.M):
            assert module in ("dinkcli", "dinkcli.engines"), page


@pytest.fixture
def here(invoke):
    pq.write_table(
        pa.table(
            {"id": NAMES, "text": WORDS, "topic": TRUTH, "v": list(ROWS), "w": np.arange(300.0)}
        ),
        "x.parquet",
    )
    np.save("new.npy", ROWS[:60] + np.float32(0.25))
    dinkcli.train(ROWS, 4, device="cpu").save("m")
    dinkcli.name("m", "x.parquet", column="v", texts="text").model.save("named")


def plain(value):
    return json.loads(json.dumps(value))


BESIDE = {"ids": NAMES, "texts": pd.Series(WORDS)}
SAME = [
    ("inspect m", lambda: dinkcli.inspect("m")),
    ("inspect named --tree --history", lambda: dinkcli.inspect("named", tree=True, history=True)),
    (
        "inspect named x.parquet --column v --ids id --texts text",
        lambda: dinkcli.inspect(
            "named", pq.read_table("x.parquet"), column="v", ids="id", texts="text"
        ),
    ),
    (
        "inspect named x.parquet --column v --ids id --texts text --cluster bee --exemplars 3",
        lambda: dinkcli.inspect(
            "named", pl.read_parquet("x.parquet"), column="v", ids="id", texts="text",
            cluster="bee", exemplars=3,
        ),
    ),
    ("evaluate m x.parquet --column v", lambda: dinkcli.evaluate("m", ROWS)),
    (
        "evaluate named x.parquet --column v --labels topic",
        lambda: dinkcli.evaluate("named", torch.from_numpy(ROWS), labels=torch.from_numpy(TRUTH)),
    ),
    (
        "name m x.parquet --column v --texts text -o n --levels 2",
        lambda: dinkcli.name("m", ROWS.tolist(), texts=WORDS, levels=[2]),
    ),
    (
        "name m x.parquet --column v --labels topic -o n",
        lambda: dinkcli.name("m", scipy.sparse.csr_array(ROWS), labels=pl.Series(TRUTH)),
    ),
    ("sweep x.parquet --column v -k 2,4,8", lambda: dinkcli.sweep(ROWS, [2, 4, 8])),
    ("info new.npy", lambda: dinkcli.info("new.npy")),
    ("info m", lambda: dinkcli.info("m")),
    ("update m new.npy --dry-run", lambda: dinkcli.update("m", ROWS[:60] + np.float32(0.25))),
    (
        "update named x.parquet --column v --sample-weight w --dry-run",
        lambda: dinkcli.update(
            "named", pd.read_parquet("x.parquet"), column="v", sample_weight="w"
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("line", "call"), SAME, ids=[line for line, _ in SAME])
def test_to_dict_is_what_json_prints(invoke, here, line, call):
    result = call()
    assert plain(result.to_dict()) == json.loads(invoke(*line.split(), "--json").stdout)
    table = result.to_arrow()
    assert table.num_rows >= 1
    html = result._repr_html_()
    assert html.count("<table>") == html.count("</table>") >= 1
    assert "<b>" not in html.replace("<p><b>", "")


TABLES = [
    (
        "dedup m x.parquet --column v --ids id --max-distance 0.6",
        lambda: dinkcli.dedup("m", "x.parquet", column="v", ids="id", max_distance=0.6),
    ),
    (
        "dedup m new.npy --against x.parquet --max-distance 0.7 --keep-only",
        lambda: dinkcli.dedup("m", ROWS[:60] + np.float32(0.25), against=ROWS, max_distance=0.7),
    ),
    (
        "sample m x.parquet --column v --ids id --columns topic -n 40",
        lambda: dinkcli.sample("m", "x.parquet", 40, column="v", ids="id", columns=["topic"]),
    ),
    (
        "sample m x.parquet --column v --sample-weight w --quota q.json",
        lambda: dinkcli.sample("m", ROWS, quota={0: 3, 2: 5}, sample_weight=np.arange(300)),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("line", "call"), TABLES, ids=[line for line, _ in TABLES])
def test_rows_are_those_that_commands_write(invoke, here, line, call):
    with open("q.json", "w") as file:
        json.dump({0: 3, 2: 5}, file)
    shown = json.loads(invoke(*line.split(), "-o", "out.parquet", "--json").stdout)
    result = call()
    facts = plain(result.to_dict())
    about_output = {"output", "format", "model", "written_rows", "seconds"}
    assert facts == {name: value for name, value in shown.items() if name not in about_output}
    more = {"keep_only": True} if "--keep-only" in line else {}
    written = pq.read_table("out.parquet").replace_schema_metadata()
    assert result.to_arrow(**more).to_pylist() == written.to_pylist()
    assert "<table>" in result._repr_html_()


def test_a_column_in_which_all_is_empty_is_not_shown():
    """In HTML and on a terminal; in a column of texts an empty cell is a dash."""
    from dinkcli.cli.console import fitted
    from dinkcli.results import Field, Sheet

    sheet = Sheet("row", Field("name", text=True), Field("terms", text=True), Field("of"), "size")
    sheet.add(0, "", "", "", 3)
    sheet.add(7, "<b>", "", "x", 0)
    heads, *rows = re.findall("<tr>(.*?)</tr>", sheet.html())
    assert re.findall("<th>(.*?)</th>", heads) == ["row", "name", "of", "size"]
    cells = [re.findall("<td>(.*?)</td>", row) for row in rows]
    assert cells == [["0", "-", "", "3"], ["7", "&lt;b&gt;", "x", "0"]]
    table = fitted(sheet, 80)
    assert [column.header for column in table.columns] == ["row", "name", "of", "size"]
    assert [[str(cell) for cell in column.cells] for column in table.columns][1] == ["-", "<b>"]


def test_models_pages_and_files_are_those_of_commands(invoke, here, tmp_path):
    shown = json.loads(
        invoke("train", "x.parquet", "--column", "v", "-k", 4, "-o", "t", "--json").stdout
    )
    model = dinkcli.train(pd.read_parquet("x.parquet"), 4, column="v")
    np.testing.assert_array_equal(model.cluster_centers, dinkcli.load("t").cluster_centers)
    assert model.cluster_sizes.tolist() == shown["cluster_sizes"]
    invoke("assign", "m", "new.npy", "-o", "labels.npy")
    labels = np.load("labels.npy")
    np.testing.assert_array_equal(
        labels["cluster"] if labels.dtype.names else labels, dinkcli.assign("m", np.load("new.npy"))
    )
    invoke("report", "m", "x.parquet", "--column", "v", "--texts", "text", "-o", "r.svg")
    report = dinkcli.report("m", "x.parquet", column="v", texts=WORDS)
    assert report.to_dict()["rows"] == 300 == report.to_arrow().num_rows
    dinkcli.report("m", "x.parquet", column="v", texts="text").save("again.svg")
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "r.svg").read_bytes()
    invoke("export", "m", "-o", "c.npy")
    assert dinkcli.export("m", tmp_path / "d.npy") == "npy"
    assert (tmp_path / "c.npy").read_bytes() == (tmp_path / "d.npy").read_bytes()
    plan = json.loads(invoke("plan", "new.npy", "-k", 4, "--json").stdout)
    mine = plain(dinkcli.plan(np.load("new.npy"), 4).to_dict())
    assert mine.keys() == plan.keys()
    for name in ("rows", "features", "dtype", "clusters", "sample", "batch", "held"):
        assert mine[name] == plan[name]
    invoke("edit", "m", "--merge", "0,1", "--drop", "2", "-o", "e")
    edited = dinkcli.drop(dinkcli.merge(dinkcli.load("m"), [0, 1]), 2)
    assert edited.fingerprint == dinkcli.load("e").fingerprint
    invoke("edit", "m", "x.parquet", "--column", "v", "--split", "1", "-o", "e")
    assert dinkcli.split("m", 1, ROWS).fingerprint == dinkcli.load("e").fingerprint
    dinkcli.train(ROWS[:150] + 40, 3, device="cpu").save("other")
    invoke("update", "m", "other", "-o", "j")
    joined = dinkcli.join(dinkcli.load("m"), dinkcli.load("other"))
    assert joined.fingerprint == dinkcli.load("j").fingerprint


def test_new_clusters_get_names_by_their_texts(here):
    far = (RNG.normal(size=(80, 6)) - 40).astype(np.float32)
    update = dinkcli.update("named", far, texts=["elk meadow"] * 80)
    assert [update.model.names[j] for j in update.born] == ["elk meadow"]
    assert dinkcli.load("named").names == update.model.names[:4]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dinkcli.inspect("m", ids="id"), "`ids`, `texts` and `column` are about rows"),
        (lambda: dinkcli.inspect("m", cluster=9), "`cluster` 9: the model has the clusters 0 to 3"),
        (lambda: dinkcli.name("m", ROWS), "give `inputs`, and `texts` or `labels`"),
        (lambda: dinkcli.name("m", names=["a"]), "`names`: 1 names for 4 clusters"),
        (lambda: dinkcli.evaluate("m", ROWS, labels=TRUTH[:9]), "9 labels for the 300 rows"),
        (lambda: dinkcli.evaluate("m", ROWS, labels=ROWS), r"`labels`: shape \(300, 6\)"),
        (lambda: dinkcli.sample("m", ROWS), "`number`"),
        (lambda: dinkcli.sample("m", ROWS, 301), "`number` 301"),
        (lambda: dinkcli.dedup("m", ROWS, max_distance=-1), "`max_distance` -1"),
        (lambda: dinkcli.plan(ROWS, 999), "`n_clusters` 999"),
        (lambda: dinkcli.report("m", ROWS, projection="x"), "`projection` x"),
        (lambda: dinkcli.train(ROWS, 3, metric="x"), "`metric` x"),
    ],
)
def test_errors_name_parameters(here, call, message):
    with pytest.raises(dinkcli.DinkError, match=message) as caught:
        call()
    assert isinstance(caught.value, ValueError)
    assert "--" not in str(caught.value)


def test_annotations_resolve():
    for name in FUNCTIONS:
        assert typing.get_type_hints(getattr(dinkcli, name))
