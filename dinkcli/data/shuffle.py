"""Random order for rows that do not fit in memory: blocks shuffled, then rows within a window.

How well a window mixes depends on the number of blocks in it, not on their bytes, and a disk
reads blocks of 256 KB from anywhere about as fast as in order. docs/LOG.md has the figures.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from dinkcli.data.dataset import DataSet

_BLOCK_BYTES = 256 << 10
_LEAST_BLOCK_BYTES = 4 << 10
_BLOCKS = 1024


def shuffled_windows(
    data: DataSet, window_bytes: int, generator: torch.Generator, *, nonzero: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All usable rows once, as windows of vectors (W, D) of ``data.dtype`` and row numbers (W,).

    The rows of a window come from anywhere, in whole blocks; to mix them is the consumer's part.

    Args:
        data: seekable inputs (see ``dinkcli.data.spool``).

    Raises:
        InputError: as ``DataSet.blocks``.
    """
    dtype = data.dtype
    row_bytes = dtype.itemsize * data.n_features
    # Small windows get small blocks rather than few.
    block_bytes = min(_BLOCK_BYTES, max(_LEAST_BLOCK_BYTES, window_bytes // _BLOCKS), window_bytes)
    rows = max(1, block_bytes // row_bytes)
    blocks = [
        (number, start) for number, first, end in data.spans() for start in range(first, end, rows)
    ]
    in_window = max(1, window_bytes // (rows * row_bytes))
    order = torch.randperm(len(blocks), generator=generator).tolist()
    for begin in range(0, len(order), in_window):
        # In order of position: a disk likes that, and the window is mixed afterwards.
        chosen = sorted(order[begin : begin + in_window])
        vectors = np.empty((len(chosen) * rows, data.n_features), dtype)
        numbers = np.empty(len(vectors), np.int64)
        done = 0
        for block in data.blocks_at([blocks[i] for i in chosen], rows, dtype, nonzero):
            good = slice(None) if block.bad is None else ~block.bad
            part = block.vectors[good]
            vectors[done : done + len(part)] = part
            numbers[done : done + len(part)] = (block.start + np.arange(len(block)))[good]
            done += len(part)
        yield vectors[:done], numbers[:done]
