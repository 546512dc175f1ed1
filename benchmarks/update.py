"""A model that takes in weekly batches beside a training on everything: final inertia, old rows
that change their label, size of what is kept, planted topics.

    python benchmarks/update.py [--rows FILE.npy --labels LABELS.npy -k K]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from itertools import pairwise

import numpy as np

import dinkcli

WEEKS = 52


def mixture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """20,000 rows of 64 features in 100 overlapping clusters."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 100, 20_000)
    rows = generator.normal(size=(100, 64))[labels] + generator.normal(size=(20_000, 64))
    return rows.astype(np.float32), labels


def inertia(model: dinkcli.Model, rows: np.ndarray) -> float:
    labels = dinkcli.assign(model, rows)
    apart = rows.astype(np.float64) - model.cluster_centers[labels]
    return float((apart**2).sum())


def weeks(rows: np.ndarray, k: int, seed: int) -> dict[str, float]:
    """A training on the first tenth, then 52 batches; births are allowed."""
    rows = rows[np.random.default_rng(seed).permutation(len(rows))]
    edges = np.linspace(len(rows) // 10, len(rows), WEEKS + 1).astype(int)
    model = dinkcli.train(rows[: edges[0]], k, seed=seed)
    before = dinkcli.assign(model, rows[: edges[0]])
    relabelled, born, seconds = [], 0, []
    for first, stop in pairwise(edges):
        started = time.perf_counter()
        found = dinkcli.update(model, rows[first:stop])
        seconds.append(time.perf_counter() - started)
        model, born = found.model, born + len(found.born)
        after = dinkcli.assign(model, rows[:stop])
        relabelled.append((after[: len(before)] != before).mean())
        before = after
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.safetensors")
        model.save(path)
        kept = os.path.getsize(path) / rows.nbytes
    everything = inertia(dinkcli.train(rows, k, seed=seed), rows)
    return {
        "inertia over that of training on everything": inertia(model, rows) / everything,
        "old rows relabelled in a week, most": max(relabelled),
        "old rows relabelled in a week, mean": float(np.mean(relabelled)),
        "model file over the rows": kept,
        "clusters born": born,
        "seconds a week, median": float(np.median(seconds)),
    }


def topics(rows: np.ndarray, labels: np.ndarray, k: int, seed: int) -> tuple[int, int, int]:
    """One class is unknown to a model of the others. Clusters born of 1,000 other rows; of these
    and 30 rows of the class; and rows of the class among the members of the latter."""
    generator = np.random.default_rng(seed)
    topic = generator.choice(np.unique(labels))
    rest = generator.permutation(np.flatnonzero(labels != topic))
    planted = generator.permutation(np.flatnonzero(labels == topic))[:30]
    model = dinkcli.train(rows[rest[1000:]], k - 1, seed=seed)
    without = dinkcli.update(model, rows[rest[:1000]])
    found = dinkcli.update(model, rows[np.concatenate([rest[:1000], planted])])
    inside = np.isin(dinkcli.assign(found.model, rows[planted]), found.born).sum()
    return len(without.born), len(found.born), int(inside)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows")
    parser.add_argument("--labels")
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    if options.rows is None:
        rows, labels = mixture(0)
    else:
        rows, labels = np.load(options.rows).astype(np.float32), np.load(options.labels)
    for seed in range(2):
        print({name: float(f"{value:.4g}") for name, value in weeks(rows, options.k, seed).items()})
    found = np.array([topics(rows, labels, options.k, seed) for seed in range(options.seeds)])
    print(
        f"{options.seeds} planted topics: born in {(found[:, 1] > 0).sum()}, "
        f"{found[found[:, 1] > 0, 2].mean():.1f} of 30 rows in them; "
        f"{found[:, 0].sum()} births without a topic"
    )


if __name__ == "__main__":
    main()
