"""Shares of an assignment, in processes that do not talk, together are one run."""

import json
import os
import signal
import subprocess
import time
from types import SimpleNamespace

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from conftest import environment, nearest_float64, python, torchrun

import dinkcli
from dinkcli.assigning.parts import rows_of_parts
from dinkcli.errors import UsageError
from dinkcli.processes.group import World, launched, parse_shard

OPTIONS = ["--distance", "--ids", "id"]


@pytest.fixture
def data(tmp_path):
    """1000 rows in two parquet files, in blocks that no part agrees with; and their clusters."""
    rows = np.random.default_rng(0).normal(size=(1000, 8)).astype(np.float32)
    for name, first, stop in (("a", 0, 370), ("b", 370, 1000)):
        ids = pa.array([f"id{i}" for i in range(first, stop)])
        vectors = pa.array(list(rows[first:stop]), pa.list_(pa.float32()))
        table = pa.table({"id": ids, "v": vectors})
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=90)
    dinkcli.Model(rows[:30], np.ones(30)).save(tmp_path / "m.safetensors")
    return nearest_float64(rows, rows[:30])


def arguments(folder, *more, inputs=("a.parquet", "b.parquet")):
    return ["assign", "m.safetensors", *inputs, "-o", folder, *map(str, more)]


def contents(folder):
    return {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder))}


def started(tmp_path, *command, **variables):
    return subprocess.Popen(
        [python(), "-m", "dinkcli", *command],
        cwd=tmp_path,
        env=environment() | variables,
        stderr=subprocess.PIPE,
        text=True,
    )


