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

from dinkcli.data.ahead import read_ahead
from dinkcli.data.dataset import BLOCK_BYTES, DataSet
from dinkcli.data.memory import default_memory, in_memory
from dinkcli.data.shuffle import shuffled_windows
from dinkcli.data.spool import repeatable, seekable
from dinkcli.errors import InputError, UsageError
from dinkcli.nearest.limits import (
    LARGEST_WEIGHT,
    largest_value,
    normalize_,
    refuse_overflow,
    refuse_underflow,
)
from dinkcli.processes.group import SINGLE, Group
from dinkcli.training.sample import Sample, center_projection

Block = tuple[Tensor, "Tensor | None"]
# Windows of shuffled rows: two are held, one in use and one being read.
_WINDOW_BYTES = 256 << 20

# Sums over the rows of a block may be taken in float32; float64 takes in one block after the
# other. Few enough rows that neither counts nor sums lose digits, enough to keep a GPU busy.
_BLOCK_ROWS = 1 << 16
# A random permutation of so many rows is no matter.
_FEW = 1 << 24


class RowSource:
    """N usable rows of a data set on a device.

    Args:
        data: what to read.
        metric: "euclidean" or "cosine".
        weights: (N,) float32, not negative, or None; those of bad rows do not count.
        memory: bytes that the rows may take; beyond it they are read anew for each pass.
        shift: (D,) subtracted from euclidean rows; their mean (or a sample's) without it.
        group: the processes that share the rows: each reads a range of them, of equal length.

    Attributes:
        n_rows, n_bad, total_weight: over all processes.
        blocks, batches and weights are those of this process.

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
        group: Group = SINGLE,
    ):
        self.data = repeatable(data)
        self.metric = metric
        self.project = center_projection(metric)
        self.device = device
        self.group = group
        self.n_rows, self.n_features = self.data.known_rows, data.n_features
        self._first, self._stop = group.world.share(self.n_rows)
        self._here = self.data if group.alone else self.data.part(self._first, self._stop)
        self.weights = _check_weights(weights, self.n_rows)
        if self.weights is not None:
            self.weights = self.weights[self._first : self._stop]
        # The processes of one machine share its memory.
        self.memory = (default_memory() if memory is None else memory) // group.world.local_size
        self.in_memory = not group.any(not in_memory(self._here, self.memory))
        self.shift = torch.zeros(self.n_features) if shift is None else shift
        self._given = shift is not None
        self.n_bad = 0
        self._rows: Tensor | None = None
        if self.in_memory:
            self._load()
        self._count()

    def _load(self) -> None:
        loaded = _empty((self._here.known_rows, self.n_features), self.data.dtype)
        rows, good = self._here.load_rows(loaded.numpy(), nonzero=self.metric == "cosine")
        self._leave_out(len(loaded) - len(rows))
        loaded = loaded[: len(rows)]
        if good is not None and self.weights is not None:
            self.weights = self.weights[torch.from_numpy(good)]
        if self.metric == "euclidean" and not self._given:
            total = torch.zeros(self.n_features, dtype=torch.float64)
            for part in loaded.split(self._block_rows):
                total += part.sum(0, dtype=torch.float64)
            self.group.sum_(total)
            self.shift = (total / self.n_rows).float()
        if loaded.dtype == torch.float32:
            for number, part in enumerate(loaded.split(self._block_rows)):
                self._prepare_(part, self._first + number * self._block_rows)
        try:
            self._rows = loaded.to(self.device)
        except torch.cuda.OutOfMemoryError:
            self._rows = loaded  # then each block goes to the device when it is its turn

    def _leave_out(self, n_bad: int) -> None:
        """Takes note of the bad rows here."""
        n_bad = int(self.group.total(n_bad)[0])
        self.n_bad += n_bad
        self.n_rows -= n_bad
        if self.n_rows == 0:
            raise InputError(f"{self.data.name}: all {n_bad} rows are bad; nothing to train on")

    def _count(self) -> None:
        self.total_weight = float(self.n_rows)
        if self.weights is not None:
            self.total_weight = self.group.total(float(self.weights.double().sum()))[0]

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
        """(number of the first row here, rows (B, D), which are bad) in order, on the CPU."""
        for block in self._here.blocks(nonzero=self.metric == "cosine"):
            rows = self._prepare_(_aligned(block.vectors), block.start)
            start = block.start - self._first
            yield start, rows, None if block.bad is None else torch.from_numpy(block.bad)

    def blocks(self, first: int = 0) -> Iterator[Block]:
        """The rows and their weights from block number ``first`` on, in order, on the device."""
        if self._rows is not None:
            for start in range(first * _BLOCK_ROWS, len(self._rows), _BLOCK_ROWS):
                where = slice(start, start + _BLOCK_ROWS)
                part = self._rows[where].to(self.device)
                if part.dtype != torch.float32:
                    part = self._prepare_(part.float(), self._first + start)
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

    def sample(self, size: int, generator: torch.Generator) -> Sample:
        """``size`` rows drawn without replacement from those of all processes, in random order.

        Rows that are not in memory are read once, when the bad ones are found, and a shift that
        was not given is set to the sample's mean. The sample is smaller by the bad rows in it.
        """
        if self._rows is not None:
            return self._sample_in_memory(self._rows, size, generator)
        n_rows = self.data.known_rows
        size = min(size, n_rows)
        positions, chosen = self._draw(n_rows, self._first, self._stop, size, generator)
        weights = None if self.weights is None else self.weights[chosen]
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
        if self.group.any(n_bad > 0):
            self._leave_out(n_bad)
            self._count()
            lost = self.group.gather(positions[~good]).sort().values
            size -= len(lost)
            result, weights = result[good], None if weights is None else weights[good]
            positions = positions[good]
            positions -= torch.searchsorted(lost, positions)
        if self.metric == "euclidean" and not self._given:
            total = result.sum(0, dtype=torch.float64)
            self.group.sum_(total)
            mean = (total / size).float()
            self.shift += mean
            result -= mean
        return self._shared(result.to(self.device), weights, positions, size)

    def _sample_in_memory(self, rows: Tensor, size: int, generator: torch.Generator) -> Sample:
        first = self.group.before(len(rows))
        positions, chosen = self._draw(self.n_rows, first, first + len(rows), size, generator)
        z = rows[chosen.to(rows.device)].to(self.device)
        if z.dtype != torch.float32:
            z = self._prepare_(z.float())
        weights = None if self.weights is None else self.weights[chosen]
        return self._shared(z, weights, positions, min(size, self.n_rows))

    def _draw(
        self, n_rows: int, first: int, stop: int, size: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """``size`` of ``n_rows`` rows in random order; the positions in it of those from ``first``
        up to ``stop``, and their numbers less ``first``."""
        chosen = draw_distinct(n_rows, size, generator)
        positions = ((chosen >= first) & (chosen < stop)).nonzero()[:, 0]
        return positions, chosen[positions] - first

    def _shared(self, z: Tensor, weights: Tensor | None, positions: Tensor, size: int) -> Sample:
        refuse_underflow(self.group.largest(largest_value(z))[0], self.data.name)
        weights = None if weights is None else weights.to(self.device)
        if self.group.alone:
            return Sample(z, weights, self.project)
        return Sample(z, weights, self.project, self.group, positions.to(self.device), size)

    def _weights_at(self, where: slice) -> Tensor | None:
        return None if self.weights is None else self.weights[where].to(self.device)


def draw_distinct(number: int, size: int, generator: torch.Generator) -> Tensor:
    """At most ``size`` distinct integers below ``number`` in random order, int64."""
    if number <= max(_FEW, 4 * size):
        return torch.randperm(number, generator=generator)[:size]
    # A permutation of all would take 8 bytes for each.
    found = torch.empty(0, dtype=torch.int64)
    while len(found) < size:
        more = torch.randint(number, (size + size // 4,), generator=generator)
        ascending, order = torch.cat([found, more]).sort(stable=True)
        first = torch.ones_like(ascending, dtype=torch.bool)
        first[1:] = ascending[1:] != ascending[:-1]
        at = order[first].sort().values
        found = torch.cat([found, more])[at]
    return found[:size]


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
