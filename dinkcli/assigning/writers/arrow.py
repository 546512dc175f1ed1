"""Arrow IPC: the file format, whose footer lists the batches, and the stream, for pipes."""

from __future__ import annotations

from typing import IO

import pyarrow as pa

from dinkcli.assigning.writers.base import Layout, Rows


class ArrowFileWriter:
    """Can be mapped into memory: uncompressed, it is read without a copy."""

    _open = staticmethod(pa.ipc.new_file)

    def __init__(self, file: IO[bytes], layout: Layout, compression: str = "none"):
        self._layout = layout
        self._schema = layout.schema()
        codec = None if compression == "none" else compression
        options = pa.ipc.IpcWriteOptions(compression=codec)
        self._arrow = self._open(file, self._schema, options=options)

    def write(self, rows: Rows) -> None:
        self._arrow.write_batch(self._layout.record_batch(rows, self._schema))

    def close(self) -> None:
        self._arrow.close()


class ArrowStreamWriter(ArrowFileWriter):
    """Can be read while it is written."""

    _open = staticmethod(pa.ipc.new_stream)
