"""Agreement with classes and the measures without them, against scikit-learn."""

import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn import metrics

import dinkcli
from dinkcli.data.inputs import open_data
from dinkcli.data.sidefiles import columns_of
from dinkcli.errors import InputError, UsageError
from dinkcli.insight.agreement import Contingency, agreement
from dinkcli.insight.evaluate import evaluate
from dinkcli.models.model import Model

pytestmark = pytest.mark.usefixtures("one_thread")
RNG = np.random.default_rng(0)
LABELINGS = {
    "random": (RNG.integers(0, 7, 500), RNG.integers(0, 9, 500)),
    "fewer clusters": (RNG.integers(0, 9, 300), RNG.integers(0, 3, 300)),
    "the same": (np.arange(50) % 5, (np.arange(50) + 3) % 5),
    "one class": (np.zeros(20, int), RNG.integers(0, 3, 20)),
    "one cluster": (RNG.integers(0, 3, 20), np.zeros(20, int)),
    "one of both": (np.zeros(20, int), np.zeros(20, int)),
    "all apart": (np.arange(30), np.arange(30)[::-1]),
    "classes apart": (np.arange(30), np.arange(30) % 4),
    "one row": (np.array([4]), np.array([2])),
    "skewed": (np.r_[np.zeros(10**5, int), 1], np.r_[0, np.ones(10**5, int)]),
    "gaps in the numbers": (RNG.choice([1, 5, 90], 100), RNG.choice([0, 7], 100)),
}


def contingency(truth, clusters, n_clusters=None):
    counts = Contingency(n_clusters or int(clusters.max()) + 1)
    for part in np.array_split(np.arange(len(truth)), 3):  # in blocks, as the reader gives them
        values, codes = np.unique(truth[part], return_inverse=True)
        counts.add(values.tolist(), codes, clusters[part])
    return counts


@pytest.mark.filterwarnings("ignore:.*number of classes:UserWarning")
@pytest.mark.parametrize("name", LABELINGS)
def test_values_equal_scikit_learn(name):
    truth, clusters = LABELINGS[name]
    counts = contingency(truth, clusters)
    found = agreement(counts.table)
    of_cluster = {j: counts.classes[i] for i, j in enumerate(found.matching) if j >= 0}
    mapped = np.array([of_cluster.get(j, -1) for j in clusters])
    h, c, v = metrics.homogeneity_completeness_v_measure(truth, clusters)
    expected = {
        "accuracy": metrics.accuracy_score(truth, mapped),
        "macro_f1": metrics.f1_score(
            truth, mapped, labels=np.unique(truth), average="macro", zero_division=0
        ),
        "normalized_mutual_information": metrics.normalized_mutual_info_score(truth, clusters),
        "adjusted_rand_index": metrics.adjusted_rand_score(truth, clusters),
        "homogeneity": h,
        "completeness": c,
        "v_measure": v,
    }
    for measure, value in expected.items():
        assert getattr(found, measure) == pytest.approx(value, abs=1e-9), measure


def test_the_matching_is_the_best_of_all():
    from itertools import permutations

    table = np.random.default_rng(1).integers(0, 20, (5, 5))
    best = max(sum(table[i, j] for i, j in enumerate(p)) for p in permutations(range(5)))
    assert agreement(table).accuracy == pytest.approx(best / table.sum(), abs=1e-12)


def test_ids_as_labels_are_refused():
    counts = Contingency(1 << 20)
    with pytest.raises(UsageError, match="is this column of labels one of ids"):
        counts.add(list(range(100)), np.arange(100), np.arange(100))


