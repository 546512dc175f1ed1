"""The two nearest centres of each row in one kernel, on CUDA devices with Triton.

Scores of a tile of rows against a tile of centres stay in registers, and only running minima leave
them: no (N, K) matrix is ever in memory. Where Triton is missing or cannot compile the kernel,
``scorer`` makes scores chunk by chunk instead. ``DINK_TRITON=0`` in the environment does without.

Shapes: N rows, K clusters, D features.
"""

from __future__ import annotations

import os
import warnings
from contextlib import nullcontext

import torch
from torch import Tensor

from dinkcli.nearest.hardware import products
from dinkcli.processes.device import is_out_of_memory

try:
    import triton
    import triton.language as tl
except Exception:  # CPU builds of torch come without; some do not fit the machine
    triton = tl = None

# Rows and centres of a tile, features at once, warps and stages: the largest that fits is taken.
# A Hopper multiprocessor has 228 KB of shared memory, a Turing one 64.
_TILES = ((128, 128, 32, 8, 3), (128, 64, 32, 4, 2), (64, 32, 32, 4, 2), (32, 32, 16, 2, 1))


class _State:
    """Which tile works on this machine, and why none does, once that is known."""

    tile = 0
    tried = False
    failure: str | None = None


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the kernel does not serve there; None where it does."""
    if os.environ.get("DINK_TRITON") == "0":
        return "switched off by DINK_TRITON=0"
    if triton is None:
        return "Triton is not installed"
    if dtype != torch.float32:
        return f"it is for float32, not {str(dtype).removeprefix('torch.')}"
    if device.type != "cuda" and not _interpreted():
        return f"it is for CUDA devices, not {device.type}"
    if not _State.tried:
        # Before anybody counts on it: without the kernel, scores of so many rows would not fit.
        _State.tried = True
        while not all(_serves(device, low_precision) for low_precision in (True, False)):
            pass  # the next tile
    return _State.failure


def _serves(device: torch.device, low_precision: bool) -> bool:
    """Whether the kernel gives the two lowest scores there, or no tile is left to try: a compiler
    that is wrong on some card must not be found out by its labels."""
    generator = torch.Generator().manual_seed(0)
    rows, centers = (torch.randn(n, 72, generator=generator).to(device) for n in (150, 130))
    half_norms = centers.square().sum(1) / 2
    fused = fused_two(rows, centers, half_norms, low_precision)
    if fused is None:
        return True
    least, labels, second, seconds = fused
    with products(device):
        scores = torch.addmm(half_norms, rows, centers.T, alpha=-1)
    best = torch.stack([least, second], 1)
    expected = scores.topk(2, largest=False).values
    those = scores.gather(1, torch.stack([labels, seconds], 1))
    # Norms of both are about 8.5: TF32 is off by a tenth at most.
    worst = torch.stack([(best - expected).abs().max(), (those - expected).abs().max()]).max()
    if worst <= (0.3 if low_precision else 1e-3):
        return True
    _State.tile += 1
    _State.failure = f"Triton {triton.__version__} computes wrong scores on this card"
    return False


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def fused_two(
    rows: Tensor, centers: Tensor, half_norms: Tensor, low_precision: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Of each row (N,) the lowest score ||c||^2 / 2 - <z, c>, the centre that has it (the lower
    index at a tie), the second-lowest and its centre; with one centre, that is number 0 at
    infinity. None where the kernel cannot be compiled.

    Args:
        rows, centers: (N, D) and (K, D) float32.
        half_norms: (K,).
        low_precision: by TF32 factors; scores are then off by what ``rounding_error`` bounds.
    """
    rows, centers = rows.contiguous(), centers.contiguous()
    n_rows = len(rows)
    best, second = (rows.new_empty(n_rows) for _ in range(2))
    labels, seconds = (rows.new_empty(n_rows, dtype=torch.int64) for _ in range(2))
    while n_rows and _State.tile < len(_TILES):
        try:
            with warnings.catch_warnings():  # of Triton, about its own settings
                warnings.simplefilter("ignore")
                _launch(rows, centers, half_norms, low_precision, best, labels, second, seconds)
            break
        except Exception as error:  # of the compiler: too much shared memory, an unknown card
            if is_out_of_memory(error):
                raise
            _State.tile += 1
            _State.failure = f"{type(error).__name__}: {error}".splitlines()[0]
    if _State.tile >= len(_TILES):
        return None
    _State.failure = None
    return best, labels, second, seconds


def _launch(
    rows: Tensor, centers: Tensor, half_norms: Tensor, low_precision: bool, *out: Tensor
) -> None:
    tile_rows, tile_centers, tile_features, warps, stages = _TILES[_State.tile]
    (n_rows, n_features), n_clusters = rows.shape, len(centers)
    launched = _nearest_two[(triton.cdiv(n_rows, tile_rows),)]
    # Triton launches on the current device, which need not be the one of the rows.
    with torch.cuda.device(rows.device) if rows.is_cuda else nullcontext():
        launched(
            rows,
            centers,
            half_norms,
            *out,
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


if triton is not None:
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
