"""Where the time of assigning and of training goes, and how it grows with the data.

    python benchmarks/costs.py assign  [--features 384] [--clusters 10,100,1000,10000]
    python benchmarks/costs.py train   [--features 384] [--clusters 10,100,1000,10000]
    python benchmarks/costs.py scaling [--axis rows|clusters|features]
    python benchmarks/costs.py memory
    (each with [--write docs/performance.md]; "scaling" and "memory" also with [--figure FILE])

All figures are medians of runs in one process, beside two ceilings measured in the same run: a
large float32 matrix product and a large copy. "ideal" is the time of one N x K x D product at the
first ceiling, or of one read of the rows at the second where that takes longer. The rows are
those of quality.py's mixture of sentence embeddings, projected at random to D features.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from common import ceilings, ceilings_in_words, machine, table, timed, write_section
from quality import mixture

from dinkcli.data.inputs import open_data
from dinkcli.nearest.index import CenterIndex
from dinkcli.nearest.scorer import Scorer
from dinkcli.nearest.sums import hard_statistics
from dinkcli.options import TrainOptions
from dinkcli.processes.device import resolve_device
from dinkcli.training.rows import RowSource
from dinkcli.training.trainer import Trainer

_MOST_ROWS = 100_000
_WORK = 2e10  # multiply-adds of one timed assignment
# Parts of finding the nearest centres, and what their time is shown as.
_TIES = "near-ties"
_PARTS = {
    (Scorer, "_scores"): "product",
    (Scorer, "_bfloat16_keys"): "product",
    (Scorer, "_two"): "two minima",
    (Scorer, "_bfloat16_two"): "two minima",
    (CenterIndex, "_settle"): _TIES,
}
_SHOWN = ("product", "two minima", _TIES)
_FIGURES = {
    "rows": (10_000, 31_600, 100_000, 316_000, 1_000_000),
    "clusters": (30, 100, 300, 1000, 3000),
    "features": (16, 48, 160, 480, 1600),
}
_USUAL = {"rows": 100_000, "clusters": 100, "features": 64}


@cache
def base() -> np.ndarray:
    return mixture(_MOST_ROWS, 1)[0]


def embeddings(n_rows: int, n_features: int) -> np.ndarray:
    """(N, D) float32; beyond the rows of the mixture, the same ones with other noise."""
    rng = np.random.default_rng(n_features)
    z = base()
    if n_features != z.shape[1]:
        z = z @ rng.normal(size=(z.shape[1], n_features)).astype(np.float32)
        z /= np.float32(n_features**0.5)
    if n_rows <= len(z):
        return z[:n_rows].copy()
    result = np.empty((n_rows, n_features), np.float32)
    for start in range(0, n_rows, len(z)):
        part = result[start : start + len(z)]
        noise = rng.standard_normal(part.shape, np.float32)
        part[:] = z[: len(part)] + noise * np.float32(0.2 / n_features**0.5)
    return result


def centers_of(z: torch.Tensor, n_clusters: int) -> torch.Tensor:
    """One step of k-means from random rows: about as many near-ties as after training."""
    first = z[torch.randperm(len(z), generator=torch.Generator().manual_seed(0))[:n_clusters]]
    some = z[: 32 * n_clusters]
    return (
        hard_statistics(some, None, CenterIndex(first).nearest(some), n_clusters)
        .means(first)
        .float()
    )


def ideal(found: dict[str, float], n_rows: int, n_clusters: int, n_features: int) -> float:
    product = n_rows * n_clusters * n_features / found["product"]
    return max(product, 4 * n_rows * n_features / (found["copy"] / 2))


class Watch:
    """Time spent in the parts of finding the nearest centres; parts inside a part do not count."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside = False

    def __enter__(self) -> Watch:
        self._saved = {where: getattr(*where) for where in _PARTS}
        for (owner, name), method in self._saved.items():
            setattr(owner, name, self._watched(method, _PARTS[owner, name]))
        return self

    def __exit__(self, *_: object) -> None:
        for (owner, name), method in self._saved.items():
            setattr(owner, name, method)

    def _watched(self, method: Callable, part: str) -> Callable:
        @wraps(method)
        def run(*args: Any, **options: Any) -> Any:
            if self._inside:
                return method(*args, **options)
            self._inside = True
            started = time.perf_counter()
            result = method(*args, **options)
            self.seconds[part] += time.perf_counter() - started
            self._inside = False
            return result

        return run


