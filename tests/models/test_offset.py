"""Rows far from zero, whose differences float32 does not hold: right to float64 in every command,
or refused by name. The reference is float64, of rows less their true origin."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from conftest import SAMPLES, nearest_float64

import dinkcli
from dinkcli.errors import UsageError
from dinkcli.models.centers import read_centers
from dinkcli.models.export import export
from dinkcli.models.file import load
from dinkcli.models.matching import match

K, N = 4, 400
QUICK = {"device": "cpu", "n_init": 1}


def rows(kind, n_features=2, seed=0):
    """Rows in the type of a file, and the same in float64 less an origin that loses nothing."""
    rng = np.random.default_rng(seed)
    group = np.arange(N) % K
    near = 6.0 * group[:, None] + rng.normal(size=(N, n_features)) * 0.8
    if kind == "float64":
        z = 1e8 + near
        return z, z - 1e8
    if kind == "seconds":
        near = np.round(near * 10).astype(np.int64)
        return near + 1_700_000_000, near.astype(float)
    if kind == "nanoseconds":  # beyond what float64 tells apart
        near = np.round(near * 10).astype(np.int64)
        return near + 1_700_000_000_000_000_000, near.astype(float)
    near = np.round(near * 10).astype(np.int64)
    return near.astype(np.uint64) + np.uint64(2**63), near.astype(float)


def columns(z):
    return pa.table({f"dim_{d}": z[:, d] for d in range(z.shape[1])})


def lists(z):
    kind = pa.list_(pa.from_numpy_dtype(z.dtype))
    return pa.table({"embedding": pa.array(list(z), kind)})


def written(path, z):
    if path.suffix == ".npy":
        np.save(path, z)
    elif path.suffix == ".arrow":
        with pa.ipc.new_file(path, columns(z).schema) as file:
            file.write_table(columns(z))
    elif path.suffix == ".csv":
        pa.csv.write_csv(columns(z), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"v": row.tolist()}) + "\n" for row in z))
    elif "lists" in path.stem:
        pq.write_table(lists(z), path)
    else:
        pq.write_table(columns(z), path)
    return path


CASES = [
    ("float64", "a.npy"),
    ("float64", "a.lists.parquet"),
    ("float64", "a.arrow"),
    ("seconds", "a.npy"),
    ("seconds", "a.parquet"),
    ("float64", "a.csv"),
    ("seconds", "a.csv"),
    ("float64", "a.jsonl"),
    ("nanoseconds", "a.npy"),
    ("uint64", "a.lists.parquet"),
]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_training_and_labels_are_those_of_float64(kind, name, tmp_path, invoke):
    z, near = rows(kind)
    path = written(tmp_path / name, z)
    invoke("train", path, "-k", K, "-o", "m.safetensors", "-q")
    model = load(tmp_path / "m.safetensors")
    invoke("assign", "m.safetensors", path, "-o", "labels.npy", "--distance", "-q")
    found = np.load(tmp_path / "labels.npy")
    labels = found["cluster"]
    # Centres less the origin of the reference, without a sum of large numbers.
    whole = [int(np.floor(each)) for each in model.offset]
    origin = int(z.astype(object).min()) if z.dtype.kind in "iu" else 10**8
    origin -= int(near.min()) if z.dtype.kind in "iu" else 0
    shift = np.array([w - origin for w in whole], float) + (model.offset - np.floor(model.offset))
    centers = model.cluster_centers.astype(float) + shift
    np.testing.assert_array_equal(labels, nearest_float64(near, centers))
    true = [near[labels == j].mean(0) for j in range(K)]
    np.testing.assert_allclose(centers, true, atol=1e-5)
    far = np.linalg.norm(near - centers[labels], axis=1)
    np.testing.assert_allclose(found["distance"], far, rtol=1e-5, atol=1e-5)
    inertia = model.training["metrics"]["inertia"]
    assert inertia == pytest.approx((far**2).sum(), rel=1e-5)
    # Read anew for each pass, and from an array: the same.
    streamed = dinkcli.train(path, K, memory=1, **QUICK)
    np.testing.assert_allclose(streamed.means, model.means, rtol=1e-12, atol=1e-3)
    np.testing.assert_array_equal(dinkcli.assign(model, z, device="cpu"), labels)
    assert dinkcli.train(z, K, **QUICK).training["metrics"]["inertia"] == pytest.approx(inertia)


@pytest.mark.parametrize("kind", ["float64", "seconds", "nanoseconds"])
def test_streams_limits_and_processes(kind, tmp_path, dink):
    z, _ = rows(kind)
    np.save(tmp_path / "a.npy", z)
    stream_of = {"input": (tmp_path / "a.npy").read_bytes(), "text": False}
    dink("train", "a.npy", "-k", K, "-o", "m.safetensors", "-q")
    dink("train", "-", "-k", K, "-o", "s.safetensors", "-q", **stream_of)
    plain, stream = load(tmp_path / "m.safetensors"), load(tmp_path / "s.safetensors")
    np.testing.assert_array_equal(plain.offset, stream.offset)
    np.testing.assert_array_equal(plain.cluster_centers, stream.cluster_centers)
    labels = dinkcli.assign(plain, z, device="cpu")
    out = dink("assign", "m.safetensors", "-", "-q", **stream_of).stdout
    found = pa.csv.read_csv(io.BytesIO(out))
    np.testing.assert_array_equal(found["cluster"].to_numpy(), labels)
    dink("assign", "m.safetensors", "a.npy", "--max-size", N // K, "-o", "even.npy", "-q")
    assert np.bincount(np.load(tmp_path / "even.npy")).tolist() == [N // K] * K
    for share in ("1/2", "2/2"):
        dink("assign", "m.safetensors", "a.npy", "--shard", share, "-o", "parts", "-q")
    parts = sorted((tmp_path / "parts").glob("*.parquet"))
    both = pa.concat_tables([pq.read_table(part) for part in parts])
    np.testing.assert_array_equal(both["cluster"].to_numpy(), labels)
    # A copy and what lies beside it.
    np.save(tmp_path / "twice.npy", np.concatenate([z, z[:50]]))
    command = "dedup", "m.safetensors", "twice.npy", "--max-distance", 1e-6
    report = json.loads(dink(*command, "-o", "d.npy", "--json").stdout)
    distinct = len(np.unique(z, axis=0))
    assert report["rows"] == N + 50
    if kind == "float64":
        assert distinct == N
        assert report["kept"] == N
    dink("inspect", "m.safetensors", "a.npy", "--json")
    judged = json.loads(dink("evaluate", "m.safetensors", "a.npy", "--json").stdout)
    assert judged["inertia"] == pytest.approx(plain.training["metrics"]["inertia"], rel=1e-4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("offset")
    z, near = rows("float64", 3)
    model = dinkcli.train(z, K, **QUICK)
    model.save(folder / "m.safetensors")
    return folder, z, near, model, dinkcli.assign(model, z, device="cpu")


@pytest.mark.parametrize("format", ["npy", "parquet", "csv", "json", "safetensors", "sklearn"])
def test_exports_hold_centres_in_float64_to_start_from(format, trained, tmp_path):
    _, z, near, model, labels = trained
    path = tmp_path / f"c.{format}"
    export(model, str(path), format)
    true = np.array([near[labels == j].mean(0) for j in range(K)])
    if format == "json":
        found = np.array(json.loads(path.read_text())["cluster_centers"])
    elif format == "csv":
        table = pa.csv.read_csv(path)
        found = np.stack([table[f"dim_{d}"].to_numpy() for d in range(3)], 1)
    elif format == "parquet":
        found = np.array(pq.read_table(path)["center"].to_pylist())
    else:
        found = read_centers(str(path))
    np.testing.assert_allclose(found - 1e8, true, atol=1e-5)
    if format in ("npy", "safetensors", "sklearn"):
        again = dinkcli.train(z, K, init=str(path), refine=False, epochs=1, **QUICK)
        np.testing.assert_allclose(again.means - 1e8, true, atol=1e-5)


def test_exports_that_label(trained, tmp_path):
    import onnxruntime
    import skops.io
    import torch

    _, z, _, model, labels = trained
    export(model, str(tmp_path / "m.onnx"), "onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    np.testing.assert_array_equal(session.run(["cluster"], {"rows": z})[0], labels)
    export(model, str(tmp_path / "m.pt2"), "pt2")
    program = torch.export.load(tmp_path / "m.pt2").module()
    np.testing.assert_array_equal(program(torch.from_numpy(z))[0].numpy(), labels)
    export(model, str(tmp_path / "m.skops"), "sklearn")
    np.testing.assert_array_equal(skops.io.load(tmp_path / "m.skops").predict(z), labels)
    for format in ("faiss", "faiss-ivf"):
        with pytest.raises(UsageError, match="faiss computes in float32"):
            export(model, str(tmp_path / "no"), format)


def test_ids_of_an_older_model_and_a_learned_map(trained):
    folder, z, near, _, labels = trained
    other = dinkcli.train(z[::-1].copy() + 1.0, K, **QUICK)
    matching = match(load(folder / "m.safetensors"), other)
    moved = matching.ids[dinkcli.assign(other, z + 1.0, device="cpu")]
    np.testing.assert_array_equal(moved, labels)
    learned = dinkcli.train(z, K, metric="learned", **QUICK)
    plain = dinkcli.train(near, K, metric="learned", **QUICK)
    assert learned.offset is not None
    assert plain.offset is None
    found = dinkcli.assign(learned, z, device="cpu")
    assert len(set(zip(found.tolist(), labels.tolist(), strict=True))) == K


def test_the_estimator(trained):
    from dinkcli import DinkClustering

    _, z, near, _, labels = trained
    found = DinkClustering(K, random_state=0, n_init=1).fit(z)
    assert len(set(zip(found.labels_.tolist(), labels.tolist(), strict=True))) == K
    true = np.array([near[found.labels_ == j].mean(0) for j in range(K)])
    np.testing.assert_allclose(found.cluster_centers_ - 1e8, true, atol=1e-5)


def test_directions_that_float32_cannot_tell_apart_are_refused(tmp_path, invoke):
    np.save(tmp_path / "a.npy", rows("float64")[0])
    said = invoke("train", "a.npy", "-k", 2, "--metric", "cosine", "-q", code=1).stderr
    assert "a.npy" in said
    assert "subtract their mean first" in said.replace("\n", " ")


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "int64"])
def test_models_of_other_rows_have_no_offset(dtype, tmp_path):
    z = np.load(SAMPLES / "digits.npy")[:300].astype(dtype)
    model = dinkcli.train(z, 5, **QUICK)
    assert model.offset is None
    model.save(tmp_path / "m.safetensors")
    same = dinkcli.train(z.astype(np.float32), 5, **QUICK)
    np.testing.assert_array_equal(model.cluster_centers, same.cluster_centers)
    assert b'"offset"' not in (tmp_path / "m.safetensors").read_bytes()


@pytest.mark.parametrize("far", [0.0, 1e9, 1e12])
def test_one_far_row_does_not_hide_what_float32_loses(far):
    """Groups at 1e8 and one row elsewhere: the groups are those of float64."""
    z, near = rows("float64")
    z[7] = far
    model = dinkcli.train(z, K + 1, **QUICK)
    labels = np.asarray(dinkcli.assign(model, z))
    rest = np.arange(N) != 7
    means = np.stack([near[rest & (np.arange(N) % K == j)].mean(0) for j in range(K)])
    expected = nearest_float64(near[rest], means)
    pairs = set(zip(labels[rest].tolist(), expected.tolist(), strict=True))
    assert len(pairs) == K and labels[7] not in labels[rest]
