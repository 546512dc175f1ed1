"""JSON: rows as lines, which pyarrow reads in blocks, or in documents, which are held in memory. A
row is an object with the vector somewhere in it, or an array of numbers.
"""

from __future__ import annotations

import codecs
import contextlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json

from dinkcli.data.base import Columns, reading
from dinkcli.data.files import Source
from dinkcli.data.formats.columns import NUMBERS, Place, place_of, pruned
from dinkcli.data.formats.numerals import text_kind
from dinkcli.data.formats.table import TableReader
from dinkcli.data.formats.text import TextReader, open_text, whole_lines
from dinkcli.data.formats.types import is_list, is_number, is_text
from dinkcli.errors import InputError

OBJECTS, ARRAYS, NAMED = "objects", "arrays", "named"  # NAMED: a name, then numbers or an array
_LINES, _LOOSE, _IN_ARRAY = "one a line", "one after the other", "the elements of one array"
EXACT = pa.decimal128(38, 0)
_ROWS = 20  # that say what all are
_KINDS: dict[type, str] = {
    **{bool: "boolean", int: "number", float: "number", type(None): ""},
    **{str: "string", list: "array", dict: "object"},
}


@dataclass(frozen=True)
class JsonLayout:
    where: str  # the rows are: _LINES, _LOOSE or _IN_ARRAY
    rows: str  # OBJECTS, ARRAYS or NAMED
    extended: bool = False  # numbers and ids are objects, as MongoDB exports them

    @property
    def are_rows(self) -> bool:
        """And not one list of values, or a list of one in each line."""
        return self.rows != ARRAYS or self.where == _IN_ARRAY

    @property
    def described(self) -> str:
        what = "objects" if self.rows == OBJECTS else "arrays"
        named = ", what comes first names the row" * (self.rows == NAMED)
        return f"{what}, {self.where}{named}"

    def plain(self, text: bytes) -> bytes:
        """The text with MongoDB's objects as what they hold."""
        if not self.extended:
            return text
        text = re.sub(rb'\{\s*"\$number\w+"\s*:\s*"([^"]*)"\s*\}', rb"\1", text)
        return re.sub(rb'\{\s*"\$(?:oid|date|uuid)"\s*:\s*("[^"]*")\s*\}', rb"\1", text)

    def object(self, row: Any) -> dict[str, Any]:
        """A row as an object, without anything in it where the row is of another sort."""
        match row:
            case _ if self.rows == ARRAYS:
                return {"vector": row}
            case dict() if self.rows == OBJECTS:
                return row
            case [name, [*values]] | [name, *values] if self.rows == NAMED:
                return {"id": name, "vector": values}
        return {}


def layout_of(head: bytes) -> JsonLayout | None:
    """How a text that may be JSON is laid out, by its beginning; None when it is something else."""
    text = head.decode().lstrip()
    if not re.match(r'\[|\{\s*["}]', text):
        return None
    values: list[Any] = []
    first = text
    with contextlib.suppress(ValueError, RecursionError):  # the last may be cut
        for value, end in itertools.islice(values_of(text), _ROWS):
            first = first if values else text[:end]
            values.append(value)
    if _opens_rows(text):
        where = _IN_ARRAY
    else:
        more = text[len(first) :].strip(" \t\r\n,")
        where = _LINES if more and "\n" not in first else _LOOSE
    is_object = isinstance(values[0], dict) if values else text.lstrip("[ \t\r\n")[:1] == "{"
    rows = OBJECTS if is_object else _kind_of_arrays(values, text)
    return None if rows is None else JsonLayout(where, rows, b'"$' in head)


def _opens_rows(text: str) -> bool:
    """Whether a text begins with an array of objects or arrays."""
    return re.match(r"\s*\[\s*[\[{]", text) is not None


def _kind_of_arrays(values: list[Any], text: str) -> str | None:
    """NAMED where the first arrays hold more than numbers, or count the rows before them."""
    rows = [row for row in values if isinstance(row, list) and row]
    firsts = [row[0] for row in rows]
    if rows and (isinstance(firsts[0], str) or any(isinstance(row[-1], list) for row in rows)):
        after = rows[0][1:]
        numbers = after[0] if len(after) == 1 and isinstance(after[0], list) else after
        if numbers and all(isinstance(number, int | float) for number in numbers):
            return NAMED
        return ARRAYS if isinstance(firsts[0], list) else None
    are_counted = len(firsts) > 2 and firsts in ([*range(len(rows))], [*range(1, len(rows) + 1)])
    if are_counted and any(isinstance(number, float) for row in rows for number in row[1:]):
        return NAMED
    return ARRAYS if re.match(r"[\[\s]+[-+.0-9NIn\]]", text) else None


