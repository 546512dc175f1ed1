"""dink dedup: groups are those of float64 brute force, in any memory, after any kill."""

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
from dinkcli.assigning.jobs.groups import Groups, kept_of

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


def similarities(z):
    z = z.astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    return z @ z.T


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


@pytest.mark.parametrize("threshold", [0.8, 0.95, 0.99, 1.0])
def test_groups_are_those_of_brute_force(invoke, cosine, tmp_path, threshold):
    invoke("dedup", "m.safetensors", "x.npy", "-o", "d.parquet", "--threshold", threshold)
    group, kept, similarity, cluster = read("d.parquet", "group", "kept", "similarity", "cluster")
    truth = similarities(cosine)
    np.testing.assert_array_equal(group, groups_of(truth >= threshold - 1e-15))
    np.testing.assert_array_equal(cluster, dinkcli.assign("m.safetensors", "x.npy"))
    assert kept.sum() == len(np.unique(group))
    stays = dict(zip(group[kept], np.flatnonzero(kept), strict=True))
    partner = np.array([stays[g] for g in group])
    np.testing.assert_allclose(similarity, truth[np.arange(len(truth)), partner], atol=1e-7)
    assert not os.path.exists("d.parquet.work")


@pytest.mark.parametrize("offset", [0, 100])
def test_euclidean_distances(invoke, planted, tmp_path, offset):
    z = (2 * planted + offset).astype(np.float32)
    np.save(tmp_path / "x.npy", z)
    dinkcli.Model(z[::70].copy(), np.ones(10)).save(tmp_path / "m.safetensors")
    invoke("dedup", "m.safetensors", "x.npy", "-o", "d.parquet", "--distance", 0.6)
    group, distance, kept = read("d.parquet", "group", "distance", "kept")
    truth = distances(z)
    np.testing.assert_array_equal(group, groups_of(truth <= 0.6))
    stays = dict(zip(group[kept], np.flatnonzero(kept), strict=True))
    partner = np.array([stays[g] for g in group])
    np.testing.assert_allclose(distance, truth[np.arange(len(truth)), partner], atol=1e-6)


def test_similarity_under_a_euclidean_model_needs_norm_1(invoke, planted, tmp_path):
    np.save(tmp_path / "x.npy", planted)
    dinkcli.Model(planted[::70].copy(), np.ones(10)).save(tmp_path / "m.safetensors")
    invoke("dedup", "m.safetensors", "x.npy", "-o", "d.parquet")
    np.testing.assert_array_equal(
        read("d.parquet", "group")[0], groups_of(similarities(planted) >= 0.95)
    )
    np.save(tmp_path / "x.npy", 2 * planted)
    result = invoke("dedup", "m.safetensors", "x.npy", "-o", "e.parquet", code=1)
    assert "row 0 has norm 2" in result.stderr and "--distance" in result.stderr
    assert sorted(os.listdir(tmp_path)) == ["d.parquet", "m.safetensors", "x.npy"]


