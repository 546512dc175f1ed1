"""What the type of a column says about its values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa


def storage(type_: pa.DataType) -> pa.DataType:
    """What an extension type (a tensor, say) is made of."""
    return type_.storage_type if isinstance(type_, pa.BaseExtensionType) else type_


def is_list(type_: pa.DataType) -> bool:
    return pa.types.is_fixed_size_list(type_) or (
        pa.types.is_list(type_) or pa.types.is_large_list(type_)
    )


def is_bytes(type_: pa.DataType) -> bool:
    return pa.types.is_fixed_size_binary(type_) or (
        pa.types.is_binary(type_) or pa.types.is_large_binary(type_)
    )


def is_text(type_: pa.DataType) -> bool:
    type_ = type_.value_type if pa.types.is_dictionary(type_) else type_
    return pa.types.is_string_view(type_) or (
        pa.types.is_string(type_) or pa.types.is_large_string(type_)
    )


def is_spark_vector(type_: pa.DataType) -> bool:
    """VectorUDT of Spark ML: dense (type 1) or sparse (type 0) vectors."""
    names = {"type", "size", "indices", "values"}
    return pa.types.is_struct(type_) and {field.name for field in type_} == names


def is_number(type_: pa.DataType) -> bool:
    return pa.types.is_floating(type_) or pa.types.is_integer(type_)


def is_whole(type_: pa.DataType) -> bool:
    return pa.types.is_integer(type_) or pa.types.is_boolean(type_)


def is_fraction(type_: pa.DataType) -> bool:
    return pa.types.is_floating(type_) or pa.types.is_decimal(type_)


def is_vector(type_: pa.DataType, is_value: Callable[[pa.DataType], bool]) -> bool:
    type_ = storage(type_)
    if is_spark_vector(type_):
        type_ = type_.field("values").type
    return is_list(type_) and is_value(type_.value_type)


def is_any_vector(type_: pa.DataType) -> bool:
    return is_vector(type_, lambda value: is_fraction(value) or is_whole(value))


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of arrays that ``plain`` gives."""
    fields = [field.with_type(plain(pa.nulls(0, field.type)).type) for field in schema]
    return pa.schema(fields, schema.metadata)


def plain(array: pa.Array) -> pa.Array:
    """The same values without list views, views of text and bytes, and run ends."""
    pc, type_ = _compute(), array.type
    if pa.types.is_run_end_encoded(type_):
        return plain(pc.run_end_decode(array))
    if pa.types.is_string_view(type_):
        return array.cast(pa.string())
    if pa.types.is_binary_view(type_):
        return array.cast(pa.binary())
    if pa.types.is_dictionary(type_):
        values = plain(array.dictionary)
        return pa.DictionaryArray.from_arrays(array.indices, values, ordered=type_.ordered)
    if pa.types.is_struct(type_):
        children = [plain(child) for child in array.flatten()]
        fields = [old.with_type(new.type) for old, new in zip(type_, children, strict=True)]
        if fields == list(type_):
            return array
        return pa.StructArray.from_arrays(children, fields=fields, mask=array.is_null())
    is_view = pa.types.is_list_view(type_) or pa.types.is_large_list_view(type_)
    if is_view or pa.types.is_list(type_) or pa.types.is_large_list(type_):
        values = plain(array.flatten())
        if is_view or values.type != type_.value_type:  # pyarrow 26 casts list views wrongly
            lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)
            offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64())
            return pa.LargeListArray.from_arrays(offsets, values, mask=array.is_null())
    return array


def seconds_of(durations: pa.Array) -> pa.Array:
    """Durations as float64 numbers of seconds, which say more in a text than counts of any unit."""
    parts = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[durations.type.unit]
    counts = durations.cast(pa.int64()).cast(pa.float64(), safe=False)
    return _compute().divide(counts, float(parts))


def _compute() -> Any:
    """``pyarrow.compute``, which takes as long to load as a small run, and most runs need not."""
    import pyarrow.compute

    return pyarrow.compute
