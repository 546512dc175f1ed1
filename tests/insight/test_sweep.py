"""Choosing K on data whose number of clusters is known, and on noise that has none."""

import numpy as np
import pytest
import torch

import dinkcli
from dinkcli.data.inputs import open_data
from dinkcli.errors import InputError, UsageError
from dinkcli.insight.recommend import Candidate, parse_numbers, recommend, score
from dinkcli.insight.sweeper import sweep
from dinkcli.training.neighbours import nearest_others, neighbour_graph
from dinkcli.training.rows import RowSource

pytestmark = pytest.mark.usefixtures("one_thread")


def clusters(k, features, rows, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(k, features)) * 4
    labels = rng.integers(0, k, rows)
    return (centers[labels] + rng.normal(size=(rows, features))).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("k", "features", "rows"),
    [(3, 8, 600), (10, 16, 2000), (50, 32, 6000)],
)
def test_the_true_number_is_recommended(k, features, rows, seed):
    found = dinkcli.sweep(clusters(k, features, rows, seed), "2:100", seed=seed, device="cpu")
    assert found.n_clusters == k, found.reason


@pytest.mark.slow
def test_a_range_grows_to_where_the_best_lies():
    found = [dinkcli.sweep(clusters(120, 32, 6000), r, device="cpu") for r in ("2:40", "50:300")]
    for each in found:
        assert each.n_clusters == pytest.approx(120, abs=2)
    assert max(c.n_clusters for c in found[0].candidates) > 200


@pytest.mark.slow
@pytest.mark.parametrize("features", [2, 10])
@pytest.mark.parametrize("seed", range(3))
def test_noise_has_no_structure(features, seed):
    rng = np.random.default_rng(seed)
    for noise in (rng.random((3000, features)), rng.normal(size=(3000, features))):
        found = dinkcli.sweep(noise.astype(np.float32), "2:60", seed=seed, device="cpu")
        assert found.n_clusters is None and not found.structure
        assert found.answer.startswith("no structure: rows are no nearer to clusters than noise")


def test_digits_have_about_ten_with_others_alike(digits):
    found = dinkcli.sweep(digits[0], "2:40", metric="learned", device="cpu")
    assert 10 / 1.5 <= found.workable <= 15
    low, high = found.alike
    assert low < found.workable < high
    assert f"K = {found.workable}; {low} to {high} look alike: here two halves" in found.answer


def test_figures_of_a_candidate_are_true():
    z = clusters(5, 6, 500)
    found = dinkcli.sweep(z, [2, 5, 20], device="cpu")
    by_number = {c.n_clusters: c for c in found.candidates}
    assert list(by_number) == [2, 5, 20]
    from sklearn.cluster import KMeans

    peer = KMeans(5, n_init=10, random_state=0).fit(z)
    assert by_number[5].inertia == pytest.approx(peer.inertia_, rel=1e-3)
    distances = np.sort(peer.transform(z), axis=1)
    silhouette = (1 - distances[:, 0] / distances[:, 1]).mean()
    assert by_number[5].silhouette == pytest.approx(silhouette, abs=0.02)
    assert by_number[5].stability > 0.95
    assert by_number[20].stability < 0.7
    assert by_number[2].inertia > by_number[5].inertia > by_number[20].inertia
    # Well separated clusters: the modularity of the graph is that of the true partition.
    graph = neighbour_graph(nearest_others(torch.from_numpy(z), 8)).toarray()
    same = peer.labels_[:, None] == peer.labels_
    degrees = graph.sum(1)
    by_chance = np.outer(degrees, degrees) / degrees.sum()
    expected = ((graph - by_chance) * same).sum() / degrees.sum()
    assert by_number[5].modularity == pytest.approx(expected, abs=0.01)


def test_rows_that_are_not_in_memory_give_the_same_answer():
    data = open_data(clusters(6, 8, 2000))
    found = [
        sweep(RowSource(data, "euclidean", torch.device("cpu"), memory=memory), [3, 6, 12])
        for memory in (None, 0)
    ]
    assert found[0].n_clusters == found[1].n_clusters == 6
    for here, there in zip(*(each.candidates for each in found), strict=True):
        assert here.inertia == pytest.approx(there.inertia, rel=0.02)


def test_weights_count():
    """Rows of weight 0 are not there."""
    z, more = clusters(4, 8, 800), clusters(30, 8, 400, seed=5) + 50
    weights = np.r_[np.ones(800), np.full(400, 1e-6)].astype(np.float32)
    found = dinkcli.sweep(np.r_[z, more], [4, 8, 16], sample_weight=weights, device="cpu")
    alone = dinkcli.sweep(z, [4, 8, 16], device="cpu")
    assert alone.n_clusters == 4
    assert found.candidates[0].inertia == pytest.approx(alone.candidates[0].inertia, rel=0.05)


