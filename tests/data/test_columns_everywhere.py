"""Every command that takes a column finds it in every format, and on standard input."""

import base64
import decimal
import io
import json

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import nearest_float64
from typer.testing import CliRunner

import dinkcli
from dinkcli.cli import app

N, DIM, K = 40, 4, 3
rng = np.random.default_rng(0)
TRUE = rng.integers(0, K, N)
VECTORS = (np.eye(K, DIM)[TRUE] * 9 + rng.normal(size=(N, DIM))).astype(np.float32)
WEIGHTS = np.where(TRUE == 1, 0.25, 2.0)
# Larger than any float64 tells apart, and with zeros in front where text can have them.
NUMBERS = [9007199254740993 + 2 * i for i in range(N)]
IDS = [f"{i:05}" for i in range(N)]
TEXTS = [f'the "text" of {i}, with a comma' for i in range(N)]


def frame(vectors):
    return pd.DataFrame(
        {"id": IDS, "big": NUMBERS, "topic": [f"topic {t}" for t in TRUE], "w": WEIGHTS}
        | {"text": TEXTS, "e": vectors}
    )


LISTS = [row.tolist() for row in VECTORS]
TABLE = pa.Table.from_pandas(frame(LISTS))


def arrow_stream(path):
    with pa.ipc.new_stream(path, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=7)


def arrow_file(path):
    with pa.ipc.new_file(path, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=7)


def wide(path):
    dims = pd.DataFrame(VECTORS, columns=[f"dim_{j}" for j in range(DIM)])
    pd.concat([frame(LISTS).drop(columns="e"), dims], axis=1).to_csv(path, index=False)


def document(path):
    with open(path, "w") as file:
        json.dump(frame(LISTS).to_dict("list"), file, indent=1)


def hdf5(path):
    with h5py.File(path, "w") as file:
        for name, values in frame(LISTS).items():
            file[name] = VECTORS if name == "e" else values.to_list()


