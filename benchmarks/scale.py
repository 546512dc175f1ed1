"""Whether costs grow as rows x clusters x features, as docs/scale.md takes them to.

    python benchmarks/scale.py [--points 100:384,1000:384,...]

For each K:D, on as many rows as take some tenths of a second: the bare matrix product of rows and
centres, and the parts of a training as multiples of it. Then what grows with K or N alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from dinkcli.nearest.hardware import chunk_rows, products
from dinkcli.nearest.index import CenterIndex
from dinkcli.nearest.sums import tempered_statistics
from dinkcli.nearest.tempered import TemperedSums
from dinkcli.training.refine import _pair

_POINTS = "10:64,100:384,1000:128,1000:384,1000:768,10000:384,10000:768,30000:768"


def seconds(call: Callable[[], object], repeats: int = 3) -> float:
    call()
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return sorted(found)[repeats // 2]


def bare(z: torch.Tensor, centers: torch.Tensor) -> None:
    with products(z.device):
        for part in z.split(chunk_rows(*centers.shape)):
            _ = part @ centers.T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", default=_POINTS)
    args = parser.parse_args()
    print("| K | D | rows | product GFLOP/s | labels | pass | annealing update | ns a row, K = 1 |")
    print("|---|---|---|---|---|---|---|---|")
    for k, d in (map(int, point.split(":")) for point in args.points.split(",")):
        n = max(256, min(65536, int(1.5e10 / (k * d))))
        generator = torch.Generator().manual_seed(0)
        z = torch.randn(n, d, generator=generator)
        centers = torch.randn(k, d, generator=generator) * 0.7
        index, add_up = CenterIndex(centers), TemperedSums(centers, n, (6.0, 1.0), (1.0, 1.0))
        product = seconds(lambda: bare(z, centers))  # noqa: B023
        times = (
            seconds(lambda: index.labels(z)),  # noqa: B023
            seconds(lambda: tempered_statistics(z, None, index, 0.0)),  # noqa: B023
            seconds(lambda: add_up(z, None, centers, 20.0, False, True)),  # noqa: B023
        )
        rate, each = 2 * n * k * d / product / 1e9, 1e9 * times[0] / (n * k)
        shares = " | ".join(f"{each / product:.2f}" for each in times)
        print(f"| {k} | {d} | {n} | {rate:.0f} | {shares} | {each:.2f} |", flush=True)
    for k in (1_000, 10_000, 100_000):
        gain, cost = torch.rand(k // 2), torch.rand(k) / 4
        candidates, receiver = torch.randperm(k)[: k // 2], torch.randint(0, k, (k,))
        took = seconds(lambda: _pair(gain, candidates, cost, receiver, k // 4))  # noqa: B023
        print(f"pairing splits with removals, K = {k}: {took:.3f} s")
    for n in (10**6, 10**7, 10**8):
        print(f"permutation of {n:.0e} rows: {seconds(lambda: torch.randperm(n), 1):.2f} s")  # noqa: B023


if __name__ == "__main__":
    main()
