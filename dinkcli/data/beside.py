"""What is kept beside the rows of a temporary copy: columns that travel along, and bad rows.

Shapes: N rows, B rows in a block.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa

from dinkcli.data.base import Block, Reader
from dinkcli.data.files import LocalFile, Temporary
from dinkcli.data.formats.raw import RawLayout, RawReader


class ColumnsFile:
    """Batches of columns in a temporary file, to be mapped from there; ``doing`` as for it."""

    def __init__(self, schema: pa.Schema, doing: str):
        self._file = Temporary(".columns", doing)
        writer = pa.ipc.new_stream(self._file, schema)
        self.write_batch, self._close = writer.write_batch, writer.close

    def end(self) -> None:
        """All batches are there."""
        self._close()
        self._file.flush()

    def table(self) -> pa.Table:
        return pa.ipc.open_stream(pa.memory_map(self._file.name)).read_all()


class Beside:
    """Takes the blocks of a copy in order, then gives back what came with any rows of it.

    Args:
        first: number of the first row.
        schema: of the columns that travel along.
        doing: see ``Temporary``.
    """

    def __init__(self, first: int, schema: pa.Schema, doing: str):
        self.schema = schema
        self._first = first
        self._bad: list[np.ndarray] = []
        self._problems: dict[int, str] = {}
        self._columns = ColumnsFile(schema, doing) if schema.names else None

    def add(self, block: Block) -> None:
        if block.bad is not None and block.bad.any():
            rows = block.start + np.flatnonzero(block.bad)
            self._problems[int(rows[0])] = block.problem
            self._bad.append(rows)
        if self._columns is not None and block.carried is not None:
            self._columns.write_batch(block.carried)

    def end(self) -> None:
        """All blocks are there."""
        self.bad_rows = np.concatenate([np.empty(0, np.int64), *self._bad])
        if self._columns is not None:
            self._columns.end()

    def table(self) -> pa.Table | None:
        """The columns, mapped from the file."""
        return None if self._columns is None else self._columns.table()

    def joined(self, block: Block, table: pa.Table | None) -> Block:
        """The block with what is beside it."""
        carried = None
        if table is not None:
            part = table.slice(block.start - self._first, len(block))
            batches = part.combine_chunks().to_batches()
            carried = batches[0] if batches else pa.RecordBatch.from_pylist([], self.schema)
        end = block.start + len(block)
        low = bisect.bisect_left(self.bad_rows, block.start)
        high = bisect.bisect_left(self.bad_rows, end)
        if low == high:
            return replace(block, carried=carried)
        rows = self.bad_rows[low:high]
        bad = np.zeros(len(block), bool)
        bad[rows - block.start] = True
        problem = self._problems.get(int(rows[0]), " has no usable vector")
        return replace(block, carried=carried, bad=bad, problem=problem)


class CopyReader(RawReader):
    """The rows of another reader, copied to where they can be read again and from anywhere.

    Attributes:
        origin: the other reader.
    """

    def __init__(self, file: Temporary, layout: RawLayout, origin: Reader, beside: Beside):
        copy = LocalFile(origin.path, path=file.name, keeps=file)
        super().__init__(copy, origin.format, layout, origin.column, origin.about)
        self.origin, self._beside = origin, beside
        self.carried, self.n_bytes, self.notes = beside.schema, origin.n_bytes, origin.notes

    def blocks(self, rows: int, since: int = 0, until: int | None = None) -> Iterator[Block]:
        table = self._beside.table()
        for block in super().blocks(rows, since, until):
            yield self._beside.joined(block, table)
