"""Exports in the runtimes they are for: the labels of ``dink assign``, without dink.

The number of disagreements is printed (``pytest -s``) and has to be 0.
"""

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import SAMPLES, distances_float64, usual_softmax

import dinkcli
from dinkcli.errors import UsageError
from dinkcli.models.edit import drop, merge
from dinkcli.models.export import SUFFIXES
from dinkcli.models.export import export as export_model

SETS = {"digits": ("digits.npy", 10, "euclidean"), "stdlib": ("stdlib.parquet", 40, "cosine")}


def sample(name):
    if name == "digits":
        return np.load(SAMPLES / "digits.npy").astype(np.float32)
    column = pq.read_table(SAMPLES / "stdlib.parquet")["embedding"].combine_chunks()
    return column.values.to_numpy().reshape(len(column), -1).astype(np.float32)


@pytest.fixture(scope="module", params=SETS)
def trained(request, tmp_path_factory):
    """(folder, rows, what dink assign gives, distances in float64) of a set and a metric."""
    folder = tmp_path_factory.mktemp("export")
    file, k, metric = SETS[request.param]
    quick = {"refine": False, "n_init": 1, "epochs": 1}
    model = dinkcli.train(SAMPLES / file, k, metric=metric, device="cpu", **quick)
    model.save(folder / "m.safetensors")
    z = sample(request.param)
    z64 = z.astype(np.float64)
    if metric == "cosine":
        z64 /= np.linalg.norm(z64, axis=1, keepdims=True)
    labels = dinkcli.assign(model, SAMPLES / file, device="cpu")
    return folder, z, labels, distances_float64(z64, model.cluster_centers)


def export(folder, name, monkeypatch, *options):
    from typer.testing import CliRunner

    from dinkcli.cli import app

    monkeypatch.chdir(folder)
    result = CliRunner().invoke(app, ["export", "m.safetensors", "-o", name, *options])
    assert result.exit_code == 0, (result.stderr, result.exception)
    return str(folder / name)


def agree(what, found, expected):
    disagreements = int((np.asarray(found).ravel() != expected).sum())
    print(f"{what}: {disagreements} of {len(expected)} labels disagree")
    assert disagreements == 0


def test_onnx_in_onnxruntime(trained, monkeypatch):
    import onnxruntime

    folder, z, labels, distances = trained
    model = dinkcli.load(folder / "m.safetensors")
    session = onnxruntime.InferenceSession(export(folder, "m.onnx", monkeypatch))
    assert session.get_modelmeta().custom_metadata_map["dink.fingerprint"] == (
        dinkcli.load(folder / "m.safetensors").fingerprint
    )
    cluster, distance, probabilities = session.run(
        ["cluster", "distance", "probabilities"], {"rows": z}
    )
    agree("onnxruntime", cluster, labels)
    np.testing.assert_allclose(distance, distances.min(1), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        probabilities,
        usual_softmax(model, distances),
        rtol=2e-3,
        atol=1e-6,
    )
    for size in (1, 7):  # the batch is dynamic
        assert session.run(["cluster"], {"rows": z[:size]})[0].tolist() == labels[:size].tolist()


