"""What dedup and sample know of all rows: where each belongs, how far it is from its centre, its
key; the rows once more, those of a cluster side by side in a temporary file; and groups of them.

Shapes: N rows, M of them good, B rows in a block, P pairs, K clusters, D features.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from dinkcli.assigning.assigner import Assigner
from dinkcli.assigning.backend import Nearest
from dinkcli.data.base import Block
from dinkcli.data.dataset import DataSet
from dinkcli.data.files import Temporary
from dinkcli.models.model import OUTLIER, Model
from dinkcli.options import AssignOptions

if TYPE_CHECKING:
    import torch

MOST_BYTES = 64 << 20  # of rows that are looked at together
OnStep = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Survey:
    """What is known of each row."""

    centers: np.ndarray  # (N,) int32, the nearest one, -1 for a bad row
    labels: np.ndarray  # (N,) int32, its cluster, -1 for an outlier or a bad row
    distances: np.ndarray  # (N,) float32, Euclidean, to the nearest centre
    keys: np.ndarray  # (N,) uint64, a hash of the row's numbers


def survey(
    model: Model,
    data: DataSet,
    device: torch.device,
    on_step: OnStep,
    look: Callable[[np.ndarray, np.ndarray, np.ndarray], None] = lambda *rows: None,
) -> Survey:
    """Looks at all rows of repeatable inputs once; ``look`` is called with the good ones of some
    rows (B, D), the numbers of their centres (B,) int64, and their own (B,)."""
    assigner, n_rows = Assigner(model, device, AssignOptions(distance=True)), data.known_rows
    centers = np.full(n_rows, -1, np.int32)
    distances, keys = np.empty(n_rows, np.float32), np.empty(n_rows, np.uint64)
    factors = mixed(np.arange(1, data.n_features + 1, dtype=np.uint64)) | np.uint64(1)

    def assigned(block: Block) -> tuple[Block, Nearest, np.ndarray]:
        words = np.ascontiguousarray(block.vectors, "<f4").view("<u4").astype(np.uint64)
        return block, assigner.backend(block.vectors), mixed(np.einsum("ij,j->i", words, factors))

    for block, nearest, hashes in assigner.backend.each(assigned, assigner.blocks(data)):
        where, good = slice(block.start, block.start + len(block)), block.good
        own = nearest["label"][good]
        centers[where][good] = own
        distances[where], keys[where] = nearest["distance"], hashes
        look(block.vectors[good], own, block.start + np.flatnonzero(good))
        on_step("assigning", where.stop, n_rows)
    labels = np.append(model.center_clusters, OUTLIER).astype(np.int32)[centers]
    return Survey(centers, labels, distances, keys)


class RowsByCluster:
    """Good rows as the inputs give them, by ``labels`` (N,), -1 for rows to leave out, and by
    number within a cluster. On their way to the file they take a quarter of the ``memory``.

    Attributes:
        rows: (M,) int64, the number of each row by position.
        positions: (N,) int64, the position of each row by number, -1 for those left out.
        starts: (K + 1,) int64, where each cluster begins.
    """

    def __init__(
        self, data: DataSet, labels: np.ndarray, n_clusters: int, memory: int, on_step: OnStep
    ):
        sizes = np.bincount(labels + 1, minlength=n_clusters + 1)
        self.starts = sizes.cumsum() - sizes[0]
        self.rows = np.argsort(labels, kind="stable")[len(labels) - int(self.starts[-1]) :]
        self.positions = np.full(len(labels), -1, np.int64)
        self.positions[self.rows] = np.arange(len(self.rows))
        width, most = data.n_features * data.dtype.itemsize, min(memory // 4, MOST_BYTES)
        self._file = Temporary(".rows", "sorting rows by cluster", named=False)
        self._file.truncate(len(self.rows) * width)
        held: list[np.ndarray] = []
        first = 0
        for block in data.blocks(dtype=data.dtype):
            held.append(np.array(block.vectors))  # the reader's own memory would add up
            stop = block.start + len(block)
            if stop == len(labels) or (stop - first) * width >= most:
                self._put(np.concatenate(held), self.positions[first:stop])
                held, first = [], stop
            on_step("sorting", stop, len(labels))
        self._file.flush()
        shape = len(self.rows), data.n_features
        self._all = np.memmap(self._file, data.dtype, "r", shape=shape)
        self._file.close()  # it goes with the map
        self._map: mmap.mmap = self._all._mmap  # type: ignore[attr-defined]
        self._map.madvise(mmap.MADV_RANDOM)

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, positions: np.ndarray) -> np.ndarray:
        """The rows at these positions, (B, D), in memory of their own."""
        rows = np.array(self._all[positions])
        # Pages of the file count as this process's memory for as long as they are mapped.
        self._map.madvise(mmap.MADV_DONTNEED)
        return rows

    def _put(self, rows: np.ndarray, positions: np.ndarray) -> None:
        """Writes rows to their places, as many as lie side by side at once."""
        width = rows.shape[1] * rows.itemsize
        order = np.argsort(positions, kind="stable")
        order = order[np.searchsorted(positions[order], 0) :]
        for run in np.split(order, np.flatnonzero(np.diff(positions[order]) != 1) + 1):
            if len(run):
                self._file.seek(int(positions[run[0]]) * width, os.SEEK_SET)
                self._file.write(rows[run].tobytes())


class Groups:
    """Groups of M things, whatever the order of joins; the root of each is its lowest member."""

    def __init__(self, number: int):
        self._parents = np.arange(number)

    def roots(self, things: np.ndarray) -> np.ndarray:
        """The lowest member of the group of each of the ``things``."""
        roots = self._parents[things]
        while not np.array_equal(above := self._parents[roots], roots):
            roots = above
        self._parents[things] = roots
        return roots

    def apart(self, pairs: np.ndarray) -> np.ndarray:
        """(P,) bool: which pairs (P, 2) are of two groups."""
        roots = self.roots(pairs.reshape(-1)).reshape(pairs.shape)
        return roots[:, 0] != roots[:, 1]

    def join(self, pairs: np.ndarray) -> None:
        """Makes one group of the groups of each pair (P, 2)."""
        if not len(pairs):
            return
        nodes, ends = np.unique(self.roots(pairs.reshape(-1)), return_inverse=True)
        left, right = ends.reshape(pairs.shape).T
        ones = np.ones(len(left), bool)
        graph = coo_matrix((ones, (left, right)), (len(nodes), len(nodes)))
        count, labels = connected_components(graph, directed=False)
        lowest = np.full(count, len(self._parents))
        np.minimum.at(lowest, labels, nodes)
        self._parents[nodes] = lowest[labels]


def mixed(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """``values`` uint64 as other numbers that look random (the finaliser of splitmix64)."""
    with np.errstate(over="ignore"):
        values = values + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % (1 << 64))
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
