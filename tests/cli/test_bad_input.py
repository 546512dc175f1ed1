"""Every mistake gets one clear line, the right exit code, and nothing is written."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import environment

import dinkcli


@pytest.fixture
def folder(tmp_path, blobs):
    """Good and bad files of all kinds."""
    z = blobs[0]
    np.save(tmp_path / "x.npy", z)
    dinkcli.train(z, 3, device="cpu").save(tmp_path / "m.safetensors")
    (tmp_path / "text.npy").write_text("hello world")
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "short.npy").write_bytes(whole[:-100])
    objects = np.array([[1, "a"], [None, 2]], dtype=object)
    np.save(tmp_path / "objects.npy", objects, allow_pickle=True)
    np.save(tmp_path / "flat.npy", z[:, 0])
    np.save(tmp_path / "cube.npy", z[None])
    np.save(tmp_path / "wide.npy", z[:, :4])
    np.save(tmp_path / "zeros.npy", np.zeros((9, 5), np.float32))
    np.save(tmp_path / "flat9.npy", z[:9, 0])
    np.save(tmp_path / "minus.npy", -np.ones(300))
    nan = z.copy()
    nan[17, 3] = np.nan
    np.save(tmp_path / "nan.npy", nan)
    pq.write_table(pa.table({"e": list(z)}), tmp_path / "x.parquet")
    whole = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "short.parquet").write_bytes(whole[:-100])
    rows = [row.tolist() for row in z]
    pq.write_table(pa.table({"e": [*rows[:30], rows[0][:2]]}), tmp_path / "ragged.parquet")
    pq.write_table(pa.table({"e": [*rows[:30], None]}), tmp_path / "null.parquet")
    pq.write_table(pa.table({"a": rows, "b": rows}), tmp_path / "two.parquet")
    pq.write_table(pa.table({"w": ["a", "b"], "e": rows[:2]}), tmp_path / "words.parquet")
    np.save(tmp_path / "m.npy", z)
    shutil.copy(tmp_path / "x.npy", tmp_path / "plain")
    (tmp_path / "m.dink.safetensors").write_text("something of mine")
    np.save(tmp_path / "y.npy", z[:200])
    shutil.copy(tmp_path / "m.safetensors", tmp_path / "y.dink.safetensors")
    (tmp_path / "text.safetensors").write_text("hello world")
    (tmp_path / "short.safetensors").write_bytes((tmp_path / "m.safetensors").read_bytes()[:-9])
    return tmp_path


TRAIN = [
    (["nowhere.npy"], 2, "nowhere.npy: no such file"),
    (["text.npy"], 1, "text.npy: no format that dink reads"),
    (["short.npy"], 1, "short.npy: truncated"),
    (["short.parquet"], 1, "short.parquet: cannot be read as parquet"),
    (["objects.npy"], 1, "objects.npy: the array holds Python objects (a pickle)"),
    (["flat.npy"], 1, "flat.npy: the array has shape (300,), expected 2-D"),
    (["cube.npy"], 1, "cube.npy: the array has shape (1, 300, 5), expected 2-D"),
    (["ragged.parquet"], 1, "row 30 of column 'e' has 2 elements, expected 5"),
    (["null.parquet"], 1, "row 30: column 'e' is null"),
    (["two.parquet"], 2, "'a', 'b'; choose one with --column a"),
    (["nan.npy"], 1, "nan.npy: row 17 holds nan in feature 3"),
    (["x.npy", "wide.npy"], 2, "wide.npy: 4 features per row, but x.npy has 5"),
    (["x.npy", "-k", "0"], 2, "-k 0: expected at least 1"),
    (["x.npy", "-k", "301"], 2, "-k 301: more clusters than the 300 rows of x.npy"),
    (["zeros.npy"], 1, "1 distinct rows, fewer than the 3 clusters asked for"),
    (["zeros.npy", "--metric", "cosine"], 1, "zeros.npy: row 0 has norm 0"),
    (["x.npy", "-o", "no/such/m"], 2, "no/such/m: no such folder: no/such"),
    (["plain", "-o", "plain"], 2, "plain: is an input of this run"),
    (["x.npy", "-o", "."], 2, ".: is a folder"),
    (["x.npy", "--device", "tpu"], 2, "--device tpu: expected auto, cpu, cuda"),
    (["x.npy", "--device", "cuda:99"], 2, "--device cuda:99: not on this machine, which has"),
    (["x.npy", "--init", "best"], 2, "--init best: expected kmeans++, random, xavier"),
    (["x.npy", "--metric", "taxi"], 2, "'--metric': 'taxi' is not one of 'euclidean', 'cosine'"),
    (["x.npy", "--temperature", "warm"], 2, "--temperature warm: expected auto, inf, 0, or"),
    (["x.npy", "--temperature", "-1"], 2, "--temperature -1.0: expected auto"),
    (["x.npy", "--temperature", "nan"], 2, "--temperature nan: expected auto"),
    (["x.npy", "--dilation", "-1"], 2, "--dilation -1.0: expected a number from 0"),
    (["x.npy", "--epochs", "0"], 2, "--epochs 0: expected at least 1"),
    (["x.npy", "--batch-size", "0"], 2, "--batch-size 0: expected at least 1"),
    (["x.npy", "--seed", "-1"], 2, "--seed -1: expected at least 0"),
    (["x.npy", "--seed", str(1 << 63)], 2, "and less than 2^63"),
    (["x.npy", "--checkpoint-every", "now"], 2, "--checkpoint-every now: expected a time such as"),
    (["x.npy", "--n-init", "0"], 2, "--n-init 0: expected at least 1"),
    (["x.npy", "--sample-weight", "w"], 2, "--sample-weight w: no such file, and no such column"),
    (["x.npy", "--sample-weight", "flat9.npy"], 1, "flat9.npy: 9 weights for the 300 rows"),
    (["x.npy", "--sample-weight", "x.npy"], 1, "x.npy: float32 of shape (300, 5), expected texts"),
    (["x.npy", "--sample-weight", "minus.npy"], 1, "minus.npy: row 0: the weight is -1, expected"),
    (["x.npy", "-o", "-"], 2, "-o -: a model is written to a file"),
    (["x.npy", "-o", "m.parquet"], 2, "-o m.parquet: a model is a .safetensors file, and .parquet"),
    (["words.parquet", "--column", "w"], 2, "column 'w' is string, expected a list of floats"),
    (["m.npy"], 2, "m.dink.safetensors: is there already and is no model; name this model"),
    (["y.npy"], 2, "y.dink.safetensors: is the model of array (300 rows of 5 features), not"),
    (["x.npy", "--column", "e"], 2, "--column names a column, but an .npy file has none"),
]
ASSIGN = [
    (["nowhere.safetensors", "x.npy"], 2, "nowhere.safetensors: no such model file"),
    (["text.safetensors", "x.npy"], 1, "text.safetensors: not a dink model, or damaged"),
    (["short.safetensors", "x.npy"], 1, "short.safetensors: not a dink model, or damaged"),
    (["m.safetensors", "wide.npy"], 2, "wide.npy: 4 features per row, but the model was trained"),
    (["x.npy", "m.safetensors"], 2, "x.npy: npy data, and m.safetensors is the model, which comes"),
    (["x.parquet", "x.npy"], 2, "x.parquet: parquet data, expected a model made by dink train"),
    ([".", "m.safetensors"], 2, ".: a folder, and m.safetensors is the model, which comes before"),
    (["text.npy", "m.safetensors"], 2, "text.npy: no model, and m.safetensors is the model"),
    (["m.safetensors", "x.npy", "--json-file", "-"], 2, "the summary of --json-file is written to"),
    (["m.safetensors", "nan.npy", "-o", "y.csv"], 1, "nan.npy: row 17 holds nan in feature 3"),
    (
        ["m.safetensors", "x.npy", "-o", "y.txt"],
        2,
        "suffix .txt, expected one of .csv, .jsonl, .ndjson, .npy",
    ),
    (["m.safetensors", "x.npy", "-o", "no/y.csv"], 2, "no/y.csv: no such folder: no"),
    (["m.safetensors", "x.npy", "-o", "x.npy"], 2, "x.npy: is an input of this run"),
    (["m.safetensors", "x.parquet", "--ids", "i"], 2, "--ids i: no such file, and no such"),
    (["m.safetensors", "x.npy", "--device", "mars"], 2, "--device mars: expected auto"),
]
EXPORT = [
    (["m.safetensors", "-o", "-"], 2, "-o -: an export is written to a file"),
    (["x.npy", "-o", "c.npy"], 2, "x.npy: npy data, expected a model made by dink train"),
    (["m.safetensors", "-o", "c.xyz"], 2, "suffix .xyz, expected one of .npy, .parquet"),
    (
        ["m.safetensors", "-o", "c", "--format", "xyz"],
        2,
        "'--format': 'xyz' is not one of 'npy', 'parquet'",
    ),
    (["m.safetensors", "-o", "no/c.npy"], 2, "no/c.npy: no such folder: no"),
]


def refused(dink, folder, command, arguments, code, message):
    before = {name: os.stat(folder / name).st_mtime_ns for name in os.listdir(folder)}
    result = dink(command, *arguments, code=code)
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.stderr
    assert message in lines[0]
    assert lines[0] == result.stderr.splitlines()[-1]
    assert {name: os.stat(folder / name).st_mtime_ns for name in os.listdir(folder)} == before


@pytest.mark.parametrize(("arguments", "code", "message"), TRAIN)
def test_train(dink, folder, arguments, code, message):
    count = [] if "-k" in arguments else ["-k", "3"]
    refused(dink, folder, "train", [*arguments, *count], code, message)


@pytest.mark.parametrize(("arguments", "code", "message"), ASSIGN)
def test_assign(dink, folder, arguments, code, message):
    refused(dink, folder, "assign", arguments, code, message)


@pytest.mark.parametrize(("arguments", "code", "message"), EXPORT)
def test_export(dink, folder, arguments, code, message):
    refused(dink, folder, "export", arguments, code, message)


def test_usage_errors_of_the_parser(dink):
    assert "Missing" in dink("train", "x.npy", code=2).stderr
    assert "No such option" in dink("train", "x.npy", "-k", 3, "--no-such", code=2).stderr
    assert "No such command" in dink("cluster", code=2).stderr


def test_a_foreign_safetensors_file_is_not_a_model(dink, folder):
    from safetensors.torch import save_file

    save_file({"cluster_centers": torch.zeros(3, 5)}, folder / "foreign.safetensors")
    result = dink("assign", "foreign.safetensors", "x.npy", code=1)
    assert "a safetensors file, but not a dink model" in result.stderr


def test_a_newer_model_is_refused_with_advice(dink, folder):
    model = (folder / "m.safetensors").read_bytes()
    newer = re.sub(rb'(format_version\\*": )\d', rb"\g<1>9", model)
    assert newer != model
    (folder / "new.safetensors").write_bytes(newer)
    result = dink("assign", "new.safetensors", "x.npy", code=1)
    assert "model format 9, this dink reads up to 2; use the version of dink" in result.stderr


def test_control_characters_of_paths_are_shown_escaped(dink, folder):
    result = dink("train", "no\x1b[31mfile\n.npy", "-k", 3, code=2)
    assert "no\\x1b[31mfile\\n.npy: no file matches this pattern" in result.stderr


def test_a_failed_assign_keeps_the_old_output(dink, folder):
    (folder / "y.csv").write_text("old")
    dink("assign", "m.safetensors", "nan.npy", "-o", "y.csv", code=1)
    assert (folder / "y.csv").read_text() == "old"


# What was an option once, and what the error says in its place.
REMOVED = [
    ("train x.npy -k 3 --balance", "--max-size 1x"),
    ("train x.npy -k 3 --tol=0.1", "tol of dinkcli.train in Python"),
    ("assign m.safetensors x.npy --soft --dtype float16", "probability_type="),
    ("assign m.safetensors x.npy -o y.csv --compression gzip", "rows.csv.gz"),
    ("sweep x.npy --text-column t", "dink train --texts"),
]


@pytest.mark.parametrize(("line", "instead"), REMOVED)
def test_options_that_are_gone_say_what_to_do(invoke, line, instead):
    said = invoke(*line.split(), code=2).stderr
    assert "there is no such option any more; use " in said and instead in said
    assert said.startswith("Error: --") and said.count("\n") == 1


RENAMED = [
    ("train t.csv -k 3 -o a.safetensors --text-column t", "--texts t"),
    ("assign m.safetensors t.csv --id-column=t", "--ids=t"),
    ("assign m.safetensors t.csv --names", "--with-names"),
    ("evaluate m.safetensors t.csv --label-column t", "--labels t"),
    ("dedup m.safetensors t.csv --distance 0.5", "--max-distance 0.5"),
]


@pytest.mark.parametrize(("line", "new"), RENAMED)
def test_old_names_of_options_work_and_say_the_new_ones(invoke, tmp_path, line, new):
    rng = np.random.default_rng(0)
    lines = [",".join([f"t{i % 3}", *map(str, rng.normal(size=3))]) for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["t,a,b,c", *lines]))
    invoke("train", "t.csv", "-k", 3, "-o", "m.safetensors", "-q")
    invoke("name", "m.safetensors", "t.csv", "--labels", "t", "-q")
    name, old = new.partition(" ")[0].partition("=")[0], line.split()
    (place,) = (i for i, part in enumerate(old) if part.startswith("--"))
    result = invoke(*old)
    called = old[place].partition("=")[0]
    warning = f"Warning: {called} is called {name} now; the old name works until dink 1.1\n"
    assert result.stderr.count(warning) == 1
    current = invoke(*old[:place], *new.split(), "-q")
    assert current.stdout == result.stdout
    assert invoke(*old, "-q").stderr == ""
    assert current.stderr == ""


OPTIONS_OF_OTHERS = [
    ("edit m.safetensors --merge 0,99 -o n.safetensors", "cluster 99: the model has the clusters"),
    ("report m.safetensors x.npy -o x.pdf", "x.pdf: suffix .pdf, expected one of .html, .svg"),
    ("export m.safetensors -o x.pdf", "or name a --format"),
    ("export learned.safetensors -o x.npy", "the centres of a model with metric learned"),
    ("dedup m.safetensors x.npy --keep w", "--keep w: not nearest, farthest or first, no"),
    ("dedup m.safetensors two.parquet --keep w", "--keep w: not nearest, farthest or first, no"),
    ("info two.parquet", "choose one with --column a"),
    ("train wide.npy -k 3 --match m.safetensors", "--match: features of the old model 5, of the"),
    ("sweep x.npy -k 9:5", "-k 9:5: "),
    ("report m.safetensors x.npy -o r.html --ids i", "--ids i: no such file, and no such column"),
]


@pytest.mark.parametrize(("line", "message"), OPTIONS_OF_OTHERS)
def test_messages_name_options_that_the_command_has(dink, folder, line, message):
    if "learned" in line:
        model = dinkcli.train(np.load(folder / "x.npy"), 3, metric="learned", device="cpu")
        model.save(folder / "learned.safetensors")
    said = dink(*line.split(), code=1 if "--match" in line else 2).stderr
    assert said.startswith("Error: ") and message in said
    options = dink(line.split()[0], "--help").stdout
    assert all(name in options for name in re.findall("--[a-z][a-z-]*", said)), said


def test_an_error_under_json_is_a_line_of_json(invoke, tmp_path):
    for line, code, message in (
        ("train no.npy -k 3 --json", 2, "no.npy: no such file or folder"),
        ("train no.npy -k 0 --json", 2, "-k 0: expected at least 1"),
        ("info no\x1b.npy --json", 2, "no\\x1b.npy: no such file or folder"),
        ("info --json --no-such", 2, "No such option: --no-such"),
    ):
        result = invoke(*line.split(), code=code)
        assert result.stdout == "" and result.stderr.count("\n") == 1
        document = json.loads(result.stderr)
        assert document["error"] == message and document["exit_code"] == code


def test_texts_are_to_be_embedded_first(invoke, tmp_path):
    (tmp_path / "t.csv").write_text("id,text\n1,red apples\n2,green pears\n")
    (tmp_path / "t.txt").write_text("red apples and\ngreen pears\n")
    for name, code in (("t.csv", "pandas.read_csv('t.csv')['text']"), ("t.txt", "open('t.txt')")):
        lines = invoke("train", name, "-k", 2, code=1).stderr.splitlines()
        assert lines[1].startswith("These are texts: embed them first") and len(lines) == 5
        assert code in lines[-1] and "numpy.save('emb.npy'" in lines[-1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v")
def test_too_little_address_space_for_torch_is_said(folder):
    line = f"ulimit -v 600000; exec {sys.executable} -m dinkcli train x.npy -k 3"
    result = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert "the limit of address space (ulimit -v) is too small" in result.stderr