@pytest.mark.parametrize("device", ["auto", "cpu"])  # by NumPy, and by torch
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_quality_equals_scikit_learn(blobs, metric, device):
    z, _ = blobs
    z = z + 3
    model = dinkcli.train(z, 4, metric=metric, device="cpu")
    labels = dinkcli.assign(model, z, device="cpu")
    found = evaluate(model, open_data(z), device=device).quality
    x, c = z.astype(np.float64), model.cluster_centers.astype(np.float64)
    if metric == "cosine":
        # Compared in the float32 that the rows are normalised in.
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
        x = z.astype(np.float64)
    tolerance = 1e-9 if metric == "euclidean" else 1e-5
    apart = np.sort(np.linalg.norm(x[:, None] - c, axis=2), axis=1)
    a, b = apart[:, 0], apart[:, 1]
    assert found.rows == 300
    assert found.inertia == pytest.approx((a**2).sum(), rel=1e-6)
    assert found.simplified_silhouette == pytest.approx(((b - a) / b).mean(), rel=1e-6)
    assert found.ambiguous == (b <= 1.05 * a).mean()
    assert found.davies_bouldin == pytest.approx(
        metrics.davies_bouldin_score(x, labels), rel=tolerance
    )
    assert found.calinski_harabasz == pytest.approx(
        metrics.calinski_harabasz_score(x, labels), rel=tolerance
    )
    sizes = np.bincount(labels, minlength=4)
    np.testing.assert_array_equal(found.sizes, sizes)
    assert found.imbalance == pytest.approx(4 * (sizes**2).sum() / 300**2)
    for j in range(4):
        mine = labels == j
        assert found.cluster_inertia[j] == pytest.approx((a[mine] ** 2).sum(), rel=1e-6)
        assert found.cluster_silhouette[j] == pytest.approx(((b - a) / b)[mine].mean(), rel=1e-6)


def test_the_model_knows_the_inertia_of_each_cluster(blobs):
    model = dinkcli.train(blobs[0], 4, device="cpu")
    found = evaluate(model, open_data(blobs[0])).quality
    np.testing.assert_allclose(
        model.training["metrics"]["cluster_inertia"], found.cluster_inertia, rtol=1e-4
    )


def test_one_and_empty_clusters(blobs):
    z, _ = blobs
    one = Model(z[:1], np.ones(1))
    assert evaluate(one, open_data(z)).quality.ambiguous is None
    found = evaluate(one, open_data(z)).quality
    assert found.simplified_silhouette is found.davies_bouldin is found.ambiguous is None
    far = Model(np.stack([z[0], z[1] + 9, z[0] + 1e4]), np.ones(3))
    found = evaluate(far, open_data(z))
    labels = dinkcli.assign(far, z)
    assert found.quality.sizes[2] == 0
    assert found.quality.davies_bouldin == pytest.approx(
        metrics.davies_bouldin_score(z.astype(float), labels), rel=1e-9
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "NaN" not in str(found.to_dict())


def test_bad_rows_are_counted_to_the_end():
    """Also in blocks of rows without a good one, at the end and between others."""
    z = np.ones((9000, 1024), np.float32)
    z[100:6000] = z[6001:] = np.nan
    found = evaluate(Model(np.eye(2, 1024), np.ones(2)), z, bad_rows="skip").quality
    assert (found.rows, found.bad_rows) == (101, 8899)


def labelled(path):
    """z.npy beside the file of its labels."""
    return open_data([str(path.parent / "z.npy")], columns_of(labels=str(path)))


def test_labels_of_every_kind(tmp_path, blobs):
    z, truth = blobs
    model = dinkcli.train(z, 3, device="cpu")
    np.save(tmp_path / "z.npy", z)
    names = np.array(["red", "green", "blue"])[truth]
    kinds = {
        "i.npy": truth.astype(np.int16),
        "s.npy": names,
        "s.parquet": pa.table({"l": names}),
        "d.parquet": pa.table({"l": pa.array(names).dictionary_encode()}),
        "b.parquet": pa.table({"l": truth == 1}),
    }
    for name, labels in kinds.items():
        if name.endswith("npy"):
            np.save(tmp_path / name, labels)
        else:
            pq.write_table(labels, tmp_path / name)
        found = evaluate(model, labelled(tmp_path / name))
        assert found.agreement.accuracy == pytest.approx(
            1.0 if name[0] != "b" else found.table.max(1).sum() / 300
        )
    gaps = pa.array([None if i < 10 else int(t) for i, t in enumerate(truth)])
    pq.write_table(pa.table({"l": gaps}), tmp_path / "gaps.parquet")
    found = evaluate(model, labelled(tmp_path / "gaps.parquet"))
    assert (found.unlabelled, found.table.sum()) == (10, 290)
    pq.write_table(pa.table({"l": pa.nulls(300, pa.int32())}), tmp_path / "none.parquet")
    with pytest.raises(InputError, match="every label is null"):
        evaluate(model, labelled(tmp_path / "none.parquet"))
