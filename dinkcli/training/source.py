"""The rows being clustered, prepared for the metric: what ``held`` and ``streamed`` rows share.

Shapes: N rows, B rows in a block or batch, D features.

Euclidean rows are shifted to their mean, which changes no distance and keeps float32 digits.
Cosine rows are scaled to norm 1, where the squared distance is 2 - 2 cos. Narrow dtypes such as
float16 stay as they are until a block is prepared.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from dinkcli.data.dataset import DataSet
from dinkcli.errors import InputError, UsageError
from dinkcli.nearest.float_range import (
    LARGEST_WEIGHT,
    largest_value,
    normalize_,
    refuse_overflow,
    refuse_underflow,
)
from dinkcli.nearest.maps import RowMap
from dinkcli.processes.group import Group
from dinkcli.training.sample import Sample, center_projection

_DRAGGED = 16.0  # times the usual distance from the median, beyond which a mean is no middle
_JUDGES = 1024  # rows that the median is taken of
Block = tuple[Tensor, "Tensor | None"]

_WINDOW_BYTES = 256 << 20  # of rows that are mixed at once
# A random permutation of so many rows is no matter.
_FEW = 1 << 24


class RowSource(ABC):
    """N usable rows of a data set on a device; ``rows.open_rows`` makes one.

    Args:
        data: what to read, as often as is asked for.
        metric: "euclidean", "cosine" or "learned".
        weights: (N,) float64, finite and not negative, or None; those of bad rows do not count.
        memory: bytes that rows may take here.
        shift: (D,) subtracted from euclidean rows; their mean (or a sample's) without it.
        group: the processes that share the rows: each reads a range of them, of equal length.

    Attributes:
        in_memory: all rows are held; otherwise they are read anew for each pass.
        map: what is done to rows after the shift, once it is learned.
        n_rows, n_bad, total_weight: over all processes.
        blocks, batches and weights are those of this process.

    Raises:
        InputError: rows that are not finite, of norm 0 under cosine, too large for float32.
        UsageError: weights that are all zero, or too large or small for float32.
    """

    in_memory: bool

    def __init__(
        self,
        data: DataSet,
        metric: str,
        device: torch.device,
        weights: np.ndarray | None,
        memory: int,
        shift: Tensor | None,
        group: Group,
    ):
        self.data = data
        self.metric = metric
        self.project = center_projection(metric)
        self.device = device
        self.group = group
        self.n_rows, self.n_features = data.known_rows, data.n_features
        self._first, self._stop = group.world.share(self.n_rows)
        self._here = share_of(data, group)
        self.weights = _check_weights(weights)
        if self.weights is not None:
            self.weights = self.weights[self._first : self._stop]
        self.memory = memory
        self.shift = torch.zeros(self.n_features) if shift is None else shift
        self._needs_direction = metric == "cosine"  # rows of norm 0 are bad ones
        self._finds_shift = metric != "cosine" and shift is None
        self.map: RowMap | None = None
        self.n_bad = 0
        self._count()

    @abstractmethod
    def blocks(self, first: int = 0) -> Iterator[Block]:
        """The rows and their weights from block number ``first`` on, in order, on the device."""

    def batches(self, size: int, seed: int, epoch: int) -> Iterator[Tensor]:
        """All rows in random order, ``size`` at a time; the last batch may be smaller.

        Blocks fill a window of as many rows as memory allows, whose rows are then mixed.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        window = max(size, min(_WINDOW_BYTES, self.memory // 3) // (4 * self.n_features))
        held, n_held = [], 0
        for rows, _ in self.blocks():
            held.append(rows)
            n_held += len(rows)
            if n_held >= window:
                *batches, rest = self._mixed(held, generator).split(size)
                yield from batches
                held, n_held = [rest], len(rest)
        if held:
            yield from self._mixed(held, generator).split(size)

    def _mixed(self, blocks: list[Tensor], generator: torch.Generator) -> Tensor:
        rows = torch.cat(blocks)
        return rows[torch.randperm(len(rows), generator=generator).to(rows.device)]

    @abstractmethod
    def sample(self, size: int, generator: torch.Generator) -> Sample:
        """``size`` rows drawn without replacement from those of all processes, in random order."""

    def _middle(self, mean: Tensor, rows: Tensor) -> Tensor:
        """(D,) float32 that is subtracted from all rows: their ``mean`` (D,) float64, or the median
        of the ``rows`` (N, D) where a few far rows drag the mean to where float32 loses the others.
        The same in every process."""
        step = max(1, len(rows) * self.group.size // _JUDGES)
        judges = self.group.gather(rows[::step].to(torch.float64))
        median = judges.median(0).values
        usual = torch.linalg.vector_norm(judges - median, dim=1).median()
        dragged = torch.linalg.vector_norm(mean - median) > _DRAGGED * usual
        return (median if dragged else mean).float()

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

    def _prepare_(self, rows: Tensor, start: int = 0) -> Tensor:
        """float32 ``rows``, the first with number ``start``, for the metric; in place but for a
        map."""
        if self.metric == "cosine":
            normalize_(rows)  # bad rows are zeros, and stay so
        else:
            rows -= self.shift.to(rows.device)
            refuse_overflow(rows, self.data.name, start)
        return rows if self.map is None else self.map(rows)

    def learn(self, matrix: Tensor) -> None:
        """From here on rows are those under the map ``matrix`` (D, D)."""
        self.map = RowMap(torch.zeros_like(matrix[:, 0]), matrix)

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


def share_of(data: DataSet, group: Group) -> DataSet:
    """The rows that this process reads."""
    return data if group.alone else data.part(*group.world.share(data.known_rows))


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


def empty_rows(shape: tuple[int, ...], dtype: np.dtype) -> Tensor:
    """Memory of torch's own alignment.

    The last bits of a matrix product can depend on the alignment of its operands, and NumPy's
    differs from run to run.
    """
    return torch.empty(shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype)


def _check_weights(weights: np.ndarray | None) -> Tensor | None:
    if weights is None:
        return None
    if not weights.any():
        raise UsageError("sample weights must be finite, not negative, and not all zero")
    if not 1 / LARGEST_WEIGHT <= weights.max() <= LARGEST_WEIGHT:
        raise UsageError(
            f"sample weights reach {weights.max():.3g}, expected at most {LARGEST_WEIGHT:.0e} "
            f"and at least {1 / LARGEST_WEIGHT:.0e}; only their ratios matter: scale them"
        )
    return torch.from_numpy(np.array(weights, dtype=np.float32))