@pytest.mark.slow
def test_pt2_without_dink(trained, monkeypatch):
    folder, z, labels, distances = trained
    model = dinkcli.load(folder / "m.safetensors")
    path = export(folder, "m.pt2", monkeypatch)
    np.save(folder / "z.npy", z)
    code = (
        "import sys, numpy, torch\n"
        "sys.modules['dinkcli'] = None  # not there\n"
        "module = torch.export.load(sys.argv[1]).module()\n"
        "z = torch.from_numpy(numpy.load('z.npy'))\n"
        "cluster, distance, probabilities = module(z)\n"
        "assert (module(z[:1])[0] == cluster[:1]).all()\n"
        "numpy.savez('found.npz', c=cluster, d=distance, p=probabilities)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, path], cwd=folder, check=True)
    with np.load(folder / "found.npz") as found:
        agree("torch.export", found["c"], labels)
        np.testing.assert_allclose(found["d"], distances.min(1), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(
            found["p"],
            usual_softmax(model, distances),
            rtol=2e-3,
            atol=1e-6,
        )


def test_faiss_index(trained, monkeypatch):
    import faiss

    folder, z, labels, distances = trained
    index = faiss.read_index(export(folder, "m.faiss", monkeypatch))
    squared, found = index.search(z, 1)
    agree("faiss", found, labels)
    np.testing.assert_allclose(squared[:, 0], distances.min(1) ** 2, rtol=1e-3, atol=1e-4)


def test_faiss_inverted_file(trained, monkeypatch):
    """Trained and empty; rows that are added are found, each in the list of its cluster."""
    import faiss

    folder, z, labels, _ = trained
    path = export(folder, "ivf.faiss", monkeypatch, "--format", "faiss-ivf")
    index = faiss.read_index(path)
    assert index.is_trained and index.ntotal == 0
    index.add(z)
    assert index.ntotal == len(z)
    ivf = faiss.extract_index_ivf(index)
    sizes = [ivf.invlists.list_size(i) for i in range(ivf.nlist)]
    assert np.abs(np.array(sizes) - np.bincount(labels, minlength=ivf.nlist)).sum() <= 4
    ivf.nprobe = ivf.nlist
    squared, found = index.search(z[:50], 1)
    np.testing.assert_allclose(squared, 0, atol=1e-3)
    assert (found[:, 0] == np.arange(50)).mean() > 0.9  # some rows are there twice


def test_sklearn_estimator(trained, monkeypatch):
    import skops.io

    folder, z, labels, distances = trained
    path = export(folder, "m.skops", monkeypatch)
    assert skops.io.get_untrusted_types(file=path) == []
    estimator = skops.io.load(path)
    agree("scikit-learn", estimator.predict(z), labels)
    np.testing.assert_allclose(estimator.transform(z), distances, rtol=1e-3, atol=1e-3)


def test_head_state_dict(trained, monkeypatch):
    from safetensors.torch import load_file

    folder, z, labels, _ = trained
    state = load_file(export(folder, "state.safetensors", monkeypatch))
    head = dinkcli.DinkClusterHead(*state["cluster_centers"].shape)
    head.load_state_dict(state)
    rows = torch.from_numpy(z)
    if dinkcli.load(folder / "m.safetensors").metric == "cosine":
        rows = torch.nn.functional.normalize(rows, dim=1)
    agree("the head", head.cluster(rows), labels)


def test_onnx_breaks_ties_to_the_lowest_index_and_survives_zero_rows(tmp_path, monkeypatch):
    import onnxruntime

    centers = np.array([[5, 0], [1, 0], [-1, 0], [1, 0]], np.float32)
    for metric in ("euclidean", "cosine"):
        dinkcli.Model(centers, np.ones(4), metric).save(tmp_path / "m.safetensors")
        session = onnxruntime.InferenceSession(export(tmp_path, "m.onnx", monkeypatch))
        found = session.run(None, {"rows": np.zeros((3, 2), np.float32)})
        assert found[0].tolist() == [1, 1, 1]
        assert all(np.isfinite(values).all() for values in found)


@pytest.mark.parametrize(
    ("suffix", "module", "package", "line"),
    [
        ("onnx", "onnx", "onnx", "'dinkcli[onnx]'"),
        ("faiss", "faiss", "faiss", "'dinkcli[faiss]'"),
        ("skops", "skops.io", "skops.io", "'dinkcli[sklearn]'"),
        ("skops", "sklearn.cluster", "sklearn.cluster", "'dinkcli[sklearn]'"),
    ],
)
def test_a_missing_package_is_named_with_what_installs_it(
    invoke, tmp_path, monkeypatch, suffix, module, package, line
):
    dinkcli.Model(np.eye(3, dtype=np.float32), np.ones(3)).save(tmp_path / "m.safetensors")
    monkeypatch.setitem(sys.modules, module, None)
    result = invoke("export", "m.safetensors", "-o", f"m.{suffix}", code=1)
    assert result.stderr.endswith(f"needs the package {package}: pip install {line}\n")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / f"m.{suffix}").exists()


def test_formats_by_name_and_what_is_too_large(invoke, tmp_path, monkeypatch):
    dinkcli.Model(np.eye(3, dtype=np.float32), np.ones(3)).save(tmp_path / "m.safetensors")
    result = invoke("export", "m.safetensors", "-o", "plain", "--format", "sklearn")
    assert result.stderr == "plain: 3 centres of 3 features, sklearn\n"
    monkeypatch.setattr("dinkcli.models.export._MOST_BYTES", 1 << 20)
    result = invoke("export", "m.safetensors", "-o", "m.onnx", code=1)
    assert "ONNX files hold less than 2 GiB, the centres take 36 bytes" in result.stderr


@pytest.mark.parametrize("suffix", ["onnx", "pt2", "faiss", "csv", "parquet", "json"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_clusters_of_several_centres(tmp_path, suffix, metric):
    """A merged cluster has the rows and the probability of both, an outlier's the label -1."""
    rng = np.random.default_rng(1)
    z = (np.repeat(np.eye(5, 6) * 6, 20, axis=0) + rng.normal(size=(100, 6))).astype(np.float32)
    plain = dinkcli.train(z, 5, metric=metric, device="cpu", seed=0)
    model = drop(merge(plain, [1, 3]), 0, outlier=True)
    path = tmp_path / f"m.{suffix}"
    export_model(model, str(path), SUFFIXES[suffix])
    rows = z / np.linalg.norm(z, axis=1, keepdims=True) if metric == "cosine" else z
    distances = distances_float64(rows.astype(np.float64), plain.cluster_centers)
    labels = np.array([-1, 1, 2, 1, 4])[distances.argmin(1)]
    probabilities = usual_softmax(plain, distances)
    probabilities[:, 1] += probabilities[:, 3]
    probabilities[:, [0, 3]] = 0
    if suffix == "onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(str(path))
        found, _, shares = session.run(None, {"rows": z})
    elif suffix == "pt2":
        found, _, shares = torch.export.load(path).module()(torch.from_numpy(z))
        found, shares = found.numpy(), shares.numpy()
    else:
        shares = probabilities
        if suffix == "faiss":
            index = pytest.importorskip("faiss").read_index(str(path))
            found = index.search(z, 1)[1][:, 0]
        else:
            if suffix == "json":
                document = json.loads(path.read_text())
                owners = np.array(document["center_clusters"])
                centers = np.array(document["cluster_centers"])
            elif suffix == "csv":
                table = np.loadtxt(path, delimiter=",", skiprows=1)
                owners, centers = table[:, 0].astype(int), table[:, 1:]
            else:
                table = pq.read_table(path).to_pydict()
                owners, centers = np.array(table["cluster"]), np.array(table["center"])
            found = owners[distances_float64(rows.astype(np.float64), centers).argmin(1)]
    np.testing.assert_array_equal(found, labels)
    np.testing.assert_allclose(shares, probabilities, atol=1e-5)
    for name in ("npy", "sklearn", "faiss-ivf", "safetensors"):
        with pytest.raises(UsageError, match="may have several; export to onnx"):
            export_model(model, str(tmp_path / "no"), name)
