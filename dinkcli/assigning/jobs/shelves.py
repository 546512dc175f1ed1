"""The rows once more, those of a cluster side by side in one file, as the inputs give them.

Shapes: N rows, M of them good, D features.
"""

from __future__ import annotations

import mmap
import os
from functools import partial

import numpy as np

from dinkcli.assigning.jobs.survey import OnStep, rows_by_cluster
from dinkcli.assigning.jobs.workplace import Workplace
from dinkcli.data.dataset import DataSet

_PIECE_ROWS = 1 << 18  # between two saves: a second or so of reading and writing


class Shelves:
    """Good rows in the order of their labels, and of their numbers within a cluster.

    Args:
        labels: (N,) int32, -1 for rows to leave out.
        memory: bytes that rows on their way may take.

    Attributes:
        rows: (M,) int64, the number of each row by position.
        places: (N,) int64, the position of each row by number, -1 for those left out.
        starts: (K + 1,) int64, where each cluster begins.
    """

    def __init__(
        self,
        data: DataSet,
        labels: np.ndarray,
        n_clusters: int,
        work: Workplace,
        memory: int,
        on_step: OnStep,
    ):
        sizes = rows_by_cluster(labels, n_clusters)
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        self.rows = np.argsort(labels, kind="stable")[len(labels) - int(self.starts[-1]) :]
        self.places = np.full(len(labels), -1, np.int64)
        self.places[self.rows] = np.arange(len(self.rows))
        self._dtype, self._width = data.dtype, data.n_features * data.dtype.itemsize
        n_bytes = len(self.rows) * self._width
        path = work.file("rows.bin", lambda path: os.truncate(path, n_bytes))
        # Several processes put rows into the file at once; what one puts there again is the same.
        n_rows, pieces = len(labels), {}
        for start in range(0, n_rows, _PIECE_ROWS):
            part = data.part(start, min(n_rows, start + _PIECE_ROWS))
            fill = partial(self._fill, path, part, n_rows, memory, on_step)
            pieces[f"sorted-{start // _PIECE_ROWS:05d}"] = fill
        work.all_files(pieces)
        shape = len(self.rows), data.n_features
        self._all = np.memmap(path, self._dtype, "r", shape=shape)
        self._map: mmap.mmap = self._all._mmap  # type: ignore[attr-defined]
        self._map.madvise(mmap.MADV_RANDOM)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_features(self) -> int:
        return self._all.shape[1]

    def cluster(self, label: int) -> slice:
        """The positions of a cluster."""
        return slice(int(self.starts[label]), int(self.starts[label + 1]))

    def at(self, positions: np.ndarray | slice) -> np.ndarray:
        """The rows at these positions, (B, D), in memory of their own."""
        found = np.array(self._all[positions])
        # Pages of the file count as this process's memory for as long as they are mapped.
        self._map.madvise(mmap.MADV_DONTNEED)
        return found

    def _fill(
        self, path: str, data: DataSet, n_rows: int, memory: int, on_step: OnStep, _: str
    ) -> None:
        """Puts a part of the rows into the file."""
        held: list[np.ndarray] = []
        where: list[np.ndarray] = []
        with open(path, "r+b") as file:
            for block in data.blocks(dtype=self._dtype):
                held.append(np.array(block.vectors))  # the reader's own memory would add up
                where.append(self.places[block.start : block.start + len(block)])
                if sum(part.nbytes for part in held) >= memory:
                    _put(file.fileno(), held, where, self._width)
                    held, where = [], []
                on_step("sort", block.start + len(block), n_rows)
            if held:
                _put(file.fileno(), held, where, self._width)


def _put(number: int, held: list[np.ndarray], where: list[np.ndarray], width: int) -> None:
    """Writes rows to their places, as many as lie side by side at once."""
    rows, places = np.concatenate(held), np.concatenate(where)
    held.clear()
    order = np.argsort(places, kind="stable")
    order = order[np.searchsorted(places[order], 0) :]
    places = places[order]
    breaks = np.flatnonzero(np.diff(places) != 1) + 1
    for first, stop in zip([0, *breaks], [*breaks, len(places)], strict=True):
        if first < stop:
            data = memoryview(rows[order[first:stop]].tobytes())
            at = int(places[first]) * width
            while len(data):
                written = os.pwrite(number, data, at)
                data, at = data[written:], at + written
