"""Agreement with the true classes against the temperature and the dilation weight.

    pip install scikit-learn scipy matplotlib
    python benchmarks/temperature.py [--data FOLDER] [--seeds 5] [--figure docs/temperature.svg]

Temperatures are multiples of the merge temperature of each set (twice the largest eigenvalue of
a typical cluster's covariance) and stay fixed during training; "auto" and "inf" stand beside.
FOLDER as for quality.py.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from quality import SETS, Set, folder_set, judge

import dinkcli
from dinkcli.training.sample import Sample
from dinkcli.training.schedule import _START, start_temperature

FACTORS = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
DILATIONS = (0.0, 0.05, 0.1, 0.2, 0.4)


def merge_temperature(z: np.ndarray, k: int) -> float:
    model = dinkcli.train(z, k)
    rows = Sample(torch.from_numpy(z), None, lambda centers: centers)
    centers = torch.from_numpy(model.cluster_centers)
    return start_temperature(rows, centers, rows.labels(centers)) / _START


def scores(data: Set, seeds: int, **options: object) -> tuple[float, float]:
    """Mean NMI in percent and mean inertia."""
    z, truth, k = data
    found = [
        judge(z, truth, dinkcli.train(z, k, seed=seed, **options).cluster_centers)
        for seed in range(seeds)
    ]
    return tuple(float(np.mean([run[key] for run in found])) for key in ("nmi", "inertia"))


def draw(curves: dict[str, list[float]], flat: dict[str, float], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "dink"  # the same figure gives the same bytes
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.8))
    for name, values in curves.items():
        (line,) = axes.plot(FACTORS, values, marker="o", markersize=3, label=name)
        axes.axhline(flat[name], color=line.get_color(), linestyle=":", linewidth=1)
    axes.set(xscale="log", xlabel="fixed temperature / merge temperature", ylabel="NMI, percent")
    axes.set_title("Dotted: annealed and refined (--temperature auto)", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    sets = {name: SETS[name]() for name in ("digits", "stdlib")}
    for file in sorted(args.data.glob("*_labels.npy")) if args.data else ():
        name = file.name.removesuffix("_labels.npy")
        sets[name] = folder_set(args.data, name)
    curves, flat = {}, {}
    print("NMI by temperature\n\n| set | " + " | ".join(map(str, FACTORS)) + " | inf | auto |")
    print("|---|" + "---|" * (len(FACTORS) + 2))
    for name, data in sets.items():
        scale = merge_temperature(data[0], data[2])
        curves[name] = [scores(data, args.seeds, temperature=f * scale)[0] for f in FACTORS]
        flat[name] = scores(data, args.seeds)[0]
        literal = scores(data, args.seeds, temperature=math.inf)[0]
        cells = [f"{value:.1f}" for value in (*curves[name], literal, flat[name])]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    print("\nInertia (NMI) by dilation weight while annealing\n")
    print("| set | " + " | ".join(map(str, DILATIONS)) + " |\n|---|" + "---|" * len(DILATIONS))
    for name, data in sets.items():
        cells = [scores(data, args.seeds, dilation=w) for w in DILATIONS]
        shown = [f"{inertia:.6g} ({nmi:.1f})" for nmi, inertia in cells]
        print(f"| {name} | " + " | ".join(shown) + " |", flush=True)
    if args.figure:
        draw(curves, flat, args.figure)


if __name__ == "__main__":
    main()
