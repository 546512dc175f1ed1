"""Training against peers: time, inertia, and the time in which dink reaches their inertia.

    pip install faiss-cpu superkmeans fastkmeans scikit-learn     (a missing peer is left out)
    python benchmarks/train.py [--rows 100000 --features 384 --clusters 500 --repeats 3]
                               [--methods faiss,superkmeans] [--kept FILE]

With DINK_LOW_PRECISION=0 dink does without bfloat16 products, as where a CPU has none.

The rows are quality.py's mixture of sentence embeddings, projected at random where there are not to
be 384 features. With --clock process times are those of the processor, which other programs disturb
less; with one thread (OMP_NUM_THREADS=1) they compare. One method after the other, in one
process, as often as there are repeats, each time from another seed. Peers get the rows as an array
in memory; dink reads them from an npy file, and its time includes that and the seeding. All
inertias are computed from the centres in float64.

"reaches" is the time in which dink, had it been stopped and every centre then moved to the mean of
its rows, would have had a peer's median inertia or less over all rows. Its centres are copied after
each step that is reported (12 of annealing, each round of refinement, each pass; the copies are
in the time) and judged afterwards; the pass that takes the means is timed and added.

With --kept, runs add to those of earlier commands: peers that take minutes can be run in turns of
one repeat each.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from common import ceilings, ceilings_in_words, machine, table, with_spread
from costs import embeddings
from quality import SUPER_FULL, faiss_kmeans, judge, super_kmeans

from dinkcli.data.inputs import open_data
from dinkcli.nearest.index import CenterIndex
from dinkcli.nearest.sums import tempered_statistics
from dinkcli.options import TrainOptions
from dinkcli.processes.device import resolve_device
from dinkcli.training.rows import RowSource
from dinkcli.training.trainer import Trainer

Trail = list[tuple[float, np.ndarray]]
CLOCKS = {"wall": time.perf_counter, "process": time.process_time}
clock = CLOCKS["wall"]


def fast_kmeans() -> Callable:
    from fastkmeans import FastKMeans

    def fit(z: np.ndarray, k: int, seed: int) -> np.ndarray:
        model = FastKMeans(z.shape[1], k, niter=25, gpu=False, seed=seed)
        model.train(z)
        return model.centroids

    return fit


def sklearn_kmeans() -> Callable:
    from sklearn.cluster import KMeans

    def fit(z: np.ndarray, k: int, seed: int) -> np.ndarray:
        return KMeans(k, n_init=1, max_iter=25, random_state=seed).fit(z).cluster_centers_

    return fit


def faiss_super(**settings: Any) -> Callable:
    """faiss's own SuperKMeans, from 1.15 on."""
    import faiss

    if not hasattr(faiss, "SuperKmeans"):
        raise ImportError(f"faiss {faiss.__version__} has no SuperKmeans")

    def fit(z: np.ndarray, k: int, seed: int) -> np.ndarray:
        model = faiss.SuperKmeans(z.shape[1], k, seed=seed + 1, **settings)
        model.train(z)
        return model.centroids

    return fit


def super_quantized(quantizer: str) -> Callable:
    """With means of the rows in float32 in the end: of bits alone inertia is 8 % higher."""
    return super_kmeans(quantizer=quantizer, full_precision_final_centroids=True, **SUPER_FULL)


# At 25 iterations over all rows, and those of which that is not the default as they come.
PEERS: dict[str, Callable[[], Callable]] = {
    "faiss": faiss_kmeans,
    "superkmeans": lambda: super_kmeans(**SUPER_FULL),
    "superkmeans-defaults": super_kmeans,
    "superkmeans-sq8": lambda: super_quantized("sq8"),
    "superkmeans-lvq4": lambda: super_quantized("lvq4"),
    "superkmeans-rabitq": lambda: super_quantized("rabitq"),
    "faiss-super": lambda: faiss_super(max_points_per_centroid=10**9),
    "faiss-super-defaults": faiss_super,
    "fastkmeans": fast_kmeans,
    "scikit-learn": sklearn_kmeans,
}


def dink(path: str, k: int, seed: int) -> Trail:
    """(seconds since the start, centres) after each reported step."""
    started = clock()
    rows = RowSource(open_data([path]), "euclidean", resolve_device("cpu"))
    trainer = Trainer(rows, TrainOptions(k, seed=seed))
    trail = []
    for _ in trainer.steps():
        # A copy: centres that stay the same are updated in place.
        centers = trainer.cluster_centers.numpy().copy()
        trail.append((clock() - started, centers))
    return trail


