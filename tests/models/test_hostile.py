"""Models of nobody's making, through every command that reads one: results, or one clear line."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

import dinkcli
from dinkcli.cli.app import app
from dinkcli.errors import ModelError
from dinkcli.models.edit import merge, rename
from dinkcli.models.statistics import Statistics

VALUES = [None, True, -1, 1 << 62, 1e308, "x", [], {}, [{}], [[1]]]
NASTY = [0, -1, 1e-45, 1e10, 1e19, 3e38, np.inf, np.nan]
LARGE = [1e-300, 1e308]  # of float64 alone
COMMANDS = [
    "info m",
    "inspect m",
    "inspect m --json",
    "inspect m --tree --json",
    "inspect m x.npy",
    "inspect m --cluster 1",
    "inspect m x.npy --cluster 1 --json",
    "evaluate m x.npy --json",
    "assign m x.npy -q",
    "assign m x.npy -q --max-size 20 --device cpu",
    "assign m x.npy -q --soft --levels 2",
    "assign m x.npy -q --match good",
    "name m --names names -o named.safetensors --json",
    "export m -o c.json",
    "export m -o c.onnx",
    "export m -o c.faiss",
    "train x.npy -k 3 -q --init m --epochs 1 -o new.safetensors",
    "train x.npy -k 3 -q --match m --metric METRIC --epochs 1 -o new.safetensors",
    "report m x.npy -o r.html --map pca -q",
]


def paths(value, path=()):
    """Every place in JSON."""
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value[:1])):
            yield from paths(value[key], (*path, key))


def changed(value, path, new):
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy


@pytest.fixture(scope="module", params=["euclidean", "learned", "cosine"])
def good(request, tmp_path_factory):
    """(tensors, document, rows) of a model with everything in it."""
    rng = np.random.default_rng(0)
    x = np.repeat(np.eye(3, 4) * 9, 10, axis=0) + rng.normal(size=(30, 4))
    model = dinkcli.train(x, 3, metric=request.param, device="cpu", epochs=2, n_init=1)
    model.names, model.terms = ["a", "b", ""], [["a"], ["b", "c"], []]
    model.feature_names = list("wxyz")
    if request.param != "learned":
        model.offset = np.full(4, 1e-3)
    if request.param == "cosine":
        labels = dinkcli.assign(model, x, device="cpu")
        centers = model.cluster_centers.astype(np.float64)
        squares = ((x - centers[labels]) ** 2).sum(1)
        model.statistics = Statistics.of_rows(x, labels, squares, np.ones(30), centers, -20)
        model = rename(merge(model, [0, 2]), 1, "by hand")
    path = tmp_path_factory.mktemp("good") / "m"
    model.save(path)
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        document = json.loads(file.metadata()["dink"])
    document["training"]["history"] = document["training"]["history"][-2:]
    return load_file(path), document, x.astype(np.float32)


def hostile(good):
    """(what, tensors, document) of each model in which one thing is other than it was."""
    tensors, document, _ = good
    for path in paths(document):
        for value in VALUES:
            if path:
                yield (path, value), tensors, changed(document, path, value)
    for name, array in tensors.items():
        for value in [*NASTY, *(LARGE if array.dtype == np.float64 else [])]:
            if array.dtype.kind == "i" and not -(2.0**63) <= value < 2.0**63:
                continue
            for where in (..., -1):
                copy = array.copy()
                copy[where] = value
                yield (name, where, value), tensors | {name: copy}, document
        shapes = (array[:-1], array[:0], array[None], array.reshape(-1)[0])
        for other in (*shapes, array.astype("f2"), array.astype("i4")):
            yield (name, other.dtype, other.shape), tensors | {name: other}, document
        yield (name, "none"), {n: t for n, t in tensors.items() if n != name}, document


def fault(command):
    """What is wrong with how a command ends, if anything is."""
    result = CliRunner().invoke(app, command.split())
    if result.exit_code not in (0, 1, 2) or not isinstance(result.exception, SystemExit | None):
        return f"{command}: {result.exit_code} {result.exception!r}"
    if any(each in result.stderr for each in ("should not happen", "Warning:", "Traceback")):
        return f"{command}: {result.stderr}"
    if result.exit_code == 0 and "json" in command and result.stdout:
        try:
            json.loads(result.stdout, parse_constant=int)
        except ValueError:
            return f"{command}: {result.stdout}"
    return None


@pytest.mark.slow
def test_whatever_is_changed_in_a_model(good, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tensors, document, x = good
    np.save("x.npy", x)
    (tmp_path / "names").write_text("0: one\n")
    save_file(tensors, "good", {"dink": json.dumps(document)})
    faults, number, metric = [], 0, document["metric"]
    for what, arrays, metadata in hostile(good):
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        save_file(arrays, "m", {"dink": json.dumps(metadata)})
        try:
            dinkcli.load("m")
        except ModelError as error:
            assert "\n" not in str(error) and len(str(error)) < 500
        else:
            # Nasty numbers go through some commands, the rest through one of them, in turn.
            step = 5 if isinstance(what[0], str) else 2 * len(COMMANDS)
            for command in COMMANDS[number % step :: step]:
                if found := fault(command.replace("METRIC", metric)):
                    faults.append((what, found))
            number += 1
    assert not faults, "\n".join(map(str, faults))
