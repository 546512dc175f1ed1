"""The tree above the clusters against scipy's Ward linkage."""

import json
import re

import numpy as np
import pytest
from conftest import SAMPLES
from scipy.cluster.hierarchy import linkage

import dinkcli
from dinkcli.models.tree import drawn, ward


def test_equal_weights_give_the_tree_of_scipy():
    centers = np.random.default_rng(0).normal(size=(30, 5))
    found = ward(centers, np.ones(30))
    expected = linkage(centers, "ward")
    assert [merge[:2] for merge in found] == [tuple(sorted(map(int, row[:2]))) for row in expected]
    assert [2 * rise for *_, rise in found] == pytest.approx(list(expected[:, 2] ** 2))


def test_weights_are_rows():
    """A centre of weight w merges as w rows at its place do."""
    rng = np.random.default_rng(1)
    centers, weights = rng.normal(size=(12, 4)), rng.integers(1, 9, 12)
    rises = [rise for *_, rise in ward(centers, weights)]
    repeated = linkage(np.repeat(centers, weights, axis=0), "ward")
    assert rises == pytest.approx(list(repeated[-11:, 2] ** 2 / 2))


def test_every_cluster_is_in_the_drawing():
    merges = ward(np.array([[0.0], [9.0], [1.0]]), np.ones(3))
    assert drawn(merges, ["a", "b", "c"]) == ["┐", "├─b", "└─┐", "  ├─a", "  └─c"]


def test_inspect_shows_the_tree(invoke, tmp_path):
    model = dinkcli.train(np.load(SAMPLES / "digits.npy"), 10, seed=0)
    model.save(tmp_path / "m.safetensors")
    found = json.loads(invoke("inspect", "m.safetensors", "--tree", "--json").stdout)["tree"]
    assert found == [list(m) for m in ward(model.cluster_centers, model.cluster_sizes)]
    shown = invoke("inspect", "m.safetensors", "--tree").stdout.partition("tree of the")[2]
    assert sorted(map(int, re.findall(r"─(\d)\b", shown))) == list(range(10))


def test_the_order_of_members_keeps_pairs_together():
    from dinkcli.models.tree import members

    centers = np.array([[0.0], [10], [1], [11], [100]])
    merges = ward(centers, np.ones(5))
    order = members(merges)[-1]
    assert sorted(order) == [*range(5)]
    assert abs(order.index(0) - order.index(2)) == abs(order.index(1) - order.index(3)) == 1