def test_which_row_stays(invoke, cosine, tmp_path):
    score = np.random.default_rng(1).integers(0, 9, len(cosine))
    table = pa.table({"id": [f"r{i}" for i in range(len(cosine))], "score": score})
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(cosine.reshape(-1)), 24)
    pq.write_table(table.append_column("v", vectors), "x.parquet")
    centers = dinkcli.load("m.safetensors").cluster_centers
    distance = np.linalg.norm(cosine - centers[dinkcli.assign("m.safetensors", "x.npy")], axis=1)
    group = groups_of(similarities(cosine) >= 0.95)
    for keep, values in (
        ("first", np.arange(len(cosine))),
        ("nearest", distance),
        ("farthest", -distance),
        ("score", -score),
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
    close = similarities(cosine) >= 0.95
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
    monkeypatch.setattr("dinkcli.assigning.jobs.pairs._BLOCK", 64)
    monkeypatch.setattr("dinkcli.assigning.jobs.dedup._UNIT_ROWS", 10)
    invoke("dedup", "m.safetensors", "x.npy", "-o", "d.parquet", "--memory", "10kB")
    np.testing.assert_array_equal(read("d.parquet", "group")[0], groups_of(similarities(z) >= 0.95))


def test_bad_rows(invoke, cosine, tmp_path):
    z = cosine.copy()
    z[[3, 50]] = np.nan
    z[7] = 0
    np.save(tmp_path / "x.npy", z)
    assert "row 3" in invoke("dedup", "m.safetensors", "x.npy", code=1).stderr
    good = np.setdiff1d(np.arange(len(z)), [3, 7, 50])
    truth = good[groups_of(similarities(z[good]) >= 0.95)]
    options = ["--bad-rows", "skip", "--json"]
    result = invoke("dedup", "m.safetensors", "x.npy", "-o", "s.parquet", *options)
    row, group, kept = read("s.parquet", "row", "group", "kept")
    np.testing.assert_array_equal(row, good)
    summary = json.loads(result.stdout)
    assert (summary["rows"], summary["bad_rows"]) == (len(good), 3)
    assert (summary["kept"], summary["removed"]) == (kept.sum(), len(good) - kept.sum())
    np.testing.assert_array_equal(group, truth)
    invoke("dedup", "m.safetensors", "x.npy", "-o", "l.parquet", "--bad-rows", "label")
    cluster, group, kept, similarity = read("l.parquet", "cluster", "group", "kept", "similarity")
    np.testing.assert_array_equal(group[good], truth)
    assert (cluster[[3, 7, 50]] == -1).all() and kept[[3, 7, 50]].all()
    assert np.isnan(similarity[[3, 7, 50]]).all()


@pytest.mark.slow
@pytest.mark.parametrize("parts", [[], ["--rows-per-file", 300]])
@pytest.mark.parametrize("stage", ["survey-00000.npz", "rows.bin", "axes.bin", "pairs-000000.npz"])
def test_a_killed_run_goes_on(invoke, cosine, tmp_path, monkeypatch, stage, parts):
    invoke("dedup", "m.safetensors", "x.npy", "-o", "whole", "--format", "csv", *parts)
    script = (
        "import os, dinkcli.data.atomic as atomic, dinkcli.assigning.jobs.workplace as workplace\n"
        "from contextlib import contextmanager\n"
        "@contextmanager\n"
        "def dying(target, replace=True):\n"
        f"    if target.endswith('{stage}'): os.kill(os.getpid(), 9)\n"
        "    with atomic.atomic_path(target, replace) as path: yield path\n"
        "workplace.atomic_path = dying\n"
        "from dinkcli.cli import main\n"
        "main()\n"
    )
    arguments = ["dedup", "m.safetensors", "x.npy", "-o", "out", "--format", "csv"]
    arguments += [*map(str, parts), "--resume"]
    killed = subprocess.run(
        [python(), "-c", script, *arguments], cwd=tmp_path, env=environment(), capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists() and (tmp_path / "out.work").exists()
    (tmp_path / "out.work" / ".rows.bin.abc.tmp").write_text("of the killed run")
    assert "--resume" in invoke(*arguments[:-1], code=2).stderr
    other = invoke(*arguments, "--threshold", 0.9, code=2)
    assert "another run: threshold was 0.95, now it is 0.9" in other.stderr
    invoke(*arguments)
    if parts:
        for name in sorted(os.listdir("whole")):
            assert (tmp_path / "out" / name).read_bytes() == (
                tmp_path / "whole" / name
            ).read_bytes()
    else:
        assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    assert not (tmp_path / "out.work").exists()


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(tmp_path):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(60_000, 32)).astype(np.float32)
    np.save(tmp_path / "x.npy", z)
    dinkcli.Model(z[:2].copy(), np.ones(2), "cosine").save(tmp_path / "m.safetensors")
    command = [python(), "-m", "dinkcli", "dedup", "m.safetensors", "x.npy", "-o", "d.npy"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 60
    while not (tmp_path / "d.npy.work" / "axes.bin").exists() and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "what is done stays in d.npy.work, --resume goes on" in errors
    assert "Traceback" not in errors


def test_wrong_use_is_told_before_any_work(invoke, cosine, tmp_path):
    os.makedirs("full")
    (tmp_path / "full" / "note").write_text("mine")
    for arguments, message in (
        (["--threshold", 1.5], "--threshold 1.5: expected"),
        (["--threshold", 0.9, "--distance", 1], "either the least similarity"),
        (["--distance", -1], "--distance -1.0: expected"),
        (["-o", "full", "--rows-per-file", 100], "not empty, and not a folder of parts"),
        (["--resume"], "--resume goes on with an output"),
        (["--against", "none.npy"], "none.npy"),
        (["-o", "x.npy"], "is an input of this run"),
    ):
        assert message in invoke("dedup", "m.safetensors", "x.npy", *arguments, code=2).stderr
    assert sorted(os.listdir(tmp_path)) == ["full", "m.safetensors", "x.npy"]


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
    assert lines[0] == "row,cluster,group,kept,similarity" and len(lines) == 701


def test_joins_in_any_order_give_the_same_groups():
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 300, (200, 2))
    whole = Groups(300)
    whole.join(pairs)
    single = Groups(300)
    for pair in rng.permutation(pairs):
        single.join(pair[None])
    again = Groups(300)
    again.join(single.connections())
    everything = np.arange(300)
    matrix = np.zeros((300, 300), bool)
    matrix[tuple(pairs.T)] = True
    for groups in (whole, single, again):
        np.testing.assert_array_equal(groups.roots(everything), groups_of(matrix | matrix.T))


def test_old_rows_stay_first_and_numbers_before_nan():
    roots = np.array([0, 0, 0, 3, 3, 5])
    scores = np.array([2.0, np.nan, 1.0, 1.0, 1.0, np.nan])
    none = np.zeros(6, bool)
    np.testing.assert_array_equal(kept_of(roots, scores, none), [2, 2, 2, 3, 3, 5])
    np.testing.assert_array_equal(kept_of(roots, scores, np.arange(6) < 2), [0, 0, 0, 3, 3, 5])