def launched_two(tmp_path, *command):
    return subprocess.run(
        [*torchrun(2), *command],
        cwd=tmp_path,
        env=environment() | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_shares_one_after_the_other_are_one_run(invoke, data, tmp_path, monkeypatch, order):
    monkeypatch.setattr("dinkcli.assigning.assigner.block_rows", lambda *_: 64)
    invoke(*arguments("whole", "--rows-per-file", 130, *OPTIONS))
    written = []
    for number in order:
        shard = ("--shard", f"{number}/3", "--rows-per-file", 130, "--json")
        summary = json.loads(invoke(*arguments("parts", *shard, *OPTIONS)).stdout)
        assert summary["shard"] == f"{number}/3"
        written.append(summary["rows"])
        manifest = json.loads((tmp_path / "parts" / "_dink.json").read_text())
        assert manifest["complete"] == summary["complete"] == (number == order[-1])
    assert sum(written) == 1000
    assert max(written) - min(written) <= 130 + 40
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_shares_at_once_are_one_run(invoke, data, tmp_path):
    invoke(*arguments("whole", "--rows-per-file", 100, *OPTIONS))
    command = arguments("parts", "--rows-per-file", 100, *OPTIONS)
    runs = [started(tmp_path, *command, "--shard", f"{number}/3") for number in (1, 2, 3)]
    said = [run.communicate(timeout=120)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], said
    assert any("missing yet" not in text for text in said)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    query = "select id, cluster from 'parts/*.parquet'"
    rows = duckdb.sql(query.replace("parts/", f"{tmp_path}/parts/")).fetchall()
    assert rows == [(f"id{i}", label) for i, label in enumerate(data.tolist())]
    found = pa.dataset.dataset(tmp_path / "parts", format="parquet").to_table()
    assert found["id"].to_pylist() == [f"id{i}" for i in range(1000)]
    np.testing.assert_array_equal(found["cluster"], data)


@pytest.mark.parametrize("bad_rows", ["skip", "label"])
@pytest.mark.parametrize("format", ["npy", "csv"])
def test_bad_rows_and_parts_without_rows(invoke, data, tmp_path, monkeypatch, bad_rows, format):
    monkeypatch.setattr("dinkcli.assigning.assigner.block_rows", lambda *_: 64)
    rows = np.random.default_rng(1).normal(size=(700, 8)).astype(np.float32)
    rows[[0, 5, *range(195, 320), *range(600, 700)]] = np.nan
    np.save(tmp_path / "x.npy", rows)
    more = ["--rows-per-file", 100, "--bad-rows", bad_rows, "--format", format]
    invoke(*arguments("whole", *more, inputs=["x.npy"]))
    for number in (2, 1, 3):
        invoke(*arguments("parts", *more, "--shard", f"{number}/3", inputs=["x.npy"]))
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert len(os.listdir(tmp_path / "parts")) == 8


def test_more_shares_than_parts(invoke, data, tmp_path):
    invoke(*arguments("whole", "--rows-per-file", 500))
    parts = []
    for number in (1, 2, 3, 4, 5):
        more = ("--rows-per-file", 500, "--shard", f"{number}/5", "--json")
        parts.append(json.loads(invoke(*arguments("parts", *more)).stdout)["parts"])
    assert sorted(parts) == [0, 0, 0, 1, 1]
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_shares_have_one_part_each_by_default(invoke, data, tmp_path):
    for number in (1, 2, 3):
        invoke(*arguments("parts", "--shard", f"{number}/3"))
    table = pa.dataset.dataset(tmp_path / "parts", format="parquet").to_table()
    assert table["row"].to_pylist() == list(range(1000))
    assert sorted(os.listdir(tmp_path / "parts"))[1:] == [f"part-{i:05d}.parquet" for i in range(3)]
    inputs = [SimpleNamespace(readers=[], known_rows=n) for n in (1, 8, 9, 10**9)]
    assert [rows_of_parts(data, World(0, 4)) for data in inputs] == [1, 2, 3, 1 << 20]


@pytest.mark.slow
@pytest.mark.parametrize("others", [["--shard", "2/3"], ["--shard", "1/1"], []])
def test_what_a_killed_share_left_is_gone_on_with(invoke, data, tmp_path, others):
    """By the share itself, or by one process for all."""
    invoke(*arguments("whole", "--rows-per-file", 20, *OPTIONS))
    command = arguments("parts", "--rows-per-file", 20, *OPTIONS)
    for number in (1, 3):
        invoke(*command, "--shard", f"{number}/3")
    process = started(tmp_path, *command, "--shard", "2/3")
    while len(os.listdir(tmp_path / "parts")) < 40 and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for left in (31, 25):  # where it was too quick
        (tmp_path / "parts" / f"part-{left:05d}.parquet").unlink(missing_ok=True)
    (tmp_path / "parts" / "_dink.json").write_text(
        (tmp_path / "parts" / "_dink.json")
        .read_text()
        .replace('"complete": true', '"complete": false')
    )
    mine, other = (tmp_path / "parts" / f".part-000{i}.parquet.x.tmp" for i in (20, "01"))
    mine.write_text("of the killed process")
    other.write_text("of another one")
    result = invoke(*command, "--shard", "2/3", code=2)
    assert "parts: holds parts of share 2/3 already; go on with it by --resume" in result.stderr
    invoke(*command, *others, "--resume")
    assert not mine.exists()
    if others == ["--shard", "2/3"]:
        other.unlink()
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_another_run_is_refused(invoke, data, tmp_path):
    command = arguments("parts", "--rows-per-file", 100)
    invoke(*command, "--shard", "1/2")
    before = contents(tmp_path / "parts")
    for more in (["--soft"], ["--format", "csv"], ["--soft", "--resume"]):
        result = invoke(*command, "--shard", "2/2", *more, code=2)
        assert "parts: another run: " in result.stderr
    result = invoke(*arguments("parts", "--shard", "2/2"), code=2)
    assert "rows_per_file was 100, now it is 500" in result.stderr
    assert "holds the parts of a run" in invoke(*command, code=2).stderr
    assert "share 1/2 already" in invoke(*command, "--shard", "1/2", code=2).stderr
    assert contents(tmp_path / "parts") == before
    invoke(*command, "--shard", "2/2")
    assert json.loads((tmp_path / "parts" / "_dink.json").read_text())["complete"]


def test_two_runs_that_make_one_folder_at_once(invoke, data, tmp_path, monkeypatch):
    """The manifest of the other appears after this one looked for it."""
    from dinkcli.assigning.parts import PartsWriter

    original, done = PartsWriter._save_manifest, []

    def late(self, complete):
        if not done:
            done.append(True)
            other = {**self._run, "model": "another"}
            (tmp_path / "parts" / "_dink.json").write_text(
                json.dumps({"complete": False, "run": other})
            )
        original(self, complete)

    monkeypatch.setattr(PartsWriter, "_save_manifest", late)
    result = invoke(*arguments("parts", "--shard", "1/2"), code=2)
    assert "parts: another run: model was 'another'" in result.stderr
    assert os.listdir(tmp_path / "parts") == ["_dink.json"]


def test_without_hard_links(invoke, data, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    invoke(*arguments("whole", "--rows-per-file", 500))
    for number in (2, 1):
        invoke(*arguments("parts", "--rows-per-file", 500, "--shard", f"{number}/2"))
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0/3", r"shares are counted from 1, here 1/3 to 3/3; .* --array=1-3"),
        ("4/3", r"`shard` 4/3: shares are counted from 1"),
        ("1/0", r"`shard` 1/0: expected one of N shares"),
        ("1", r"`shard` 1: expected one of N shares"),
        ("-1/3", r"`shard` -1/3: expected"),
        ("a/b", r"`shard` a/b: expected"),
        ("1/3/5", r"expected one of N shares, such as 1/3, 2/3 or 3/3"),
    ],
)
def test_wrong_shares(text, message):
    with pytest.raises(UsageError, match=message):
        parse_shard(text)


