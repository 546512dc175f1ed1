"""NumPy .npy: labels (N,) int32, or probabilities (N, K) when soft.

With more than that for each row, a structured array (N,) with one field for each column, of the
names that the other formats use. Ids are left out.
"""

from __future__ import annotations

import io
from typing import IO

import numpy as np

from dinkcli.assigning.writers.base import Layout, Rows
from dinkcli.errors import OutputError, UsageError


class NpyWriter:
    def __init__(self, file: IO[bytes], layout: Layout):
        others = [name for name in layout.carried.names if name != layout.id_name]
        if others:
            raise UsageError(
                f"`columns` {others[0]}: an npy file has no columns of the input; choose csv, "
                "jsonl, parquet or arrow"
            )
        if layout.n_rows is None and not file.seekable():
            raise UsageError(
                "npy names the number of rows before the first of them, and neither this input "
                "nor this output can be gone back to; write to a file (-o), or another format"
            )
        self._file = file
        self._layout = layout
        self._dtype = layout.array_type
        self._n_rows = 0
        self._start = 0 if layout.n_rows is not None else file.tell()
        file.write(self._header(layout.n_rows or 0))

    def write(self, rows: Rows) -> None:
        values = self._layout.array(rows)
        self._file.write(np.ascontiguousarray(values).view(np.uint8).data)
        self._n_rows += len(rows)

    def close(self) -> None:
        if self._layout.n_rows is None:
            self._file.seek(self._start)
            self._file.write(self._header(self._n_rows))  # of the same length: it is padded
            self._file.seek(0, io.SEEK_END)
        elif self._n_rows != self._layout.n_rows:
            raise OutputError(
                f"npy: {self._n_rows} rows written, its header promises {self._layout.n_rows}"
            )
        self._file.flush()

    def _header(self, n_rows: int) -> bytes:
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype.base),
            "fortran_order": False,
            "shape": (n_rows, *self._dtype.shape),
        }
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, header)
        return buffer.getvalue()