def assign(features: int, clusters: list[int], found: dict[str, float]) -> str:
    rows = []
    for k in clusters:
        n_rows = int(min(_MOST_ROWS, max(8192, _WORK / (k * features))))
        z = torch.from_numpy(embeddings(n_rows, features))
        index = CenterIndex(centers_of(torch.from_numpy(embeddings(_MOST_ROWS, features)), k))
        index.labels(z)
        seconds = median(timed(lambda i=index, z=z: i.labels(z)) for _ in range(7))
        with Watch() as watch:
            watched = timed(lambda i=index, z=z: i.labels(z))
        parts = {name: watch.seconds[name] / watched for name in _SHOWN}
        other = 1 - sum(parts.values())
        least = ideal(found, n_rows, k, features)
        shares = [f"{share:.0%}" for share in (*parts.values(), other)]
        rate = f"{n_rows / seconds:,.0f}"
        rows.append((k, n_rows, rate, f"{least / seconds:.2f}", *shares))
    return table(("K", "rows", "rows/s", "ideal / time", *_SHOWN, "other"), rows)


def phases(path: str, n_clusters: int) -> dict[str, float]:
    """Seconds of reading, of seeding (with the first update of annealing), and of each phase."""
    seconds: dict[str, float] = defaultdict(float)
    started = time.perf_counter()
    trainer = Trainer(
        RowSource(open_data([path]), "euclidean", resolve_device("cpu")), TrainOptions(n_clusters)
    )
    assert len(trainer.sample)
    seconds["reading"] = time.perf_counter() - started
    before, first = time.perf_counter(), 0.0
    for number, step in enumerate(trainer.steps()):
        now = time.perf_counter()
        first = first if number else now - before
        seconds[step.phase] += now - before
        before = now
    # The first step has seeding in it, besides as much annealing as each of the eleven after it.
    seconds["seeding"] = max(0.0, first - (seconds["anneal"] - first) / 11)
    seconds["anneal"] -= seconds["seeding"]
    return seconds


def train(features: int, clusters: list[int], found: dict[str, float]) -> str:
    names = ("reading", "seeding", "anneal", "refine", "pass")
    rows = []
    for k in clusters:
        n_rows = int(max(5 * k, min(_MOST_ROWS, 2e11 / (k * features))))
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "x.npy")
            np.save(path, embeddings(n_rows, features))
            runs = [phases(path, k)]
            while len(runs) < 3 and sum(runs[0].values()) < 15:
                runs.append(phases(path, k))
        seconds = {name: median(run[name] for run in runs) for name in names}
        total = median(sum(run.values()) for run in runs)
        least = ideal(found, n_rows, k, features)
        shares = [f"{seconds[name] / total:.0%}" for name in names]
        rows.append((k, n_rows, f"{total:.2f}", f"{total / least:.0f}", *shares))
    columns = ("reading", "seeding", "annealing", "refining", "passes")
    return table(("K", "rows", "seconds", "time / ideal", *columns), rows)


def scaling(axis: str) -> dict[str, list[float]]:
    """Seconds of assigning and of training along one axis, the other two at their usual size."""
    curves: dict[str, list[float]] = {"assign": [], "train": []}
    for value in _FIGURES[axis]:
        size = {**_USUAL, axis: value}
        z = embeddings(size["rows"], size["features"])
        k, rows = size["clusters"], torch.from_numpy(z)
        index = CenterIndex(centers_of(rows, k))
        index.labels(rows)
        curves["assign"].append(
            median(timed(lambda i=index, r=rows: i.labels(r)) for _ in range(5))
        )
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "x.npy")
            np.save(path, z)
            curves["train"].append(median(sum(phases(path, k).values()) for _ in range(3)))
    return curves


