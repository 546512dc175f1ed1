"""Training in several processes: the model of one process, and no hang when one is lost."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import PROGRESS, environment, torchrun

import dinkcli
from dinkcli.nearest.tempered import TemperedSums
from dinkcli.processes.group import ALONE, World, world
from dinkcli.training.rows import draw_distinct

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="gloo and signals as on Linux"),
]


def launch(processes, *args, folder, launcher=(), **options):
    env = {**environment(), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*torchrun(processes, *launcher), *map(str, args)],
        cwd=folder,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def several(processes, *args, folder, code=0):
    with launch(processes, *args, folder=folder) as process:
        try:
            stdout, stderr = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert (process.returncode == 0) == (code == 0), (stdout, stderr)
    return stdout, "\n".join(own_lines(stderr))


def own_lines(stderr):
    """What dink says, without the report of torch's launcher."""
    return [
        line
        for line in stderr.splitlines()
        if re.match(r"(Error|Warning|Note|Interrupted)\b", line) or PROGRESS.match(line)
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """5,000 rows in overlapping clusters: two npy files, a parquet file of them all, weights."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(25, 16)) * 1.3
    z = (centers[rng.integers(0, 25, 5000)] + rng.normal(size=(5000, 16))).astype(np.float32)
    np.save(folder / "a.npy", z[:1700])
    np.save(folder / "b.npy", z[1700:])
    np.save(folder / "w.npy", rng.uniform(0.5, 2, 5000).astype(np.float32))
    column = pa.FixedSizeListArray.from_arrays(z.reshape(-1), 16)
    pq.write_table(pa.table({"e": column}), folder / "z.parquet", row_group_size=700)
    bad = z.copy()
    bad[[10, 2600, 4990]] = np.nan
    np.save(folder / "bad.npy", bad)
    turn = np.linalg.qr(rng.normal(size=(128, 16)))[0]
    wide = z @ turn.T + rng.normal(size=(5000, 128)) * 0.1
    np.save(folder / "wide.npy", wide.astype(np.float32))
    return folder


def same(one, other, rows):
    """One model as the other, to the tolerance that is promised."""
    a, b = dinkcli.load(one), dinkcli.load(other)
    scale = np.linalg.norm(a.cluster_centers, axis=1)
    difference = np.linalg.norm(a.cluster_centers - b.cluster_centers, axis=1)
    assert (difference / scale).max() < 1e-4
    labels = [dinkcli.assign(model, rows, device="cpu", bad_rows="label") for model in (a, b)]
    assert (labels[0] == labels[1]).mean() >= 0.9999
    assert a.training["input"] == b.training["input"]
    assert a.training["metrics"]["inertia"] == pytest.approx(b.training["metrics"]["inertia"])


@pytest.mark.parametrize(
    ("processes", "arguments"),
    [
        (2, "a.npy b.npy"),
        (2, "wide.npy --sample-weight w.npy --n-init 1"),  # on its main axes
        (3, "a.npy b.npy --metric cosine --sample-weight w.npy --n-init 1"),
        (2, "z.parquet --memory 100KB --sample-weight w.npy --n-init 1"),
        (3, "bad.npy --bad-rows skip --memory 100KB --n-init 1"),
        (2, "a.npy b.npy --metric learned --n-init 1"),
        (2, "bad.npy --bad-rows skip --temperature 2.0 --init random"),
    ],
)
def test_as_one_process(dink, data, tmp_path, processes, arguments):
    inputs = [
        data / part if "." in part and not part[0].isdigit() else part for part in arguments.split()
    ]
    command = ["train", *inputs, "-k", "40", "--device", "cpu", "-q", "-o"]
    dink(*command, tmp_path / "one.safetensors")
    stdout, stderr = several(processes, *command, "many.safetensors", folder=tmp_path)
    assert (stdout, stderr) == ("many.safetensors\n", "")
    rows = [str(path) for path in inputs if isinstance(path, Path) and path.name != "w.npy"]
    same(tmp_path / "one.safetensors", tmp_path / "many.safetensors", rows)


def ranks_in(folder):
    """Process ids of the workers by rank."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").readlink() == folder:
                    variables = (entry / "environ").read_bytes().split(b"\0")
                    rank = next(v for v in variables if v.startswith(b"RANK="))
                    found[int(rank[5:])] = int(entry.name)
            except (OSError, StopIteration):
                continue
    return found


