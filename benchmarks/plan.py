"""What ``dink plan`` says beforehand against what ``dink train`` and ``dink assign`` take.

    python benchmarks/plan.py [--sets mixture,blobs-10,...] [--folder DIR]

Each set is planned, trained and assigned by commands of their own. Time is of the whole command,
memory the largest resident set that the kernel saw (``ru_maxrss`` of the waited-for child). This
process stays small and leaves making the data to another one, since a child's figure begins with
the memory of its parent.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# file, kind, rows, features, K, options
SETS: dict[str, tuple[str, str, int, int, int, list[str]]] = {
    "mixture": ("mixture.npy", "mixture", 100_000, 384, 100, []),
    "blobs-10": ("blobs-10.npy", "blobs", 50_000, 64, 10, []),
    "blobs-1000": ("blobs-1000.npy", "blobs", 300_000, 128, 1000, []),
    "parquet": ("mixture.parquet", "mixture", 200_000, 384, 200, []),
    "float16": ("mixture16.npy", "mixture", 400_000, 384, 50, []),
    "streamed": ("mixture4.npy", "mixture", 400_000, 384, 100, ["--memory", "100MB"]),
    "streamed-parquet": ("mixture.parquet", "mixture", 200_000, 384, 50, ["--memory", "100MB"]),
    "noise": ("noise.npy", "noise", 200_000, 32, 50, []),
}


def write(path: str, kind: str, rows: int, features: int) -> None:
    import numpy as np
    from quality import blobs, mixture

    if kind == "mixture":
        z = np.concatenate([mixture(50_000, 1, seed)[0] for seed in range(rows // 50_000)])
    elif kind == "noise":
        z = np.random.default_rng(0).normal(size=(rows, features)).astype(np.float32)
    else:
        k = int(path.split("-")[-1].split(".")[0])
        z = blobs(0, [rows // k] * k, features, 1.0, np.ones(features))[0]
    if not path.endswith(".parquet"):
        np.save(path, z.astype(np.float16) if "16" in path else z)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pa.FixedSizeListArray.from_arrays(pa.array(z.reshape(-1)), features)
    pq.write_table(pa.table({"e": column}), path, row_group_size=20_000)


def run(*arguments: str) -> tuple[float, float]:
    """(seconds, largest resident set in bytes) of one command."""
    command = [sys.executable, "-m", "dinkcli", *arguments]
    started = time.monotonic()
    process = os.posix_spawn(
        sys.executable,
        command,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: exit {os.waitstatus_to_exitcode(status)}")
    unit = 1 if sys.platform == "darwin" else 1024
    return time.monotonic() - started, usage.ru_maxrss * unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--folder")
    args = parser.parse_args()
    print("| set | command | planned | range | took | ratio | memory planned | took | ratio |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for name in args.sets.split(","):
            file, kind, rows, features, k, options = SETS[name]
            path, model = os.path.join(folder, file), os.path.join(folder, "m.safetensors")
            if not os.path.exists(path):
                made = [sys.executable, "-c", _WRITE, path, kind, str(rows), str(features)]
                subprocess.run(made, check=True, cwd=Path(__file__).parent)
            planned = [sys.executable, "-m", "dinkcli", "plan", path, "-k", str(k), *options]
            started = time.monotonic()
            found = subprocess.run([*planned, "--json"], check=True, capture_output=True).stdout
            planning = time.monotonic() - started
            plan = json.loads(found)
            trained = run("train", path, "-k", str(k), "-q", "-o", model, *options)
            labels = os.path.join(folder, "labels.npy")
            assigned = run("assign", model, path, "-q", "-o", labels)
            seconds = plan["seconds"]
            between = f"{seconds['low']:.1f} to {seconds['high']:.1f}"
            print(row(name, "train", seconds["typical"], between, plan["memory"], trained))
            print(row("", "assign", plan["assign_seconds"], "", plan["assign_memory"], assigned))
            print(f"| | plan | | | {planning:.1f} s | | | | |", flush=True)


_WRITE = (
    "import sys, plan; plan.write(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))"
)


def row(
    name: str, command: str, seconds: float, between: str, memory: float, took: tuple[float, float]
) -> str:
    return (
        f"| {name} | {command} | {seconds:.1f} s | {between} | {took[0]:.1f} s "
        f"| {seconds / took[0]:.2f} | {memory / 1e6:.0f} MB | {took[1] / 1e6:.0f} MB "
        f"| {memory / took[1]:.2f} |"
    )


if __name__ == "__main__":
    main()
