"""What a job has found about each row, for the writers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from dinkcli.assigning.writers.base import Rows
from dinkcli.data.dataset import DataSet

_ROWS = 1 << 18


def kept_rows(
    data: DataSet, columns: dict[str, np.ndarray], keep: np.ndarray, first: int, stop: int | None
) -> Iterator[Rows]:
    """What was found about the rows [first, stop) of ``data`` that are kept, in their order; inputs
    are read once more only for columns that travel along.

    Args:
        columns: (N,) each, by name.
        keep: (N,) bool, rows to be written.
        stop: None for N.
    """
    stop = len(keep) if stop is None else stop

    def at(start: int, end: int, carried: pa.RecordBatch | None) -> Rows:
        values = {name: column[start:end] for name, column in columns.items()}
        whole = Rows(np.arange(start, end), values, carried)
        return whole[np.flatnonzero(keep[start:end])]

    if not data.carried.names:
        for start in range(first, stop, _ROWS):
            yield at(start, min(stop, start + _ROWS), None)
        return
    for block in data.blocks(since=first, until=stop):
        start, end = max(first, block.start), min(stop, block.start + len(block))
        yield at(start, end, block[start - block.start : end - block.start].carried)
