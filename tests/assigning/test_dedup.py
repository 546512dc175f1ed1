"""dink dedup: groups are those of float64 brute force, in any memory; a kill leaves nothing."""

import json
import os
import signal
import subprocess
import time

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import environment, python
from scipy.sparse.csgraph import connected_components

import dinkcli
from dinkcli.assigning.dedup import kept_of
from dinkcli.assigning.survey import Groups

LEVELS = (0.999, 0.97, 0.951, 0.949, 1.0)


@pytest.fixture
def planted():
    """700 rows of norm 1, some of them repeated at several similarities, in random order."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(500, 24)) + 3 * rng.normal(size=(8, 24))[rng.integers(0, 8, 500)]
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    parts = [z]
    for level in LEVELS:
        base = z[rng.choice(500, 40)]
        other = rng.normal(size=base.shape)
        other -= (other * base).sum(1, keepdims=True) * base
        other /= np.linalg.norm(other, axis=1, keepdims=True)
        parts.append(level * base + np.sqrt(1 - level**2) * other if level < 1 else base)
    return rng.permutation(np.concatenate(parts)).astype(np.float32)


@pytest.fixture
def cosine(planted, tmp_path):
    np.save(tmp_path / "x.npy", planted)
    centers = planted[::50] + 0.1 * np.random.default_rng(2).normal(size=(14, 24))
    model = dinkcli.Model(centers.astype(np.float32), np.ones(14), "cosine")
    model.cluster_centers /= np.linalg.norm(model.cluster_centers, axis=1, keepdims=True)
    model.save(tmp_path / "m.safetensors")
    return planted


def cosine_distances(z):
    z = z.astype(np.float64)
    return distances(z / np.linalg.norm(z, axis=1, keepdims=True))


def near(z):
    """(N, N) bool, which pairs have a cosine similarity of 0.95, the usual one."""
    return cosine_distances(z) <= 0.1**0.5


def distances(z):
    z = z.astype(np.float64)
    return np.sqrt(((z[:, None] - z) ** 2).sum(2))


def groups_of(close):
    """(N,) the first row of the group of each row, by a matrix of which pairs are close."""
    count, labels = connected_components(close)
    first = np.full(count, len(labels))
    np.minimum.at(first, labels, np.arange(len(labels)))
    return first[labels]


def read(path, *columns):
    return [np.asarray(pq.read_table(path)[name].to_numpy()) for name in columns]


@pytest.mark.parametrize(
    ("most", "edited"), [(0.6, False), (0.3162, False), (0.1414, False), (0, False), (0.3162, True)]
)
def test_groups_are_those_of_brute_force(invoke, cosine, tmp_path, most, edited):
    if edited:  # a cluster of two centres, and rows of no cluster
        model = dinkcli.drop(dinkcli.merge("m.safetensors", [1, 4]), 3, outlier=True)
        model.save(tmp_path / "m.safetensors")
    how = ("--max-distance", most, "--bad-rows", "skip", "--json")
    result = invoke("dedup", "m.safetensors", "x.npy", "-o", "d.parquet", *how)
    assert json.loads(result.stdout)["bad_rows"] == 0
    group, kept, distance, cluster = read("d.parquet", "group", "kept", "distance", "cluster")
    truth = cosine_distances(cosine)
    np.testing.assert_array_equal(group, groups_of(truth <= most + 1e-14))
    np.testing.assert_array_equal(cluster, dinkcli.assign("m.safetensors", "x.npy"))
    assert kept.sum() == len(np.unique(group))
    stays = dict(zip(group[kept], np.flatnonzero(kept), strict=True))
    partner = np.array([stays[g] for g in group])
    np.testing.assert_allclose(distance, truth[np.arange(len(truth)), partner], atol=1e-7)


def test_multiples_of_a_row_are_its_repeats_under_cosine(invoke, cosine, tmp_path):
    factors = np.random.default_rng(3).uniform(0.01, 100, (300, 1))
    np.save(tmp_path / "x.npy", np.concatenate([cosine[:300], 2 * cosine[:300]]))
    invoke("dedup", "m.safetensors", "x.npy", "-o", "d.parquet", "--max-distance", 0)
    group = read("d.parquet", "group")[0]
    np.testing.assert_array_equal(group[300:], group[:300])
    np.save(tmp_path / "x.npy", np.concatenate([cosine[:300], factors * cosine[:300]]))
    invoke("dedup", "m.safetensors", "x.npy", "-o", "d.parquet", "--max-distance", 1e-6)
    group = read("d.parquet", "group")[0]
    np.testing.assert_array_equal(group[300:], group[:300])


@pytest.mark.parametrize("offset", [0, 100])
def test_euclidean_distances(invoke, planted, tmp_path, offset):
    z = (2 * planted + offset).astype(np.float32)
    np.save(tmp_path / "x.npy", z)
    dinkcli.Model(z[::70].copy(), np.ones(10)).save(tmp_path / "m.safetensors")
    invoke("dedup", "m.safetensors", "x.npy", "-o", "d.parquet", "--max-distance", 0.6)
    group, distance, kept = read("d.parquet", "group", "distance", "kept")
    truth = distances(z)
    np.testing.assert_array_equal(group, groups_of(truth <= 0.6))
    stays = dict(zip(group[kept], np.flatnonzero(kept), strict=True))
    partner = np.array([stays[g] for g in group])
    np.testing.assert_allclose(distance, truth[np.arange(len(truth)), partner], atol=1e-6)


def test_the_usual_distance_under_a_euclidean_model_needs_norm_1(invoke, planted, tmp_path):
    np.save(tmp_path / "x.npy", planted)
    dinkcli.Model(planted[::70].copy(), np.ones(10)).save(tmp_path / "m.safetensors")
    invoke("dedup", "m.safetensors", "x.npy", "-o", "d.parquet")
    np.testing.assert_array_equal(read("d.parquet", "group")[0], groups_of(near(planted)))
    np.save(tmp_path / "x.npy", 2 * planted)
    result = invoke("dedup", "m.safetensors", "x.npy", "-o", "e.parquet", code=1)
    assert "row 0 has norm 2" in result.stderr and "--max-distance" in result.stderr
    assert sorted(os.listdir(tmp_path)) == ["d.parquet", "m.safetensors", "x.npy"]


def test_which_row_stays(invoke, cosine, tmp_path):
    score = np.random.default_rng(1).integers(0, 9, len(cosine))
    table = pa.table({"id": [f"r{i}" for i in range(len(cosine))], "score": score})
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(cosine.reshape(-1)), 24)
    pq.write_table(table.append_column("v", vectors), "x.parquet")
    np.save("scores.npy", score)
    centers = dinkcli.load("m.safetensors").cluster_centers
    distance = np.linalg.norm(cosine - centers[dinkcli.assign("m.safetensors", "x.npy")], axis=1)
    group = groups_of(near(cosine))
    for keep, values in (
        ("first", np.arange(len(cosine))),
        ("nearest", distance),
        ("farthest", -distance),
        ("score", -score),
        ("scores.npy", -score),
    ):
        arguments = ["x.parquet", "-o", "k.csv", "--ids", "id", "--columns", "score"]
        invoke("dedup", "m.safetensors", *arguments, "--keep", keep, "--keep-only")
        truth = [
            min(np.flatnonzero(group == g), key=lambda i: (values[i], i)) for g in np.unique(group)
        ]
        rows = duckdb.sql("select id, score, kept from 'k.csv'").fetchall()
        assert [row[0] for row in rows] == [f"r{i}" for i in sorted(truth)]
        assert [row[1] for row in rows] == [score[i] for i in sorted(truth)]
        assert all(row[2] for row in rows)
    result = invoke("dedup", "m.safetensors", "x.parquet", "--keep", "none", code=2)
    assert "none" in result.stderr


def test_against_old_rows(invoke, cosine, tmp_path):
    old, new = cosine[:300], cosine[300:]
    np.save(tmp_path / "old.npy", old)
    np.save(tmp_path / "new.npy", new)
    invoke("dedup", "m.safetensors", "new.npy", "--against", "old.npy", "-o", "d.parquet")
    group, kept, old_row = read("d.parquet", "group", "kept", "old_row")
    close = near(cosine)
    close[:300, :300] = False  # old rows are not compared with each other,
    same = (old[:, None] == old).all(2)
    close[:300, :300] = same  # but those that are the same are one
    _, labels = connected_components(close)
    first = {label: i for i, label in reversed(list(enumerate(labels[300:])))}
    np.testing.assert_array_equal(group, [first[label] for label in labels[300:]])
    has_old = np.isin(labels[300:], labels[:300])
    np.testing.assert_array_equal(old_row >= 0, has_old)
    assert not kept[has_old].any()
    assert (labels[old_row[has_old]] == labels[300:][has_old]).all()
    assert kept[~has_old].sum() == len(np.unique(labels[300:][~has_old]))


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "npy", "arrow"])
def test_every_format_says_the_same(invoke, cosine, tmp_path, suffix):
    invoke("dedup", "m.safetensors", "x.npy", "-o", "d.parquet")
    invoke("dedup", "m.safetensors", "x.npy", "-o", f"d.{suffix}")
    truth = duckdb.sql("select * from 'd.parquet'").fetchnumpy()
    if suffix == "npy":
        found = np.load("d.npy")
    elif suffix == "arrow":
        with pa.OSFile("d.arrow") as file:
            table = pa.ipc.open_file(file).read_all()
        found = {name: table[name].to_numpy(zero_copy_only=False) for name in truth}
    else:
        reader = {"csv": "read_csv", "jsonl": "read_json"}[suffix]
        found = duckdb.sql(f"select * from {reader}('d.{suffix}')").fetchnumpy()
    for name, values in truth.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6)


def test_little_memory_and_many_repeats(invoke, tmp_path, monkeypatch):
    """One cluster of which most rows are the same or nearly so, in blocks of 64."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(900, 16)).astype(np.float32)
    z[:400] = z[0] + 1e-4 * rng.normal(size=(400, 16))
    z[400:500] = z[0]
    np.save(tmp_path / "x.npy", rng.permutation(z))
    z = np.load(tmp_path / "x.npy")
    dinkcli.Model(z[:1].copy(), np.ones(1), "cosine").save(tmp_path / "m.safetensors")
    monkeypatch.setattr("dinkcli.assigning.dedup._BLOCK", 64)
    invoke("dedup", "m.safetensors", "x.npy", "-o", "d.parquet", "--memory", "10kB")
    np.testing.assert_array_equal(read("d.parquet", "group")[0], groups_of(near(z)))


