"""The two nearest centres of each row in one kernel in Triton: a candidate that dink does not use.

Scores of a tile of rows against a tile of centres stay in registers, and only running minima leave
them: no (N, K) matrix is ever in memory. It has run in Triton's interpreter alone. ``gpu.py`` times
it beside plain products with topk; it may come into dink where it gains 1.3 times.

Shapes: N rows, K clusters, D features.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Rows and centres of a tile, features at once, warps and stages. A Hopper multiprocessor has 228 KB
# of shared memory, a Turing one 64.
TILES = ((128, 128, 32, 8, 3), (128, 64, 32, 4, 2), (64, 32, 32, 4, 2), (32, 32, 16, 2, 1))


def fused_two(
    rows: Tensor, centers: Tensor, low_precision: bool, tile: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each row (N,) the lowest score ||c||^2 / 2 - <z, c>, the centre that has it (the lower
    index at a tie), the second-lowest and its centre; with one centre, that is number 0 at
    infinity.

    Args:
        rows, centers: (N, D) and (K, D) float32, contiguous.
        low_precision: by TF32 factors.
        tile: one of ``TILES``.
    """
    tile_rows, tile_centers, tile_features, warps, stages = tile
    (n_rows, n_features), n_clusters = rows.shape, len(centers)
    best, second = (rows.new_empty(n_rows) for _ in range(2))
    labels, seconds = (rows.new_empty(n_rows, dtype=torch.int64) for _ in range(2))
    _nearest_two[(triton.cdiv(n_rows, tile_rows),)](
        rows,
        centers,
        centers.square().sum(1) / 2,
        best,
        labels,
        second,
        seconds,
        n_rows,
        n_clusters,
        n_features,
        tile_rows=tile_rows,
        tile_centers=tile_centers,
        tile_features=tile_features,
        precision="tf32" if low_precision else "ieee",
        num_warps=warps,
        num_stages=stages,
    )
    return best, labels, second, seconds


# Compiled once, not for every kind of number: how many rows are left to settle is any.
@triton.jit(do_not_specialize=["n_rows", "n_clusters"])
def _nearest_two(  # type: ignore[no-untyped-def]
    rows,
    centers,
    half_norms,
    best,
    labels,
    second,
    seconds,
    n_rows,
    n_clusters,
    n_features,
    tile_rows: tl.constexpr,
    tile_centers: tl.constexpr,
    tile_features: tl.constexpr,
    precision: tl.constexpr,
):
    # int64: N x D passes 2^31.
    row = tl.program_id(0).to(tl.int64) * tile_rows + tl.arange(0, tile_rows)
    row_is = row < n_rows
    least = tl.full((tile_rows,), float("inf"), tl.float32)
    next_least = tl.full((tile_rows,), float("inf"), tl.float32)
    label = tl.full((tile_rows,), 0, tl.int32)
    next_label = tl.full((tile_rows,), 0, tl.int32)
    for first in range(0, n_clusters, tile_centers):
        center = first + tl.arange(0, tile_centers)
        center_is = center < n_clusters
        products = tl.zeros((tile_rows, tile_centers), tl.float32)
        for start in range(0, n_features, tile_features):
            feature = start + tl.arange(0, tile_features)
            feature_is = feature < n_features
            z = tl.load(
                rows + row[:, None] * n_features + feature[None, :],
                mask=row_is[:, None] & feature_is[None, :],
                other=0.0,
            )
            c = tl.load(
                centers + center[None, :].to(tl.int64) * n_features + feature[:, None],
                mask=center_is[None, :] & feature_is[:, None],
                other=0.0,
            )
            products = tl.dot(z, c, products, input_precision=precision)
        # Centres that only fill the tile are at infinity: at 0 they would win.
        norms = tl.load(half_norms + center, mask=center_is, other=float("inf"))
        scores = norms[None, :] - products
        here = tl.min(scores, 1)
        numbers = tl.where(scores == here[:, None], center[None, :], 2147483647)
        label_here = tl.min(numbers, 1)
        scores = tl.where(center[None, :] == label_here[:, None], float("inf"), scores)
        next_here = tl.min(scores, 1)
        numbers = tl.where(scores == next_here[:, None], center[None, :], 2147483647)
        next_label_here = tl.min(numbers, 1)
        # Of two ascending pairs the two lowest; the earlier, lower centre at a tie.
        turned = here < least
        loser = tl.where(turned, least, here)
        loser_label = tl.where(turned, label, label_here)
        rest = tl.where(turned, next_here, next_least)
        rest_label = tl.where(turned, next_label_here, next_label)
        takes_rest = rest < loser
        next_least = tl.where(takes_rest, rest, loser)
        next_label = tl.where(takes_rest, rest_label, loser_label)
        label = tl.where(turned, label_here, label)
        least = tl.where(turned, here, least)
    # Of scores that are not numbers none is the lowest, and no index may be out of bounds.
    label = tl.where(label < n_clusters, label, 0)
    next_label = tl.where(next_label < n_clusters, next_label, 0)
    tl.store(best + row, least, mask=row_is)
    tl.store(labels + row, label.to(tl.int64), mask=row_is)
    tl.store(second + row, next_least, mask=row_is)
    next_label = tl.where(next_least == float("inf"), 0, next_label)
    tl.store(seconds + row, next_label.to(tl.int64), mask=row_is)
