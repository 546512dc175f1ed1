"""JSON lines: one object a row, lists as lists. What JSON cannot hold (NaN) becomes null."""

from __future__ import annotations

import json
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinkcli.assigning.writers.base import Layout, Rows, as_arrow, is_binary, refuse_types
from dinkcli.data.formats.types import seconds_of


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