def values_of(text: str) -> Iterator[tuple[Any, int]]:
    """The values of a text one after the other, with or without commas between them, or the
    elements of arrays of objects or arrays; and where each ends. ValueError where one is cut."""
    decode = json.JSONDecoder(strict=False).raw_decode
    inside = _opens_rows(text)
    gaps = re.compile(r"(?:[\s,]|\](?:\s*\[)?)*" if inside else r"[\s,]*")
    gap: Any = gaps.match(text, text.index("[") + 1 if inside else 0)
    while gap.end() < len(text):
        value, end = decode(text, gap.end())
        yield value, end
        gap = gaps.match(text, end)
    if inside and "]" not in gap[0]:
        raise ValueError("the array has no end")


def _table_of(
    path: str, rows: list[Any], wanted: Columns, schema: pa.Schema | None = None, first: int = 0
) -> pa.RecordBatch:
    """The objects of JSON as a table of ``schema``, or of the types that most values have. A value
    of another type is null, so that its row is a bad one; in a column that travels along it is an
    error."""
    type_ = None if schema is None else pa.struct(list(schema))
    kept = {name.rpartition(".")[2] for name in wanted.carried}
    numbers = np.arange(first, first + len(rows))
    try:
        return pa.RecordBatch.from_struct_array(_array("", rows, numbers, kept, type_))
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise InputError(f"{path}: {error}") from error


def _array(
    name: str, values: list[Any], rows: np.ndarray, kept: Set[str], type_: pa.DataType | None
) -> pa.Array:
    """The values under one name, which are of ``rows``."""
    types, kinds = Counter(map(type, values)), Counter[str]()
    for each, times in types.items():
        kinds[_KINDS[each]] += times
    del kinds[""]
    most = max(kinds, key=lambda each: (kinds[each], each == "number"), default="")
    kind = most if type_ is None else _kind_of_type(type_)
    if kinds.keys() - {kind}:
        odd = next(i for i, v in enumerate(values) if _KINDS[type(v)] not in ("", kind))
        if name in kept:
            raise ValueError(
                f"row {rows[odd]}: {name!r} is of type {_KINDS[type(values[odd])]}, and most are "
                f"of type {kind} (counting from 0); write one type in all rows"
            )
        values = [each if _KINDS[type(each)] == kind else None for each in values]
    null = pa.array([each is None for each in values])
    if kind == "object":
        fields: dict[str, Any] = dict.fromkeys(itertools.chain(*filter(None, values)))
        if type_ is not None:
            fields = {field.name: field.type for field in type_}
        children = [
            _array(inner, [each.get(inner) if each else None for each in values], rows, kept, of)
            for inner, of in fields.items()
        ]
        return pa.StructArray.from_arrays(children, [*fields], mask=null)
    if kind == "array":
        lengths = [len(each or ()) for each in values]
        flat = [*itertools.chain.from_iterable(filter(None, values))]
        inner_type = None if type_ is None else type_.value_type
        children = _array(name, flat, np.repeat(rows, lengths), kept, inner_type)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        return pa.ListArray.from_arrays(offsets, children, mask=null)
    is_large = kind == "number" and not types[float] and any(v and abs(v) >> 63 for v in values)
    if type_ == EXACT or is_large:
        return pa.array(values, EXACT)
    if kind == "number" and types[float]:
        values = [None if each is None else float(each) for each in values]
    array = pa.array(values)
    return array if type_ is None else array.cast(type_)


def _kind_of_type(type_: pa.DataType) -> str:
    if pa.types.is_struct(type_):
        return "object"
    if is_list(type_):
        return "array"
    if is_text(type_):
        return "string"
    return "boolean" if pa.types.is_boolean(type_) else "number"