WRITERS = {
    "x.parquet": lambda path: pq.write_table(TABLE, path, row_group_size=11),
    "x.arrow": arrow_file,
    "x.arrows": arrow_stream,
    "wide.csv": wide,
    "text.csv": lambda path: frame(LISTS).to_csv(path, index=False),
    "text.tsv.xz": lambda path: frame(LISTS).to_csv(path, index=False, sep="\t"),
    "x.jsonl": lambda path: frame(LISTS).to_json(
        path, orient="records", lines=True, double_precision=12
    ),
    "array.json": lambda path: frame(LISTS).to_json(
        path, orient="records", indent=2, double_precision=12
    ),
    "document.json": document,
    "x.h5": hdf5,
}
PIPED = ("x.parquet", "x.arrows", "wide.csv", "text.csv", "x.jsonl", "document.json")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with the table in every format, and a model of it."""
    home = tmp_path_factory.mktemp("columns")
    for name, write in WRITERS.items():
        write(home / name)
    dinkcli.train(VECTORS, K, device="cpu").save(home / "m")
    return home


@pytest.fixture(params=[*WRITERS, *(f"- {name}" for name in PIPED)])
def run(request, files, monkeypatch):
    """``run(command, *options)`` with the input last."""
    monkeypatch.chdir(files)
    piped, name = request.param.startswith("- "), request.param.removeprefix("- ")

    def run(*arguments):
        stdin = (files / name).read_bytes() if piped else None
        command = [*map(str, arguments), "-" if piped else name]
        result = CliRunner().invoke(app, command, input=stdin)
        assert result.exit_code == 0, (command, result.output, result.exception)
        return result

    return run


def test_assign(run, files):
    labels = nearest_float64(VECTORS, dinkcli.load(files / "m").cluster_centers)
    for name, values in (("id", IDS), ("big", NUMBERS)):
        out = run("assign", "-q", "--ids", name, "--columns", "text", "m").stdout
        found = pd.read_csv(io.StringIO(out), dtype={name: str})
        assert found[name].to_list() == [str(value) for value in values]
        assert found["text"].to_list() == TEXTS
        np.testing.assert_array_equal(found["cluster"], labels)


def test_inspect(run, files):
    out = run("inspect", "--json", "--ids", "id", "--texts", "text", "m").stdout
    for cluster in json.loads(out)["clusters"]:
        for near in cluster["exemplars"]:
            assert (near["id"], near["text"]) == (IDS[near["row"]], TEXTS[near["row"]])


def test_evaluate(run):
    found = json.loads(run("evaluate", "--json", "--labels", "topic", "m").stdout)
    assert found["agreement"]["normalized_mutual_information"] == pytest.approx(1)
    assert sorted(found["confusion"]["classes"]) == ["topic 0", "topic 1", "topic 2"]


@pytest.mark.slow
def test_report(run, files):
    run("report", "--ids", "id", "--texts", "text", "-o", "r.html", "-q", "m")
    page = (files / "r.html").read_text()
    assert "00007" in page and "of 7, with a comma" in page


def test_weights(run, files):
    run("train", "-k", 1, "--sample-weight", "w", "-q", "--device", "cpu", "-o", "weighted")
    expected = np.average(VECTORS.astype(np.float64), axis=0, weights=WEIGHTS)
    np.testing.assert_allclose(
        dinkcli.load(files / "weighted").cluster_centers[0], expected, atol=1e-5
    )
    run("sweep", "-k", "2,3", "--sample-weight", "w", "--json", "--device", "cpu")


# Every command over every kind of column: what comes out is what comes from a plain list column.
EXACT = np.round(VECTORS * 4) / 4 + 0.0  # what halves and decimals hold as well
CELLS = EXACT.tolist()
AROUND = {"id": IDS, "topic": [f"topic {t}" for t in TRUE], "text": TEXTS}


def decimal_of(value):
    return decimal.Decimal(f"{value:.2f}")


def spark(row):
    return {"type": 1, "size": None, "indices": None, "values": row}


SPARK = pa.struct(
    {"type": pa.int8(), "size": pa.int32(), "indices": pa.list_(pa.int32())}
    | {"values": pa.list_(pa.float64())}
)
ONE = {
    "list": pa.array(CELLS, pa.list_(pa.float32())),
    "large list": pa.array(CELLS, pa.large_list(pa.float64())),
    "fixed-size list": pa.array(CELLS, pa.list_(pa.float16(), DIM)),
    "list view": pa.array(CELLS, pa.list_view(pa.float32())),
    "list of decimals": pa.array([list(map(decimal_of, row)) for row in CELLS]),
    "list of one list": pa.array([[row] for row in CELLS]),
    "struct": pa.array([{"a": {"v": row}} for row in CELLS]),
    "spark": pa.array(list(map(spark, CELLS)), SPARK),
    "text": pa.array(list(map(str, CELLS))),
    "base64": pa.array([base64.b64encode(r.tobytes()).decode() for r in EXACT.astype("<f4")]),
    **{
        f"bytes {name} {type_}": pa.array([row.tobytes() for row in EXACT.astype(name)], type_)
        for name, type_ in (
            ("<f4", pa.binary()),
            ("<f2", pa.binary(2 * DIM)),
            ("<f8", pa.large_binary()),
            ("<f4", pa.binary_view()),
        )
    },
}
COLUMNS = dict(zip((f"dim_{j}" for j in range(DIM)), EXACT.T, strict=True))
TABLES = {
    **{f"{name}.arrow": pa.table({**AROUND, "e": column}) for name, column in ONE.items()},
    "numbered.parquet": pa.table({**AROUND, **COLUMNS}),
    "decimals.parquet": pa.table(
        {**AROUND, **{name: list(map(decimal_of, column)) for name, column in COLUMNS.items()}}
    ),
    "index.parquet": pa.Table.from_pandas(
        pd.DataFrame({**AROUND, **COLUMNS}, index=np.arange(N) * 0.5)
    ),
    "other.parquet": pa.table({**AROUND, "f": (EXACT + 1).tolist(), "e": CELLS}),
    "numbered.csv": pa.table({**AROUND, **COLUMNS}),
    "text.csv": pa.table({**AROUND, "e": list(map(str, CELLS))}),
}
OPTIONS = {name: ("--dim", DIM) for name in TABLES if name.startswith("bytes")}
OPTIONS["other.parquet"] = OPTIONS["base64.arrow"] = ("--column", "e")


def write_kind(name):
    table = TABLES[name]
    if name.endswith(".arrow"):
        with pa.ipc.new_file(name, table.schema) as writer:
            writer.write_table(table, max_chunksize=17)
    elif name.endswith(".parquet"):
        pq.write_table(table, name, row_group_size=17)
    else:
        table.to_pandas().to_csv(name, index=False)


def parts_of(document, *names):
    return {name: document[name] for name in names}


def rounded(value):
    """Sums over blocks of other lengths differ in their last digits."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def walk(invoke, name):
    """What each command says of the rows; options stand only where there is no model yet."""
    options = OPTIONS.get(name, ())

    def said(*arguments):
        return rounded(json.loads(invoke(*arguments).stdout))

    one = ("--device", "cpu")
    info = said("info", name, *options, "--json")
    invoke("train", name, *options, "-k", K, *one, "--n-init", 1, "-q", "-o", "m")
    sweep = said("sweep", name, *options, "-k", "2,3,4", "--json", *one)
    asked = ("--ids", "id", "--texts", "text")
    inspected = said("inspect", "m", name, *asked, "--json", "--exemplars", N)
    named = said("name", "m", name, "--texts", "text", "--json", "-o", "n.safetensors")
    return {
        "info": parts_of(info, "n_rows", "n_features", "n_bad", "norms"),
        "plan": parts_of(said("plan", name, *options, "-k", K, "--json", *one), "rows", "features"),
        "train": dinkcli.load("m").cluster_centers.tolist(),
        "sweep": sweep["candidates"],
        "assign": invoke("assign", "m", name, "--soft", "--ids", "id", "-q").stdout,
        "inspect": inspected["clusters"],
        "evaluate": said("evaluate", "m", name, "--labels", "topic", "--json"),
        "name": named,
        "sample": invoke("sample", "m", name, "-n", 9, "--ids", "id", "-q").stdout,
        "dedup": invoke("dedup", "m", name, "--max-distance", 2, "--ids", "id", "-q").stdout,
    }


@pytest.fixture(scope="module")
def expected():
    return {}


@pytest.mark.parametrize("name", TABLES)
def test_every_command_reads_every_kind_of_column(invoke, expected, name):
    if "list.arrow" not in expected:
        write_kind("list.arrow")
        expected["list.arrow"] = walk(invoke, "list.arrow")
        centers = np.array(expected["list.arrow"]["train"])
        means = [EXACT[j == TRUE].mean(0) for j in range(K)]
        np.testing.assert_allclose(sorted(centers.tolist()), sorted(map(list, means)), atol=1e-5)
    write_kind(name)
    found = walk(invoke, name)
    for command, value in expected["list.arrow"].items():
        assert found[command] == value, command


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_a_report_needs_no_option_again(invoke, name):
    write_kind(name)
    invoke("train", name, *OPTIONS[name], "-k", K, "-q", "-o", "m")
    invoke("report", "m", name, "--ids", "id", "--texts", "text", "-o", "r.html", "--map", "pca")
