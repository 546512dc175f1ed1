"""Resident memory of training and assigning on data that do not fit, by the kernel's accounting.

    python benchmarks/memory.py [--gigabytes 10 --parquet-gigabytes 5 --features 384
                                 --clusters 100 --memory 500MB --folder DIR]

Writes an npy file and a folder of parquet files (float32 in lists of fixed size), runs ``dink
train`` and ``dink assign`` on each in a process of its own, and prints the largest resident set
of that process (``ru_maxrss`` of the waited-for child) and its time.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_PIECE = 1 << 17  # rows


def vectors(start: int, stop: int, features: int) -> np.ndarray:
    """Noise around 64 means, other rows in every piece."""
    rng = np.random.default_rng(start)
    means = np.random.default_rng(0).standard_normal((64, features), np.float32)
    noise = rng.standard_normal((stop - start, features), np.float32)
    return means[rng.integers(0, 64, stop - start)] + noise


def write_npy(path: str, rows: int, features: int) -> None:
    with open(path, "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, features)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, rows, _PIECE):
            file.write(vectors(start, min(rows, start + _PIECE), features).data)


def write_parquet(folder: str, rows: int, features: int) -> None:
    os.mkdir(folder)
    value = pa.field("element", pa.float32(), nullable=False)
    type_ = pa.list_(value, features)
    schema = pa.schema([pa.field("e", type_, nullable=False)])
    for number, start in enumerate(range(0, rows, 4 * _PIECE)):
        stop = min(rows, start + 4 * _PIECE)
        path = os.path.join(folder, f"part-{number:03d}.parquet")
        with pq.ParquetWriter(path, schema, use_dictionary=False, compression="none") as writer:
            for begin in range(start, stop, _PIECE // 2):
                part = vectors(begin, min(stop, begin + _PIECE // 2), features)
                lists = pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), type=type_)
                writer.write_table(pa.Table.from_arrays([lists], schema=schema))


def run(*arguments: str) -> tuple[float, float]:
    """(largest resident set in MB, seconds) of one command."""
    started = time.monotonic()
    command = [sys.executable, "-m", "dinkcli", *arguments]
    to_stderr = [(os.POSIX_SPAWN_DUP2, 2, 1)]  # the path of the model is no part of the table
    process = os.posix_spawn(sys.executable, command, os.environ, file_actions=to_stderr)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: exit {os.waitstatus_to_exitcode(status)}")
    unit = 1 if sys.platform == "darwin" else 1024
    return usage.ru_maxrss * unit / 1e6, time.monotonic() - started


def size(path: str) -> float:
    if os.path.isfile(path):
        return os.path.getsize(path) / 1e9
    return sum(os.path.getsize(os.path.join(path, name)) for name in os.listdir(path)) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=10)
    parser.add_argument("--parquet-gigabytes", type=float, default=5)
    parser.add_argument("--features", type=int, default=384)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--memory", default="500MB")
    parser.add_argument("--folder")
    args = parser.parse_args()
    print(f"--memory {args.memory}, K = {args.clusters}, D = {args.features}\n")
    print("| data | GB | rows | train | assign |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for name, gigabytes, write in (
            ("x.npy", args.gigabytes, write_npy),
            ("parquet", args.parquet_gigabytes, write_parquet),
        ):
            path, model = os.path.join(folder, name), os.path.join(folder, "m.safetensors")
            rows = max(1000, int(gigabytes * 1e9 / (4 * args.features)))
            write(path, rows, args.features)
            options = ["-k", str(args.clusters), "--epochs", str(args.epochs), "-q"]
            trained = run("train", path, *options, "--memory", args.memory, "-o", model)
            labels = os.path.join(folder, "labels.npy")
            assigned = run("assign", model, path, "-q", "-o", labels)
            print(
                f"| {name} | {size(path):.2f} | {rows} | "
                f"{trained[0]:.0f} MB, {trained[1]:.0f} s | "
                f"{assigned[0]:.0f} MB, {assigned[1]:.0f} s |",
                flush=True,
            )
            if os.path.isfile(path):
                os.unlink(path)


if __name__ == "__main__":
    main()
