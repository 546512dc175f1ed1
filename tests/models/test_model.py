"""Model files: of every version that was released, and of nobody's making."""

import json
import pickle
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
        ({}, {"format_version": 2}, "model format 2, this dink reads up to 1; use the version"),
        ({}, {"format_version": "1"}, "format version '1'"),
        ({}, {"format_version": True}, "format version True"),
        ({}, {"format_version": 0}, "format version 0"),
        ({}, {"n_clusters": 3}, r"centres of shape \(2, 3\), its metadata say \(3, 3\)"),
        ({}, {"n_clusters": "2"}, "n_clusters is '2'"),
        ({}, {"n_clusters": True}, "n_clusters is True"),
        ({}, {"n_clusters": ...}, "n_clusters is None"),
        ({}, {"metric": "taxi"}, "unknown metric 'taxi'"),
        ({}, {"metric": ["euclidean"]}, r"metric is \['euclidean'\]"),
        ({}, {"column": 3}, "column is 3"),
        ({}, {"training": [1]}, r"training is \[1\]"),
        ({}, {"training": {"input": 1}}, "training.input is 1"),
        ({}, {"training": {"history": [1]}}, "training.history holds something else"),
        ({}, {"training": {"x": float("nan")}}, "NaN in its metadata"),
        ({"cluster_centers": ...}, {}, "cluster_centers"),
        ({"cluster_sizes": ...}, {}, "cluster_sizes"),
        ({"cluster_centers": np.eye(2, 3)}, {}, "not all finite float32"),
        ({"cluster_centers": np.full((2, 3), np.nan, np.float32)}, {}, "not all finite float32"),
        ({"cluster_centers": np.full((2, 3), np.inf, np.float32)}, {}, "not all finite float32"),
        ({"cluster_sizes": np.ones(3)}, {}, r"sizes of shape \(3,\), expected \(2,\)"),
        ({"cluster_sizes": -np.ones(2)}, {}, "sizes that are not all finite float64"),
        ({"cluster_centers": np.zeros((0, 3), np.float32)}, {"n_clusters": 0}, "centres of shape"),
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