def memory() -> dict[str, list[float]]:
    """Largest resident set in MB of the two commands, with 100 MB for rows."""
    from memory import run, write_npy

    curves: dict[str, list[float]] = {"assign": [], "train": []}
    with tempfile.TemporaryDirectory() as folder:
        path, model = os.path.join(folder, "x.npy"), os.path.join(folder, "m.safetensors")
        for n_rows in (100_000, 1_000_000, 10_000_000):
            write_npy(path, n_rows, 32)
            options = ("-k", "20", "--epochs", "1", "-q", "--device", "cpu")
            trained = run("train", path, *options, "--memory", "100MB", "-o", model)
            assigned = run("assign", model, path, "-q", "-o", os.path.join(folder, "y.npy"))
            curves["train"].append(trained[0])
            curves["assign"].append(assigned[0])
    return curves


def draw(curves: dict[str, dict[str, list[float]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(curves), figsize=(3.1 * len(curves), 3), sharey=True)
    for axes, (axis, found) in zip(np.atleast_1d(panels), curves.items(), strict=True):
        sizes = _FIGURES[axis]
        for name, seconds in found.items():
            (line,) = axes.plot(sizes, seconds, marker="o", markersize=3, label=name)
            linear = [seconds[-1] * size / sizes[-1] for size in sizes]
            axes.plot(sizes, linear, ":", color=line.get_color(), linewidth=1)
        others = ", ".join(f"{_USUAL[other]:,} {other}" for other in _USUAL if other != axis)
        axes.set(xscale="log", yscale="log", xlabel=axis)
        axes.set_title(others, fontsize=8)
    np.atleast_1d(panels)[0].set_ylabel("seconds (dotted: linear)")
    np.atleast_1d(panels)[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("assign", "train", "scaling", "memory"))
    parser.add_argument("--features", type=int, default=384)
    parser.add_argument("--clusters", default="10,100,1000,10000")
    parser.add_argument("--axis", choices=_FIGURES, help="only this one")
    parser.add_argument("--write", type=Path, help="put the result into this file's section")
    parser.add_argument("--curves", type=Path, help="JSON file that curves are kept in")
    parser.add_argument("--figure", type=Path, help="draw the curves here")
    args = parser.parse_args()
    if args.what in ("assign", "train"):
        found = ceilings()
        clusters = [int(k) for k in args.clusters.split(",")]
        work = assign if args.what == "assign" else train
        body = work(args.features, clusters, found)
        text = f"D = {args.features}. {ceilings_in_words(found)}\n\n{body}"
        name = f"{args.what} {args.features}"
    elif args.what == "memory":
        curves = memory()
        sizes = ("100,000", "1,000,000", "10,000,000")
        rows = [(name, *(f"{mb:.0f}" for mb in found)) for name, found in curves.items()]
        text, name = table(("MB at rows", *sizes), rows), "memory"
    else:
        kept = json.loads(args.curves.read_text()) if args.curves and args.curves.exists() else {}
        for axis in [args.axis] if args.axis else _FIGURES:
            kept[axis] = scaling(axis)
        if args.curves:
            args.curves.write_text(json.dumps(kept))
        if args.figure:
            draw(kept, args.figure)
        rows = []
        for axis, found in kept.items():
            for what, seconds in found.items():
                factors = np.diff(np.log(seconds)) / np.diff(np.log(_FIGURES[axis]))
                slope = np.log(seconds[-1] / seconds[0]) / np.log(
                    _FIGURES[axis][-1] / _FIGURES[axis][0]
                )
                shown = [f"{value:.3f}" for value in seconds]
                rows.append((f"{what}, {axis}", *shown, f"{slope:.2f}", f"{factors.max():.2f}"))
        columns = (
            "seconds at",
            "1",
            "3.2",
            "10",
            "32",
            "100 times the least",
            "exponent",
            "steepest",
        )
        text, name = table(columns, rows), "scaling"
    print(text)
    if args.write:
        write_section(args.write, f"{name}", f"{text}\n\n{machine()}")


if __name__ == "__main__":
    main()
