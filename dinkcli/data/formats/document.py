"""JSON that is one object for all rows: what an API answers, or a dictionary of lists."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinkcli.data.base import Columns
from dinkcli.data.files import Source
from dinkcli.data.formats.columns import Place, place_of, pruned
from dinkcli.data.formats.jsonlines import EXACT, read_document
from dinkcli.data.formats.numerals import text_kind
from dinkcli.data.formats.table import TableReader
from dinkcli.data.formats.types import is_fraction, is_list, is_text, is_whole
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
        super().__init__(source, rows.schema, len(rows), wanted)
        self.about = {
            **self.about,
            "text": f"the elements of {where!r}" if where else "lists of one object",
        }

    def _all_batches(self, rows: int, names: list[str]) -> Iterator[pa.RecordBatch]:
        yield self._table.select(names)


def open_document(source: Source, wanted: Columns) -> DocumentReader | None:
    """A reader of the rows in the one object that a text is; None when the object is a row.

    Raises:
        InputError: several lists could be the rows, or pandas' layout of columns.
    """
    document = read_document(source)
    found = _rows_of(source.name, document, wanted.vectors)
    if found is None:
        return None
    where, rows = found
    # Integers beyond 64 bits come as floats: once more, as they are written.
    exact = [name for name, values in zip(rows.schema.names, rows, strict=True) if _is_cut(values)]
    for name in exact:
        place = place_of(pa.schema(document.type), f"{where}.{name}" if where else name)
        assert place is not None
        type_ = pa.list_(EXACT) if is_list(place.type) else EXACT
        again = read_document(source, pruned([place], [type_]))
        values = _leaf(again, place).cast(pa.string())
        rows = rows.set_column(rows.schema.names.index(name), name, values)
    # Paths from the top of the object lead to the same columns.
    for path in [*wanted.named, wanted.usual]:
        if path is None or not path.startswith(f"{where}.") or path in rows.schema.names:
            continue
        place = place_of(rows.schema, path.removeprefix(f"{where}."))
        if place is not None:
            rows = rows.append_column(path, place.take(rows)[0])
    return DocumentReader(source, wanted, where, rows)


def _leaf(array: pa.Array, place: Place) -> pa.Array:
    """All values at a place, those in lists one after the other."""
    for step in place.steps:
        if isinstance(step, str):
            array = pc.struct_field(array, [array.type.get_field_index(step)])
        if is_list(array.type):
            array = array.flatten()
    return array


def _rows_of(
    path: str, document: pa.StructArray, column: str | None
) -> tuple[str, pa.RecordBatch] | None:
    """Where the list of rows is in the object, and the rows; None when the object is a row."""
    if column is not None and any(part.isdecimal() for part in column.split(".")):
        return None
    found = [each for each in _lists(document, "") if _holds_rows(each[1])]
    if column is not None:
        found = [f for f in found if column == f[0] or column.startswith(f"{f[0]}.")] or found
    if not found:
        _refuse_keyed(path, document.type)
        return None
    where, lists, parent = found[0]
    length = len(lists.flatten())
    for index, field in enumerate(document.type):
        if _is_row(field.type) and len(document.field(index).flatten()) != length:
            return None
    if any(other[2] is not parent for other in found):
        names = ", ".join(each[0] for each in found)
        raise InputError(f"{path}: several lists could be the rows: {names}; name one by --column")
    if pa.types.is_struct(lists.type.value_type):
        return where, pa.RecordBatch.from_struct_array(lists.flatten())
    beside = {}
    for index, field in enumerate(parent.type):
        if is_list(field.type) and len(values := parent.field(index).flatten()) == length:
            beside[field.name] = values
    return where.rpartition(".")[0], pa.RecordBatch.from_pydict(beside)


def _refuse_keyed(path: str, type_: pa.StructType) -> None:
    for field in type_:
        inner = field.type
        if pa.types.is_struct(inner) and inner.num_fields and _is_numbered(inner):
            raise InputError(
                f"{path}: {field.name!r} is an object with a key for each row, as pandas "
                'writes it by default; write it with frame.to_json(path, orient="records", '
                "lines=True)"
            )
    vectors = [field.name for field in type_ if _is_row(field.type)]
    if len(vectors) > 1 and len(vectors) == type_.num_fields:
        raise InputError(
            f"{path}: one object of {len(vectors)} lists of numbers: if each is a vector, write "
            'one a line: {"id": "' + vectors[0] + '", "vector": [...]}'
        )


def _is_numbered(type_: pa.StructType) -> bool:
    return all(field.name.isdecimal() for field in type_)


def _lists(array: pa.StructArray, path: str) -> Iterator[tuple[str, pa.Array, pa.StructArray]]:
    """Every list in structs in structs, its path, and the struct that it is in."""
    for index, field in enumerate(array.type):
        here = f"{path}.{field.name}" if path else field.name
        inner = array.field(index)
        if pa.types.is_struct(field.type):
            yield from _lists(inner, here)
        elif is_list(field.type):
            yield here, inner, array


def _holds_rows(lists: pa.Array) -> bool:
    """A list of vectors, or of structs with a vector in them."""
    return _is_row(lists.type.value_type) or _has_vector(lists.flatten())


def _has_vector(values: pa.Array) -> bool:
    """Structs with a list of numbers inside, or texts that are vectors."""
    if pa.types.is_struct(values.type):
        fields = [values.field(index) for index in range(values.type.num_fields)]
        return any(_is_row(field.type) or _has_vector(field) for field in fields)
    if not is_text(values.type):
        return False
    first = values.drop_null()[:1].to_pylist()
    return bool(first) and text_kind(first[0], named=False) is not None


def _is_row(type_: pa.DataType) -> bool:
    return is_list(type_) and (is_fraction(type_.value_type) or is_whole(type_.value_type))


def _is_cut(values: pa.Array) -> bool:
    """Whether floats are integers that a float cannot hold."""
    if not pa.types.is_floating(values.type) or not len(values):
        return False
    numbers = values.drop_null().to_numpy(zero_copy_only=False)
    return bool(len(numbers) and (np.abs(numbers) >= 2.0**53).any() and (numbers % 1 == 0).all())
