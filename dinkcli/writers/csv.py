"""CSV: ``row,cluster`` or the id first; soft adds ``probability_0 ... probability_{K-1}``."""

from __future__ import annotations

import csv
import io
from typing import IO, TYPE_CHECKING

import pyarrow.csv

from dinkcli.writers.base import Layout

if TYPE_CHECKING:
    from dinkcli.assigner import Assignments


class CsvWriter:
    def __init__(self, file: IO[bytes], layout: Layout):
        self._layout = layout
        self._schema = layout.schema(flat=True)
        header = io.StringIO()  # pyarrow would put every name in quotes
        csv.writer(header, lineterminator="\n").writerow(self._schema.names)
        file.write(header.getvalue().encode())
        options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")
        self._csv = pyarrow.csv.CSVWriter(file, self._schema, write_options=options)

    def write(self, rows: Assignments) -> None:
        self._csv.write_batch(self._layout.record_batch(rows, self._schema))

    def close(self) -> None:
        self._csv.close()