class JsonReader(TextReader):
    """Objects with the vector somewhere in them, or arrays of numbers, one a line."""

    format = "jsonl"

    def __init__(self, source: Source, wanted: Columns, layout: JsonLayout):
        self._layout, self._wanted = layout, wanted
        self._schema: pa.Schema | None = None
        super().__init__(source, wanted)
        self._schema = pruned(self.needed, list(map(self._type_of, self.needed)))
        if layout.rows != OBJECTS:
            self.about = {**self.about, "text": layout.described}

    def _type_of(self, place: Place) -> pa.DataType:
        """What a column is parsed to."""
        first = place.take(self._first)[0]
        if place in self.places:
            number = pa.from_numpy_dtype(self.dtype)
            if self.kind == NUMBERS and not is_text(first.type):
                return number
            are_numbers = is_list(first.type) and is_number(first.type.value_type)
            return pa.list_(number) if are_numbers else first.type
        if pa.types.is_temporal(place.type) or pa.types.is_null(place.type):
            return pa.string()  # as it is written
        is_exact = pa.types.is_integer(place.type) and place.path == self._wanted.id
        if pa.types.is_floating(place.type):  # perhaps of integers beyond 64 bits
            values = first.drop_null().to_numpy()
            is_exact = (np.abs(values) >= 2.0**63).any() and (values == np.floor(values)).all()
        return EXACT if is_exact else place.type

    def _carried_field(self, place: Place) -> pa.Field:
        type_ = self._type_of(place)  # before any place is that of the vectors
        return pa.field(place.path, pa.string() if type_ == EXACT else type_)

    def _parsed(self, names: list[str] | None) -> Iterator[pa.RecordBatch]:
        schema, n_rows = None, 0
        if names is not None:
            known = self.schema if self._schema is None else self._schema
            schema = pa.schema([known.field(name) for name in names])
        with open_text(self.source) as file:
            for text in whole_lines(file):
                lines = (line.strip(b" \t\r,") for line in text.split(b"\n"))
                if rows := [*filter(None, lines)]:
                    batch = self._batch(rows, n_rows, schema)
                    n_rows += len(batch)
                    yield batch

    def _batch(self, rows: list[bytes], first: int, schema: pa.Schema | None) -> pa.RecordBatch:
        layout = self._layout
        if layout.rows != NAMED:
            objects = rows if layout.rows == OBJECTS else [b'{"vector":%b}' % row for row in rows]
            with contextlib.suppress(pa.ArrowInvalid):  # cut, or of mixed types
                return _read_json(layout.plain(b"\n".join(objects)), schema)
        path = self.source.name
        values = _parsed_rows(path, (json.loads(layout.plain(row)) for row in rows), first)
        return _table_of(path, [*map(layout.object, values)], self._wanted, schema, first)


def _read_json(text: bytes, schema: pa.Schema | None) -> pa.RecordBatch:
    others = "infer" if schema is None else "ignore"
    options = pyarrow.json.ParseOptions(schema, unexpected_field_behavior=others)
    read = pyarrow.json.ReadOptions(use_threads=False, block_size=len(text) + 1)
    table = pyarrow.json.read_json(pa.BufferReader(text), read, options)
    return table.combine_chunks().to_batches()[0]


def _parsed_rows(path: str, parsed: Iterator[Any], first: int = 0) -> list[Any]:
    """The values of rows that are parsed one after the other, ``first`` the number of the first."""
    rows = []
    try:
        for row in parsed:
            rows.append(row)
    except ValueError as error:
        raise InputError(
            f"{path}: row {first + len(rows)} is cut, or no JSON (counting from 0): {error}; "
            "repair or remove it"
        ) from error
    return rows


class DocumentReader(TableReader):
    """The rows of one text, in memory as a whole."""

    format = "json"

    def __init__(self, source: Source, wanted: Columns, rows: pa.RecordBatch, described: str):
        self._table, self._id = rows, wanted.id
        super().__init__(source, rows.schema, len(rows), wanted)
        self.about = {**self.about, "text": described}

    def _carried_field(self, place: Place) -> pa.Field:
        field = super()._carried_field(place)
        is_id = pa.types.is_integer(place.type) and place.path == self._id
        is_exact = is_id or pa.types.is_decimal(place.type) or pa.types.is_null(place.type)
        return field.with_type(pa.string()) if is_exact else field

    def _all_batches(self, rows: int, names: list[str]) -> Iterator[pa.RecordBatch]:
        yield self._table.select(names)


