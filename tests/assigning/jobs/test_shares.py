"""dink dedup and sample in several processes: the bytes of one, whoever dies on the way."""

import json
import os
import signal
import subprocess

import numpy as np
import pytest
from conftest import environment, python

import dinkcli

JOBS = {
    "dedup": ["--threshold", "0.9", "--rows-per-file", "700"],
    "diverse": ["-n", "300", "--by", "diverse", "--rows-per-file", "70"],
    "balanced": ["-n", "300", "--rows-per-file", "70"],
}
# Units of so few rows that there are some for every process.
SCRIPT = """
import os, sys
from dinkcli.assigning.jobs import dedup, shelves, survey, workplace as work
survey._UNIT_ROWS = dedup._UNIT_ROWS = shelves._PIECE_ROWS = 256
made = open(os.environ["MADE"], "a") if "MADE" in os.environ else None
from contextlib import contextmanager
before = work.atomic_path
@contextmanager
def noted(target, replace=True):
    if "DIES" in os.environ and target.endswith(os.environ["DIES"]): os.kill(os.getpid(), 9)
    with before(target, replace) as path: yield path
    if made: print(os.path.basename(target), file=made, flush=True)
work.atomic_path = noted
from dinkcli.cli import main
main()
"""


@pytest.fixture
def rows(tmp_path):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(3000, 12)).astype(np.float32)
    z[2000:2500] = z[:500] + 0.05 * rng.normal(size=(500, 12))
    np.save(tmp_path / "x.npy", z)
    dinkcli.Model(z[::300].copy(), np.ones(10), "cosine").save(tmp_path / "m.safetensors")
    return z


def command(job, output, *more):
    name = "dedup" if job == "dedup" else "sample"
    return [name, "m.safetensors", "x.npy", *JOBS[job], "--format", "csv", "-o", output, *more]


def start(tmp_path, arguments, **variables):
    environment_ = {**environment(), **variables}
    return subprocess.Popen(
        [python(), "-c", SCRIPT, *arguments],
        cwd=tmp_path,
        env=environment_,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def contents(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name.startswith("part-")}


def whole(tmp_path, job):
    process = start(tmp_path, command(job, "whole"))
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return contents(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("job", ["dedup", "diverse"])
def test_launched_processes_share_the_work(rows, tmp_path, job):
    truth = whole(tmp_path, job)
    assert len(truth) == 5
    processes = [
        start(
            tmp_path,
            command(job, "out", "--json"),
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE="3",
            MASTER_ADDR="localhost",
            MADE=str(tmp_path / "made"),
        )
        for rank in range(3)
    ]
    said = [process.communicate() for process in processes]
    assert [p.returncode for p in processes] == [0, 0, 0], said
    assert contents(tmp_path / "out") == truth
    assert not (tmp_path / "out.work").exists()
    assert [errors for _, errors in said[1:]] == ["", ""]
    assert json.loads(said[0][0])["shard"] == "1/3"
    made = [name for name in (tmp_path / "made").read_text().split() if name != "_dink.json"]
    assert len(made) == len(set(made)) and len(made) >= 12  # nothing twice


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "stage"), [("dedup", "survey-00004.npz"), ("diverse", "sorted-00001")]
)
def test_shares_one_after_the_other_and_one_is_killed(rows, tmp_path, job, stage):
    truth = whole(tmp_path, job)
    killed = start(tmp_path, command(job, "out", "--shard", "1/2"), DIES=stage)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL and (tmp_path / "out.work").exists()
    (tmp_path / "out.work" / ".rows.bin.abc.tmp").write_text("of the killed run")
    second = start(tmp_path, command(job, "out", "--shard", "2/2"))
    _, errors = second.communicate()
    assert second.returncode == 0 and "parts of other shares are missing yet" in errors
    assert (tmp_path / "out.work").exists() and len(contents(tmp_path / "out")) == 3
    assert not (tmp_path / "out.work" / ".rows.bin.abc.tmp").exists()
    other = start(tmp_path, command(job, "out", "--shard", "1/2", "--bad-rows", "skip"))
    assert "another run: bad_rows was" in other.communicate()[1] and other.returncode == 2
    made = tmp_path / "made"
    first = start(tmp_path, command(job, "out", "--shard", "1/2", "--resume"), MADE=str(made))
    _, errors = first.communicate()
    assert first.returncode == 0 and "missing" not in errors
    assert not made.read_text()  # all was there
    assert contents(tmp_path / "out") == truth
    assert not (tmp_path / "out.work").exists()


@pytest.mark.parametrize("job", ["dedup", "balanced"])
def test_wrong_shares(invoke, rows, job):
    for more, message in (
        (["--shard", "3/2"], "shares are counted from 1"),
        (["--shard", "1/2", "-o", "-"], "into a folder of parts: name it with -o"),
    ):
        assert message in invoke(*command(job, "out", *more), code=2).stderr
    assert sorted(os.listdir()) == ["m.safetensors", "x.npy"]


@pytest.mark.parametrize("job", ["dedup", "balanced"])
def test_wrong_input_leaves_no_work(invoke, rows, tmp_path, job):
    np.save(tmp_path / "x.npy", np.full((40, 12), np.nan, np.float32))
    result = invoke(*command(job, "out", "--bad-rows", "skip"), code=1 if job == "dedup" else 2)
    assert "all rows are bad" in result.stderr or "has 0 usable rows" in result.stderr
    assert sorted(os.listdir()) == ["m.safetensors", "x.npy"]
