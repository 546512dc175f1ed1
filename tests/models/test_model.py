"""Model files: of every version that was released, and of nobody's making."""

import json
import pickle
import re
import struct
import tracemalloc

import numpy as np
import pytest
import torch
from conftest import ROOT, nearest_float64
from safetensors.numpy import save_file

import dinkcli
from dinkcli.errors import ModelError

MODELS = ROOT / "tests" / "models"


@pytest.mark.parametrize("name", ["format_1", "format_1_cosine"])
def test_models_of_every_version_are_read(blobs, name):
    """Written by dink 0.1.0 from these blobs; they have to be read as long as dink lives."""
    z = blobs[0]
    model = dinkcli.load(MODELS / f"{name}.dink.safetensors")
    assert (model.n_clusters, model.n_features, model.state) == (3, 5, None)
    assert model.training["input"]["files"] == ["blobs.npy"]
    assert model.training["versions"]["dink"] == "0.1.0"
    assert model.cluster_sizes.sum() == 300
    if model.metric == "cosine":
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
    labels = dinkcli.assign(model, blobs[0], device="cpu")
    np.testing.assert_array_equal(labels, nearest_float64(z, model.cluster_centers))
    np.testing.assert_array_equal(np.bincount(labels), model.cluster_sizes)


def test_an_updated_and_edited_model_of_version_2_is_read(blobs):
    """Four clusters of two thirds of the blobs, updated with the last third; two of one blob are
    merged."""
    z, truth = blobs
    model = dinkcli.load(MODELS / "format_2.dink.safetensors")
    assert model.training["versions"]["dink"] == "1.0.0rc1"
    assert [entry["what"] for entry in model.history] == ["update", "merge"]
    assert len(model.centers) == 4 and len(model.present) == 3
    assert "one blob" in model.names and model.cluster_sizes.sum() == 300
    labels = dinkcli.assign(model, z)
    owners = model.center_clusters[nearest_float64(z, model.centers)]
    np.testing.assert_array_equal(labels, owners)
    assert len(set(zip(labels.tolist(), truth.tolist(), strict=True))) == 3


def test_a_model_of_version_2_of_rows_far_from_zero_is_read(blobs):
    z = blobs[0].astype(np.float64) + 1e8
    model = dinkcli.load(MODELS / "format_2_offset.dink.safetensors")
    expected = nearest_float64(z, model.cluster_centers + model.offset)
    np.testing.assert_array_equal(dinkcli.assign(model, z), expected)


def document(**changes):
    whole = {
        "format_version": 1,
        "n_clusters": 2,
        "n_features": 3,
        "metric": "euclidean",
        "column": None,
        "training": {},
    }
    return {key: value for key, value in (whole | changes).items() if value is not ...}


def tensors(**changes):
    whole = {"cluster_centers": np.eye(2, 3, dtype=np.float32), "cluster_sizes": np.ones(2)}
    return {key: value for key, value in (whole | changes).items() if value is not ...}


def write(path, tensors, document):
    save_file(tensors, path, {"dink": json.dumps(document)})


def test_the_smallest_model_is_read(tmp_path):
    write(tmp_path / "m", tensors(), document())
    assert dinkcli.load(tmp_path / "m").n_clusters == 2


@pytest.mark.parametrize(
    ("arrays", "changes", "message"),
    [
        ({}, {"format_version": 3}, "model format 3, this dink reads up to 2; use the version"),
        ({}, {"format_version": "1"}, "format version '1'"),
        ({}, {"format_version": True}, "format version True"),
        ({}, {"format_version": 0}, "format version 0"),
        ({}, {"n_clusters": 3}, r"cluster_centers of float32 \(2, 3\), expected float32 \(3, 3\)"),
        ({}, {"n_clusters": "2"}, "n_clusters is '2'"),
        ({}, {"n_clusters": True}, "n_clusters is True"),
        ({}, {"n_clusters": ...}, "n_clusters is None"),
        ({}, {"metric": "taxi"}, "unknown metric 'taxi'"),
        ({}, {"metric": ["euclidean"]}, r"metric is \['euclidean'\]"),
        ({}, {"column": 3}, "column is 3"),
        ({}, {"training": [1]}, r"training is \[1\]"),
        ({}, {"training": {"input": 1}}, "training.input is 1"),
        ({}, {"training": {"history": [1]}}, "an entry of training.history is 1"),
        ({}, {"training": {"x": float("nan")}}, "NaN in its metadata"),
        ({"cluster_centers": ...}, {}, "cluster_centers"),
        ({"cluster_sizes": ...}, {}, "cluster_sizes"),
        ({"cluster_centers": np.eye(2, 3)}, {}, "cluster_centers of float64"),
        (
            {"cluster_centers": np.full((2, 3), np.nan, np.float32)},
            {},
            "that are not finite",
        ),
        (
            {"cluster_centers": np.full((2, 3), np.inf, np.float32)},
            {},
            "that are not finite",
        ),
        (
            {"cluster_sizes": np.ones(3)},
            {},
            r"float64 \(3,\), expected float64 \(2,",
        ),
        ({"cluster_sizes": -np.ones(2)}, {}, "cluster_sizes that are no weights"),
        (
            {"cluster_centers": np.zeros((0, 3), np.float32)},
            {"n_clusters": 0},
            "say 0 clusters",
        ),
    ],
)
def test_what_does_not_fit_the_schema_is_refused(tmp_path, arrays, changes, message):
    write(tmp_path / "m", tensors(**arrays), document(**changes))
    with pytest.raises(ModelError, match=message):
        dinkcli.load(tmp_path / "m")