def open_json(source: Source, wanted: Columns, layout: JsonLayout) -> TableReader:
    if layout.where == _LINES:
        return JsonReader(source, wanted, layout)
    path, where, described = source.name, "", layout.described
    with reading(path, "json"):
        with open_text(source) as file:
            text = layout.plain(file.read().removeprefix(codecs.BOM_UTF8)).decode()
        rows = _parsed_rows(path, (value for value, _ in values_of(text)))
    if len(rows) == 1 and isinstance(rows[0], dict) and layout.where != _IN_ARRAY:
        located = _rows_in(path, rows[0], wanted)
        if located is not None:
            where, rows = located
            described = f"the elements of {where!r}" if where else "lists of one object"
    table = _table_of(path, [*map(layout.object, rows)], wanted)
    # Paths from the top of the object lead to the same columns.
    for name in [*wanted.named, wanted.usual]:
        if where and name is not None and name.startswith(f"{where}."):
            place = place_of(table.schema, name.removeprefix(f"{where}."))
            if place is not None and name not in table.schema.names:
                table = table.append_column(name, place.take(table)[0])
    return DocumentReader(source, wanted, table, described)


def _rows_in(
    path: str, document: dict[str, Any], wanted: Columns
) -> tuple[str, list[dict[str, Any]]] | None:
    """Where the list of rows is in the object, and the rows; None when the object is a row."""
    column = wanted.vectors
    match document:
        case {"columns": [*names], "index": [*_], "data": [[*_], *_] as lists}:  # pandas' "split"
            return "data", [dict(zip(map(str, names), row or (), strict=False)) for row in lists]
    if column is not None and any(part.isdecimal() for part in column.split(".")):
        return None
    lists = [*_lists(document, "")]
    if column is not None:
        lists = [each for each in lists if f"{column}.".startswith(f"{each[0]}.")] or lists
    elif (
        not (lists or wanted.usual or wanted.alone) and (n_vectors := _count_vectors(document)) > 1
    ):
        raise InputError(
            f"{path}: one object with {n_vectors} vectors: if it has a key for each row, write one "
            f'a line: {{"id": "{next(iter(document))}", "vector": [...]}} (in pandas, '
            'frame.to_json(path, orient="records", lines=True)); if it is a row, name one by '
            "`column`"
        )
    own = [value for value in document.values() if _is_vector(value)]
    if not lists or any(len(value) != len(lists[0][1]) for value in own):
        return None
    where, rows, parent = lists[0]
    if any(other is not parent for _, _, other in lists):
        several = ", ".join(name for name, _, _ in lists)
        raise InputError(
            f"{path}: several lists could be the rows: {several}; name one by `column`"
        )
    if isinstance(rows[0], dict):
        return where, rows
    beside = {n: v for n, v in parent.items() if isinstance(v, list) and len(v) == len(rows)}
    each_row = zip(*beside.values(), strict=True)
    return where.rpartition(".")[0], [dict(zip(beside, row, strict=True)) for row in each_row]


def _lists(value: dict[str, Any], path: str) -> Iterator[tuple[str, list[Any], dict[str, Any]]]:
    """Lists in objects in objects of which most elements hold vectors: the path of each, the list,
    and the object that it is in."""
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _lists(inner, f"{path}{name}.")
        elif isinstance(inner, list):
            holds = [_holds_vector(each) for each in inner[:_ROWS]]
            if 2 * sum(holds) > len(holds):
                yield f"{path}{name}", inner, value


def _holds_vector(value: Any) -> bool:
    """Whether it is a vector, or an object with one in it."""
    if isinstance(value, dict):
        return any(map(_holds_vector, value.values()))
    return _is_vector(value) or (isinstance(value, str) and text_kind(value, False) is not None)


def _is_vector(value: Any) -> bool:
    """A list of numbers, some of which may be something else."""
    first = value[:_ROWS] if isinstance(value, list) else []
    numbers = sum(isinstance(each, int | float) for each in first)
    return numbers > 0 and 2 * numbers >= len(first)


def _count_vectors(value: Any) -> int:
    """How many vectors are in an object, as lists or as objects with a number for each number."""
    if not isinstance(value, dict):
        return int(_is_vector(value))
    numbered = value and all(map(str.isdecimal, value)) and _is_vector([*value.values()])
    return 1 if numbered else sum(map(_count_vectors, value.values()))
