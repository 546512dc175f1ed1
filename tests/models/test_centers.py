"""Training from centres of other tools, and files that are refused."""

import pickle

import numpy as np
import pytest
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

import dinkcli
from dinkcli.errors import InputError
from dinkcli.models.centers import read_centers

faiss = pytest.importorskip("faiss")
skops = pytest.importorskip("skops.io")
CENTERS = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)


def flat():
    index = faiss.IndexFlatL2(5)
    index.add(CENTERS)
    return index


def inverted():
    index = faiss.IndexIVFFlat(flat(), 5, 7)
    index.is_trained = True
    index.add(np.zeros((20, 5), np.float32))
    return index


def inner_product():
    index = faiss.IndexFlatIP(5)
    index.add(CENTERS)
    return index


def behind_a_transform():
    return faiss.IndexPreTransform(faiss.NormalizationTransform(5, 2.0), flat())


@pytest.mark.parametrize("make", [flat, inverted, inner_product, behind_a_transform])
def test_faiss_indexes(tmp_path, make):
    faiss.write_index(make(), str(tmp_path / "c.index"))
    np.testing.assert_array_equal(read_centers(str(tmp_path / "c.index")), CENTERS)


def test_npz_is_not_taken_for_skops(tmp_path):
    np.savez(tmp_path / "c.npz", centers=CENTERS)
    np.testing.assert_array_equal(read_centers(str(tmp_path / "c.npz")), CENTERS)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scikit_learn_estimators(tmp_path, dtype):
    estimator = KMeans(7, init=CENTERS, n_init=1).fit(CENTERS)
    estimator.cluster_centers_ = CENTERS.astype(dtype)
    small = MiniBatchKMeans(7, init=CENTERS, n_init=1).fit(CENTERS)
    small.cluster_centers_ = CENTERS.astype(dtype)
    for found in (estimator, small, make_pipeline(Normalizer(), estimator)):
        skops.dump(found, tmp_path / "c.skops")
        centers = read_centers(str(tmp_path / "c.skops"))
        assert centers.dtype == dtype
        np.testing.assert_array_equal(centers, CENTERS)


def test_every_export_with_centres_is_a_start(invoke, tmp_path, blobs):
    z, _ = blobs
    np.save(tmp_path / "x.npy", z)
    model = dinkcli.train(z, 3, device="cpu")
    model.save(tmp_path / "m.dink.safetensors")
    for suffix in ("npy", "parquet", "safetensors", "faiss", "skops"):
        invoke("export", "m.dink.safetensors", "-o", f"c.{suffix}")
        np.testing.assert_array_equal(
            read_centers(str(tmp_path / f"c.{suffix}")), model.cluster_centers
        )
        arguments = ["--init", f"c.{suffix}", "--temperature", 0, "--epochs", 1, "-q"]
        invoke("train", "x.npy", "-k", 3, *arguments, "-o", "again.safetensors")
        again = dinkcli.load(tmp_path / "again.safetensors")
        np.testing.assert_allclose(again.cluster_centers, model.cluster_centers, rtol=1e-4)
        assert again.training["options"]["init"] == "given"


class Evil:
    def __reduce__(self):
        return (open, ("pwned", "w"))


def test_what_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match=r"c\.pkl: a pickle, which dink never loads; save the"):
        read_centers("c.pkl")
    assert not (tmp_path / "pwned").exists()

    faiss.write_index(faiss.IndexLSH(5, 16), "lsh.index")
    (tmp_path / "short.index").write_bytes(b"IxF2 and then nothing")
    with pytest.raises(InputError, match=r"lsh\.index: a faiss IndexLSH keeps no centres"):
        read_centers("lsh.index")
    with pytest.raises(InputError, match=r"short\.index: cannot be read by faiss"):
        read_centers("short.index")

    skops.dump(StandardScaler().fit(CENTERS), "scaler.skops")
    with pytest.raises(InputError, match="a StandardScaler without cluster_centers_; fit it first"):
        read_centers("scaler.skops")
    skops.dump(Evil(), "evil.skops")
    with pytest.raises(InputError, match=r"types that are not known to be harmless: .*Evil"):
        read_centers("evil.skops")
    (tmp_path / "zip.skops").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(InputError, match=r"zip\.skops: cannot be read as npz"):
        read_centers("zip.skops")

    from safetensors.numpy import save_file

    save_file({"weight": CENTERS}, "w.safetensors")
    with pytest.raises(InputError, match="no tensor 'cluster_centers'; it has weight"):
        read_centers("w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(whole[:-5])
    with pytest.raises(InputError, match="damaged safetensors file"):
        read_centers("w.safetensors")
    (tmp_path / "text").write_text("hello world")
    with pytest.raises(InputError, match="text: no format that dink reads"):
        read_centers("text")


def test_centers_of_a_learned_metric_come_as_rows(tmp_path):
    """--init wants centres of the rows as they are, not of those under the map."""
    rng = np.random.default_rng(0)
    means = (rng.normal(size=(4, 6)) + 100).astype(np.float32)
    turn = rng.normal(size=(6, 6)).astype(np.float32)
    origin = np.full(6, 99, np.float32)
    under = ((means.astype(np.float64) - origin) @ turn).astype(np.float32)
    model = dinkcli.Model(under, np.ones(4), "learned", map=turn, origin=origin)
    model.save(tmp_path / "m.safetensors")
    np.testing.assert_allclose(read_centers(str(tmp_path / "m.safetensors")), means, rtol=1e-5)
    np.testing.assert_allclose(model.means, means, rtol=1e-5)
    for name in ("m.faiss", "m.skops"):
        from dinkcli.models.export import SUFFIXES, export

        export(model, str(tmp_path / name), SUFFIXES[name[2:]])
        with pytest.raises(InputError, match="of rows that are transformed first"):
            read_centers(str(tmp_path / name))