def raw(header, data=b"", length=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def claim(shape, end):
    """A header of a dink model whose centres claim ``shape``."""
    return {
        "__metadata__": {"dink": json.dumps(document(n_clusters=shape[0], n_features=shape[1]))},
        "cluster_centers": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]},
    }


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        b"\xff" * 64,
        raw({}, length=1 << 62),
        raw(claim([1 << 30, 1 << 30], 1 << 62)),
        raw(claim([1 << 30, 1 << 30], 24), b"\x00" * 24),
        raw(claim([1 << 63, 1 << 63], 0)),
        raw(claim([-1, 3], 12), b"\x00" * 12),
        raw(claim([2, 3], -24), b"\x00" * 24),
        raw(claim([2, 3], 24), b"\x00" * 23),
        raw(b'{"a":' * 100_000),
        raw(b"[" * 1_000_000),
        raw(b"{" + b" " * 1_000_000),
        raw({"__metadata__": {"dink": "[" * 100_000}}),
        raw({"__metadata__": {"dink": "9" * 10_000}}),
        raw({"__metadata__": {"dink": 3}}),
        raw({"__metadata__": 3}),
        raw([1, 2]),
        raw(b"\xff\xfe\xfd"),
        pickle.dumps({"cluster_centers": [1.0]}),
    ],
)
def test_hostile_files_are_one_clear_error_and_no_memory(tmp_path, content):
    (tmp_path / "m").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ModelError, match="not a dink model") as caught:
        dinkcli.load(tmp_path / "m")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(str(caught.value)) < 1000
    assert peak < 50 << 20


def test_a_header_beyond_the_limit_is_not_even_read(tmp_path):
    with open(tmp_path / "m", "wb") as file:
        file.write(struct.pack("<Q", 1 << 30))
        file.truncate(1 << 31)  # sparse
    tracemalloc.start()
    with pytest.raises(ModelError, match="a header of 1073741824 bytes, more than"):
        dinkcli.load(tmp_path / "m")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_files_of_pytorch_are_refused_unread(tmp_path):
    """torch.save is a zip of pickles; unpickling this one would leave a file behind."""

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    torch.save({"cluster_centers": Bomb()}, tmp_path / "m.pt")
    with pytest.raises(ModelError, match="not a dink model, or damaged"):
        dinkcli.load(tmp_path / "m.pt")
    assert not (tmp_path / "exploded").exists()


NAMES = list("hgfedcba")