def test_bad_rows(invoke, cosine, tmp_path):
    z = cosine.copy()
    z[[3, 50]] = np.nan
    z[7] = 0
    np.save(tmp_path / "x.npy", z)
    assert "row 3" in invoke("dedup", "m.safetensors", "x.npy", code=1).stderr
    good = np.setdiff1d(np.arange(len(z)), [3, 7, 50])
    truth = good[groups_of(near(z[good]))]
    options = ["--bad-rows", "skip", "--json"]
    result = invoke("dedup", "m.safetensors", "x.npy", "-o", "s.parquet", *options)
    row, group, kept = read("s.parquet", "row", "group", "kept")
    np.testing.assert_array_equal(row, good)
    summary = json.loads(result.stdout)
    assert (summary["rows"], summary["bad_rows"]) == (len(good), 3)
    assert (summary["kept"], summary["removed"]) == (kept.sum(), len(good) - kept.sum())
    np.testing.assert_array_equal(group, truth)
    invoke("dedup", "m.safetensors", "x.npy", "-o", "l.parquet", "--bad-rows", "label")
    cluster, group, kept, distance = read("l.parquet", "cluster", "group", "kept", "distance")
    np.testing.assert_array_equal(group[good], truth)
    assert (cluster[[3, 7, 50]] == -1).all() and kept[[3, 7, 50]].all()
    assert np.isnan(distance[[3, 7, 50]]).all()


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "line", ["dedup --max-distance 3", "sample -n 500 --by diverse", "sample -n 9 --by prototypes"]
)
def test_a_stopped_run_leaves_nothing_in_the_way(tmp_path, line, sent):
    """Stopped at any moment, the old output stays, and the same command gives the right one."""
    z = np.random.default_rng(0).normal(size=(20_000, 32)).astype(np.float32)
    np.save(tmp_path / "x.npy", z)
    dinkcli.Model(z[:20].copy(), np.ones(20)).save(tmp_path / "m.safetensors")
    (tmp_path / "tmp").mkdir()
    name, *more = line.split()
    command = [python(), "-m", "dinkcli", name, "m.safetensors", "x.npy", *more, "-o", "d.npy"]
    options = {"cwd": tmp_path, "env": environment() | {"TMPDIR": str(tmp_path / "tmp")}}
    started = time.monotonic()
    assert subprocess.run([*command, "-q"], **options).returncode == 0
    seconds = time.monotonic() - started
    truth = (tmp_path / "d.npy").read_bytes()
    (tmp_path / "d.npy").write_bytes(b"old")
    for share in (0.3, 0.6, 0.9):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)
        time.sleep(share * seconds)
        process.send_signal(sent)
        _, errors = process.communicate(timeout=60)
        done = (tmp_path / "d.npy").read_bytes()
        assert done in (b"old", truth) and "Traceback" not in errors
        if sent != signal.SIGKILL:
            assert not os.listdir(tmp_path / "tmp")
    assert subprocess.run([*command, "-q"], **options).returncode == 0
    assert (tmp_path / "d.npy").read_bytes() == truth


