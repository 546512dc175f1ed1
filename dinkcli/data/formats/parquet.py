"""Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dinkcli.data.base import ANY_COLUMNS, Columns, reading
from dinkcli.data.files import Source
from dinkcli.data.formats.table import Batches, TableReader, counted

MAGIC = b"PAR1"


class ParquetReader(TableReader):
    """One parquet file. Opened anew for each pass: there may be thousands of them."""

    format = "parquet"

    def __init__(self, source: Source, wanted: Columns = ANY_COLUMNS):
        self.source = source
        with reading(source.name, self.format), self._open() as file:
            self.metadata = file.metadata
            schema = file.schema_arrow
        super().__init__(source, schema, self.metadata.num_rows, wanted)

    def _open(self, **options: Any) -> pq.ParquetFile:
        # Without pre-buffering pages are read as they come; from afar, few large requests
        # matter more.
        path = self.source.path
        return pq.ParquetFile(
            self.source.open(exact=True) if path is None else path,
            pre_buffer=path is None,
            buffer_size=1 << 20,
            **options,
        )

    def _batches(self, rows: int, names: list[str], since: int = 0) -> Batches:
        with self._open(metadata=self.metadata) as file:
            if self.source.path is not None:
                since = since // rows * rows
                group, first = self._group_of(since)
                groups = list(range(group, file.num_row_groups))
                batches = file.iter_batches(rows, row_groups=groups, columns=names)
                yield from counted(_cut(batches, since - first, rows), since)
                return
            # Everything asked for at once is fetched at once: one row group at a time.
            group, first = self._group_of(since)
            for number in range(group, file.num_row_groups):
                yield from counted(
                    file.iter_batches(rows, row_groups=[number], columns=names), first
                )
                first += self.metadata.row_group(number).num_rows

    def _group_of(self, row: int) -> tuple[int, int]:
        """Number and first row of the row group that holds ``row``."""
        first = 0
        for number in range(self.metadata.num_row_groups):
            n_rows = self.metadata.row_group(number).num_rows
            if row < first + n_rows:
                return number, first
            first += n_rows
        return self.metadata.num_row_groups, first


def _cut(batches: Iterator[pa.RecordBatch], skipped: int, rows: int) -> Iterator[pa.RecordBatch]:
    """Batches of ``rows`` rows, without the first ``skipped`` rows of all."""
    held: list[pa.RecordBatch] = []
    n_held = 0
    for batch in batches:
        if skipped >= len(batch):
            skipped -= len(batch)
            continue
        batch, skipped = batch.slice(skipped), 0
        while n_held + len(batch) >= rows:
            wanted = rows - n_held
            yield _joined([*held, batch.slice(0, wanted)])
            batch, held, n_held = batch.slice(wanted), [], 0
        if len(batch):
            held.append(batch)
            n_held += len(batch)
    if held:
        yield _joined(held)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    (joined,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return joined
