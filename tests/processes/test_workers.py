"""Work side by side: the same results whoever works, failures arrive, and it ends at once."""

import json
import signal
import subprocess
import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest
import torch
from conftest import environment, python

import dinkcli
from dinkcli.processes import cores as machine
from dinkcli.processes import workers
from dinkcli.processes.cores import cores_are_shared, cpu_quota, usable_cores
from dinkcli.processes.workers import Workers, threads_for


@pytest.mark.parametrize("cores", [1, 3])
def test_results_wait_for_what_they_need(monkeypatch, cores):
    monkeypatch.setattr(workers, "usable_cores", lambda: cores)
    before, used = torch.get_num_threads(), set()

    def note(number):
        used.add((threading.get_ident(), torch.get_num_threads()))
        time.sleep(0.02)
        return number

    with Workers(3) as pool:
        first = [pool.submit(note, number) for number in range(6)]
        total = pool.submit(lambda *numbers: sum(numbers), *first, first[5], 100)
        failed = pool.submit(lambda number: 1 // number, first[0])
        after = pool.submit(lambda number: number, failed)
        assert total.result() == 120
        with pytest.raises(ZeroDivisionError):
            after.result()
    assert len(used) == cores and {threads for _, threads in used} == {1}
    assert threading.get_ident() not in {thread for thread, _ in used}
    assert torch.get_num_threads() == before


def test_what_runs_is_stopped():
    started = threading.Event()

    def forever():
        started.set()
        while True:
            time.sleep(0.01)

    now = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Workers(2) as pool:
        waiting = pool.submit(lambda _: None, pool.submit(forever))
        started.wait()
        raise KeyboardInterrupt
    assert time.monotonic() - now < 5
    with pytest.raises((CancelledError, SystemExit)):
        waiting.result()
    assert not [t for t in threading.enumerate() if t.name.startswith("dink")]


def test_the_same_sweep_and_model_whoever_works(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    z = (
        rng.normal(size=(40, 12))[rng.integers(0, 40, 900)] * 3 + rng.normal(size=(900, 12))
    ).astype("f4")
    written = []
    for cores in (1, 2, 4):
        monkeypatch.setattr(workers, "usable_cores", lambda cores=cores: cores)
        found = dinkcli.sweep(z, "6:20", device="cpu")
        dinkcli.train(z, "6:20", device="cpu").save(tmp_path / "model.dink")
        written.append((json.dumps(found.to_dict()), (tmp_path / "model.dink").read_bytes()))
        assert len(found.candidates) > 6
    assert written[0] == written[1] == written[2]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sweep_ends_at_once(tmp_path, number):
    np.save(tmp_path / "z.npy", np.random.default_rng(0).normal(size=(60_000, 64)).astype("f4"))
    command = [python(), "-m", "dinkcli", "sweep", "z.npy", "-k", "800:900"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=pipe) as process:
        time.sleep(4)
        process.send_signal(number)
        now = time.monotonic()
        said = process.communicate()[1].decode()
        assert time.monotonic() - now < 3
    assert process.returncode == 128 + number
    assert "nothing was written" in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"own": "0::/a/b", "a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, 1.5),
        ({"own": "0::/", "cpu.max": "50000 100000\n"}, 0.5),
        ({"own": "0::/docker/x", "cpu.max": "400000 100000"}, 4.0),
        ({"own": "0::/", "cpu.max": "max 100000"}, np.inf),
        (
            {
                "own": "3:cpu,cpuacct:/c\n0::/",
                "cpu/c/cpu.cfs_quota_us": "300000\n",
                "cpu/c/cpu.cfs_period_us": "100000\n",
                "cpu/cpu.cfs_quota_us": "-1",
                "cpu/cpu.cfs_period_us": "100000",
            },
            3.0,
        ),
        ({}, np.inf),
    ],
)
def test_containers_limit_cores(tmp_path, files, quota):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert cpu_quota(str(tmp_path / "own"), str(tmp_path)) == quota


@pytest.mark.parametrize(
    ("text", "shared"),
    [("0.0 0.0 0.0 1/99 5", False), ("9.0 9.0 9.0 2/99 5", False), ("0 0 0 3/99 5", True), ("", 0)],
)
def test_others_that_run_are_seen(monkeypatch, tmp_path, text, shared):
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 8)
    (tmp_path / "loadavg").write_text(text)
    assert cores_are_shared(str(tmp_path / "loadavg")) == shared


def test_usable_cores(monkeypatch):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    for quota, cores in ((np.inf, 6), (2.5, 3), (0.1, 1), (9.0, 6)):
        monkeypatch.setattr(machine, "cpu_quota", lambda quota=quota: quota)
        assert usable_cores() == cores


def test_threads_follow_the_size_of_the_work(monkeypatch):
    monkeypatch.setattr(workers, "usable_cores", lambda: 3)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    for size, threads in ((10, 1), (3 << 30, 3), (9 << 30, 3), (5 << 29, 2)):
        with threads_for(size):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 4
    torch.set_num_threads(before)
