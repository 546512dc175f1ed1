"""Ids of an old model for a new one: the optimal assignment, by brute force, and its drift."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import distances_float64, nearest_float64

import dinkcli
from dinkcli.errors import ModelError
from dinkcli.models.edit import merge, rename
from dinkcli.models.matching import match


def model(centers, metric="euclidean"):
    centers = np.asarray(centers, np.float32)
    return dinkcli.Model(centers, np.arange(len(centers), dtype=float), metric=metric)


@pytest.mark.parametrize(("n_old", "n_new"), [(6, 6), (4, 6), (6, 4)])
def test_the_assignment_is_optimal(n_old, n_new):
    rng = np.random.default_rng(n_old * n_new)
    for _ in range(5):
        old, new = rng.normal(size=(n_old, 3)), rng.normal(size=(n_new, 3))
        found = match(model(old), model(new))
        cost = distances_float64(np.float32(new), np.float32(old))
        few = min(n_old, n_new)
        best = min(
            sum(cost[i, j] for i, j in zip(rows, columns, strict=True))
            for rows in itertools.combinations(range(n_new), few)
            for columns in itertools.permutations(range(n_old), few)
        )
        pairs = [(i, j) for i, j in enumerate(found.ids) if j < n_old]
        assert len(pairs) == few
        assert sum(cost[i, j] for i, j in pairs) == pytest.approx(best)
        assert found.n_ids == max(n_old, n_new)
        assert len(set(found.ids)) == n_new
        assert sorted(found.ids)[few:] == list(range(n_old, n_new))


def test_far_from_the_origin_nothing_is_lost():
    rng = np.random.default_rng(0)
    old = (rng.normal(size=(50, 8)) + 1000).astype(np.float32)
    order = rng.permutation(50)
    found = match(model(old), model(old[order]))
    np.testing.assert_array_equal(found.ids, order)
    assert max(drift.moved for drift in found.drift) < 1e-3
    assert found.counts() == {"kept": 50, "split": 0, "vanished": 0, "new": 0}


def test_drift_names_what_moved_split_and_vanished():
    old = [[0, 0], [10, 0], [20, 0], [21, 5]]
    # 0 moved by 1; 1 split into two; 2 stayed; 3 is gone, and a part of 1 takes its id or the fifth
    new = [[20, 0], [9, 0], [11, 0], [0, 1]]
    found = match(model(old), model(new))
    assert found.ids.tolist()[0] == 2
    assert found.ids.tolist()[3] == 0
    fates = {drift.id: drift for drift in found.drift}
    assert [fates[i].fate for i in range(4)] == ["kept", "split", "kept", "vanished"]
    assert fates[0].moved == pytest.approx(1)
    assert fates[0].relative == pytest.approx(0.1)
    assert fates[1].parts == (1, 3)
    assert fates[3].parts == ()
    more = match(model(old), model([*new, [50, 50]]))
    assert more.counts()["new"] == 1
    assert more.drift[4].fate == "new" or more.drift[3].moved > 40


@pytest.fixture
def retrained(tmp_path, blobs):
    z, _ = blobs
    np.save(tmp_path / "x.npy", z)
    rng = np.random.default_rng(1)
    old = dinkcli.train(z, 6, device="cpu")
    order = rng.permutation(6)
    new = model(old.cluster_centers[order] + rng.normal(scale=1e-3, size=(6, 5)))
    old.save(tmp_path / "old.safetensors")
    new.save(tmp_path / "new.safetensors")
    return old, new, z


def test_assign_gives_the_old_ids(invoke, retrained, tmp_path):
    old, _, z = retrained
    truth = nearest_float64(z, old.cluster_centers)
    arguments = ["assign", "new.safetensors", "x.npy", "--match", "old.safetensors"]
    result = invoke(*arguments, "-o", "y.npy")
    labels = np.load(tmp_path / "y.npy")
    assert (labels == truth).mean() > 0.99  # the centres were moved a little
    assert "ids of old.safetensors: 6 kept, 0 split, 0 vanished, 0 new; moved" in result.stderr
    invoke(*arguments, "--soft", "-o", "soft.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "soft.npy").argmax(1), labels)
    invoke(*arguments, "--top", 2, "-o", "top.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "top.npy")["clusters"][:, 0], labels)
    summary = json.loads(invoke(*arguments, "-o", "y.npy", "--json").stdout)
    assert summary["match"]["fingerprint"] == old.fingerprint
    assert len(summary["match"]["drift"]) == 6


def test_assign_with_fewer_clusters_keeps_the_ids_and_leaves_gaps(invoke, retrained, tmp_path):
    old, _, z = retrained
    fewer = model(old.cluster_centers[[5, 2, 4]])
    fewer.save(tmp_path / "few.safetensors")
    arguments = ["assign", "few.safetensors", "x.npy", "--match", "old.safetensors"]
    result = invoke(*arguments, "--soft", "-o", "y.npy")
    probabilities = np.load(tmp_path / "y.npy")
    assert probabilities.shape == (300, 6)
    assert not probabilities[:, [0, 1, 3]].any()
    expected = np.array([5, 2, 4])[nearest_float64(z, fewer.cluster_centers)]
    np.testing.assert_array_equal(probabilities.argmax(1), expected)
    assert "3 vanished, 0 new" in result.stderr


@pytest.mark.slow
def test_train_stores_the_old_ids(invoke, retrained, tmp_path):
    old, _, z = retrained
    arguments = ["train", "x.npy", "--match", "old.safetensors", "--seed", 7, "-o", "n.safetensors"]
    invoke("train", "x.npy", "-k", 6, "--seed", 7, "-o", "plain.safetensors", "-q")
    result = invoke(*arguments, "-k", 6)
    assert "ids of old.safetensors: " in result.stderr
    plain, matched = (dinkcli.load(tmp_path / f"{name}.safetensors") for name in ("plain", "n"))
    ids = match(old, plain).ids
    np.testing.assert_array_equal(matched.cluster_centers[ids], plain.cluster_centers)
    np.testing.assert_array_equal(matched.cluster_sizes[ids], plain.cluster_sizes)
    labels = nearest_float64(z, matched.cluster_centers)
    np.testing.assert_array_equal(np.bincount(labels, minlength=6), matched.cluster_sizes)
    assert matched.training["match"]["fingerprint"] == old.fingerprint
    summary = json.loads(invoke(*arguments, "-k", 8, "--json").stdout)
    assert summary["match"]["new"] == 2
    result = invoke(*arguments, "-k", 5, code=2)
    assert "the old model has 6 clusters, the new one 5" in result.stderr


def test_models_that_cannot_be_matched(invoke, retrained, tmp_path):
    model(np.eye(4)).save(tmp_path / "four.safetensors")
    with pytest.raises(ModelError, match="cosine, of the new one euclidean"):
        match(model(np.eye(5), "cosine"), model(np.eye(5)))
    for command in (
        ["assign", "new.safetensors", "x.npy", "-o", "y.npy"],
        ["train", "x.npy", "-k", 6, "-o", "y.safetensors"],
    ):
        result = invoke(*command, "--match", "four.safetensors", code=1)
        assert "--match: features of the old model 4, of the new one 5" in result.stderr
    result = invoke("train", "x.npy", "-k", 6, "--match", "no.safetensors", code=2)
    assert "no.safetensors: no such model file" in result.stderr


def test_names_by_hand_stay_and_numbers_of_merged_clusters_are_not_used_again():
    rng = np.random.default_rng(0)
    z = (np.repeat(np.eye(5, 6) * 9, 20, axis=0) + rng.normal(size=(100, 6))).astype(np.float32)
    old = rename(dinkcli.train(z, 5, device="cpu", seed=0), 4, "mine")
    new = replace(dinkcli.train(z, 5, device="cpu", seed=1), names=list("vwxyz"))
    plain = match(old, new)
    again = plain.renumber(new)
    assert again.names[4] == "mine" and again.named_by_hand == [4]
    edited = match(merge(old, [0, 2]), new)
    assert 2 not in edited.ids and sorted(edited.ids.tolist()) == [0, 1, 3, 4, 5]
    assert (edited.n_ids, edited.drift[2].fate, edited.drift[5].fate) == (6, "vanished", "new")


@pytest.mark.parametrize(("before", "after"), [("euclidean", "cosine"), ("cosine", "learned")])
def test_models_of_different_metrics_match_by_their_rows(invoke, tmp_path, before, after):
    rng = np.random.default_rng(3)
    truth = rng.permutation(np.repeat(np.arange(8), 150))
    z = np.float32(np.eye(8, 12)[truth] * 9 + rng.normal(size=(1200, 12)))
    np.save(tmp_path / "x.npy", z)
    np.save(tmp_path / "zero.npy", np.vstack([z[:5] * 0, z]))
    train = ["train", "x.npy", "-k", 8, "-q"]
    invoke(*train, "--metric", before, "-o", "old.safetensors")
    new = ["--metric", after, "--seed", 5]
    invoke(*train, *new, "-o", "plain.safetensors")
    invoke(*train, *new, "--match", "old.safetensors", "-o", "new.safetensors")
    matched = ["plain.safetensors", "--match", "old.safetensors"]
    runs = {"old": ["old.safetensors"], "new": ["new.safetensors"], "plain": matched}
    for name, run in runs.items():
        invoke("assign", *run, "x.npy", "-q", "-o", f"{name}.npy")
    labels = {name: np.load(tmp_path / f"{name}.npy") for name in runs}
    for name in ("new", "plain"):
        assert (labels[name] == labels["old"]).mean() > 0.9
    line = ["assign", *matched, "-q", "--bad-rows", "label", "-o", "z.npy"]
    invoke(*line, "zero.npy")
    assert (np.load(tmp_path / "z.npy")[5:] == labels["old"]).mean() > 0.9


def test_fates_by_shared_rows():
    old, new = model(np.eye(5)[:4], "cosine"), model(np.eye(5))
    shared = [[0, 0, 90, 0], [0, 50, 0, 0], [0, 40, 0, 0], [80, 0, 0, 0], [0, 0, 0, 0]]
    found = match(old, new, np.array(shared))
    assert found.ids.tolist()[:2] == [2, 1] and found.ids[3] == 0
    fates = [drift.fate for drift in found.drift]
    assert fates == ["kept", "split", "kept", "vanished", "new"]
    assert found.drift[1].parts == (1, int(found.ids[2]))
    assert all(drift.moved is None for drift in found.drift)
