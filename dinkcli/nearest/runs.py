"""Sums of rows by label on a GPU: no atomic additions, so the same bits every time.

Rows sorted by label lie in runs. Each run is summed in pieces of the same length, a batched product
that takes in the weights; the sums of pieces are rows sorted by label again, far fewer. After a few
rounds every label has one. No size depends on values, so the host never waits.

Shapes: N rows, K clusters, D features, T pieces of R rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dinkcli.nearest.device import numbers_at_once, wide
from dinkcli.nearest.products import products

# Short pieces take more rounds, long ones are emptier when labels have few rows.
_SHORTEST, _LONGEST = 8, 128
_LINE = 1024
# Multiplications, many of them in float64, that take less than a GPU is told of another round in.
_FEW_PIECES = 1 << 26


def run_sums(
    values: Tensor, labels: Tensor, n_clusters: int, weights: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Sums of ``values`` (N, D) times ``weights`` (N,) by label, (K, D) in ``dtype``.

    The first round is taken in the type of the values, those after it in ``dtype``.
    """
    labels, first_order = labels.sort(stable=True)
    order: Tensor | None = first_order
    factors = None if weights is None else weights[first_order].to(values.dtype)
    n_rows, length = len(labels), _length(len(labels), n_clusters)
    reached = 1
    while reached < n_rows or reached == 1:
        if reached > 1 and values.numel() * n_clusters <= _FEW_PIECES:
            return one_hot_sums(values, labels, n_clusters)
        pieces = _Pieces(labels, n_clusters, length)
        values = pieces.sums(values, order, factors)
        values, labels, order, factors = values.to(dtype), pieces.labels, None, None
        reached *= length
    result = values.new_zeros((n_clusters + 1, values.shape[1]))
    # One row for each label by now, but for that of what is empty.
    return result.index_copy_(0, labels, values)[:n_clusters]


def one_hot_sums(values: Tensor, labels: Tensor, n_clusters: int) -> Tensor:
    """The same of few ``values`` (N, D) in their type, by one product; labels of K do not count."""
    one_hot = (torch.arange(n_clusters, device=labels.device)[:, None] == labels).to(values)
    with products(values.device):
        return one_hot @ values


def counts_of(labels: Tensor, n_clusters: int) -> Tensor:
    """How often each label (N,) comes, (K,) int64; sums of integers are the same in any order.

    ``torch.bincount`` would make the host wait."""
    counts = torch.zeros(n_clusters, dtype=torch.int64, device=labels.device)
    return counts.scatter_add_(0, labels, torch.ones_like(labels))


def running_sums(values: Tensor) -> Tensor:
    """The sums of ``values`` (N,) up to each one, wide; the same bits every time. Along one line a
    GPU adds up in any order, along the rows of a matrix it does not."""
    dtype = wide(values.device)
    if values.device.type == "cpu":
        return values.cumsum(0, dtype=dtype)
    n_lines = max(2, -(-len(values) // _LINE))
    lines = values.new_zeros(n_lines * _LINE, dtype=dtype)
    lines[: len(values)] = values
    lines = lines.view(n_lines, _LINE).cumsum(1)
    if len(values) > _LINE:
        lines[1:] += running_sums(lines[:, -1])[:-1, None]
    return lines.view(-1)[: len(values)]


def _length(n_rows: int, n_clusters: int) -> int:
    mean = max(1, n_rows // n_clusters)
    return min(_LONGEST, max(_SHORTEST, 1 << mean.bit_length() - 1))


class _Pieces:
    """Rows sorted by label, in pieces.

    Args:
        labels: (N,) ascending; K for what does not count.
        length: R.

    Attributes:
        labels: (T,) of the pieces, ascending; K for the empty ones at the end.
    """

    def __init__(self, labels: Tensor, n_clusters: int, length: int):
        n_rows = len(labels)
        counts = counts_of(labels, n_clusters + 1)
        starts = counts.cumsum(0) - counts
        numbers = (counts + (length - 1)).div_(length, rounding_mode="floor")
        numbers[n_clusters:] = 0
        ends = numbers.cumsum(0)
        # As many as there can be, whatever the labels.
        piece = torch.arange(n_rows // length + min(n_rows, n_clusters), device=labels.device)
        self.labels = torch.searchsorted(ends, piece, right=True).clamp_(max=n_clusters)
        done = (piece - (ends - numbers)[self.labels]).mul_(length)
        self._first = starts[self.labels] + done
        left = (counts[self.labels] - done).masked_fill_(self.labels == n_clusters, 0)
        self._left, self._length, self._last = left, length, n_rows - 1

    def sums(self, values: Tensor, order: Tensor | None, factors: Tensor | None) -> Tensor:
        """(T, D) sums of ``values`` (N, D), at ``order`` (N,), times ``factors`` (N,)."""
        n_features = values.shape[1]
        inside = torch.arange(self._length, device=values.device)
        at_once = max(1, numbers_at_once(values.device) // (self._length * n_features))
        parts = []
        for first, left in zip(self._first.split(at_once), self._left.split(at_once), strict=True):
            where = (first[:, None] + inside).clamp_(max=self._last)
            factor = (inside < left[:, None]).to(values.dtype)
            if factors is not None:
                factor *= factors[where]
            rows = values[where if order is None else order[where]]
            with products(values.device):
                parts.append(torch.bmm(factor[:, None], rows)[:, 0])
        return torch.cat(parts)
