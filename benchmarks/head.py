"""The head's two losses, forward and backward: closed form against the literal formula.

    python benchmarks/head.py [--rows 8192 --clusters 1000 --features 384 --repeats 9]

Both run in one process, in turns; medians. The literal formula is Eq. 5 and 6 by torch.cdist.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from dinkcli import DinkClusterHead


def literal(z: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    k = len(centers)
    dilation = -torch.cdist(centers, centers).square().sum() / ((k - 1) * k)
    return dilation, torch.cdist(z, centers).square().mean()


def seconds(losses: Callable[[Tensor], tuple[Tensor, Tensor]], z: Tensor) -> float:
    z.grad = None  # an encoder's activations have no gradient to add to
    started = time.perf_counter()
    dilation, shrink = losses(z)
    (dilation + shrink).backward()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--features", type=int, default=384)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    torch.manual_seed(0)
    z = torch.randn(args.rows, args.features, requires_grad=True)
    head = DinkClusterHead(args.clusters, args.features)
    head.reset_cluster_centers(torch.randn(args.clusters, args.features))
    for found, expected in zip(head(z), literal(z, head.cluster_centers), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    times: dict[str, list[float]] = {"closed": [], "literal": []}
    for _ in range(args.repeats):
        times["closed"].append(seconds(head, z))
        times["literal"].append(seconds(lambda rows: literal(rows, head.cluster_centers), z))
    closed, slow = (sorted(values)[args.repeats // 2] for values in times.values())
    print(f"B, K, D = {args.rows}, {args.clusters}, {args.features}; medians of {args.repeats}\n")
    print("| closed form, ms | literal formula, ms | ratio |\n|---|---|---|")
    print(f"| {closed * 1e3:.1f} | {slow * 1e3:.1f} | {slow / closed:.0f} |")


if __name__ == "__main__":
    main()
