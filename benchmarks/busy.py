"""Trainings alone, and beside one and two other processes that keep a core busy each.

    python benchmarks/busy.py [--rows 7500 --features 384 --clusters 150 --repeats 3]
    python benchmarks/busy.py --against ../other-checkout

Each is the whole command in a process of its own, in turns with that of another checkout of dink if
one is given, of the same mixture of clusters; wall time (least to largest), and processor time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from common import table, timed, with_spread

_HERE = Path(__file__).resolve().parent.parent
# Times the rows, and the command.
_WORK = {
    "-k auto": (1, ["train", "-k", "auto"]),
    "learned": (1, ["train", "-k", "77", "--metric", "learned"]),
    "-k 20": (1, ["train", "-k", "20"]),
    "-k 500": (8, ["train", "-k", "500"]),
}


def mixture(n_rows: int, n_features: int, n_clusters: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(n_clusters, n_features)) * 0.35
    noise = rng.normal(size=(n_rows, n_features)) @ rng.normal(size=(n_features, n_features))
    labels = rng.choice(n_clusters, n_rows, p=rng.dirichlet(np.full(n_clusters, 2.0)))
    return (centers[labels] + noise * 1.5 / n_features**0.5).astype(np.float32)


def measured(root: Path, arguments: list[str], folder: str) -> tuple[float, float]:
    """Seconds of the command, and of processors for it."""
    before = os.times()
    command = [sys.executable, "-m", "dinkcli", *arguments, "z.npy", "-o", "z.dink", "--quiet"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    environment.pop("GOMP_SPINCOUNT", None)  # each command looks for itself how busy it is
    quiet = subprocess.DEVNULL
    wall = timed(
        lambda: subprocess.run(command, cwd=folder, env=environment, stdout=quiet, check=True)
    )
    after = os.times()
    system = after.children_system - before.children_system
    return wall, after.children_user - before.children_user + system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=7500)
    parser.add_argument("--features", type=int, default=384)
    parser.add_argument("--clusters", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", default=",".join(_WORK), help="which, between commas")
    parser.add_argument("--against", type=Path, help="another checkout of dink")
    args = parser.parse_args()
    roots = {"dink": _HERE, **({"other": args.against.resolve()} if args.against else {})}
    print(f"D, clusters = {args.features}, {args.clusters}\n")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for work in args.work.split(","):
            times_rows, command = _WORK[work]
            n_rows = times_rows * args.rows
            np.save(f"{folder}/z.npy", mixture(n_rows, args.features, args.clusters))
            for n_busy in (0, 1, 2):
                spin = [sys.executable, "-c", "while True: pass"]
                times: dict[str, list[tuple[float, float]]] = {name: [] for name in roots}
                for _ in range(args.repeats):
                    for name, root in roots.items():
                        busy = [subprocess.Popen(spin) for _ in range(n_busy)]
                        try:
                            times[name].append(measured(root, command, folder))
                        finally:
                            for process in busy:
                                process.kill()
                                process.wait()
                for name, values in times.items():
                    wall, cpu = zip(*values, strict=True)
                    what = f"{work}, {n_rows} rows"
                    rows.append((what, n_busy, name, with_spread(list(wall)), f"{median(cpu):.2f}"))
    print(table(["work", "busy processes", "code", "wall, s", "processor, s"], rows))


if __name__ == "__main__":
    main()
