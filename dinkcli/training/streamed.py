"""Rows that are read anew for each pass."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from dinkcli.data.ahead import read_ahead
from dinkcli.nearest.device import Copies, sent_rows
from dinkcli.training.sample import Sample
from dinkcli.training.source import Block, RowSource, empty_rows


class StreamedRows(RowSource):
    """Rows read block by block, while a thread reads ahead."""

    in_memory = False

    def blocks(self, first: int = 0) -> Iterator[Block]:
        copies = Copies(self.device)
        items = self._read(prepare=not self._prepares_there)
        sent = ((start, copies.send(rows), bad) for start, rows, bad in items)
        ready = read_ahead(sent, depth=1 if copies.overlaps else 2)
        for start, part, bad in islice(ready, first, None):
            rows = copies.receive(part)
            weights = self._weights_at(slice(start, start + len(rows)))
            if self._prepares_there:
                rows = self._prepare_(rows.float(), self._first + start)
            if bad is not None:
                good = (~bad).nonzero()[:, 0].to(self.device)
                rows, weights = rows[good], None if weights is None else weights[good]
            yield rows, weights

    @property
    def _prepares_there(self) -> bool:
        """A GPU prepares rows faster, and short ones are sent faster."""
        return self.device.type != "cpu"

    def sample(self, size: int, generator: torch.Generator) -> Sample:
        """All rows are read once. The first time, the bad ones are counted, and a shift that was
        not given is set to the sample's mean. The sample is smaller by the bad rows in it."""
        n_rows = self.data.known_rows
        size = min(size, n_rows)
        positions, chosen = self._draw(n_rows, self._first, self._stop, size, generator)
        weights = None if self.weights is None else self.weights[chosen]
        order = chosen.argsort()
        ascending = chosen[order]
        result = torch.empty(len(chosen), self.n_features)
        good = torch.ones(len(chosen), dtype=torch.bool)
        n_bad = 0
        for start, rows, bad in read_ahead(self._read(prepare=True)):
            first, last = np.searchsorted(ascending.numpy(), (start, start + len(rows)))
            here = ascending[first:last] - start
            result[order[first:last]] = rows[here]
            if bad is not None:
                n_bad += int(bad.sum())
                good[order[first:last]] = ~bad[here]
                if self.weights is not None:
                    self.weights[start : start + len(rows)][bad] = 0
        if self.group.any(n_bad > 0):
            if not self.n_bad:
                self._leave_out(n_bad)
                self._count()
            lost = self.group.gather(positions[~good]).sort().values
            size -= len(lost)
            result, weights = result[good], None if weights is None else weights[good]
            positions = positions[good]
            positions -= torch.searchsorted(lost, positions)
        if self._finds_shift:
            total = result.sum(0, dtype=torch.float64)
            self.group.sum_(total)
            middle = self._middle(total / size, result)
            self.shift += middle
            self._finds_shift = False
            result -= middle
        return self._shared(result.to(self.device), weights, positions, size)

    def _read(self, prepare: bool) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        """(number of the first row here, rows (B, D), which are bad) in order, on the CPU; rows
        that are not prepared are as they are stored, in blocks for a device."""
        size, dtype = None, np.dtype(np.float32)
        if not prepare:
            size, dtype = sent_rows(self.n_features), self.data.dtype
        for block in self._here.blocks(size, dtype=dtype, nonzero=self._needs_direction):
            if prepare:
                rows = self._prepare_(_aligned(block.vectors), block.start)
            else:
                rows = torch.from_numpy(np.require(block.vectors, requirements=["C", "W"]))
            bad = None if block.bad is None else torch.from_numpy(block.bad)
            yield block.start - self._first, rows, bad


def _aligned(vectors: np.ndarray) -> Tensor:
    rows = empty_rows(vectors.shape, vectors.dtype)
    rows.numpy()[:] = vectors
    return rows
