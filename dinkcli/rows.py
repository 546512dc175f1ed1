"""The rows being clustered: prepared for the metric, in memory or read block by block.

Shapes: N rows, B rows in a block, D features.

Euclidean rows are shifted to their mean, which changes no distance and keeps float32 digits.
Cosine rows are scaled to norm 1, where the squared distance is 2 - 2 cos.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from dinkcli.errors import InputError, UsageError
from dinkcli.limits import LARGEST_WEIGHT, normalize_, refuse_overflow, refuse_underflow
from dinkcli.readers import DataSet

Block = tuple[Tensor, "Tensor | None"]

# Sums over the rows of a block may be taken in float32; float64 takes in one block after the
# other. Few enough rows that neither counts nor sums lose digits, enough to keep a GPU busy.
_BLOCK_ROWS = 1 << 16


class RowSource:
    """N rows of a data set on a device.

    Args:
        data: what to read.
        metric: "euclidean" or "cosine".
        weights: (N,) float32, not negative, or None.
        memory: bytes that the rows may take; beyond it they are read anew for each pass.
        shift: (D,) subtracted from euclidean rows; their mean (or a sample's) without it.

    Raises:
        InputError: rows that are not finite, of norm 0 under cosine, too large for float32.
        UsageError: weights of another length, negative, or all zero.
    """

    def __init__(
        self,
        data: DataSet,
        metric: str,
        device: torch.device,
        weights: np.ndarray | None = None,
        memory: int | None = None,
        shift: Tensor | None = None,
    ):
        self.data = data
        self.metric = metric
        self.device = device
        self.n_rows, self.n_features = data.n_rows, data.n_features
        self.weights = _check_weights(weights, self.n_rows)
        self.total_weight = (
            float(self.n_rows) if self.weights is None else float(self.weights.double().sum())
        )
        self.memory = _default_memory() if memory is None else memory
        self.in_memory = 4 * self.n_rows * self.n_features <= self.memory
        self.shift = torch.zeros(self.n_features) if shift is None else shift
        self._given = shift is not None
        self._rows: Tensor | None = None
        if self.in_memory:
            self._load()

    def _load(self) -> None:
        rows = _aligned(self.data.load())
        if self.metric == "cosine":
            _normalize_(rows, 0, self.data.name)
        else:
            if not self._given:
                self.shift = rows.mean(0, dtype=torch.float64).float()
            rows -= self.shift
            refuse_overflow(rows, self.data.name)
        try:
            self._rows = rows.to(self.device)
        except torch.cuda.OutOfMemoryError:
            self._rows = rows  # then each block goes to the device when it is its turn

    def _prepared(self) -> Iterator[tuple[int, Tensor]]:
        """(number of the first row, rows (B, D)) in order, on the CPU."""
        for block in self.data.blocks():
            rows = _aligned(block.vectors)
            if self.metric == "cosine":
                _normalize_(rows, block.start, self.data.name)
            else:
                rows -= self.shift
                refuse_overflow(rows, self.data.name, block.start)
            yield block.start, rows

    def blocks(self, first: int = 0) -> Iterator[Block]:
        """The rows and their weights from block number ``first`` on, in order, on the device."""
        if self._rows is not None:
            for start in range(first * _BLOCK_ROWS, self.n_rows, _BLOCK_ROWS):
                where = slice(start, start + _BLOCK_ROWS)
                yield self._rows[where].to(self.device), self._weights_at(where)
            return
        for start, rows in islice(self._prepared(), first, None):
            yield rows.to(self.device), self._weights_at(slice(start, start + len(rows)))

    def sample(self, size: int, generator: torch.Generator) -> Block:
        """``size`` rows drawn without replacement, in random order, with their weights.

        Rows that are not in memory are read once, and a shift that was not given is set to the
        sample's mean.
        """
        chosen = torch.randperm(self.n_rows, generator=generator)[:size]
        weights = None if self.weights is None else self.weights[chosen].to(self.device)
        if self._rows is not None:
            result = self._rows[chosen.to(self._rows.device)].to(self.device)
            refuse_underflow(result, self.data.name)
            return result, weights
        order = chosen.argsort()
        ascending = chosen[order]
        result = torch.empty(size, self.n_features)
        for start, rows in self._prepared():
            first, last = np.searchsorted(ascending.numpy(), (start, start + len(rows)))
            result[order[first:last]] = rows[ascending[first:last] - start]
        if self.metric == "euclidean" and not self._given:
            mean = result.mean(0, dtype=torch.float64).float()
            self.shift += mean
            result -= mean
        refuse_underflow(result, self.data.name)
        return result.to(self.device), weights

    def _weights_at(self, where: slice) -> Tensor | None:
        return None if self.weights is None else self.weights[where].to(self.device)


def _default_memory() -> int:
    """A quarter of the machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


def _aligned(vectors: np.ndarray) -> Tensor:
    """A copy in memory of torch's own alignment.

    The last bits of a matrix product can depend on the alignment of its operands, and NumPy's
    differs from run to run.
    """
    rows = torch.empty(vectors.shape)
    rows.numpy()[:] = vectors
    return rows


def _normalize_(rows: Tensor, start: int, name: str) -> None:
    zero = (normalize_(rows) == 0).nonzero()
    if len(zero):
        raise InputError(
            f"{name}: row {start + int(zero[0, 0])} has norm 0, which has no direction "
            f"(counting from 0; {len(zero)} such rows); remove it or use --metric euclidean"
        )


def _check_weights(weights: np.ndarray | None, n_rows: int) -> Tensor | None:
    if weights is None:
        return None
    if weights.shape != (n_rows,):
        raise UsageError(f"sample weights of shape {weights.shape}, expected ({n_rows},)")
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise UsageError("sample weights must be finite, not negative, and not all zero")
    if not 1 / LARGEST_WEIGHT <= weights.max() <= LARGEST_WEIGHT:
        raise UsageError(
            f"sample weights reach {weights.max():.3g}, expected at most {LARGEST_WEIGHT:.0e} "
            f"and at least {1 / LARGEST_WEIGHT:.0e}; only their ratios matter: scale them"
        )
    return torch.from_numpy(np.asarray(weights, dtype=np.float32))