def test_wrong_use_is_told_before_any_work(invoke, cosine, tmp_path):
    for arguments, message in (
        (["--max-distance", -1], "--max-distance -1.0: expected"),
        (["--threshold", 0.9], "there is no such option any more; use --max-distance"),
        (["--resume"], "there is no such option any more; use the command without it"),
        (["--shard", "1/2"], "as in docs/recipes.md"),
        (["--against", "none.npy"], "none.npy"),
        (["-o", "x.npy"], "is an input of this run"),
        (["-o", "y.txt"], "suffix .txt, expected one of"),
    ):
        assert message in invoke("dedup", "m.safetensors", "x.npy", *arguments, code=2).stderr
    assert sorted(os.listdir(tmp_path)) == ["m.safetensors", "x.npy"]


def test_two_partitions_by_cluster_are_the_whole(invoke, planted, tmp_path):
    """The recipe for more rows than one machine takes: a process for each group of clusters, with
    the rows that are near its border added; their pairs together make the groups of the whole."""
    z = planted
    np.save(tmp_path / "x.npy", z)
    centers = z[::70].astype(np.float64)
    dinkcli.Model(z[::70].copy(), np.ones(10)).save(tmp_path / "m.safetensors")
    most = 0.1**0.5
    labels = dinkcli.assign("m.safetensors", "x.npy")
    apart = np.linalg.norm(z[:, None].astype(np.float64) - centers, axis=2)
    between = np.linalg.norm(centers[:, None] - centers, axis=2)[labels]
    own = apart[np.arange(len(z)), labels][:, None]
    near = apart**2 - own**2 <= most * between + 1e-9  # of a cluster, and at its border
    pairs = []
    for part in (range(5), range(5, 10)):
        rows = np.flatnonzero(near[:, list(part)].any(1))
        np.save(tmp_path / "part.npy", z[rows])
        invoke("dedup", "m.safetensors", "part.npy", "-o", "p.npy", "-q", "--keep", "first")
        pairs.append(np.stack([rows, rows[np.load("p.npy")["group"]]], 1))
    groups = Groups(len(z))
    groups.join(np.concatenate(pairs))
    invoke("dedup", "m.safetensors", "x.npy", "-o", "whole.npy", "-q")
    np.testing.assert_array_equal(groups.roots(np.arange(len(z))), np.load("whole.npy")["group"])


