"""JSON that is one object for all rows: what an API answers, or a dictionary of lists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa

from dinkcli.data.base import Columns, reading
from dinkcli.data.files import Source
from dinkcli.data.formats.columns import is_fraction, is_text, is_whole
from dinkcli.data.formats.places import is_list
from dinkcli.data.formats.table import TableReader, counted
from dinkcli.errors import InputError


class DocumentReader(TableReader):
    """The rows are the elements of a list somewhere in the object; lists beside it that are as long
    travel with it. In memory as a whole, as JSON has to be parsed.

    Args:
        where: the path of that list, "" for lists at the top.
        rows: its elements.
    """

    format = "json"

    def __init__(self, source: Source, wanted: Columns, where: str, rows: pa.RecordBatch):
        self.source, self._table = source, rows
        prefix = f"{where}."
        names: dict[str, Any] = {
            key: value.removeprefix(prefix)
            for key, value in (
                ("vectors", wanted.vectors),
                ("usual", wanted.usual),
                ("id", wanted.id),
                ("label", wanted.label),
                ("text", wanted.text),
                ("weight", wanted.weight),
            )
            if value is not None and where
        }
        super().__init__(source, rows.schema, len(rows), replace(wanted, **names))
        self.about = {
            **self.about,
            "text": f"the elements of {where!r}" if where else "lists of one object",
        }

    def _batches(
        self, rows: int, names: list[str], since: int = 0
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        yield from counted([self._table.select(names)])


def rows_of(
    path: str, document: pa.StructArray, column: str | None
) -> tuple[str, pa.RecordBatch] | None:
    """Where the list of rows is in the object, and the rows; None when the object is a row."""
    whole = pa.RecordBatch.from_struct_array(document)
    found = [place for place in _lists(document, "") if _holds_rows(place[1].type)]
    if column is not None:
        parts = column.split(".")
        if any(part.isdecimal() for part in parts):
            return None
        found = [f for f in found if column == f[0] or column.startswith(f"{f[0]}.")] or found
    if any(_is_row(field.type) for field in whole.schema) or not found:
        keyed = [f.name for f in whole.schema if pa.types.is_struct(f.type) and _is_counted(f.type)]
        if keyed and not found:
            raise InputError(
                f"{path}: column {keyed[0]!r} is an object with a key for each row, as pandas "
                'writes it by default; write it with frame.to_json(path, orient="records", '
                "lines=True)"
            )
        return None
    if len({where for where, _, _ in found}) > 1 and len({id(p) for _, _, p in found}) > 1:
        names = ", ".join(where for where, _, _ in found)
        raise InputError(f"{path}: several lists could be the rows: {names}; name one by --column")
    where, lists, parent = found[0]
    value = lists.type.value_type
    if pa.types.is_struct(value):
        return where, pa.RecordBatch.from_struct_array(_flat(lists))
    length = len(_flat(lists))
    above = where.rpartition(".")[0]
    beside = {}
    for index, field in enumerate(parent.type):
        each = parent.field(index)
        if is_list(field.type) and len(_flat(each)) == length:
            beside[field.name] = _flat(each)
    return above, pa.RecordBatch.from_pydict(beside)


def _lists(array: pa.StructArray, path: str) -> Iterator[tuple[str, pa.Array, pa.StructArray]]:
    """Every list in structs in structs, its path, and the struct that it is in."""
    for index, field in enumerate(array.type):
        here = f"{path}.{field.name}" if path else field.name
        inner = array.field(index)
        if pa.types.is_struct(field.type):
            yield from _lists(inner, here)
        elif is_list(field.type):
            yield here, inner, array


def _holds_rows(type_: pa.DataType) -> bool:
    """A list of vectors, or of structs with a vector in them."""
    value = type_.value_type
    if pa.types.is_struct(value):
        return any(
            _is_row(field.type) or is_text(field.type) or pa.types.is_struct(field.type)
            for field in value
        )
    return _is_row(value)


def _is_row(type_: pa.DataType) -> bool:
    return is_list(type_) and (is_fraction(type_.value_type) or is_whole(type_.value_type))


def _is_counted(type_: pa.DataType) -> bool:
    return type_.num_fields > 0 and all(field.name.isdecimal() for field in type_)


def _flat(lists: pa.Array) -> pa.Array:
    with reading("", "json"):
        return lists.flatten()
