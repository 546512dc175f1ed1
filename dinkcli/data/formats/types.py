"""What the type of a column says about its values."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

_BYTES = (pa.types.is_fixed_size_binary, pa.types.is_binary, pa.types.is_large_binary)


def storage(type_: pa.DataType) -> pa.DataType:
    """What an extension type (a tensor, say) is made of."""
    return type_.storage_type if isinstance(type_, pa.BaseExtensionType) else type_


def is_list(type_: pa.DataType) -> bool:
    kinds = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)
    return any(check(type_) for check in kinds)


def is_bytes(type_: pa.DataType) -> bool:
    return any(check(type_) for check in _BYTES)


def is_text(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return pa.types.is_string(type_) or pa.types.is_large_string(type_) or type_ == "string_view"


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
