"""Every command that takes a column finds it in every format, and on standard input."""

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
