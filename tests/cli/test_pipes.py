"""What only real processes show: pipes, kills and memory."""

import io
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import environment, python

import dinkcli

pytestmark = pytest.mark.slow

N_ROWS = 5_000_000


def assign(*arguments, program=None):
    return [program or python(), "-m", "dinkcli", "assign", "m.safetensors", *arguments]


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """A folder with 5,000,000 rows of 8 features, the first fifth of them, and a model."""
    folder = tmp_path_factory.mktemp("big")
    z = np.random.default_rng(0).normal(size=(N_ROWS // 100, 8)).astype(np.float32)
    np.save(folder / "big.npy", np.tile(z, (100, 1)))
    np.save(folder / "small.npy", np.tile(z, (20, 1)))
    dinkcli.Model(z[:10], np.ones(10)).save(folder / "m.safetensors")
    yield folder
    for name in os.listdir(folder):
        os.unlink(folder / name)


def bash(script, folder):
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment(), capture_output=True, text=True
    )


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_head_ends_a_run_that_reads_a_pipe(big, format):
    command = f"cat big.npy | {' '.join(assign())} - --format {format}"
    result = bash(f'{command} | head -n 3; echo "${{PIPESTATUS[@]}}"', big)
    lines = result.stdout.splitlines()
    assert len(lines) == 4
    assert lines[0] == ("row,cluster" if format == "csv" else '{"row":0,"cluster":0}')
    assert lines[3] == "141 141 0"  # cat had more to give, and dink did not wait for it
    assert result.stderr == ""


def test_standard_input_to_standard_output(big):
    z = np.load(big / "small.npy", mmap_mode="r")[:1000]
    labels = dinkcli.assign(big / "m.safetensors", np.array(z))
    array, table = io.BytesIO(), io.BytesIO()
    np.save(array, z)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(z.reshape(-1)), 8)
    batch = pa.record_batch({"key": [f"k{i}" for i in range(1000)], "e": vectors})
    with pa.ipc.new_stream(table, batch.schema) as writer:
        for start in range(0, 1000, 300):
            writer.write_batch(batch.slice(start, 300))

    def run(data, *options):
        command = assign("-", *options)
        return subprocess.run(
            command, input=data, cwd=big, env=environment(), capture_output=True, check=True
        ).stdout

    csv = pd.read_csv(io.BytesIO(run(array.getvalue())))
    np.testing.assert_array_equal(csv["cluster"], labels)
    np.testing.assert_array_equal(
        np.load(io.BytesIO(run(array.getvalue(), "--format", "npy"))), labels
    )
    stream = run(table.getvalue(), "--format", "arrows", "--ids", "key")
    found = pa.ipc.open_stream(stream).read_all()
    assert found["key"].to_pylist() == batch["key"].to_pylist()
    np.testing.assert_array_equal(found["cluster"], labels)
    # The stream does not say how many rows it has: npy needs a file that can be gone back in.
    run(table.getvalue(), "-o", "y.npy", "-q")
    np.testing.assert_array_equal(np.load(big / "y.npy"), labels)
    os.unlink(big / "y.npy")


def test_ctrl_c_while_the_input_stalls(big):
    with open(big / "big.npy", "rb") as file, open(big / "out.csv", "wb") as output:
        process = subprocess.Popen(
            assign("-"),
            cwd=big,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.PIPE,
        )
        # More than a block, so that output begins, and then nothing for a while.
        process.stdin.write(file.read(20 << 20))
        process.stdin.flush()
        wait_for(process, lambda: (big / "out.csv").stat().st_size > 0)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == (
            b"Interrupted; the output is incomplete. Start the same command again.\n"
        )
        process.stdin.close()
        process.stderr.close()


def wait_for(process, condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)


def peak(folder, *arguments):
    """Peak resident memory of a run in MB."""
    process = subprocess.Popen(
        assign(*arguments, "-q", program=sys.executable), cwd=folder, env=environment()
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def test_memory_is_flat_over_five_million_rows(big):
    small = peak(big, "small.npy", "-o", "labels.csv")
    for suffix in ("csv", "parquet", "npy"):
        large = peak(big, "big.npy", "-o", f"labels.{suffix}")
        print(f"{suffix}: {small:.0f} MB for {N_ROWS // 5:,} rows, {large:.0f} MB for {N_ROWS:,}")
        assert large < small + 40  # the other rows alone take 128 MB


def test_a_killed_run_leaves_the_old_file(big):
    (big / "old.csv").write_text("old")
    process = subprocess.Popen(assign("big.npy", "-o", "old.csv", "-q"), cwd=big, env=environment())
    wait_for(process, lambda: any(p.stat().st_size > 1 << 20 for p in big.glob(".old.csv.*.tmp")))
    process.kill()
    process.wait()
    assert (big / "old.csv").read_text() == "old"
