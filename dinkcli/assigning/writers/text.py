"""CSV: ``row,cluster`` or the id first; a list gives one column for each of its elements. JSON
lines: one object a row, lists as lists; what JSON cannot hold (NaN) becomes null."""

from __future__ import annotations

import csv
import io
import json
from typing import IO, Any

import numpy as np
import pyarrow as pa

from dinkcli.assigning.writers.base import Layout, Rows, as_arrow, is_binary, refuse_types
from dinkcli.data.formats.types import is_text, seconds_of

# What a spreadsheet takes for the start of a formula, and the apostrophe that stops it.
_FORMULA = r"^([=+\-@\t\r\n])"
_DEFUSED = r"'\1"


class CsvWriter:
    """Args:
    safe: puts an apostrophe before texts that a spreadsheet would run as a formula.
    """

    def __init__(self, file: IO[bytes], layout: Layout, safe: bool = False):
        import pyarrow.csv

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


class JsonlWriter:
    def __init__(self, file: IO[bytes], layout: Layout):
        self._file = file
        self._layout = layout
        self._schema = layout.schema()
        refuse_types(layout, is_binary, "JSON holds no bytes; choose parquet or arrow")
        keys = [json.dumps(name) + ":" for name in self._schema.names]
        self._keys = [("," if i else "{") + key for i, key in enumerate(keys)]

    def write(self, rows: Rows) -> None:
        if not len(rows):
            return
        import pyarrow.compute as pc

        batch = self._layout.record_batch(rows, self._schema)
        pieces: list[Any] = []
        for key, column in zip(self._keys, batch.columns, strict=True):
            pieces += [key, json_texts(column)]
        lines = pc.binary_join_element_wise(*pieces, "}\n", "").cast(pa.large_string())
        _, offsets, text = lines.buffers()
        ends = memoryview(offsets).cast("q")
        first, last = ends[lines.offset], ends[lines.offset + len(lines)]
        self._file.write(memoryview(text)[first:last])

    def close(self) -> None:
        self._file.flush()


def json_texts(column: pa.Array) -> pa.Array:
    """Each value as JSON. Numbers and lists of them by Arrow, without a loop over rows."""
    import pyarrow.compute as pc

    if pa.types.is_duration(column.type):
        column = seconds_of(column)
    type_ = column.type
    if pa.types.is_integer(type_):
        return pc.fill_null(column.cast(pa.string()), "null")
    if pa.types.is_floating(type_):
        column = column if pa.types.is_float64(type_) else column.cast(pa.float32())
        finite = pc.fill_null(pc.is_finite(column), False)
        return pc.if_else(finite, column.cast(pa.string()), "null")
    if pa.types.is_fixed_size_list(type_) and not column.null_count:
        texts = json_texts(column.flatten())
        size = type_.list_size
        offsets = as_arrow(np.arange(0, size * len(column) + 1, size, dtype=np.int32))
        joined = pc.binary_join(pa.ListArray.from_arrays(offsets, texts), ",")
        return pc.binary_join_element_wise("[", joined, "]", "")
    if pa.types.is_temporal(type_):  # the text that Arrow writes to csv
        column = column.cast(pa.string())
    return pa.array([_json(value) for value in column.to_pylist()], pa.string())


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:  # NaN inside a nested value
        return json.dumps(_without_nan(value), ensure_ascii=False, default=str)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, list) else value