def long_command(data):
    files = [data / "a.npy", data / "b.npy"]
    return ["train", *files, "-k", "40", "--device", "cpu", "--checkpoint-every", "0.001s"]


def await_checkpoint(folder):
    """The path of the checkpoint of m.safetensors, which is there unless that took too long."""
    checkpoint = folder / "m.checkpoint.safetensors"
    deadline = time.monotonic() + 40
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return checkpoint


def test_a_killed_rank_is_named_and_the_rest_resumes(dink, data, tmp_path):
    command = [*long_command(data), "--n-init", "2", "-o"]
    dink(*command, "whole.safetensors", "-q")
    job = launch(2, *command, "m.safetensors", folder=tmp_path)
    checkpoint = await_checkpoint(tmp_path)
    os.kill(ranks_in(tmp_path)[1], signal.SIGKILL)
    killed = time.monotonic()
    stdout, stderr = job.communicate(timeout=40)
    assert time.monotonic() - killed < 30
    assert job.returncode != 0 and stdout == ""
    errors = [line for line in own_lines(stderr) if line.startswith("Error")]
    assert len(errors) == 1
    assert re.match(r"Error: rank 1 on \S+ of 2 is gone .*; the last checkpoint is m.c", errors[0])
    several(3, *command, "m.safetensors", *["--resume", "-q"], folder=tmp_path)
    assert not checkpoint.exists()
    same(tmp_path / "whole.safetensors", tmp_path / "m.safetensors", command[1:3])


def test_a_restart_by_the_launcher_goes_on(dink, data, tmp_path):
    command = [*long_command(data), "--n-init", "2", "-q", "-o"]
    dink(*command, "whole.safetensors")
    restarting = ["--max-restarts", "1"]
    options = ["m.safetensors", "--resume"]
    job = launch(2, *command, *options, folder=tmp_path, launcher=restarting)
    await_checkpoint(tmp_path)
    first = ranks_in(tmp_path)
    os.kill(first[0], signal.SIGKILL)
    stdout, stderr = job.communicate(timeout=60)
    assert (job.returncode, stdout) == (0, "m.safetensors\n"), stderr
    same(tmp_path / "whole.safetensors", tmp_path / "m.safetensors", command[1:3])


def test_a_signal_stops_all_processes_with_a_checkpoint(dink, data, tmp_path):
    """From which one process goes on."""
    command = [*long_command(data), "--n-init", "2", "-o"]
    dink(*command, "whole.safetensors", "-q")
    job = launch(2, *command, "m.safetensors", folder=tmp_path)
    await_checkpoint(tmp_path)
    job.send_signal(signal.SIGTERM)
    _, stderr = job.communicate(timeout=40)
    assert "Interrupted; the training so far is in m.checkpoint.safetensors. Go on" in stderr
    assert "torchrun --nproc-per-node 2 -m dinkcli train" in stderr
    dink(*command, "m.safetensors", "--resume", "-q")
    same(tmp_path / "whole.safetensors", tmp_path / "m.safetensors", command[1:3])


ERRORS = {
    "train bad2.npy -k 5": r"Error: bad2.npy: row 2600 holds nan .*\(counting from 0; 1 such",
    "train a.npy -k 5 --temperature inf": "Error: --temperature inf: is gradient descent, whi",
    "train a.npy -k auto": "Error: -k auto: tries many numbers of clusters, which runs in one",
    "train - -k 5": "Error: -: a stream, which several processes cannot share",
    "train same.npy -k 5": "Error: the data have 3 distinct rows, fewer than the 5 clusters",
    "train a.npy -k 5 --dilation -7": "Error: --dilation -7.0: expected a number from 0",
    "info m.safetensors": "Error: dink info: runs in one process, and a launcher has started",
}


