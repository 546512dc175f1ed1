"""``dink inspect --cluster`` against loops in float64."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import distances_float64, nearest_float64
from scipy.cluster.hierarchy import fcluster, linkage

import dinkcli
from dinkcli.insight import inspect
from dinkcli.insight.inspect import groups_within

N, K = 300, 4
rng = np.random.default_rng(3)
TRUE = rng.integers(0, K, N)
ROWS = (np.eye(K, 6)[TRUE] * 8 + rng.normal(size=(N, 6))).astype(np.float32)
ROWS[50:56] = ROWS[50] + rng.normal(size=(6, 6)).astype(np.float32) * 0.01
TEXTS = [f"{['ant', 'bee', 'cat', 'dog'][j]} {i}" for i, j in enumerate(TRUE)]


@pytest.fixture
def here(tmp_path, monkeypatch, one_thread):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", ROWS)
    pd.DataFrame({"t": TEXTS}).to_csv("t.csv", index=False)
    dinkcli.train(ROWS, K, device="cpu", seed=0).save("m")
    return dinkcli.load("m")


def grouped(rows, near):
    """Groups of single linkage, by scipy."""
    labels = fcluster(linkage(rows.astype(np.float64), "single"), near, "distance")
    groups = [np.flatnonzero(labels == label).tolist() for label in set(labels)]
    return sorted((g for g in groups if len(g) > 1), key=lambda g: (-len(g), g[0]))


def test_a_cluster_is_what_float64_says(invoke, here):
    j = int(nearest_float64(ROWS[50:51], here.cluster_centers)[0])
    line = ("inspect", "m", "x.npy", "--texts", "t.csv", "--cluster", j, "--exemplars", 7)
    found = json.loads(invoke(*line, "--json").stdout)
    labels = nearest_float64(ROWS, here.cluster_centers)
    distances = distances_float64(ROWS, here.cluster_centers)
    members = np.flatnonzero(labels == j)
    assert (found["cluster"], found["size"]) == (j, len(members))
    assert found["share"] == pytest.approx(len(members) / N)
    order = members[np.argsort(distances[members, j], kind="stable")]
    assert [row["row"] for row in found["nearest"]] == order[:7].tolist()
    assert [row["row"] for row in found["farthest"]] == order[::-1][:7].tolist()
    for row in found["nearest"] + found["farthest"]:
        assert row["t"] == TEXTS[row["row"]]
        assert row["distance"] == pytest.approx(distances[row["row"], j], rel=1e-5)
    assert found["spread"] == pytest.approx(np.sqrt((distances[members, j] ** 2).mean()), rel=1e-5)
    apart = distances_float64(here.cluster_centers, here.cluster_centers)[j]
    assert [(n["cluster"], n["size"]) for n in found["neighbours"]] == [
        (i, (labels == i).sum()) for i in np.argsort(apart, kind="stable")[1:]
    ]
    assert [n["distance"] for n in found["neighbours"]] == pytest.approx(sorted(apart)[1:])
    animal = TEXTS[50].split()[0]
    assert found["terms"][0] == animal
    same = found["near_duplicates"]
    usual = (distances[np.arange(N), labels] ** 2).mean()
    assert same["distance"] == pytest.approx(np.sqrt(0.2 * usual), rel=1e-5)
    assert same["compared"] == len(members)
    expected = [members[g].tolist() for g in grouped(ROWS[members], same["distance"])]
    assert [[row["row"] for row in group] for group in same["groups"]] == expected
    assert set(range(50, 56)) <= set(expected[0])
    shown = invoke(*line).stdout
    for words in ("nearest rows", "farthest rows", f"{animal} {order[0]}", "near-duplicates"):
        assert words in shown


def test_without_rows_it_is_what_the_model_knows_and_names_will_do(invoke, here):
    here.names = ["Ants", "Bees and ants", "Cats", ""]
    here.terms = [["ant"], ["bee"], ["cat"], []]
    here.save("named.safetensors")

    def found(which):
        line = ("inspect", "named.safetensors", "--cluster", which)
        return json.loads(invoke(*line, "--json").stdout)

    assert found("ants")["cluster"] == 0  # the whole name comes before a part of one
    assert found("BEES")["cluster"] == 1 and found("3")["name"] == ""
    assert found("2")["size"] == here.cluster_sizes[2] and found("2")["terms"] == ["cat"]
    assert found("2")["neighbours"][0]["name"] in here.names and "nearest" not in found("2")
    assert "cluster 2: Cats" in invoke("inspect", "named.safetensors", "--cluster", 2).stdout
    for which, message in (
        ("4", "--cluster 4: the model has the clusters 0 to 3"),
        ("zebra", "--cluster zebra: no cluster has that in its name"),
        ("s", "may be 0 (Ants), 1 (Bees and ants), 2 (Cats); give the number"),
    ):
        error = invoke("inspect", "named.safetensors", "--cluster", which, code=2).stderr
        assert message in error and error.count("\n") == 1
    assert "have no names" in invoke("inspect", "m", "--cluster", "Ants", code=2).stderr
    tree = invoke("inspect", "m", "--cluster", 1, "--tree", code=2)
    assert "give one of them" in tree.stderr


def test_rows_are_those_of_their_cluster_where_others_are_gone(invoke, here):
    edited = dinkcli.drop(dinkcli.merge(here, [0, 1]), 2)
    edited.save("edited")
    labels = edited.center_clusters[nearest_float64(ROWS, edited.centers)]
    clusters = json.loads(invoke("inspect", "edited", "x.npy", "--json").stdout)["clusters"]
    assert [cluster["cluster"] for cluster in clusters] == [0, 3]
    for cluster in clusters:
        rows = [row["row"] for row in cluster["exemplars"]]
        assert len(rows) == 5 and (labels[rows] == cluster["cluster"]).all()
    table = invoke("inspect", "edited").stdout
    assert "edited: 2 clusters" in table
    listed = table.partition("clusters by size")[2].partition("spread:")[0].splitlines()
    assert {line.split()[0] for line in listed if line.strip()[:1].isdigit()} == {"0", "3"}


def test_a_large_cluster_is_compared_in_part(invoke, here, monkeypatch):
    monkeypatch.setattr(inspect, "_MOST_COMPARED", 40)
    monkeypatch.setattr(inspect, "_COMPARED_AT_ONCE", 7)
    line = ("inspect", "m", "x.npy", "--cluster", 0, "--json")
    found = json.loads(invoke(*line).stdout)["near_duplicates"]
    members = np.flatnonzero(nearest_float64(ROWS, here.cluster_centers) == 0)[:40]
    assert found["compared"] == 40
    expected = [members[g].tolist() for g in grouped(ROWS[members], found["distance"])]
    assert [[row["row"] for row in group] for group in found["groups"]] == expected
    assert groups_within(np.zeros((20, 3), np.float32), 0.0) == [list(range(20))]
