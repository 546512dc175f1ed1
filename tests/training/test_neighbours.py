"""The learned metric: what it is, what it is for, and that every consumer follows it."""

import json

import numpy as np
import pytest
import torch
from conftest import SAMPLES, distances_float64
from sklearn.datasets import make_blobs
from sklearn.metrics import normalized_mutual_info_score
from sklearn.neighbors import kneighbors_graph

import dinkcli
from dinkcli.training.neighbours import move, nearest_others, neighbour_graph, smoothed, whitening
from dinkcli.training.sample import Sample


@pytest.fixture(scope="module")
def model():
    return dinkcli.train(SAMPLES / "digits.npy", 10, metric="learned", device="cpu")


def under_map(model, rows):
    """The rows as the model compares them, in float64."""
    return (rows.astype(np.float64) - model.origin) @ model.map.astype(np.float64)


def test_smoothing_is_two_steps_on_the_normalised_graph():
    z = np.random.default_rng(1).normal(size=(80, 5)).astype(np.float32)
    graph = kneighbors_graph(z, 6).toarray()
    graph = np.maximum(graph, graph.T) + np.eye(80)
    degree = graph.sum(1) ** -0.5
    graph = degree[:, None] * graph * degree
    expected = z.astype(np.float64)
    for _ in range(2):
        expected = expected / 4 + 3 / 4 * (graph @ expected)
    z = torch.from_numpy(z)
    found = smoothed(z, neighbour_graph(nearest_others(z, 6)))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


def modularity(graph, labels):
    """From its definition: sum over pairs in one cluster of the link less that by chance."""
    links, degree = graph.toarray().astype(np.float64), np.asarray(graph.sum(1)).ravel()
    together = labels[:, None] == labels
    return ((links - np.outer(degree, degree) / degree.sum()) * together).sum() / degree.sum()


def test_each_row_moves_where_modularity_gains_most():
    rng = np.random.default_rng(4)
    z = torch.from_numpy(rng.normal(size=(60, 3)).astype(np.float32))
    graph = neighbour_graph(nearest_others(z, 5))
    labels = rng.integers(0, 6, 60)
    for row in range(60):
        moved, gains = labels.copy(), []
        for cluster in range(6):
            moved[row] = cluster
            linked = cluster == labels[row] or (graph[row].toarray()[0][moved == cluster]).any()
            gains.append(modularity(graph, moved) if linked else -np.inf)
        found = labels.copy()
        number = move(graph, found, np.array([row]), 6)
        assert number == (found[row] != labels[row])
        assert gains[found[row]] == pytest.approx(max(gains), abs=1e-9)


def test_no_cluster_is_emptied():
    graph = neighbour_graph(np.array([[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4]]))
    labels = np.array([0, 1, 2, 3, 3, 3])
    move(graph, labels, np.arange(6), 4)
    assert len(set(labels)) == 4


