"""Two processes with a core each against one process with one core: shares of one assignment.

    python benchmarks/shards.py [--rows 400000 --features 384 --clusters 8000 --repeats 3]

Every run is the real command in new processes, from a file to a folder of parts, start of Python
and torch included; ``taskset`` gives each process a core and OMP_NUM_THREADS=1 one thread. The
shares are started together, without a launcher, and a run ends with its last process. Both kinds
run in turns; medians. "assigning" is the time that the command itself reports. The folders have to
be the same, byte for byte.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

import dinkcli

PARTS = 8


def measure(folder: Path, count: int, part_rows: int) -> tuple[float, float]:
    """Seconds from start to end, and the longest that a process reports, of ``count`` shares."""
    output = folder / f"of-{count}"
    shutil.rmtree(output, ignore_errors=True)
    processes = []
    started = time.perf_counter()
    for number in range(1, count + 1):
        command = ["taskset", "-c", str(number - 1), sys.executable, "-m", "dinkcli", "assign"]
        command += [str(folder / "m.safetensors"), str(folder / "x.npy"), "-o", str(output)]
        command += ["--shard", f"{number}/{count}", "--rows-per-file", str(part_rows), "--json"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        processes.append(
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
        )
    reports, errors = zip(*(process.communicate() for process in processes), strict=True)
    seconds = time.perf_counter() - started
    if any(process.returncode for process in processes):
        sys.exit("\n".join(errors))
    return seconds, max(json.loads(report)["seconds"] for report in reports)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--features", type=int, default=384)
    parser.add_argument("--clusters", type=int, default=8000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = rng.standard_normal((options.rows, options.features), dtype=np.float32)
        np.save(folder / "x.npy", rows)
        centers = rows[rng.permutation(options.rows)[: options.clusters]]
        dinkcli.Model(centers, np.ones(options.clusters)).save(folder / "m.safetensors")
        del rows
        part_rows = -(-options.rows // PARTS)
        found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
        for _ in range(options.repeats):
            for count in found:
                found[count].append(measure(folder, count, part_rows))
        names = sorted(os.listdir(folder / "of-1"))
        same = filecmp.cmpfiles(folder / "of-1", folder / "of-2", names, shallow=False)[0] == names
    for index, what in enumerate(("whole command", "assigning")):
        one, two = (median(times[index] for times in found[count]) for count in (1, 2))
        print(f"{what}: 1 process {one:.2f} s, 2 processes {two:.2f} s: {one / two:.2f} x")
    print("the same bytes" if same else "DIFFERENT folders")


if __name__ == "__main__":
    main()
