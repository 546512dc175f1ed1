"""The rows being clustered: prepared for the metric, in memory or read block by block.

Shapes: N rows, B rows in a block or batch, D features.

Euclidean rows are shifted to their mean, which changes no distance and keeps float32 digits.
Cosine rows are scaled to norm 1, where the squared distance is 2 - 2 cos. Narrow dtypes such as
float16 stay as they are until a block is prepared.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from dinkcli.ahead import read_ahead
from dinkcli.errors import InputError, UsageError
from dinkcli.limits import LARGEST_WEIGHT, normalize_, refuse_overflow, refuse_underflow
from dinkcli.readers.dataset import BLOCK_BYTES, DataSet
from dinkcli.readers.memory import default_memory, in_memory
from dinkcli.readers.shuffle import shuffled_windows
from dinkcli.readers.spool import repeatable, seekable

Block = tuple[Tensor, "Tensor | None"]
# Windows of shuffled rows: two are held, one in use and one being read.
_WINDOW_BYTES = 256 << 20

# Sums over the rows of a block may be taken in float32; float64 takes in one block after the
# other. Few enough rows that neither counts nor sums lose digits, enough to keep a GPU busy.
_BLOCK_ROWS = 1 << 16


class RowSource:
    """N usable rows of a data set on a device.

    Args:
        data: what to read.
        metric: "euclidean" or "cosine".
        weights: (N,) float32, not negative, or None; those of bad rows do not count.
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
        self.data = repeatable(data)
        self.metric = metric
        self.device = device
        self.n_rows, self.n_features = self.data.known_rows, data.n_features
        self.weights = _check_weights(weights, self.n_rows)
        self.memory = default_memory() if memory is None else memory
        self.in_memory = in_memory(self.data, self.memory)
        self.shift = torch.zeros(self.n_features) if shift is None else shift
        self._given = shift is not None
        self.n_bad = 0
        self._rows: Tensor | None = None
        if self.in_memory:
            self._load()
        self._count()

    def _load(self) -> None:
        loaded = _empty((self.n_rows, self.n_features), self.data.dtype)
        rows, good = self.data.load_rows(loaded.numpy(), nonzero=self.metric == "cosine")
        loaded = loaded[: len(rows)]
        if good is not None:
            self._leave_out(self.n_rows - len(good))
            if self.weights is not None:
                self.weights = self.weights[torch.from_numpy(good)]
        if self.metric == "euclidean" and not self._given:
            total = torch.zeros(self.n_features, dtype=torch.float64)
            for part in loaded.split(self._block_rows):
                total += part.sum(0, dtype=torch.float64)
            self.shift = (total / self.n_rows).float()
        if loaded.dtype == torch.float32:
            for number, part in enumerate(loaded.split(self._block_rows)):
                self._prepare_(part, number * self._block_rows)
        try:
            self._rows = loaded.to(self.device)
        except torch.cuda.OutOfMemoryError:
            self._rows = loaded  # then each block goes to the device when it is its turn

    def _leave_out(self, n_bad: int) -> None:
        self.n_bad += n_bad
        self.n_rows -= n_bad
        if self.n_rows == 0:
            raise InputError(f"{self.data.name}: all {n_bad} rows are bad; nothing to train on")

    def _count(self) -> None:
        self.total_weight = (
            float(self.n_rows) if self.weights is None else float(self.weights.double().sum())
        )

    @property
    def _block_rows(self) -> int:
        return max(1, BLOCK_BYTES // (4 * self.n_features))

    def _prepare_(self, rows: Tensor, start: int = 0) -> Tensor:
        """float32 ``rows``, the first with number ``start``, for the metric, in place."""
        if self.metric == "cosine":
            normalize_(rows)  # bad rows are zeros, and stay so
        else:
            rows -= self.shift.to(rows.device)
            refuse_overflow(rows, self.data.name, start)
        return rows

    def _prepared(self) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        """(number of the first row, rows (B, D), which are bad) in order, on the CPU."""
        for block in self.data.blocks(nonzero=self.metric == "cosine"):
            rows = self._prepare_(_aligned(block.vectors), block.start)
            yield block.start, rows, None if block.bad is None else torch.from_numpy(block.bad)

    def blocks(self, first: int = 0) -> Iterator[Block]:
        """The rows and their weights from block number ``first`` on, in order, on the device."""
        if self._rows is not None:
            for start in range(first * _BLOCK_ROWS, self.n_rows, _BLOCK_ROWS):
                where = slice(start, start + _BLOCK_ROWS)
                part = self._rows[where].to(self.device)
                if part.dtype != torch.float32:
                    part = self._prepare_(part.float(), start)
                yield part, self._weights_at(where)
            return
        for start, rows, bad in islice(read_ahead(self._prepared()), first, None):
            weights = self._weights_at(slice(start, start + len(rows)))
            if bad is not None:
                rows, weights = rows[~bad], None if weights is None else weights[~bad]
            yield rows.to(self.device), weights

    def batches(self, size: int, seed: int, epoch: int) -> Iterator[Block]:
        """All rows and their weights in random order, ``size`` at a time; the last may be smaller.

        Every row comes exactly once. Rows that are not in memory are shuffled on two levels (see
        ``shuffled_windows``), while a thread reads ahead.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        if self._rows is not None:
            order = torch.randperm(self.n_rows, generator=generator)
            for part in order.split(size):
                rows = self._rows.index_select(0, part.to(self._rows.device)).to(self.device)
                if rows.dtype != torch.float32:
                    rows = self._prepare_(rows.float())
                yield rows, None if self.weights is None else self.weights[part].to(self.device)
            return
        # Inputs that cannot be read from anywhere are copied, once.
        self.data = seekable(self.data)
        window = max(1, min(_WINDOW_BYTES, self.memory // 3))
        windows = shuffled_windows(self.data, window, generator, nonzero=self.metric == "cosine")
        rest: list[tuple[Tensor, Tensor]] = []
        held = 0
        for vectors, numbers in read_ahead(windows, depth=1):
            order = torch.randperm(len(vectors), generator=generator)
            rows, where = torch.from_numpy(vectors), torch.from_numpy(numbers)
            for part in _split(order, size - held, size):
                rest.append((rows.index_select(0, part), where[part]))
                held += len(part)
                if held == size:
                    yield self._batch(rest)
                    rest, held = [], 0
        if rest:
            yield self._batch(rest)

    def _batch(self, parts: list[tuple[Tensor, Tensor]]) -> Block:
        rows = torch.cat([part for part, _ in parts]).to(self.device)
        if self.weights is None:
            return self._prepare_(rows.float()), None
        numbers = torch.cat([where for _, where in parts])
        return self._prepare_(rows.float()), self.weights[numbers].to(self.device)

    def sample(self, size: int, generator: torch.Generator) -> Block:
        """``size`` rows drawn without replacement, in random order, with their weights.

        Drawn from all rows, wherever they are. Rows that are not in memory are read once, when
        the bad ones are found, and a shift that was not given is set to the sample's mean. The
        sample is smaller by the bad rows in it.
        """
        n_rows = self.n_rows if self._rows is not None else self.data.known_rows
        chosen = torch.randperm(n_rows, generator=generator)[:size]
        weights = None if self.weights is None else self.weights[chosen].to(self.device)
        if self._rows is not None:
            rows = self._rows[chosen.to(self._rows.device)].to(self.device)
            if rows.dtype != torch.float32:
                rows = self._prepare_(rows.float())
            refuse_underflow(rows, self.data.name)
            return rows, weights
        order = chosen.argsort()
        ascending = chosen[order]
        result = torch.empty(len(chosen), self.n_features)
        good = torch.ones(len(chosen), dtype=torch.bool)
        n_bad = 0
        for start, rows, bad in read_ahead(self._prepared()):
            first, last = np.searchsorted(ascending.numpy(), (start, start + len(rows)))
            here = ascending[first:last] - start
            result[order[first:last]] = rows[here]
            if bad is not None:
                n_bad += int(bad.sum())
                good[order[first:last]] = ~bad[here]
                if self.weights is not None:
                    self.weights[start : start + len(rows)][bad] = 0
        if n_bad:
            self._leave_out(n_bad)
            self._count()
            result, weights = result[good], None if weights is None else weights[good]
        if self.metric == "euclidean" and not self._given:
            mean = result.mean(0, dtype=torch.float64).float()
            self.shift += mean
            result -= mean
        refuse_underflow(result, self.data.name)
        return result.to(self.device), weights

    def _weights_at(self, where: slice) -> Tensor | None:
        return None if self.weights is None else self.weights[where].to(self.device)


def _split(order: Tensor, first: int, size: int) -> Iterator[Tensor]:
    """``order`` in parts of ``size``, but for the first one."""
    yield order[:first]
    for start in range(first, len(order), size):
        yield order[start : start + size]


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> Tensor:
    """Memory of torch's own alignment.

    The last bits of a matrix product can depend on the alignment of its operands, and NumPy's
    differs from run to run.
    """
    return torch.empty(shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype)


def _aligned(vectors: np.ndarray) -> Tensor:
    rows = _empty(vectors.shape, vectors.dtype)
    rows.numpy()[:] = vectors
    return rows


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
    return torch.from_numpy(np.array(weights, dtype=np.float32))
