"""Rows that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dinkcli.data.ahead import read_ahead
from dinkcli.data.dataset import BLOCK_BYTES
from dinkcli.nearest.device import Copies, block_rows, keeps, sent_rows
from dinkcli.processes.device import is_out_of_memory
from dinkcli.training.sample import Sample
from dinkcli.training.source import Block, RowSource, empty_rows


class HeldRows(RowSource):
    """Rows in memory, on the device where they fit there. Bad ones are left out at once."""

    in_memory = True

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._rows = self._load()
        self._count()

    def _load(self) -> Tensor:
        loaded = empty_rows((self._here.known_rows, self.n_features), self.data.dtype)
        rows, good = self._here.load_rows(loaded.numpy(), nonzero=self._needs_direction)
        self._leave_out(len(loaded) - len(rows))
        loaded = loaded[: len(rows)]
        if good is not None and self.weights is not None:
            self.weights = self.weights[torch.from_numpy(good)]
        if self._finds_shift:
            total = torch.zeros(self.n_features, dtype=torch.float64)
            for part in loaded.split(self._block_rows):
                total += torch.from_numpy(part.numpy().sum(0, dtype=np.float64))  # torch is slower
            self.group.sum_(total)
            self.shift = self._middle(total / self.n_rows, loaded)
        if loaded.dtype == torch.float32:
            for number, part in enumerate(loaded.split(self._block_rows)):
                self._prepare_(part, self._first + number * self._block_rows)
        # Where they do not fit, each block goes to the device when it is its turn.
        if self.device.type == "cpu" or not keeps(loaded.nbytes, self.device):
            return loaded
        try:
            return self._sent(loaded)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return loaded

    def _sent(self, rows: Tensor) -> Tensor:
        there = torch.empty(rows.shape, dtype=rows.dtype, device=self.device)
        for start, part in self._arriving(rows, sent_rows(self.n_features)):
            there[start : start + len(part)] = part
        return there

    def _arriving(self, rows: Tensor, size: int, first: int = 0) -> Iterator[tuple[int, Tensor]]:
        """Blocks of ``size`` rows on the device, each with the number of its first row; those that
        are elsewhere arrive while the one before is computed with."""
        starts = range(first, len(rows), size)
        if rows.device.type == self.device.type:
            yield from ((start, rows[start : start + size]) for start in starts)
            return
        copies = Copies(self.device)
        sent = ((start, copies.send(rows[start : start + size])) for start in starts)
        for start, part in read_ahead(sent, depth=1) if copies.overlaps else sent:
            yield start, copies.receive(part)

    def learn(self, matrix: Tensor) -> None:
        super().learn(matrix)
        assert self.map is not None
        if self._rows.dtype == torch.float32:
            for part in self._rows.split(self._block_rows):
                part.copy_(self.map(part.to(self.device)))

    @property
    def _block_rows(self) -> int:
        return max(1, BLOCK_BYTES // (4 * self.n_features))

    def blocks(self, first: int = 0) -> Iterator[Block]:
        size = block_rows(self.n_features, self.device)
        for start, part in self._arriving(self._rows, size, first * size):
            if part.dtype != torch.float32:
                part = self._prepare_(part.float(), self._first + start)
            yield part, self._weights_at(slice(start, start + size))

    def sample(self, size: int, generator: torch.Generator) -> Sample:
        first = self.group.before(len(self._rows))
        positions, chosen = self._draw(self.n_rows, first, first + len(self._rows), size, generator)
        z = self._rows.index_select(0, chosen.to(self._rows.device)).to(self.device)
        if z.dtype != torch.float32:
            z = self._prepare_(z.float())
        weights = None if self.weights is None else self.weights[chosen]
        return self._shared(z, weights, positions, min(size, self.n_rows))
