"""Training by several processes of one core each, against one process of one core.

    python benchmarks/processes.py [--rows 200000 --clusters 500 --processes 2 --repeats 3]

The runs take turns; medians, without the start of Python and torch. "load" is reading, seeding and
the first twelfth of the annealing.
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
from statistics import median
from typing import Any

import numpy as np

PHASES = ("load", "anneal", "refine", "pass")


def worker(data: str, clusters: int, out: str) -> None:
    """One process of a training; rank 0 leaves its centres and times."""
    import dinkcli
    from dinkcli.processes.group import join

    def lost(sentence: str | None) -> None:
        print(sentence, file=sys.stderr)
        os._exit(1)

    group = join("cpu", lost)
    seconds = dict.fromkeys(PHASES, 0.0)
    started = last = time.perf_counter()

    def on_step(step: Any) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds["load" if last == started else step.phase] += now - last
        last = now

    model = dinkcli.train(data, clusters, device="cpu", group=group, on_step=on_step)
    total = time.perf_counter() - started
    if group.rank == 0:
        inertia = model.training["metrics"]["inertia"]
        np.save(out + ".npy", model.cluster_centers)
        Path(out).write_text(json.dumps({"total": total, **seconds, "inertia": inertia}))
    group.close()


def run(processes: int, data: Path, clusters: int, out: Path) -> dict[str, float]:
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(processes)]
    command += [__file__, "--worker", str(data), "--clusters", str(clusters), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment)
    found: dict[str, float] = json.loads(out.read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--clusters", type=int, default=500)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker")
    parser.add_argument("--out")
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args.clusters, args.out)
        return
    from quality import mixture

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "rows.npy", mixture(args.rows, args.clusters)[0])
        found: dict[int, list[dict[str, float]]] = {1: [], args.processes: []}
        for _ in range(args.repeats):
            for processes, runs in found.items():
                out = folder / str(processes)
                runs.append(run(processes, folder / "rows.npy", args.clusters, out))
        centers = [np.load(folder / f"{processes}.npy") for processes in found]
    middle = {
        processes: {key: median(each[key] for each in runs) for key in runs[0]}
        for processes, runs in found.items()
    }
    print(f"{args.rows} rows x {centers[0].shape[1]} features, {args.clusters} clusters, seconds")
    print("processes " + " ".join(f"{key:>10}" for key in middle[1]))
    for processes, row in middle.items():
        print(f"{processes:9} " + " ".join(f"{value:10.4g}" for value in row.values()))
    one, many = middle[1], middle[args.processes]
    ratios = {key: one[key] / many[key] for key in ("total", *PHASES) if many[key]}
    print("speed-up  " + " ".join(f"{value:10.2f}" for value in ratios.values()))
    difference = np.linalg.norm(centers[0] - centers[1], axis=1)
    largest = (difference / np.linalg.norm(centers[0], axis=1)).max()
    print(f"largest relative difference of a centre: {largest:.2g}")


if __name__ == "__main__":
    main()
