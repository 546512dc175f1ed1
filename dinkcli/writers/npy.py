"""NumPy .npy: labels (N,) int32, or probabilities (N, K) float32 when soft. Ids are left out."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

import numpy as np

from dinkcli.writers.base import Layout

if TYPE_CHECKING:
    from dinkcli.assigner import Assignments


class NpyWriter:
    def __init__(self, file: IO[bytes], layout: Layout):
        self._file = file
        soft = layout.n_probabilities > 0
        header = {
            "descr": "<f4" if soft else "<i4",
            "fortran_order": False,
            "shape": (layout.n_rows, layout.n_probabilities) if soft else (layout.n_rows,),
        }
        np.lib.format.write_array_header_1_0(file, header)

    def write(self, rows: Assignments) -> None:
        values = rows.labels if rows.probabilities is None else rows.probabilities
        self._file.write(np.ascontiguousarray(values).data)

    def close(self) -> None:
        self._file.flush()
