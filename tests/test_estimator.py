"""DinkClustering in scikit-learn's own checks, and against scikit-learn's KMeans."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import inertia_float64, nearest_float64
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import dinkcli
from dinkcli import DinkClustering

pytestmark = pytest.mark.usefixtures("one_thread")


def failing(estimator):
    """Names of scikit-learn's checks that the estimator does not pass."""
    results = check_estimator(estimator, on_skip=None, on_fail=None)
    assert len(results) > 40
    return {found["check_name"] for found in results if found["status"] != "passed"}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_it_passes_every_check_that_kmeans_passes():
    assert failing(DinkClustering(n_init=1, device="cpu")) <= failing(KMeans(n_init=1))


def test_fewer_distinct_rows_than_clusters_warn_as_in_scikit_learn():
    z = np.repeat([[0.0, 0.0], [5.0, 5.0]], 4, axis=0)
    with pytest.warns(ConvergenceWarning, match="2 distinct rows, fewer than n_clusters=3"):
        estimator = DinkClustering(3, device="cpu").fit(z)
    assert estimator.cluster_centers_.shape == (3, 2)
    assert adjusted_rand_score([0] * 4 + [1] * 4, estimator.labels_) == 1


def test_the_number_of_clusters_may_be_chosen(blobs):
    z, truth = blobs
    for wanted in ("auto", "2:12"):
        estimator = DinkClustering(wanted, random_state=0, device="cpu").fit(z)
        assert estimator.n_clusters_ == len(estimator.cluster_centers_) == 3
        assert estimator.get_params()["n_clusters"] == wanted
        assert adjusted_rand_score(truth, estimator.labels_) == 1
    with pytest.raises(ValueError, match="n_clusters"):
        DinkClustering("many").fit(z)
    assert DinkClustering(4, device="cpu").fit(z).n_clusters_ == 4


def test_fit_predict_transform_and_score(blobs):
    z, truth = blobs
    estimator = DinkClustering(3, random_state=0, device="cpu")
    labels = estimator.fit_predict(z)
    assert adjusted_rand_score(truth, labels) == 1
    centers = estimator.cluster_centers_
    np.testing.assert_array_equal(labels, nearest_float64(z, centers))
    np.testing.assert_array_equal(estimator.predict(z), labels)
    distances = np.linalg.norm(z.astype(float)[:, None] - centers.astype(float), axis=2)
    np.testing.assert_allclose(estimator.transform(z), distances, rtol=1e-4)
    inertia = inertia_float64(z, centers)
    assert estimator.inertia_ == pytest.approx(inertia, rel=1e-5)
    assert estimator.score(z) == pytest.approx(-inertia, rel=1e-5)
    half = np.full(len(z), 0.5)
    assert estimator.score(z, sample_weight=half) == pytest.approx(-inertia / 2, rel=1e-5)


def test_cosine_ignores_lengths(blobs):
    z, _ = blobs
    z = z + 1
    lengths = np.random.default_rng(0).uniform(0.1, 10, (len(z), 1)).astype(np.float32)
    first, second = (
        DinkClustering(3, metric="cosine", random_state=0, device="cpu").fit(rows)
        for rows in (z, z * lengths)
    )
    np.testing.assert_array_equal(first.labels_, second.predict(z))
    np.testing.assert_allclose(np.linalg.norm(first.cluster_centers_, axis=1), 1, rtol=1e-5)


def test_partial_fit_keeps_centres_the_means_of_all_their_rows(blobs):
    z, truth = blobs
    z = z.astype(np.float64)
    estimator = DinkClustering(3, random_state=0, device="cpu")
    given = []
    for batch in np.array_split(z, 4):
        estimator.partial_fit(batch)
        given.append(estimator.labels_)
    assert adjusted_rand_score(truth, np.concatenate(given)) == 1
    for j in range(3):
        mean = z[np.concatenate(given) == j].mean(0)
        np.testing.assert_allclose(estimator.cluster_centers_[j], mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        estimator.cluster_weights_, np.bincount(np.concatenate(given)), rtol=1e-6
    )


def test_partial_fit_weighs_rows():
    estimator = DinkClustering(1, random_state=0, device="cpu")
    estimator.partial_fit([[0.0], [2.0]], sample_weight=[1, 3])
    estimator.partial_fit([[10.0]], sample_weight=[4])
    assert estimator.cluster_centers_[0, 0] == pytest.approx((1.5 * 4 + 10 * 4) / 8)


@pytest.mark.slow
def test_it_works_in_pipelines_and_searches(blobs):
    z, truth = blobs
    pipeline = make_pipeline(StandardScaler(), DinkClustering(3, random_state=0, device="cpu"))
    assert adjusted_rand_score(truth, pipeline.fit_predict(z)) == 1
    search = GridSearchCV(
        DinkClustering(random_state=0, device="cpu"), {"n_clusters": [1, 3]}, cv=2
    )
    assert search.fit(z).best_params_ == {"n_clusters": 3}


def test_wrong_parameters_are_value_errors(blobs):
    with pytest.raises(ValueError, match="`n_clusters` 301: more clusters than the 300 rows"):
        DinkClustering(301).fit(blobs[0])
    with pytest.raises(ValueError, match="`metric` l1: expected one of euclidean, cosine"):
        DinkClustering(3, metric="l1").fit(blobs[0])


@pytest.mark.slow
def test_without_scikit_learn_one_line_says_what_to_install():
    code = "import sys; sys.modules['sklearn.base'] = None; import dinkcli; dinkcli.DinkClustering"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = result.stderr.splitlines()[-1]
    assert last.startswith("ImportError: DinkClustering needs scikit-learn 1.6 or later")
    assert "pip install 'dinkcli[sklearn]'" in last


def test_a_model_goes_on_as_an_estimator_and_back(blobs, tmp_path):
    z, _ = blobs
    dinkcli.train(z[:150], 3, seed=0).save(tmp_path / "a.safetensors")
    estimator = DinkClustering.from_model(dinkcli.load(tmp_path / "a.safetensors"))
    for _ in range(2):  # the same batch counts each time
        estimator.partial_fit(z[150:])
    everything = np.concatenate([z, z[150:]]).astype(float)
    labels = estimator.predict(everything.astype(np.float32))
    for j in range(3):
        mean = everything[labels == j].mean(0)
        np.testing.assert_allclose(estimator.cluster_centers_[j], mean, atol=1e-5)
    estimator.model_.save(tmp_path / "b.safetensors")
    assert (dinkcli.assign(tmp_path / "b.safetensors", z) == estimator.predict(z)).all()