def write_table(path, x, order, header=True):
    """A csv, parquet or jsonl of one column for each feature, in another order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {NAMES[i]: x[:, i] for i in order}
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        rows = (dict(zip(columns, row, strict=True)) for row in x[:, order].tolist())
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        lines = [",".join(columns)] * header + [",".join(map(str, row)) for row in x[:, order]]
        path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_columns_go_by_their_names(invoke, tmp_path, blobs, suffix):
    x = np.concatenate([blobs[0], blobs[0][:, :3] ** 2], axis=1).round(4)
    order = [3, 0, 7, 5, 1, 2, 6, 4]
    write_table(tmp_path / f"a.{suffix}", x, range(8))
    write_table(tmp_path / f"b.{suffix}", x, order)
    write_table(tmp_path / f"few.{suffix}", x, order[:6])
    np.save(tmp_path / "x.npy", x)
    write_table(tmp_path / "bare.csv", x, range(8), header=False)
    invoke("train", f"a.{suffix}", "-k", 3, "-o", "m.safetensors", "--device", "cpu")
    model = dinkcli.load(tmp_path / "m.safetensors")
    assert model.feature_names == NAMES
    right = nearest_float64(x.astype(np.float32), model.cluster_centers)
    for name in (f"a.{suffix}", f"b.{suffix}", "x.npy", "bare.csv"):
        labels = dinkcli.assign(model, tmp_path / name, device="cpu")
        np.testing.assert_array_equal(labels, right)
    for command in ("evaluate", "inspect"):
        outputs = [invoke(command, "m.safetensors", f"{n}.{suffix}", "--json") for n in "ab"]
        assert outputs[0].stdout == outputs[1].stdout
    # Of several inputs the later ones go by the first.
    invoke("train", f"b.{suffix}", f"a.{suffix}", "-k", 3, "-o", "both.safetensors")
    both = dinkcli.load(tmp_path / "both.safetensors")
    assert both.feature_names == [NAMES[i] for i in order]
    np.testing.assert_array_equal(both.cluster_sizes.sum(), 600)
    labels = dinkcli.assign(both, [tmp_path / f"{n}.{suffix}" for n in "ab"], device="cpu")
    np.testing.assert_array_equal(labels[:300], labels[300:])
    # Centres to start from, and to be matched with, too.
    start = ["--init", "m.safetensors", "--match", "m.safetensors", "--epochs", 1]
    invoke("train", f"b.{suffix}", "-k", 3, "-o", "c.safetensors", "--temperature", 0, *start)
    again = dinkcli.load(tmp_path / "c.safetensors")
    back = again.means_by_name(NAMES)
    np.testing.assert_allclose(back, model.cluster_centers, rtol=1e-3, atol=1e-3)
    result = invoke("assign", "m.safetensors", f"few.{suffix}", code=2)
    assert "2 of the 8 columns of the model are missing: 'd', 'b'; it has" in result.stderr
    with pytest.raises(ModelError, match="feature 'extra' is only on one side"):
        model.means_by_name([*NAMES, "extra"])


def test_columns_of_other_names_go_by_position_where_they_are_named(invoke, tmp_path, blobs):
    x = blobs[0]
    for name, prefix in (("a", "dim"), ("b", "emb")):
        header = ",".join(f"{prefix}_{i}" for i in range(5))
        np.savetxt(tmp_path / f"{name}.csv", x, "%.6f", ",", header=header, comments="")
    invoke("train", "a.csv", "-k", 3, "-o", "m.safetensors")
    refused = invoke("assign", "m.safetensors", "b.csv", code=2)
    assert "5 of the 5 columns of the model are missing: 'dim_0'" in refused.stderr
    by_position = invoke("assign", "m.safetensors", "b.csv", "--column", "emb_*")
    assert by_position.stdout == invoke("assign", "m.safetensors", "a.csv").stdout
    assert "no column 'dim_0', as in the model: columns go by their position" in by_position.stderr


@pytest.mark.parametrize("options", [("--dim", 8), ("--dim", 8, "--bits")])
def test_a_model_knows_the_width_of_bytes(invoke, tmp_path, options):
    """Every command that reads rows through a model reads them as the training did."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(40, 8)).astype(np.float32)
    cells = np.packbits(numbers > 0, axis=1) if "--bits" in options else numbers
    table = {"v": [row.tobytes() for row in cells], "label": ["a", "b"] * 20}
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    invoke("train", "x.parquet", "-k", 2, "-o", "m.safetensors", *options)
    for line in (
        "assign m.safetensors x.parquet",
        "inspect m.safetensors x.parquet",
        "inspect m.safetensors x.parquet --cluster 1",
        "evaluate m.safetensors x.parquet --labels label",
        "name m.safetensors x.parquet --labels label -o n.safetensors",
        "report m.safetensors x.parquet -o r.html --map pca",
    ):
        invoke(*line.split())
    rows = np.where(numbers > 0, 1, -1).astype(np.float32) if "--bits" in options else numbers
    model = dinkcli.load(tmp_path / "m.safetensors")
    labels = dinkcli.assign(model, tmp_path / "x.parquet", device="cpu")
    distances = ((rows[:, None] - model.cluster_centers) ** 2).sum(2)
    np.testing.assert_allclose(distances[np.arange(40), labels], distances.min(1), rtol=1e-5)


def test_info_shows_a_model_and_its_columns(invoke, tmp_path, blobs):
    x = np.concatenate([blobs[0], blobs[0][:, :3] ** 2], axis=1)
    write_table(tmp_path / "a.csv", x, range(8))
    invoke("train", "a.csv", "-k", 3, "-o", "m.safetensors")
    model = dinkcli.load(tmp_path / "m.safetensors")
    shown = json.loads(invoke("info", "m.safetensors", "--json").stdout)
    assert shown["feature_names"] == NAMES and shown["fingerprint"] == model.fingerprint
    assert (shown["n_clusters"], shown["n_features"], shown["rows"]) == (3, 8, 300)
    lines = dict(
        re.split(r"  +", line) for line in invoke("info", "m.safetensors").stdout.splitlines()
    )
    assert lines["feature names"] == ", ".join(NAMES)
