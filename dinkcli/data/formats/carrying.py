"""Columns that travel along with the vectors: ids, labels, texts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinkcli.data.formats.places import Place

_DIGITS = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), np.uint8).reshape(256, 2)
_UUID_DASHES = (8, 12, 16, 20)


def field_of(field: pa.Field, place: Place) -> pa.Field:
    """The field under which the values of a place travel."""
    type_ = pa.string() if _is_fixed_binary(place.type) else field.type
    return pa.field(place.path, type_, metadata=field.metadata)


def values_of(batch: pa.RecordBatch, place: Place, type_: pa.DataType) -> pa.Array:
    """The B values; bytes of fixed size, such as those of a UUID, as hexadecimal text."""
    values, _ = place.take(batch)
    if _is_fixed_binary(values.type):
        return _hexadecimal(values)
    return values if values.type == type_ else values.cast(type_)


def _is_fixed_binary(type_: pa.DataType) -> bool:
    type_ = type_.storage_type if isinstance(type_, pa.BaseExtensionType) else type_
    return pa.types.is_fixed_size_binary(type_)


def _hexadecimal(values: pa.Array) -> pa.Array:
    dashes: tuple[int, ...] = ()
    if isinstance(values, pa.ExtensionArray):
        dashes = _UUID_DASHES if values.type.extension_name == "arrow.uuid" else ()
        values = values.storage
    width = values.type.byte_width
    filled = values.fill_null(bytes(width)) if values.null_count else values
    data = np.frombuffer(filled.buffers()[1] or b"", np.uint8)
    rows = data[filled.offset * width :][: len(filled) * width].reshape(len(filled), width)
    digits = np.insert(_DIGITS[rows].reshape(len(filled), 2 * width), dashes, ord("-"), axis=1)
    offsets = np.arange(len(filled) + 1, dtype=np.int32) * digits.shape[1]
    text = pa.StringArray.from_buffers(
        len(filled), pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(digits))
    )
    if not values.null_count:
        return text
    return pc.if_else(values.is_valid(), text, pa.scalar(None, pa.string()))
