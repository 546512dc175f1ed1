"""Arrow IPC, a file or a stream, and parquet; lists of probabilities are fixed-size lists without
nulls."""

from __future__ import annotations

from typing import IO

import pyarrow as pa

from dinkcli.assigning.writers.base import Layout, Rows

_ROW_GROUP_BYTES = 64 << 20
_ROW_GROUP_ROWS = 1 << 20


class ArrowFileWriter:
    """Can be mapped into memory: uncompressed, it is read without a copy."""

    _open = staticmethod(pa.ipc.new_file)

    def __init__(self, file: IO[bytes], layout: Layout):
        self._layout = layout
        self._schema = layout.schema()
        self._arrow = self._open(file, self._schema)

    def write(self, rows: Rows) -> None:
        self._arrow.write_batch(self._layout.record_batch(rows, self._schema))

    def close(self) -> None:
        self._arrow.close()


class ArrowStreamWriter(ArrowFileWriter):
    """Can be read while it is written."""

    _open = staticmethod(pa.ipc.new_stream)


class ParquetWriter:
    def __init__(self, file: IO[bytes], layout: Layout):
        import pyarrow.parquet as pq  # takes as long to load as a small file to write

        self._layout = layout
        self._schema = layout.schema()
        # Floats that never repeat gain nothing from a dictionary; everything else does.
        unique = ("row", "distance", "probabilities")
        dictionary = [name for name in self._schema.names if name not in unique]
        self._parquet = pq.ParquetWriter(
            file, self._schema, compression="zstd", use_dictionary=dictionary
        )
        self._pending: list[pa.RecordBatch] = []

    def write(self, rows: Rows) -> None:
        self._pending.append(self._layout.record_batch(rows, self._schema))
        if (
            sum(batch.nbytes for batch in self._pending) >= _ROW_GROUP_BYTES
            or sum(len(batch) for batch in self._pending) >= _ROW_GROUP_ROWS
        ):
            self._flush()

    def close(self) -> None:
        if self._pending:
            self._flush()
        self._parquet.close()

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._pending, self._schema)
        self._parquet.write_table(table, row_group_size=max(1, len(table)))
        self._pending = []
