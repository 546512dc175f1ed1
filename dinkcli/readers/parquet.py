"""Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dinkcli.readers.base import ANY_COLUMNS, Columns, reading
from dinkcli.readers.files import Source
from dinkcli.readers.table import TableReader

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

    def _batches(self, rows: int, names: list[str]) -> Iterator[pa.RecordBatch]:
        with self._open(metadata=self.metadata) as file:
            if self.source.path is not None:
                yield from file.iter_batches(rows, columns=names)
                return
            # Everything asked for at once is fetched at once: one row group at a time.
            for group in range(file.num_row_groups):
                yield from file.iter_batches(rows, row_groups=[group], columns=names)
