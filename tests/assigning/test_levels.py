"""``dink assign --levels`` against scipy's Ward linkage of rows, read back by other readers."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import nearest_float64
from scipy.cluster.hierarchy import fcluster, linkage

import dinkcli
from dinkcli.models.matching import match
from dinkcli.models.tree import parents, ward

K, N = 12, 400
rng = np.random.default_rng(5)
CENTERS = rng.normal(size=(K, 4)).astype(np.float32)
WEIGHTS = rng.integers(1, 9, K)
ROWS = (CENTERS[rng.integers(0, K, N)] + 0.1 * rng.normal(size=(N, 4))).astype(np.float32)
LABELS = nearest_float64(ROWS, CENTERS)


def groups_of_scipy(level):
    """(K,) the lowest cluster of the group of each, where each centre is as many rows as it has."""
    repeated = np.repeat(np.arange(K), WEIGHTS)
    cut = fcluster(linkage(CENTERS[repeated].astype(np.float64), "ward"), level, "maxclust")
    of = {int(j): int(g) for j, g in zip(repeated, cut, strict=True)}
    assert len(set(of.values())) == level
    return np.array([min(i for i in range(K) if of[i] == of[j]) for j in range(K)])


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", ROWS)
    pd.DataFrame({"e": list(ROWS), "level_3": range(N)}).to_parquet("x.parquet")
    model = dinkcli.Model(CENTERS, WEIGHTS.astype(np.float64))
    model.save("m.safetensors")
    return model


def test_groups_are_those_of_scipy_and_nested():
    tree = ward(CENTERS, WEIGHTS)
    for level in range(1, K + 1):
        found = parents(tree, level)
        np.testing.assert_array_equal(found, groups_of_scipy(level))
        below = parents(tree, min(K, level + 1))
        assert all(len(set(found[below == group])) == 1 for group in below)
        assert set(found) <= set(below)
    ids = rng.permutation(K) + 5
    lowest = [ids[parents(tree, 4) == group].min() for group in parents(tree, 4)]
    assert parents(tree, 4, ids).tolist() == lowest


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "arrow", "npy"])
def test_every_format_has_the_levels(invoke, here, suffix):
    line = ("assign", "m.safetensors", "x.npy", "--levels", "7,3", "--max-distance", 0.2)
    summary = json.loads(invoke(*line, "-o", f"o.{suffix}", "--json").stdout)
    if suffix == "npy":
        table = {name: np.load("o.npy")[name] for name in ("cluster", "level_7", "level_3")}
    else:
        read = {"csv": pd.read_csv, "parquet": pd.read_parquet, "arrow": pd.read_feather}
        read["jsonl"] = lambda path: pd.read_json(path, lines=True)
        table = read[suffix](f"o.{suffix}")
        assert list(table.columns) == ["row", "cluster", "level_7", "level_3"]
    cluster = np.asarray(table["cluster"])
    inside = cluster >= 0
    assert 50 < inside.sum() < N
    np.testing.assert_array_equal(cluster[inside], LABELS[inside])
    for level in (7, 3):
        expected = np.where(inside, groups_of_scipy(level)[LABELS], -1)
        np.testing.assert_array_equal(table[f"level_{level}"], expected)
        counts = pd.Series(expected[inside]).value_counts()
        said = summary["levels"][f"level_{level}"]
        assert {int(g): n for g, n in said.items() if n} == counts.to_dict()


def test_parts_shares_and_resumed_runs_have_them(invoke, here, tmp_path):
    line = ("assign", "m.safetensors", "x.npy", "-o", "parts", "--rows-per-file", 70, "-q")
    invoke(*line, "--levels", 4, "--shard", "2/2")
    invoke(*line, "--levels", 4, "--shard", "1/2")
    (
        tmp_path / "parts" / sorted(p.name for p in (tmp_path / "parts").glob("*.parquet"))[2]
    ).unlink()
    invoke(*line, "--levels", 4, "--resume")
    np.testing.assert_array_equal(pq.read_table("parts")["level_4"], groups_of_scipy(4)[LABELS])
    refused = invoke(*line, "--levels", 5, "--resume", code=2).stderr
    assert "parts" in refused and refused.count("\n") == 1


def test_numbers_stay_under_match(invoke, here):
    """A model with the same clusters, moved a little and in another order, and three new ones."""
    order = rng.permutation(K)
    far = np.full((3, 4), 60.0) + np.arange(3)[:, None] / 100
    centers = np.concatenate([CENTERS[order] + 0.01, far]).astype(np.float32)
    new = dinkcli.Model(centers, np.append(WEIGHTS[order], [5.0, 5.0, 5.0]))
    new.save("new.safetensors")
    line = ("x.npy", "-q", "--levels")
    # The new clusters are a group of their own.
    old = invoke("assign", "m.safetensors", *line, "4").stdout.replace("level_4", "level_5")
    matched = ("--match", "m.safetensors")
    assert invoke("assign", "new.safetensors", *line, "5", *matched).stdout == old
    # A model that took the ids when it was trained says the same as one matched afterwards.
    match(here, new).renumber(new).save("kept.safetensors")
    assert invoke("assign", "kept.safetensors", *line, "5").stdout == old


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ("13", "--levels 13: expected 1 to 12 groups of the 12 clusters"),
        ("0", "--levels 0: expected 1 to 12 groups"),
        ("5,x", "--levels 5,x: expected numbers such as 10,100"),
        ("5,5", "--levels 5,5: one of them is given twice"),
    ],
)
def test_wrong_levels_are_refused(invoke, here, levels, message):
    found = invoke("assign", "m.safetensors", "x.npy", "--levels", levels, "-o", "o.csv", code=2)
    assert message in found.stderr and found.stderr.count("\n") == 1


def test_a_column_of_that_name_cannot_travel_along(invoke, here):
    line = ("assign", "m.safetensors", "x.parquet", "--columns", "level_3", "--levels", 3)
    assert "column 'level_3' of the input cannot travel along" in invoke(*line, code=2).stderr