@pytest.mark.parametrize("weighted", [False, True])
def test_the_map_whitens_what_is_within_clusters(weighted):
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 4, 600)
    z = rng.normal(size=(4, 6))[labels] * 9 + rng.normal(size=(600, 6)) * [1, 2, 3, 4, 5, 6]
    z = z.astype(np.float32)
    weights = rng.uniform(0.5, 2, 600) if weighted else np.ones(600)
    means = np.stack(
        [np.average(z[labels == j], 0, weights[labels == j]) for j in range(4)]
    ).astype(np.float32)
    given = torch.from_numpy(weights).float() if weighted else None
    sample = Sample(torch.from_numpy(z), given, lambda centers: centers)
    found = whitening(sample, torch.from_numpy(labels), torch.from_numpy(means)).double().numpy()
    within = z.astype(np.float64) - means[labels]
    covariance = (within * weights[:, None]).T @ within / weights.sum()
    variance = covariance.trace() / 6
    expected = np.linalg.inv(covariance + 1.5 * variance * np.eye(6)) * variance * 2.5
    np.testing.assert_allclose(found @ found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_it_agrees_better_with_the_digits_than_any_kmeans(model, digits):
    """74 is what the optimum of k-means reaches."""
    rows, labels = digits
    assert normalized_mutual_info_score(labels, dinkcli.assign(model, rows)) > 0.81


@pytest.mark.slow
def test_stretched_blobs_are_found():
    rows, labels = make_blobs(2000, n_features=16, centers=8, random_state=3, center_box=(-3, 3))
    rng = np.random.default_rng(0)
    rows = (rows @ rng.normal(size=(16, 16)) @ np.diag(np.linspace(0.2, 3, 16))).astype(np.float32)
    found = dinkcli.train(rows, 8, metric="learned", device="cpu")
    assert normalized_mutual_info_score(labels, dinkcli.assign(found, rows)) > 0.95


@pytest.mark.slow
def test_rare_clusters_stay():
    rows, labels = make_blobs(
        [2000, 20, 2000, 20, 200], n_features=8, random_state=5, center_box=(-6, 6)
    )
    rows = rows.astype(np.float32)
    found = dinkcli.train(rows, 5, metric="learned", device="cpu")
    assert normalized_mutual_info_score(labels, dinkcli.assign(found, rows)) > 0.99


@pytest.mark.slow
def test_labels_distances_and_probabilities_are_those_under_the_map(model, digits):
    rows, _ = digits
    distances = distances_float64(under_map(model, rows), model.cluster_centers)
    np.testing.assert_array_equal(dinkcli.assign(model, rows), distances.argmin(1))
    one = np.concatenate([dinkcli.assign(model, rows[i : i + 7]) for i in range(0, 700, 7)])
    np.testing.assert_array_equal(one, distances.argmin(1)[:700])
    weights = np.exp(-(distances**2 - distances.min(1, keepdims=True) ** 2) / model.temperature)
    expected = weights / weights.sum(1, keepdims=True)
    np.testing.assert_allclose(dinkcli.assign(model, rows, soft=True), expected, atol=1e-4)


def test_the_final_centres_are_means_under_the_map(model, digits):
    rows, _ = digits
    labels, z = dinkcli.assign(model, rows), under_map(model, rows)
    means = np.stack([z[labels == j].mean(0) for j in range(10)])
    np.testing.assert_allclose(model.cluster_centers, means, atol=0.05)
    raw = np.stack([rows[labels == j].mean(0) for j in range(10)])
    np.testing.assert_allclose(model.means, raw, atol=0.05)


def test_the_file_holds_it_all(model, digits, tmp_path):
    model.save(tmp_path / "m.safetensors")
    again = dinkcli.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(again.map, model.map)
    np.testing.assert_array_equal(again.origin, model.origin)
    assert again.fingerprint == model.fingerprint
    np.testing.assert_array_equal(
        dinkcli.assign(again, digits[0]), dinkcli.assign(model, digits[0])
    )


@pytest.mark.parametrize("memory", [None, 100_000])
@pytest.mark.slow
def test_rows_read_anew_and_narrow_rows(digits, tmp_path, memory):
    rows, labels = digits
    np.save(tmp_path / "x.npy", rows.astype(np.float16))
    found = dinkcli.train(tmp_path / "x.npy", 10, metric="learned", device="cpu", memory=memory)
    agreement = normalized_mutual_info_score(labels, dinkcli.assign(found, rows))
    assert agreement > 0.78


@pytest.mark.slow
def test_weights_count_like_copies(digits):
    rows = digits[0][:600]
    double = np.concatenate([rows, rows[:300]])
    once = dinkcli.train(double, 8, metric="learned", device="cpu", n_init=1)
    weighted = dinkcli.train(
        rows, 8, metric="learned", device="cpu", n_init=1, sample_weight=np.repeat([2.0, 1.0], 300)
    )
    # Not the same neighbours, so not the same map; much the same clusters.
    ours, theirs = dinkcli.assign(once, rows), dinkcli.assign(weighted, rows)
    assert normalized_mutual_info_score(ours, theirs) > 0.75


def test_only_annealed():
    from dinkcli.errors import UsageError

    with pytest.raises(UsageError, match="`metric` learned: goes with `temperature` auto"):
        dinkcli.train(np.eye(9, dtype=np.float32), 2, metric="learned", temperature=1.0)


@pytest.mark.slow
def test_every_command_takes_such_a_model(invoke, digits, tmp_path):
    np.save(tmp_path / "x.npy", digits[0])
    np.save(tmp_path / "y.npy", digits[1])
    invoke("train", "x.npy", "-k", 10, "--metric", "learned", "-o", "m.safetensors", "-q")
    labels = dinkcli.assign(dinkcli.load(tmp_path / "m.safetensors"), digits[0])
    invoke("assign", "m.safetensors", "x.npy", "--distance", "--top", 2, "-o", "a.parquet", "-q")
    invoke("inspect", "m.safetensors", "x.npy", "-q")
    found = json.loads(
        invoke("evaluate", "m.safetensors", "x.npy", "--labels", "y.npy", "--json").stdout
    )
    assert found["agreement"]["normalized_mutual_information"] > 0.78
    invoke(
        "train", "x.npy", "-k", 10, "--metric", "learned", "--seed", 3, "-o", "n.safetensors", "-q"
    )
    invoke("assign", "n.safetensors", "x.npy", "--match", "m.safetensors", "-o", "b.npy", "-q")
    assert (np.load(tmp_path / "b.npy") == labels).mean() > 0.8
    invoke("export", "m.safetensors", "-o", "head.safetensors")
    result = invoke("sweep", "x.npy", "-k", "5,10", "--metric", "learned")
    assert "K = 10: " in result.stdout
    result = invoke("export", "m.safetensors", "-o", "c.npy", code=2)
    assert "go with its map" in result.stderr


@pytest.mark.parametrize("name", ["m.onnx", "m.faiss", "m.skops", "m.pt2"])
def test_exports_compute_its_labels(model, digits, tmp_path, name):
    from dinkcli.models.export import SUFFIXES, export

    path, rows = str(tmp_path / name), digits[0]
    export(model, path, SUFFIXES[name.partition(".")[2]])
    if name == "m.onnx":
        import onnxruntime

        found = onnxruntime.InferenceSession(path).run(["cluster"], {"rows": rows})[0]
    elif name == "m.faiss":
        import faiss

        found = faiss.read_index(path).search(rows, 1)[1][:, 0]
    elif name == "m.skops":
        import skops.io

        found = skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path)).predict(rows)
    else:
        found = torch.export.load(path).module()(torch.from_numpy(rows))[0].numpy()
    assert (found != dinkcli.assign(model, rows)).mean() < 0.001


@pytest.mark.slow
def test_the_estimator(digits):
    from dinkcli import DinkClustering

    found = DinkClustering(10, metric="learned", random_state=0, device="cpu").fit(digits[0])
    assert (found.predict(digits[0]) == found.labels_).all()
    assert normalized_mutual_info_score(digits[1], found.labels_) > 0.78
