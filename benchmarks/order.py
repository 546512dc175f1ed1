"""Whether the order of the rows in a file matters: sorted by cluster against shuffled.

    python benchmarks/order.py [--seeds 5 --sets separated,mixture-20,stdlib --memory 0.05]

For each seed the same options train on a file sorted by cluster and on a shuffled copy of it, in
memory and streamed (with so little memory that a window of shuffled rows holds a small part of the
file). Inertia is that of the centres over all rows, in float64; what is printed is sorted over
shuffled, minus 1. Two shuffled copies differ as well, by as much as another start does: "other
shuffle" is that, the noise against which the sorted file is to be judged.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from quality import SETS, judge

import dinkcli

TRAININGS: dict[str, dict[str, Any]] = {
    "default": {},
    "fixed": {"temperature": "share"},
    "literal": {"temperature": float("inf")},
}


def sorted_rows(name: str) -> tuple[np.ndarray, int]:
    """(rows by class, or by cluster where there are no classes; K)."""
    z, truth, k = SETS[name]()
    if truth is None:
        truth = dinkcli.assign(dinkcli.train(z, k, device="cpu"), z, device="cpu")
    return np.ascontiguousarray(z[np.argsort(truth, kind="stable")]), k


def trained(folder: str, z: np.ndarray, k: int, seed: int, **options: Any) -> float:
    path = Path(folder) / "x.npy"
    np.save(path, z)
    model = dinkcli.train(path, k, seed=seed, device="cpu", **options)
    return judge(z, None, model.cluster_centers)["inertia"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sets", default="separated,mixture-20,stdlib")
    parser.add_argument("--trainings", default=",".join(TRAININGS))
    parser.add_argument("--memory", type=float, default=0.05, help="As a share of the rows.")
    args = parser.parse_args()
    print("set, training, memory: sorted over shuffled - 1, and another shuffle over it - 1")
    for name in args.sets.split(","):
        z, k = sorted_rows(name)
        # Half a percent of the mean squared distance to the mean: most rows have several centres.
        heat = 0.005 * float(((z - z.mean(0)) ** 2).sum(1).mean())
        for training in args.trainings.split(","):
            options = dict(TRAININGS[training])
            if options.get("temperature") == "share":
                options["temperature"] = heat
            for where, memory in (("held", None), ("streamed", int(args.memory * z.nbytes))):
                changes, noise = [], []
                for seed in range(args.seeds):
                    rng = np.random.default_rng(seed)
                    with tempfile.TemporaryDirectory() as folder:
                        given = {"seed": seed, "memory": memory, **options}
                        shuffled, other = (
                            trained(folder, rng.permutation(z), k, **given) for _ in range(2)
                        )
                        changes.append(trained(folder, z, k, **given) / shuffled - 1)
                        noise.append(other / shuffled - 1)
                worst = max(changes)
                print(
                    f"{name}, {training}, {where}: mean {np.mean(changes):+.3%}, "
                    f"worst {worst:+.3%}; other shuffle mean {np.mean(noise):+.3%}, "
                    f"worst {max(noise):+.3%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