def test_the_summary_counts(invoke, cosine):
    result = invoke("dedup", "m.safetensors", "x.npy", "-o", "d.parquet", "--json", "-q")
    summary = json.loads(result.stdout)
    group, kept = read("d.parquet", "group", "kept")
    assert summary["rows"] == 700 and summary["kept"] == kept.sum()
    assert summary["removed"] == 700 - kept.sum()
    assert summary["groups"] == (np.unique(group, return_counts=True)[1] > 1).sum()
    assert summary["exact_repeats"] == 700 - len(np.unique(cosine, axis=0))
    assert 0 < summary["compared_pairs"] < 700 * 699


def test_standard_output(invoke, cosine):
    result = invoke("dedup", "m.safetensors", "x.npy")
    lines = result.stdout.splitlines()
    assert lines[0] == "row,cluster,group,kept,distance" and len(lines) == 701


def test_joins_in_any_order_give_the_same_groups():
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 300, (200, 2))
    whole = Groups(300)
    whole.join(pairs)
    single = Groups(300)
    for pair in rng.permutation(pairs):
        single.join(pair[None])
    everything = np.arange(300)
    matrix = np.zeros((300, 300), bool)
    matrix[tuple(pairs.T)] = True
    for groups in (whole, single):
        np.testing.assert_array_equal(groups.roots(everything), groups_of(matrix | matrix.T))


def test_old_rows_stay_first_and_numbers_before_nan():
    roots = np.array([0, 0, 0, 3, 3, 5])
    scores = np.array([2.0, np.nan, 1.0, 1.0, 1.0, np.nan])
    np.testing.assert_array_equal(kept_of(roots, scores), [2, 2, 2, 3, 3, 5])
    np.testing.assert_array_equal(kept_of(roots, scores, 2), [0, 0, 0, 3, 3, 5])