@pytest.fixture(scope="module")
def wrong(data, tmp_path_factory):
    """What each wrong command says; some run at once, since most of their time is to wait."""
    folder = tmp_path_factory.mktemp("wrong")
    rows = np.load(data / "b.npy")
    np.save(folder / "a.npy", rows)
    rows[2600] = np.nan
    np.save(folder / "bad2.npy", rows)
    np.save(folder / "same.npy", np.repeat(np.eye(3, 4, dtype=np.float32), 20, axis=0))

    def said(arguments):
        return several(2, *arguments.split(), folder=folder, code=1)

    with ThreadPoolExecutor(3) as pool:
        return dict(zip(ERRORS, pool.map(said, ERRORS), strict=True))


@pytest.mark.parametrize("arguments", ERRORS)
def test_errors_are_told_once(wrong, arguments):
    stdout, stderr = wrong[arguments]
    assert stdout == ""
    assert re.match(ERRORS[arguments], stderr), stderr
    assert len(stderr.splitlines()) == 1


def test_the_world_is_that_of_a_launcher():
    full = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "MASTER_ADDR": "x"}
    assert world({**full, "LOCAL_WORLD_SIZE": "1"}) == World(1, 4, 0, 1)
    assert world(full) == World(1, 4, 0, 4)
    for name in full:
        assert world({k: v for k, v in full.items() if k != name}) == ALONE
    assert world({**full, "WORLD_SIZE": "1", "RANK": "0"}) == ALONE
    assert world({**full, "RANK": "x"}) == ALONE
    shares = [World(rank, 3).share(10) for rank in range(3)]
    assert shares == [(0, 3), (3, 6), (6, 10)]


@pytest.mark.parametrize(("number", "size"), [(50, 50), (50, 7), (1 << 40, 1000), (1 << 25, 5)])
def test_distinct_draws(number, size):
    generator = torch.Generator().manual_seed(0)
    drawn = draw_distinct(number, size, generator)
    assert len(drawn) == len(drawn.unique()) == size
    assert int(drawn.min()) >= 0 and int(drawn.max()) < number
    if size > 500:
        assert abs(float(drawn.double().mean()) / number - 0.5) < 0.05
        assert (drawn.diff() > 0).any() and (drawn.diff() < 0).any()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("clusters", "short"), [(100, False), (300, False), (300, True)])
def test_sums_of_annealing_are_exact(weighted, clusters, short, monkeypatch):
    """Bit for bit those of the parts: centres that divide would magnify any difference."""
    monkeypatch.setattr("dinkcli.nearest.scorer.has_bfloat16", lambda: short)
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.normal(size=(3000, 40)).astype(np.float32) * 7)
    weights = torch.from_numpy(rng.uniform(0, 900, 3000).astype(np.float32)) if weighted else None
    centers = z[:clusters].clone()
    heaviest = 1.0 if weights is None else float(weights.max())
    largest, usual = (float(z.abs().max()), heaviest), (7.0, heaviest / 2)

    def sums_of(where):
        part = None if weights is None else weights[where]
        add_up = TemperedSums(centers, 3000, largest, usual)
        return add_up(z[where], part, centers, 20.0, low_precision=False, approximate=short)

    counts, sums = sums_of(slice(None))
    parts = [sums_of(where) for where in (slice(1100, None), slice(1100))]
    assert torch.equal(parts[0][0] + parts[1][0], counts)
    assert torch.equal(parts[0][1] + parts[1][1], sums)
    r = torch.softmax(-torch.cdist(z.double(), centers.double()).square() / 20, 1)
    if clusters == 300:  # the four largest count, and of them those above a thousandth
        least = r.topk(4, dim=1).values[:, -1:]
        r = torch.where(r >= least, r, 0)
        r /= r.sum(1, keepdim=True)
        r = torch.where(r > 1e-3, r, 0)
    expected = (r if weights is None else r * weights[:, None]).T @ z.double()
    tolerance = 1e-4 * float(expected.abs().max())
    if short:  # of centres that are about as near, others may be among the four
        assert torch.linalg.norm(sums - expected) < 0.02 * torch.linalg.norm(expected)
    else:
        torch.testing.assert_close(sums, expected, rtol=1e-3, atol=tolerance)
