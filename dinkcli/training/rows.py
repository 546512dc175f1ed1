"""The rows being clustered, prepared for the metric: held in memory, or read anew for each pass.

Euclidean rows are shifted to their mean, which changes no distance and keeps float32 digits.
Cosine rows are scaled to norm 1. Narrow dtypes such as float16 stay so until a block is prepared.

Shapes: N rows, B rows in a block or batch, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from dinkcli.data.base import usual_block_rows
from dinkcli.data.dataset import DataSet, read_ahead
from dinkcli.data.derived import around_usual_row
from dinkcli.data.machine import default_memory
from dinkcli.data.sidefiles import read_weights
from dinkcli.errors import InputError, UsageError
from dinkcli.nearest.hardware import Copies, block_rows, keeps, sent_rows
from dinkcli.nearest.index import CenterIndex
from dinkcli.nearest.prepare import (
    LARGEST_WEIGHT,
    RowMap,
    largest_value,
    normalize_,
    refuse_overflow,
    refuse_underflow,
)
from dinkcli.nearest.sums import Statistics, tempered_statistics
from dinkcli.processes.device import in_pieces, is_out_of_memory
from dinkcli.processes.group import SINGLE, Group
from dinkcli.training.sample import Sample, center_projection

Block = tuple[Tensor, "Tensor | None"]
Stored = tuple[int, Tensor, "Tensor | None"]
_DRAGGED = 16.0  # times the usual distance from the median, beyond which a mean is no middle
_JUDGES = 1024  # rows that the median is taken of
_WINDOW_BYTES = 256 << 20  # of rows that are mixed at once
_TOLD = 8  # blocks after which processes may stop: to agree takes a message
_FEW = 1 << 24  # rows, of which a random permutation is no matter


class RowSource:
    """N usable rows of a data set and their weights on a device, prepared for the metric: held when
    all processes can hold theirs, otherwise read anew for each pass while a thread reads ahead.

    Args:
        memory: bytes that rows may take on this machine, a quarter of its memory by default.
        shift: (D,) subtracted from euclidean rows; their mean (or a sample's) without it.
        group: the processes that share the rows: each reads a range of them, of equal length.
        offset: look whether rows lie so far from zero that they need one (see ``data.derived``).

    Attributes:
        in_memory: all rows are held.
        map: what is done to rows after the shift, once it is learned.
        n_rows, n_bad, total_weight, total_memory: over all processes; all else is of this one.

    Raises:
        InputError: rows that are not finite, of norm 0 under cosine, too large for float32.
        UsageError: weights that are all zero, or too large or small for float32.
    """

    def __init__(
        self,
        data: DataSet,
        metric: str,
        device: torch.device,
        memory: int | None = None,
        shift: Tensor | None = None,
        group: Group = SINGLE,
        offset: bool = True,
    ):
        data = data.repeatable()
        weights = read_weights(data, nonzero=metric == "cosine")
        if weights is not None and not 1 / LARGEST_WEIGHT <= weights.max() <= LARGEST_WEIGHT:
            raise UsageError(
                f"sample weights reach {weights.max():.3g}, expected not all zero, and the largest "
                f"from {1 / LARGEST_WEIGHT:.0e} to {LARGEST_WEIGHT:.0e}; only their ratios matter: "
                "scale them"
            )
        self.data = data = around_usual_row(data, metric) if offset else data
        self.metric, self.device, self.group = metric, device, group
        self.project = center_projection(metric)
        # The processes of one machine share its memory.
        self.memory = (default_memory() if memory is None else memory) // group.world.local_size
        self.total_memory = self.memory * group.size
        self.n_rows, self.n_features, self.n_bad = data.known_rows, data.n_features, 0
        self._first, stop = group.world.share(self.n_rows)
        self._own = data if group.alone else data.part(self._first, stop)  # rows of this process
        self.weights: Tensor | None = None
        if weights is not None:
            self.weights = torch.from_numpy(weights[self._first : stop].astype(np.float32))
        self.shift = torch.zeros(self.n_features) if shift is None else shift
        self._needs_direction = metric == "cosine"  # rows of norm 0 are bad ones
        self._finds_shift = metric != "cosine" and shift is None
        self.map: RowMap | None = None
        self._block_rows = usual_block_rows(self.n_features)
        self._held: Tensor | None = None
        self.in_memory = not group.any(self._own.held_bytes > self.memory)
        if self.in_memory:
            self._held = self._load()
            self._prepared = self._held.dtype == torch.float32
        else:
            self._leave_out(0)
            # A GPU prepares rows faster, and narrow ones are sent faster.
            self._prepared = device.type == "cpu"

    def _load(self) -> Tensor:
        """The good rows, on the device where they fit there; prepared if they are float32."""
        dtype = torch.from_numpy(np.empty(0, self.data.dtype)).dtype
        loaded = torch.empty((self._own.known_rows, self.n_features), dtype=dtype)
        rows, good = self._own.load_rows(loaded.numpy(), nonzero=self._needs_direction)
        if good is not None and self.weights is not None:
            self.weights = self.weights[torch.from_numpy(good)]
        self._leave_out(len(loaded) - len(rows))
        loaded = loaded[: len(rows)]
        if self._finds_shift:
            total = torch.zeros(self.n_features, dtype=torch.float64)
            for part in loaded.split(self._block_rows):
                total += torch.from_numpy(part.numpy().sum(0, dtype=np.float64))  # torch is slower
            self.shift = self._middle(total, self.n_rows, loaded)
        if loaded.dtype == torch.float32:
            for number, part in enumerate(loaded.split(self._block_rows)):
                self._prepare_(part, self._first + number * self._block_rows)
        # Where they do not fit, each block goes to the device when it is its turn.
        if self.device.type == "cpu" or not keeps(loaded.nbytes, self.device):
            return loaded
        try:
            sent = torch.empty(loaded.shape, dtype=loaded.dtype, device=self.device)
            for start, part, _ in self._arriving(_cut(loaded, sent_rows(self.n_features))):
                sent[start : start + len(part)] = part
            return sent
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return loaded

    def blocks(self, first: int = 0) -> Iterator[Block]:
        """The rows and their weights from block number ``first`` on, in order, on the device."""
        if self._held is not None:
            size = block_rows(self.n_features, self.device)
            stored = _cut(self._held, size, first * size)
        else:
            stored = islice(self._read(self._prepared), first, None)
        for start, rows, bad in self._arriving(stored):
            weights = self.weights
            if weights is not None:
                weights = weights[start : start + len(rows)].to(self.device)
            if not self._prepared:
                rows = self._prepare_(rows.float(), self._first + start)
            if bad is not None:
                good = (~bad).nonzero()[:, 0].to(self.device)
                rows, weights = rows[good], None if weights is None else weights[good]
            yield rows, weights

    def _read(self, prepare: bool) -> Iterator[Stored]:
        """All blocks of this process, on the CPU: the number of the first row, rows (B, D), and
        which are bad, (B,), or None; unless they are prepared, of a size for a device."""
        size, dtype = None, np.dtype(np.float32)
        if not prepare:
            size, dtype = sent_rows(self.n_features), self.data.dtype
        for block in self._own.blocks(size, dtype=dtype, nonzero=self._needs_direction):
            if prepare:
                # The last bits of a product can depend on the alignment of its operands in memory,
                # and NumPy's differs from run to run.
                rows = torch.empty(block.vectors.shape)
                rows.numpy()[:] = block.vectors
                rows = self._prepare_(rows, block.start)
            else:
                rows = torch.from_numpy(np.require(block.vectors, requirements=["C", "W"]))
            bad = None if block.bad is None else torch.from_numpy(block.bad)
            yield block.start - self._first, rows, bad

    def _arriving(self, stored: Iterator[Stored]) -> Iterator[Stored]:
        """The same on the device; rows from elsewhere are read and sent while others are used."""
        if self._held is not None and self._held.device.type == self.device.type:
            yield from stored
            return
        copies = Copies(self.device)
        sent = ((start, copies.send(rows), bad) for start, rows, bad in stored)
        for start, part, bad in read_ahead(sent, depth=1 if copies.overlaps else 2):
            yield start, copies.receive(part), bad

    def sample(self, size: int, generator: torch.Generator) -> Sample:
        """``size`` rows drawn without replacement from those of all processes, in random order,
        less the bad ones. Rows that are not held are all read once; the first time, the bad ones
        are counted, and a shift that was not given is set to the sample's mean."""
        held, group = self._held, self.group
        if held is None:
            n_rows, first, count = self.data.known_rows, self._first, self._own.known_rows
        else:
            n_rows, count = self.n_rows, len(held)
            first = int(group.gather(torch.tensor([count]))[: group.rank].sum())
        chosen = draw_distinct(n_rows, size, generator)
        size = len(chosen)
        positions = ((chosen >= first) & (chosen < first + count)).nonzero()[:, 0]
        numbers = chosen[positions] - first  # of those in this process
        weights = None if self.weights is None else self.weights[numbers]
        if held is not None:
            z = held.index_select(0, numbers.to(held.device)).to(self.device)
            z = z if self._prepared else self._prepare_(z.float())
        else:
            z, good = self._pick(numbers)
            if group.any(not good.all()):
                lost = group.gather(positions[~good]).sort().values
                size -= len(lost)
                z, weights = z[good], None if weights is None else weights[good]
                positions = positions[good]
                positions -= torch.searchsorted(lost, positions)
            if self._finds_shift:
                middle = self._middle(z.sum(0, dtype=torch.float64), size, z)
                self.shift += middle
                self._finds_shift = False
                z -= middle
            z = z.to(self.device)
        refuse_underflow(group.largest(largest_value(z))[0], self.data.name)
        weights = None if weights is None else weights.to(self.device)
        where = None if group.alone else positions.to(self.device)
        return Sample(z, weights, self.project, group, where, size)

    def _pick(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """The rows (M, D) with these ``numbers`` (M,) here, and which are good; all are read."""
        ascending, order = numbers.sort()
        z = torch.empty(len(numbers), self.n_features)
        good = torch.ones(len(numbers), dtype=torch.bool)
        n_bad = 0
        for start, rows, bad in read_ahead(self._read(prepare=True)):
            first, last = np.searchsorted(ascending.numpy(), (start, start + len(rows)))
            inside = ascending[first:last] - start
            z[order[first:last]] = rows[inside]
            if bad is not None:
                n_bad += int(bad.sum())
                good[order[first:last]] = ~bad[inside]
                if self.weights is not None:
                    self.weights[start : start + len(rows)][bad] = 0
        if not self.n_bad:
            self._leave_out(n_bad)
        return z, good

    def full_pass(
        self,
        centers: Tensor,
        temperature: float = 0.0,
        first: int = 0,
        before: Statistics | None = None,
        after_block: Callable[[int, Statistics | None], None] = lambda number, statistics: None,
    ) -> Statistics:
        """Statistics of all rows of all processes for ``centers`` (K, D), from block ``first`` on,
        added to those ``before``. ``after_block`` is told how many blocks are done, and their
        statistics; of several processes, 0 and None now and then."""
        index = CenterIndex(centers)
        total = Statistics.zeros(centers) if before is None else before
        number, blocks = first, self.blocks(first)
        while self.group.any((block := next(blocks, None)) is not None):
            if block is not None:
                work = partial(_statistics, block, index, temperature)
                for part in in_pieces(work, len(block[0])):
                    total.add(part)
            number += 1
            if self.group.alone:
                after_block(number, total)
            elif number % _TOLD == 0:
                after_block(0, None)
        return total.over(self.group)

    def batches(self, size: int, seed: int, epoch: int) -> Iterator[Tensor]:
        """All rows, ``size`` at a time, in random order within as many as memory allows."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        window = max(size, min(_WINDOW_BYTES, self.memory // 3) // (4 * self.n_features))
        held, n_held = [], 0
        for rows, _ in self.blocks():
            held.append(rows)
            n_held += len(rows)
            if n_held >= window:
                *batches, rest = _mixed(held, generator).split(size)
                yield from batches
                held, n_held = [rest], len(rest)
        if held:
            yield from _mixed(held, generator).split(size)

    def learn(self, matrix: Tensor) -> None:
        """From here on rows are those under the map ``matrix`` (D, D)."""
        self.map = RowMap(torch.zeros_like(matrix[:, 0]), matrix)
        if self._held is not None and self._prepared:
            for part in self._held.split(self._block_rows):
                part.copy_(self.map(part.to(self.device)))

    def _middle(self, total: Tensor, n_rows: int, rows: Tensor) -> Tensor:
        """(D,) float32 that is subtracted from all rows: their mean, by the ``total`` (D,) float64
        of this process, or the median of the ``rows`` (N, D) where a few far rows drag the mean to
        where float32 loses the others. The same in every process."""
        self.group.sum_(total)
        mean = total / n_rows
        step = max(1, len(rows) * self.group.size // _JUDGES)
        judges = self.group.gather(rows[::step].to(torch.float64))
        median = judges.median(0).values
        usual = torch.linalg.vector_norm(judges - median, dim=1).median()
        dragged = torch.linalg.vector_norm(mean - median) > _DRAGGED * usual
        return (median if dragged else mean).float()

    def _leave_out(self, n_bad: int) -> None:
        """Takes note of the bad rows of this process, and of what the others weigh."""
        n_bad = int(self.group.total(n_bad)[0])
        self.n_bad += n_bad
        self.n_rows -= n_bad
        if self.n_rows == 0:
            raise InputError(f"{self.data.name}: all {n_bad} rows are bad; nothing to train on")
        self.total_weight = float(self.n_rows)
        if self.weights is not None:
            self.total_weight = self.group.total(float(self.weights.double().sum()))[0]

    def _prepare_(self, rows: Tensor, start: int = 0) -> Tensor:
        """The float32 ``rows`` for the metric; in place but for a map."""
        if self.metric == "cosine":
            normalize_(rows)  # bad rows are zeros, and stay so
        else:
            rows -= self.shift.to(rows.device)
            refuse_overflow(rows, self.data.name, start)
        return rows if self.map is None else self.map(rows)


def draw_distinct(number: int, size: int, generator: torch.Generator) -> Tensor:
    """At most ``size`` distinct integers below ``number`` in random order, int64."""
    if number <= _FEW:
        return torch.randperm(number, generator=generator)[:size]
    # A permutation of all takes 8 bytes for each; NumPy makes one only for a fiftieth or more.
    rng = np.random.default_rng(int(torch.randint(1 << 62, (), generator=generator)))
    return torch.from_numpy(rng.choice(number, min(size, number), replace=False))


def _statistics(block: Block, index: CenterIndex, temperature: float, where: slice) -> Statistics:
    z, weights = block
    weights = None if weights is None else weights[where]
    return tempered_statistics(z[where], weights, index, temperature)


def _cut(rows: Tensor, size: int, first: int = 0) -> Iterator[Stored]:
    """Blocks of ``size`` of these rows, from row ``first`` on."""
    return ((start, rows[start : start + size], None) for start in range(first, len(rows), size))


def _mixed(blocks: list[Tensor], generator: torch.Generator) -> Tensor:
    rows = torch.cat(blocks)
    return rows[torch.randperm(len(rows), generator=generator).to(rows.device)]