def test_shares_need_a_folder_and_countable_rows(invoke, dink, data, tmp_path):
    np.savetxt(tmp_path / "x.csv", np.ones((5, 8)), delimiter=",")
    one = ["assign", "m.safetensors", "a.parquet", "--shard", "1/2"]
    assert "--shard 1/2 writes into a folder of parts: name it" in invoke(*one, code=2).stderr
    assert (
        "-o x.csv.gz: --shard 1/2 writes into a folder"
        in invoke(*one, "-o", "x.csv.gz", code=2).stderr
    )
    assert "shares are counted from 1" in invoke(*arguments("p", "--shard", "0/2"), code=2).stderr
    result = invoke(*arguments("p", "--shard", "1/2", inputs=["x.csv"]), code=2)
    assert "x.csv: csv without a known number of rows" in result.stderr
    np.save(tmp_path / "x.npy", np.ones((5, 8), np.float32))
    with open(tmp_path / "x.npy", "rb") as file:
        result = dink(*arguments("p", "--shard", "1/2", inputs=["-"]), code=2, stdin=file)
    assert "can be read only once, has no share 1/2" in result.stderr
    assert not (tmp_path / "p").exists()


def test_shares_of_a_launcher_from_the_environment():
    assert launched({}) is launched({"RANK": "0", "WORLD_SIZE": "1"}) is None
    assert launched({"WORLD_SIZE": "4"}) is launched({"RANK": "x", "WORLD_SIZE": "2"}) is None
    assert launched({"RANK": "2", "WORLD_SIZE": "4"}) == World(2, 4, 2, 4)
    both = {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}
    assert launched(both) == World(2, 4, 0, 4)
    for total in range(20):
        shares = [World(i, 7).share(total) for i in range(7)]
        assert [stop for _, stop in shares[:-1]] == [first for first, _ in shares[1:]]
        assert (shares[0][0], shares[-1][1]) == (0, total)
        sizes = [stop - first for first, stop in shares]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.slow
def test_torchrun_writes_one_folder(invoke, data, tmp_path):
    invoke(*arguments("whole", "--rows-per-file", 100, "-q"))
    more = ("--rows-per-file", 100, "--json-file", "run.json")
    result = launched_two(tmp_path, *arguments("parts", *more))
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("rows assigned") == 1
    assert "parts: 500 rows assigned, 5 parts of share 1/2" in result.stderr
    assert json.loads((tmp_path / "run.json").read_text())["shard"] == "1/2"
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_one_process_of_torchrun_fails(data, tmp_path):
    """It says so once, the launcher ends the other, and the same command with --resume goes on."""
    rows = np.random.default_rng(1).normal(size=(1000, 8)).astype(np.float32)
    bad = rows.copy()
    bad[900, 3] = np.nan
    np.save(tmp_path / "x.npy", bad)
    command = arguments("parts", "--rows-per-file", 100, inputs=["x.npy"])
    result = launched_two(tmp_path, *command)
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and "x.npy: row 900 holds nan" in errors[0]
    assert not json.loads((tmp_path / "parts" / "_dink.json").read_text())["complete"]
    np.save(tmp_path / "x.npy", rows)
    result = launched_two(tmp_path, *command, "--resume")
    assert result.returncode == 0, result.stderr
    labels = pq.read_table(tmp_path / "parts")["cluster"].to_numpy()
    centers = dinkcli.load(tmp_path / "m.safetensors").cluster_centers
    np.testing.assert_array_equal(labels, nearest_float64(rows, centers))


@pytest.mark.slow
def test_one_process_of_a_launcher_fails(invoke, data, tmp_path):
    """The second half has a bad row, so that its process fails, and later goes on."""
    rows = np.random.default_rng(1).normal(size=(1000, 8)).astype(np.float32)
    np.save(tmp_path / "good.npy", rows)
    invoke(*arguments("whole", "--rows-per-file", 100, inputs=["good.npy"]))
    command = arguments("parts", "--rows-per-file", 100, inputs=["good.npy"])
    variables = {"RANK": "1", "WORLD_SIZE": "2"}
    (tmp_path / "x.npy").write_bytes((tmp_path / "good.npy").read_bytes())
    rows[900, 3] = np.nan
    np.save(tmp_path / "good.npy", rows)
    process = started(tmp_path, *command, **variables)
    assert "good.npy: row 900 holds nan" in process.communicate(timeout=60)[1]
    assert process.returncode == 1
    os.replace(tmp_path / "x.npy", tmp_path / "good.npy")
    process = started(tmp_path, *command, RANK="0", WORLD_SIZE="2")
    assert "missing yet" in process.communicate(timeout=60)[1]
    assert not json.loads((tmp_path / "parts" / "_dink.json").read_text())["complete"]
    process = started(tmp_path, *command, "--resume", **variables)
    assert process.communicate(timeout=60)[1] == ""
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_usage_under_a_launcher(data, tmp_path):
    one = ["assign", "m.safetensors", "a.parquet"]
    for more, message in (
        ([], "2 processes write into a folder of parts: name it with -o"),
        (["-o", "x.parquet"], "-o x.parquet: 2 processes write into a folder of parts, not into"),
        (["-o", "p", "--shard", "1/2"], "--shard 1/2: a launcher has started 2 processes"),
    ):
        process = started(tmp_path, *one, *more, RANK="0", WORLD_SIZE="2")
        assert message in process.communicate(timeout=60)[1]
        assert process.returncode == 2
    assert sorted(os.listdir(tmp_path)) == ["a.parquet", "b.parquet", "m.safetensors"]
