"""Nearest rows of rows, nearly all of them found, without comparing every pair.

Rows are sorted into cells around some of them; neighbours are sought in the cells nearest to a
row's own. Shapes: N rows, M neighbours, C cells, D features.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from dinkcli.nearest.index import CenterIndex

_ALL_PAIRS = 4096  # rows among which every pair is compared
_CELL = 256  # rows, on average
_LARGEST = 1024
_CELLS = 8  # that neighbours are sought in, the own one included
_SCORES = 1 << 22  # at once


def nearest_others(z: Tensor, number: int, seed: int = 0) -> np.ndarray:
    """Numbers (N, M) int32 of the ``number`` M < N rows nearest to each row of ``z`` (N, D).

    All pairs are compared up to 4096 rows; of more, nine of ten or more are the nearest.
    """
    n = len(z)
    if n <= _ALL_PAIRS:
        order, sizes, near = torch.arange(n), [n], torch.zeros((1, 1), dtype=torch.int64)
    else:
        order, sizes, near = _cells(z, number, seed)
    starts = [0, *accumulate(sizes)]
    z = z[order]
    half = z.square().sum(1) / 2
    found = torch.empty((n, number), dtype=torch.int64)
    for cell, others in enumerate(near.tolist()):
        spans = [torch.arange(starts[j], starts[j + 1]) for j in others]
        candidates = torch.cat(spans)
        rows, lengths = z.index_select(0, candidates), half[candidates]
        step = max(1, _SCORES // len(candidates))
        for first in range(starts[cell], starts[cell + 1], step):
            part = slice(first, min(first + step, starts[cell + 1]))
            scores = torch.addmm(lengths, z[part], rows.T, alpha=-1)
            # The own cell comes first among the candidates: a row's own place there is known.
            scores.diagonal(first - starts[cell]).fill_(torch.inf)
            found[part] = candidates[scores.topk(number, dim=1, largest=False).indices]
    result = np.empty((n, number), np.int32)
    result[order.numpy()] = order[found].numpy()
    return result


def _cells(z: Tensor, number: int, seed: int) -> tuple[Tensor, list[int], Tensor]:
    """(rows in the order of their cells, the cells' sizes (C,), cells nearest to each, itself first
    (C, 8 or more where they hold too few rows))."""
    n = len(z)
    chosen = np.random.default_rng(seed).choice(n, n // _CELL, replace=False)
    centers = z[torch.from_numpy(np.sort(chosen))]
    for _ in range(2):
        labels = CenterIndex(centers).labels(z)
        sums = torch.zeros_like(centers).index_add_(0, labels, z)
        sizes = labels.bincount(minlength=len(centers))
        centers = torch.where(sizes[:, None] > 0, sums / sizes.clip(min=1)[:, None], centers)
    # A cell of many rows, as duplicates make it, is cut: time stays proportional to rows.
    order = (labels := CenterIndex(centers).labels(z)).argsort(stable=True)
    sizes = labels.bincount(minlength=len(centers))
    rank = torch.arange(n) - (sizes.cumsum(0) - sizes)[labels[order]]
    pieces = labels[order] * n + rank // _LARGEST
    sizes = pieces.unique_consecutive(return_counts=True)[1]
    means = torch.segment_reduce(z[order], "mean", lengths=sizes)
    apart = torch.cdist(means, means).fill_diagonal_(-1)
    ranked = apart.argsort(dim=1, stable=True)
    cells = _CELLS
    while cells < len(sizes) and int(sizes[ranked[:, :cells]].sum(1).min()) <= number:
        cells *= 2
    return order, sizes.tolist(), ranked[:, :cells]
