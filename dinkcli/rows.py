"""The rows being clustered: prepared for the metric, in memory or read block by block.

Shapes: N rows, B rows in a block or batch, D features.

Euclidean rows are shifted to their mean, which changes no distance and keeps float32 digits.
Cosine rows are scaled to norm 1, where the squared distance is 2 - 2 cos. Narrow dtypes such as
float16 stay as they are until a block is prepared.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from dinkcli.ahead import read_ahead
from dinkcli.errors import InputError, UsageError
from dinkcli.readers.dataset import BLOCK_BYTES, DataSet
from dinkcli.readers.memory import default_memory, in_memory
from dinkcli.readers.shuffle import shuffled_windows
from dinkcli.readers.spool import repeatable, seekable

Block = tuple[Tensor, "Tensor | None"]
# Windows of shuffled rows: two are held, one in use and one being read.
_WINDOW_BYTES = 256 << 20


class RowSource:
    """N usable rows of a data set on a device.

    Args:
        data: what to read.
        metric: "euclidean" or "cosine".
        weights: (N,) float32, not negative, or None; those of bad rows do not count.
        memory: bytes that the rows may take; beyond it they are read anew for each pass.

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
    ):
        self.data = repeatable(data)
        self.metric = metric
        self.device = device
        self.n_rows, self.n_features = self.data.known_rows, data.n_features
        self.weights = _check_weights(weights, self.n_rows)
        self.memory = default_memory() if memory is None else memory
        self.in_memory = in_memory(self.data, self.memory)
        self.shift = torch.zeros(self.n_features)
        self.n_bad = 0
        self._good: Tensor | None = None
        self._rows: Tensor | None = None
        if self.in_memory:
            self._load()
        self._count()

    def _load(self) -> None:
        rows, good = self.data.load_rows(self.data.dtype, nonzero=self.metric == "cosine")
        self._rows = torch.from_numpy(rows)
        if good is not None:
            self._leave_out(self.n_rows - len(good))
            if self.weights is not None:
                self.weights = self.weights[torch.from_numpy(good)]
        if self.metric == "euclidean":
            total = torch.zeros(self.n_features, dtype=torch.float64)
            for part in self._rows.split(self._block_rows):
                total += part.sum(0, dtype=torch.float64)
            self.shift = (total / self.n_rows).float()
        if self._rows.dtype == torch.float32:
            for part in self._rows.split(self._block_rows):
                self._prepare_(part)
        self._rows = self._rows.to(self.device)

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

    def _prepare_(self, rows: Tensor) -> Tensor:
        """float32 ``rows`` for the metric, in place."""
        if self.metric == "cosine":
            # Bad rows are zeros, and stay so.
            rows /= torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp(min=1e-30)
        else:
            rows -= self.shift.to(rows.device)
            _check_norms(rows, self.data.name)
        return rows

    def _prepared(self) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        """(number of the first row, rows (B, D), which are bad) in order, on the CPU."""
        for block in self.data.blocks(nonzero=self.metric == "cosine"):
            vectors = block.vectors
            if not (vectors.flags.owndata and vectors.flags.writeable):
                vectors = vectors.copy()
            rows = self._prepare_(torch.from_numpy(vectors))
            yield block.start, rows, None if block.bad is None else torch.from_numpy(block.bad)

    def blocks(self) -> Iterator[Block]:
        """All rows and their weights in order, on the device."""
        if self._rows is not None:
            if self._rows.dtype == torch.float32:
                yield self._rows, self._weights_at(slice(None))
                return
            for start in range(0, self.n_rows, self._block_rows):
                where = slice(start, start + self._block_rows)
                yield self._prepare_(self._rows[where].float()), self._weights_at(where)
            return
        for start, rows, bad in read_ahead(self._prepared()):
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
                rows = self._rows.index_select(0, part.to(self.device))
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
        the bad ones are found, and the shift is set to the sample's mean. The sample is smaller
        by the bad rows in it.
        """
        n_rows = self.n_rows if self._rows is not None else self.data.known_rows
        chosen = torch.randperm(n_rows, generator=generator)[:size]
        weights = None if self.weights is None else self.weights[chosen].to(self.device)
        if self._rows is not None:
            rows = self._rows[chosen.to(self.device)]
            return rows if rows.dtype == torch.float32 else self._prepare_(rows.float()), weights
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
        if self.metric == "euclidean":
            mean = result.mean(0, dtype=torch.float64).float()
            self.shift += mean
            result -= mean
        return result.to(self.device), weights

    def _weights_at(self, where: slice) -> Tensor | None:
        return None if self.weights is None else self.weights[where].to(self.device)


def _split(order: Tensor, first: int, size: int) -> Iterator[Tensor]:
    """``order`` in parts of ``size``, but for the first one."""
    yield order[:first]
    for start in range(first, len(order), size):
        yield order[start : start + size]


def _check_norms(rows: Tensor, name: str) -> None:
    """Squared distances must fit float32, with room for sums."""
    low, high = torch.aminmax(rows)
    largest = max(-float(low), float(high))
    limit = 1e18 / rows.shape[1] ** 0.5
    if largest > limit:
        raise InputError(
            f"{name}: values reach {largest:.3g} away from the mean, squared distances would "
            f"overflow float32 (limit {limit:.3g}); scale the data down"
        )


def _check_weights(weights: np.ndarray | None, n_rows: int) -> Tensor | None:
    if weights is None:
        return None
    if weights.shape != (n_rows,):
        raise UsageError(f"sample weights of shape {weights.shape}, expected ({n_rows},)")
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise UsageError("sample weights must be finite, not negative, and not all zero")
    return torch.from_numpy(np.array(weights, dtype=np.float32))
