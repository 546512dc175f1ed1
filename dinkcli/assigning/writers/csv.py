"""CSV: ``row,cluster`` or the id first; a list gives one column for each of its elements."""

from __future__ import annotations

import csv
import io
from typing import IO

import pyarrow as pa
import pyarrow.csv

from dinkcli.assigning.writers.base import Layout, Rows, is_binary, refuse_types
from dinkcli.data.formats.types import is_text, seconds_of

# What a spreadsheet takes for the start of a formula, and the apostrophe that stops it.
_FORMULA = r"^([=+\-@\t\r\n])"
_DEFUSED = r"'\1"


class CsvWriter:
    """Args:
    safe: puts an apostrophe before texts that a spreadsheet would run as a formula.
    """

    def __init__(self, file: IO[bytes], layout: Layout, safe: bool = False):
        self._layout = layout
        self._schema = layout.schema(flat=True)
        refuse_types(
            layout,
            lambda type_: pa.types.is_nested(type_) or is_binary(type_),
            "csv holds numbers and text; choose parquet, arrow, or for lists jsonl",
        )
        self._texts = [i for i, field in enumerate(self._schema) if is_text(field.type)]
        self._safe = safe
        names = self._schema.names
        if safe:
            names = _defused(pa.array(names)).to_pylist()
        header = io.StringIO()  # pyarrow would put every name in quotes
        csv.writer(header, lineterminator="\n").writerow(names)
        file.write(header.getvalue().encode())
        for i, field in enumerate(self._schema):
            if pa.types.is_duration(field.type):
                self._schema = self._schema.set(i, field.with_type(pa.float64()))
        for i in self._texts:  # views and dictionaries of texts are plain texts here
            self._schema = self._schema.set(i, self._schema.field(i).with_type(pa.string()))
        options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")
        self._csv = pyarrow.csv.CSVWriter(file, self._schema, write_options=options)

    def write(self, rows: Rows) -> None:
        batch = self._layout.record_batch(rows, self._layout.schema(flat=True))
        columns = batch.columns
        columns = [seconds_of(c) if pa.types.is_duration(c.type) else c for c in columns]
        for i in self._texts:
            columns[i] = columns[i].cast(pa.string())
            if self._safe:
                columns[i] = _defused(columns[i])
        self._csv.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        self._csv.close()


def _defused(texts: pa.Array) -> pa.Array:
    import pyarrow.compute as pc  # takes as long to load as a small file to write

    return pc.replace_substring_regex(texts, _FORMULA, _DEFUSED)
