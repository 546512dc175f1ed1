"""Which columns of a table hold the vectors, and of which type.

Shapes: N rows, D features.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatchcase

import pyarrow as pa

from dinkcli.data.base import Columns
from dinkcli.errors import InputError, UsageError

_LISTS = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)
_BYTES = (pa.types.is_fixed_size_binary, pa.types.is_binary, pa.types.is_large_binary)


def storage(type_: pa.DataType) -> pa.DataType:
    """What an extension type (a tensor, say) is made of."""
    return type_.storage_type if isinstance(type_, pa.BaseExtensionType) else type_


def is_list(type_: pa.DataType) -> bool:
    return any(check(type_) for check in _LISTS)


def is_bytes(type_: pa.DataType) -> bool:
    return any(check(type_) for check in _BYTES)


def is_spark_vector(type_: pa.DataType) -> bool:
    """VectorUDT of Spark ML: dense (type 1) or sparse (type 0) vectors."""
    names = {"type", "size", "indices", "values"}
    return pa.types.is_struct(type_) and {field.name for field in type_} == names


def is_number(type_: pa.DataType) -> bool:
    return pa.types.is_floating(type_) or pa.types.is_integer(type_)


def _is_vector(type_: pa.DataType, is_value: Callable[[pa.DataType], bool]) -> bool:
    type_ = storage(type_)
    if is_spark_vector(type_):
        type_ = type_.field("values").type
    return is_list(type_) and is_value(type_.value_type)


def names_of(names: list[str]) -> str:
    """The names as a message shows them."""
    shown = ", ".join(repr(name) for name in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def vector_columns(path: str, schema: pa.Schema, wanted: Columns) -> list[str]:
    """The column, or the columns in order of dimension, that hold the vectors.

    Ids are no candidates, nor are numbers that travel along, unless ``wanted.vectors`` names them;
    carried vectors still are.

    Raises:
        UsageError: no such column, or several candidates.
        InputError: no candidate.
    """
    fields = [
        field
        for field in schema
        if field.name == wanted.vectors
        or (
            field.name not in (wanted.id, wanted.label)
            and (field.name not in wanted.carried or _is_vector(field.type, is_number))
        )
    ]
    column = wanted.vectors
    if column is None and wanted.usual is not None and _matching(fields, wanted.usual):
        column = wanted.usual
    chosen = (
        _automatic(path, fields, wanted.dim) if column is None else _named(path, fields, column)
    )
    for name in chosen:
        if schema.names.count(name) > 1:
            raise UsageError(f"{path}: {schema.names.count(name)} columns are named {name!r}")
    return chosen


def _automatic(path: str, fields: list[pa.Field], dim: int | None) -> list[str]:
    candidates = [
        [field.name for field in fields if _is_vector(field.type, pa.types.is_floating)],
        # Bytes may be anything; a dimension makes vectors of them.
        [field.name for field in fields if is_bytes(field.type) and (dim or bytes_dim(field))],
        [field.name for field in fields if _is_vector(field.type, pa.types.is_integer)],
    ]
    for names in candidates:
        if len(names) == 1:
            return names
        if names:
            raise UsageError(
                f"{path}: {len(names)} columns could hold the embeddings: {names_of(names)}; "
                f"choose one with --column {names[0]}"
            )
    # Integers may stand among the dimensions: text files show no point in a column of zeros.
    numbered = _numbered([field.name for field in fields if is_number(field.type)])
    floats = [field.name for field in fields if pa.types.is_floating(field.type)]
    mixed = {prefix: names for prefix, names in numbered.items() if set(names) & set(floats)}
    groups = mixed or ({} if floats else numbered)
    if len(groups) > 1:
        patterns = [f"{prefix}*" for prefix in groups]
        raise UsageError(
            f"{path}: {len(patterns)} sets of columns could hold the embeddings: "
            f"{names_of(patterns)}; choose one with --column '{patterns[0]}'"
        )
    chosen = next(iter(groups.values()), floats)
    if not chosen:
        known = names_of([f"{field.name}: {field.type}" for field in fields])
        raise InputError(
            f"{path}: no column of vectors: expected a list column of floats, one float column "
            f"per dimension, or a column of bytes with --dim; it has {known}"
        )
    return chosen


def _named(path: str, fields: list[pa.Field], column: str) -> list[str]:
    matching = _matching(fields, column)
    if not matching:
        raise UsageError(
            f"{path}: no column {column!r}; it has {names_of([field.name for field in fields])}"
        )
    first = matching[0].type
    if not (is_number(first) or is_bytes(first) or _is_vector(first, is_number)):
        raise UsageError(
            f"{path}: column {column!r} is {first}, expected a list of floats or a number"
        )
    return sorted((field.name for field in matching), key=_natural)


def _matching(fields: list[pa.Field], column: str) -> list[pa.Field]:
    exact = [field for field in fields if field.name == column]
    return exact or [f for f in fields if fnmatchcase(f.name, column) and is_number(f.type)]


def bytes_dim(field: pa.Field) -> int | None:
    """The dimension that the metadata of a column of bytes give, as ``dim``."""
    text = (field.metadata or {}).get(b"dim", b"")
    return int(text) if text.isdigit() else None


def _numbered(names: list[str]) -> dict[str, list[str]]:
    """Columns such as dim_0, dim_1, ... by prefix, each in the order of its numbers."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names, key=_natural):
        if match := re.fullmatch(r"(.*?)\d+", name):
            groups.setdefault(match[1], []).append(name)
    return {prefix: group for prefix, group in groups.items() if len(group) > 1}


def _natural(name: str) -> list[tuple[int, str | int]]:
    """Sorts dim_2 before dim_10."""
    return [(1, int(part)) if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]