def finished(z: torch.Tensor, seconds: float, centers: np.ndarray) -> tuple[float, float]:
    """Seconds and inertia when a pass ends the training that has got to ``centers``."""
    started = clock()
    before = torch.from_numpy(centers)
    means = tempered_statistics(z, None, CenterIndex(before), 0.0).means(before)
    return seconds + clock() - started, inertia(z, means.numpy())


def inertia(z: torch.Tensor, centers: np.ndarray) -> float:
    """Labels are those of float64; distances from float32 coordinates, their sum in float64."""
    near = CenterIndex(torch.from_numpy(centers)).nearest(z)
    return float(near.squared_distances.sum(dtype=torch.float64))


def run(z: np.ndarray, k: int, methods: dict[str, Callable], seeds: range) -> list[dict[str, Any]]:
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "x.npy")
        np.save(path, z)
        dink(path, 5, 0)
        for fit in methods.values():
            fit(z[:2000], 5, 0)  # imports and thread pools are not measured
        for seed in seeds:
            trail = dink(path, k, seed)
            for name, fit in methods.items():
                started = clock()
                centers = np.asarray(fit(z, k, seed))
                seconds = clock() - started
                found = judge(z, None, centers)["inertia"]
                runs.append({"method": name, "seconds": seconds, "inertia": found})
                print(runs[-1], flush=True, file=sys.stderr)
            rows = torch.from_numpy(z)
            # As good as the best of the steps before: dink keeps the best while it refines.
            steps = [finished(rows, seconds, centers) for seconds, centers in trail]
            seconds, final = trail[-1][0], judge(z, None, trail[-1][1])["inertia"]
            runs.append({"method": "dink", "seconds": seconds, "inertia": final, "steps": steps})
            print({**runs[-1], "steps": len(steps)}, flush=True, file=sys.stderr)
    return runs


def reaches(run: dict[str, Any], target: float) -> float:
    """Seconds to the first step from which the inertia is ``target`` or less; infinity if none."""
    return next((seconds for seconds, found in run["steps"] if found <= target), float("inf"))


def report(runs: list[dict[str, Any]], bare: float) -> str:
    """``bare``: seconds of one bare product."""
    by_name = {name: [r for r in runs if r["method"] == name] for name in ("dink", *PEERS)}
    ours = by_name.pop("dink")
    own = median(r["seconds"] for r in ours)
    lines = []
    for name, found in {"dink": ours, **by_name}.items():
        if not found:
            continue
        seconds = [r["seconds"] for r in found]
        inertias = [r["inertia"] for r in found]
        middle = median(seconds)
        line = [name, len(found), with_spread(seconds), f"{middle / bare:.0f}"]
        line += [
            with_spread(inertias, 0),
            f"{median(inertias) / median(r['inertia'] for r in ours):.4f}",
        ]
        if found is not ours:
            reached = median(reaches(r, median(inertias)) for r in ours)
            line += [f"{middle / own:.2f}", f"{reached:.2f}", f"{middle / reached:.1f}"]
        lines.append([*line, *[""] * (9 - len(line))])
    columns = ("method", "runs", "seconds", "bare products", "inertia", "over dink's")
    return table((*columns, "time / dink's", "dink reaches it in", "time / that"), lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=384)
    parser.add_argument("--clusters", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", help="peers, separated by commas; all without it")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--kept", type=Path, help="JSON file of runs to add to")
    args = parser.parse_args()
    global clock
    clock = CLOCKS[args.clock]
    warnings.filterwarnings("ignore")
    z, k = embeddings(args.rows, args.features), args.clusters
    kept = json.loads(args.kept.read_text()) if args.kept and args.kept.exists() else []
    methods = {}
    for name in PEERS if args.methods is None else filter(None, args.methods.split(",")):
        try:
            methods[name] = PEERS[name]()
        except ImportError as error:
            print(f"{name}: left out ({error})\n")
    done = sum(r["method"] == "dink" for r in kept)
    found = ceilings()
    kept += run(z, k, methods, range(done, done + args.repeats))
    if args.kept:
        args.kept.write_text(json.dumps(kept))
    bare = len(z) * k * z.shape[1] / found["product"]
    kind = " Processor time." if args.clock == "process" else ""
    print(f"\nN, K, D = {len(z)}, {k}, {z.shape[1]}.{kind} {ceilings_in_words(found)}\n")
    print(report(kept, bare))
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
