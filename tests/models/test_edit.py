"""Models edited by hand: what commands make of merged, split and dropped clusters."""

import json

import numpy as np
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest

import dinkcli
from dinkcli.errors import UsageError
from dinkcli.models import edit

K = 6


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edit")
    generator = np.random.default_rng(3)
    middles = generator.normal(size=(K, 5)) * 4
    rows = (middles[generator.integers(0, K, 400)] + generator.normal(size=(400, 5))).astype("f4")
    np.save(folder / "rows.npy", rows)
    model = dinkcli.train(rows, K, seed=0)
    model.save(folder / "m.safetensors")
    squares = ((rows[:, None].astype(float) - model.cluster_centers) ** 2).sum(2)
    return folder, model, rows, squares


def test_a_merged_cluster_has_the_rows_of_both_in_every_format(dink, case):
    folder, _, _, squares = case
    dink("edit", folder / "m.safetensors", "--merge", "4,1", "--as", "both", "-o", folder / "e.st")
    expected = squares.argmin(1)
    expected[expected == 1] = 4
    near = np.sqrt(squares.min(1))
    for suffix in ("csv", "jsonl", "npy", "parquet", "arrow"):
        out = folder / f"labels.{suffix}"
        dink("assign", folder / "e.st", folder / "rows.npy", "-q", "-o", out)
    assert (np.load(folder / "labels.npy") == expected).all()
    assert pcsv.read_csv(folder / "labels.csv")["cluster"].to_pylist() == expected.tolist()
    assert pq.read_table(folder / "labels.parquet")["cluster"].to_pylist() == expected.tolist()
    lines = (folder / "labels.jsonl").read_text().splitlines()
    assert [json.loads(line)["cluster"] for line in lines] == expected.tolist()
    dink(
        "assign",
        folder / "e.st",
        folder / "rows.npy",
        "-q",
        "--distance",
        "-o",
        folder / "d.parquet",
    )
    assert np.allclose(pq.read_table(folder / "d.parquet")["distance"], near, rtol=1e-5)
    levels = dinkcli.load(folder / "e.st").groups(3)
    assert levels[1] == -1 and len(np.unique(levels[levels >= 0])) == 3


def test_probabilities_of_merged_clusters_add_up(case):
    _, model, rows, squares = case
    merged = edit.merge(model, [4, 1])
    logits = -squares / model.temperature
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    expected = p.copy()
    expected[:, 4] += expected[:, 1]
    expected[:, 1] = 0
    assert np.allclose(dinkcli.assign(merged, rows, soft=True), expected, atol=1e-5)


def test_dropped_clusters_leave_their_rows_or_mark_them(case):
    _, model, rows, squares = case
    others = squares.copy()
    others[:, 2] = np.inf
    assert (dinkcli.assign(edit.drop(model, 2), rows) == others.argmin(1)).all()
    expected = squares.argmin(1)
    expected[expected == 2] = -1
    assert (dinkcli.assign(edit.drop(model, 2, outlier=True), rows) == expected).all()


def test_numbers_of_clusters_stay_and_are_not_used_again(dink, case):
    folder, _, rows, squares = case
    dink("edit", folder / "m.safetensors", "--drop", "5", "--name", "0:zero", "-o", folder / "d.st")
    dink("edit", folder / "d.st", folder / "rows.npy", "--split", "zero:3", "-o", folder / "s.st")
    labels = dinkcli.assign(folder / "s.st", rows)
    own = squares[:, :5].argmin(1)
    assert set(labels.tolist()) == {0, 1, 2, 3, 4, 6, 7}
    # Rows may go from a neighbour to a part that is nearer than the whole was; most stay.
    inside = np.isin(labels, (0, 6, 7))
    assert (inside == (own == 0)).mean() > 0.9
    result = dink("inspect", folder / "s.st", "--history", "--json")
    history = json.loads(result.stdout)["history"]
    assert [entry["what"] for entry in history] == ["drop", "name", "split"]
    result = dink("edit", folder / "s.st", "--drop", "5", "-o", folder / "x.st", code=2)
    assert "has been merged or dropped before" in result.stderr


def test_sizes_means_and_inertia_are_those_of_the_rows(case):
    _, model, rows, squares = case
    merged = edit.merge(model, [4, 1])
    inside = np.isin(squares.argmin(1), (4, 1))
    mean = rows[inside].astype(float).mean(0)
    assert merged.cluster_sizes[4] == inside.sum() and merged.cluster_sizes[1] == 0
    assert np.allclose(merged.cluster_centers[4], mean, atol=1e-4)
    inertia = ((rows[inside] - mean) ** 2).sum()
    assert merged.training["metrics"]["cluster_inertia"][4] == pytest.approx(inertia, rel=1e-4)


def test_names_by_hand_stay(dink, case, tmp_path):
    folder, _, _, _ = case
    np.save(tmp_path / "labels.npy", np.arange(400) % 3)
    dink("edit", folder / "m.safetensors", "--name", "3: late deliveries", "-o", tmp_path / "n.st")
    command = ["name", tmp_path / "n.st", folder / "rows.npy", "--labels", tmp_path / "labels.npy"]
    dink(*command, "-q")
    names = dinkcli.load(tmp_path / "n.st").names
    assert names[3] == "late deliveries" and names[0]
    dink(*command, "-q", "--force")
    assert dinkcli.load(tmp_path / "n.st").names[3] != "late deliveries"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "nothing to edit"),
        (["--merge", "1"], "expected two or more clusters"),
        (["--merge", "1,9"], "0 to 5"),
        (["--split", "1"], "give an INPUT"),
        (["--name", "1"], "expected a cluster, a colon and its name"),
        (["--merge", "0,1", "--merge", "2,3", "--as", "x"], "one --merge"),
    ],
)
def test_wrong_edits_are_refused(dink, case, arguments, message):
    folder = case[0]
    result = dink("edit", folder / "m.safetensors", *arguments, "-o", folder / "w.st", code=2)
    assert message in result.stderr and not (folder / "w.st").exists()


def test_the_last_cluster_cannot_be_dropped(case):
    model = case[1]
    for cluster in range(K - 1):
        model = edit.drop(model, cluster)
    with pytest.raises(UsageError, match="no other cluster"):
        edit.drop(model, K - 1)