def test_cosine_sees_directions():
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(8, 16))
    labels = rng.integers(0, 8, 1500)
    z = directions[labels] + rng.normal(size=(1500, 16)) * 0.2
    z *= rng.uniform(0.1, 10, (1500, 1))
    found = dinkcli.sweep(z.astype(np.float32), "2:40", metric="cosine", device="cpu")
    assert found.n_clusters == 8


@pytest.mark.slow
def test_train_chooses_by_itself_or_says_that_it_cannot():
    model = dinkcli.train(clusters(10, 16, 1000), "auto", device="cpu")
    assert model.n_clusters == model.training["options"]["n_clusters"] == 10
    noise = np.random.default_rng(0).random((1000, 4)).astype(np.float32)
    with pytest.raises(InputError, match=r"no clear K: no structure: .*; give a number"):
        dinkcli.train(noise, "clear", device="cpu")
    with pytest.warns(UserWarning, match=r"no structure: .* is as good as any") as said:
        model = dinkcli.train(noise, "auto", device="cpu")
    assert f"K = {model.n_clusters} " in str(said[0].message)
    chosen = []
    model = dinkcli.train(clusters(10, 16, 1000), "4:20", on_chosen=chosen.append, device="cpu")
    assert model.n_clusters == chosen[0].n_clusters == 10
    with pytest.raises(UsageError, match="`n_clusters` auto: 4 rows are too few"):
        dinkcli.train(noise[:4], "auto", device="cpu")
    with pytest.raises(UsageError, match="cannot start from given centres"):
        dinkcli.train(noise, "auto", init=noise[:3], device="cpu")


def test_numbers():
    assert parse_numbers("5,10,20") == ([5, 10, 20], False)
    assert parse_numbers("4:12:4") == ([4, 8, 12], False)
    assert parse_numbers("20,3:5:1,4") == ([3, 4, 5, 20], False)
    numbers, between = parse_numbers("5:100")
    assert (numbers[0], numbers[-1], len(numbers), between) == (5, 100, 14, True)
    for wrong in ("", "1", "5:", "a", "9:3", "1:9", "3:9:0", "3:9:1:1", "-2"):
        with pytest.raises(UsageError, match="expected numbers of at least 2"):
            parse_numbers(wrong)
    # No more numbers than the rows can carry.
    assert parse_numbers("2:100", 20) == ([2, 3, 4, 5, 6, 8, 10], True)
    assert parse_numbers("4:100:4", 30) == ([4, 8, 12], False)
    assert parse_numbers("5,8,50", 20) == ([5, 8], False)
    with pytest.raises(UsageError, match="at least 2 rows for each cluster, and there are 10"):
        dinkcli.sweep(np.zeros((10, 2), np.float32), "6:9", device="cpu")


def candidate(k, excess, stability, modularity=0.5):
    return Candidate(k, 1.0, 0.1 + excess, 0.1, stability, modularity)


def test_where_no_number_is_clear_one_is_workable():
    """The best product of the root of what lies above noise, what is found again, and the square
    of what neighbours share."""
    found = recommend([candidate(5, 0.2, 0.5), candidate(10, 0.19, 0.7), candidate(40, 0.21, 0.4)])
    assert (found.n_clusters, found.workable, found.structure) == (None, 10, True)
    shared = [candidate(5, 0.2, 0.5, 0.6), candidate(10, 0.19, 0.7, 0.5), candidate(40, 0.21, 0.4)]
    assert recommend(shared).workable == 5
    found = recommend([candidate(5, 0.1, 0.5), candidate(10, 0.2, 0.5)])
    assert (found.n_clusters, found.workable) == (None, 10)
    assert found.reason.endswith("it is the largest that was tried, so look higher")
    found = recommend([candidate(5, 0.2, 0.5), candidate(10, 0.1, 0.5)])
    assert found.reason.endswith("it is the smallest that was tried, so look lower")
    clear = recommend([candidate(5, 0.4, 0.9), candidate(10, 0.1, 0.5), candidate(20, 0.1, 0.5)])
    assert clear.n_clusters == clear.workable == 5


def test_scores_are_averaged_within_an_octave():
    found = score([candidate(4, 0.16, 0.5), candidate(8, 0.16, 0.9), candidate(11, 0.16, 0.9)])
    alone = 0.4 * np.array([0.5, 0.9, 0.9]) * 0.25
    np.testing.assert_allclose(found, alone, rtol=1e-9)  # an octave away is too far
    found = score([candidate(8, 0.16, 0.9), candidate(11, 0.16, 0.5)])
    near = 1 - np.log2(11 / 8)
    logs = (np.log(0.9) + near * np.log(0.5)) / (1 + near)
    assert found[0] == pytest.approx(0.4 * np.exp(logs) * 0.25)


def test_what_looks_alike_and_other_levels():
    values = {4: 0.5, 8: 0.9, 16: 0.5, 32: 0.96, 64: 1.0, 128: 0.93, 256: 0.5}
    found = recommend([candidate(k, 0.2, 0.5, 0.8 * v**0.5) for k, v in values.items()])
    assert (found.workable, found.alike, found.levels) == (64, (32, 128), [8])
