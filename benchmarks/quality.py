"""Inertia, agreement with true classes, and time of dink and its peers on the same data.

    pip install scikit-learn scipy faiss-cpu bkmeans superkmeans     (a missing peer is left out)
    python benchmarks/quality.py [--sets digits,stdlib] [--methods dink,kmeans-10] [--seeds 5]
                                 [--data FOLDER]

Methods run in turns, seed by seed, in one process; every time includes seeding. Inertia and
labels are computed from the centres in float64, in the same way for all. FOLDER may hold
NAME.npy and NAME_labels.npy pairs, clustered into as many clusters as there are classes.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

SAMPLES = Path(__file__).parent.parent / "sample_data"
Set = tuple[np.ndarray, "np.ndarray | None", int]


def blobs(seed: int, sizes: list[int], features: int, spread: float, scale: np.ndarray) -> Set:
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    centers = rng.normal(size=(len(sizes), features)) * spread
    rows = centers[truth] + rng.normal(size=(len(truth), features)) * scale
    order = rng.permutation(len(truth))
    return rows[order].astype(np.float32), truth[order], len(sizes)


def mixture(n_rows: int, n_clusters: int, seed: int = 0) -> Set:
    """Overlapping rows of many scales: mixes of a sentence embedding with near ones."""
    base, _, _ = stdlib()
    rng = np.random.default_rng(seed)
    near = np.argsort(-(base @ base.T), axis=1)[:, 1:13]
    first = rng.integers(0, len(base), n_rows)
    second = near[first, rng.integers(0, 12, n_rows)]
    third = near[first, rng.integers(0, 12, n_rows)]
    share = rng.dirichlet([2, 1, 0.7], n_rows)
    rows = sum(share[:, [i]] * base[j] for i, j in enumerate((first, second, third)))
    rows = rows + rng.normal(scale=0.015, size=rows.shape)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), None, n_clusters


def stdlib() -> Set:
    table = pq.read_table(SAMPLES / "stdlib.parquet")
    rows = table["embedding"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
    truth = np.unique(table["module"].to_numpy(), return_inverse=True)[1]
    return rows.astype(np.float32), truth, 40


def digits() -> Set:
    return np.load(SAMPLES / "digits.npy"), np.load(SAMPLES / "digits_labels.npy"), 10


def folder_set(folder: Path, name: str) -> Set:
    truth = np.load(folder / f"{name}_labels.npy")
    return np.load(folder / f"{name}.npy").astype(np.float32), truth, len(np.unique(truth))


SETS: dict[str, Callable[[], Set]] = {
    "digits": digits,
    "stdlib": stdlib,
    "separated": lambda: blobs(0, [400] * 50, 16, 8.0, np.ones(16)),
    "overlapping": lambda: blobs(1, [300] * 20, 16, 1.0, np.ones(16)),
    "unbalanced": lambda: blobs(2, [10_000, 10_000, 10, 10], 8, 15.0, np.ones(8)),
    "anisotropic": lambda: blobs(3, [300] * 30, 20, 2.0, np.geomspace(3, 0.1, 20)),
    "high-k": lambda: blobs(4, [20] * 1000, 32, 2.0, np.ones(32)),
    "mixture-20": lambda: mixture(20_000, 20),
    "mixture-150": lambda: mixture(20_000, 150),
}


def sklearn_kmeans(n_init: int) -> Callable:
    from sklearn.cluster import KMeans

    return lambda z, k, seed: KMeans(k, n_init=n_init, random_state=seed).fit(z).cluster_centers_


def sklearn_minibatch() -> Callable:
    from sklearn.cluster import MiniBatchKMeans

    def fit(z: np.ndarray, k: int, seed: int) -> np.ndarray:
        return MiniBatchKMeans(k, n_init=3, random_state=seed).fit(z).cluster_centers_

    return fit


def sklearn_bisecting() -> Callable:
    from sklearn.cluster import BisectingKMeans

    return lambda z, k, seed: BisectingKMeans(k, random_state=seed).fit(z).cluster_centers_


def faiss_kmeans() -> Callable:
    import faiss

    def fit(z: np.ndarray, k: int, seed: int) -> np.ndarray:
        model = faiss.Kmeans(z.shape[1], k, niter=25, seed=seed + 1, max_points_per_centroid=10**9)
        model.train(z)
        return model.centroids

    return fit


# 25 iterations over all rows; of itself it takes 10 over a third of them.
SUPER_FULL = {"iters": 25, "sampling_fraction": 1.0}


def super_kmeans(**settings: Any) -> Callable:
    from superkmeans import SuperKMeans

    def fit(z: np.ndarray, k: int, seed: int) -> np.ndarray:
        model = SuperKMeans(k, z.shape[1], seed=seed, **settings)
        return np.asarray(model.train(z)).reshape(k, -1)

    return fit


def breathing() -> Callable:
    from bkmeans import BKMeans

    def fit(z: np.ndarray, k: int, seed: int) -> np.ndarray:
        np.random.seed(seed)
        return BKMeans(n_clusters=k, random_state=seed).fit(z).cluster_centers_

    return fit


def moving_average() -> Callable:
    """Mini-batch k-means whose centres are exponential moving averages of their rows, with a
    step that falls along a cosine; ten epochs, k-means++ start."""
    from sklearn.cluster import kmeans_plusplus

    def fit(z: np.ndarray, k: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        size = min(len(z), max(256, 8 * k))
        some = z[rng.permutation(len(z))[: 32 * k]]
        centers = kmeans_plusplus(some, k, random_state=seed)[0].astype(np.float32)
        steps = max(1, 10 * len(z) // size)
        for step in range(steps):
            rate = 0.5 * (1 + math.cos(math.pi * step / steps))
            batch = z[rng.integers(0, len(z), size)]
            labels = ((centers**2).sum(1) / 2 - batch @ centers.T).argmin(1)
            counts = np.bincount(labels, minlength=k)
            sums = np.zeros_like(centers)
            np.add.at(sums, labels, batch)
            seen = counts > 0
            means = sums[seen] / counts[seen, None]
            weight = 1 - (1 - 0.5 * rate) ** np.minimum(counts[seen], 8)[:, None]
            centers[seen] += weight * (means - centers[seen])
        return centers

    return fit


def dink(**options: object) -> Callable:
    import dinkcli

    def fit(z: np.ndarray, k: int, seed: int) -> np.ndarray:
        return dinkcli.train(z, k, seed=seed, **options).cluster_centers

    return fit


METHODS: dict[str, Callable[[], Callable]] = {
    "dink": dink,
    "dink literal": lambda: dink(temperature=math.inf),
    "kmeans-1": lambda: sklearn_kmeans(1),
    "kmeans-10": lambda: sklearn_kmeans(10),
    "minibatch": sklearn_minibatch,
    "bisecting": sklearn_bisecting,
    "faiss": faiss_kmeans,
    "superkmeans": lambda: super_kmeans(**SUPER_FULL),
    "breathing": breathing,
    "moving average": moving_average,
}


def judge(z: np.ndarray, truth: np.ndarray | None, centers: np.ndarray) -> dict[str, float]:
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    labels, inertia = [], 0.0
    c = centers.astype(np.float64)
    for start in range(0, len(z), 4096):
        rows = z[start : start + 4096].astype(np.float64)
        d = (rows**2).sum(1)[:, None] + (c**2).sum(1) - 2 * rows @ c.T
        labels.append(d.argmin(1))
        inertia += d.min(1).sum()
    result = {"inertia": inertia}
    if truth is not None:
        found = np.concatenate(labels)
        table = np.zeros((truth.max() + 1, len(c)))
        np.add.at(table, (truth, found), 1)
        matched = table[linear_sum_assignment(-table)].sum()
        result["nmi"] = 100 * normalized_mutual_info_score(truth, found)
        result["ari"] = 100 * adjusted_rand_score(truth, found)
        result["acc"] = 100 * matched / len(z)
    return result


def compare(data: Set, methods: dict[str, Callable], seeds: int) -> Iterator[tuple[str, dict]]:
    z, truth, k = data
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    for fit in methods.values():
        fit(z[: max(1000, 2 * k)], min(k, 5), 0)  # imports and thread pools are not measured
    for seed in range(seeds):
        for name, fit in methods.items():
            started = time.perf_counter()
            centers = fit(z, k, seed)
            seconds = time.perf_counter() - started
            runs[name].append({**judge(z, truth, centers), "seconds": seconds})
    for name, found in runs.items():
        row = {key: float(np.mean([run[key] for run in found])) for key in found[0]}
        row["worst"] = max(run["inertia"] for run in found)
        row["seconds"] = float(np.median([run["seconds"] for run in found]))
        yield name, row


def table(name: str, data: Set, rows: list[tuple[str, dict]]) -> str:
    z, truth, k = data
    lines = [f"**{name}**: {len(z)} x {z.shape[1]}, K = {k}", ""]
    keys = ["inertia", "worst", *(["nmi", "ari", "acc"] if truth is not None else []), "seconds"]
    lines.append("| method | " + " | ".join(keys) + " |")
    lines.append("|---|" + "---|" * len(keys))
    for method, row in rows:
        cells = [f"{row[key]:{'.6g' if key in ('inertia', 'worst') else '.2f'}}" for key in keys]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets")
    parser.add_argument("--methods")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    sets = dict(SETS)
    for file in sorted(args.data.glob("*_labels.npy")) if args.data else ():
        name = file.name.removesuffix("_labels.npy")
        sets[name] = lambda name=name: folder_set(args.data, name)
    methods = {}
    for name in args.methods.split(",") if args.methods else METHODS:
        try:
            methods[name] = METHODS[name]()
        except ImportError as error:
            print(f"{name}: left out ({error})\n")
    figures = {}
    for name in args.sets.split(",") if args.sets else sets:
        data = sets[name]()
        rows = list(compare(data, methods, args.seeds))
        figures[name] = dict(rows)
        print(table(name, data, rows), flush=True)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
