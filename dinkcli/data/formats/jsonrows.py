"""JSON: rows as lines, in one array, one after the other, or all in one object.

A row is an object with the vector somewhere in it, or an array of numbers.
"""

from __future__ import annotations

import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.json

from dinkcli.data.base import Columns, reading
from dinkcli.data.files import Source
from dinkcli.data.formats.columns import BASE64, LIST, SPARK, TEXT, Place, place_of, pruned
from dinkcli.data.formats.numerals import text_kind
from dinkcli.data.formats.table import TableReader
from dinkcli.data.formats.text import MARK, TextReader, blocks, open_text, whole_lines
from dinkcli.data.formats.types import is_list, is_number, is_text
from dinkcli.errors import InputError

# How deep the rows are: in one array, or one after the other over several lines, or a line each.
IN_ARRAY, LOOSE, LINES = 1, 0, None
OBJECTS, ARRAYS, NAMED = "objects", "arrays", "named"  # NAMED: a name, then numbers or an array
EXACT = pa.decimal128(38, 0)
_QUOTE = 2
_TURNS = np.zeros(256, np.int8)
_TURNS[[*b"[{"]], _TURNS[[*b"]}"]], _TURNS[ord('"')] = 1, -1, _QUOTE
_CHANGED = re.compile(r".*Column\((.*)\) changed from (\w+) to (\w+) in row (\d+)")
_ROWS = 20  # that say what all are
_PLACES = {IN_ARRAY: "the elements of one array", LOOSE: "one after the other", LINES: "one a line"}


@dataclass(frozen=True)
class JsonLayout:
    """
    Attributes:
        level: IN_ARRAY, LOOSE or LINES.
        rows: OBJECTS, ARRAYS or NAMED.
        extended: numbers and ids are objects, as MongoDB exports them.
    """

    level: int | None
    rows: str
    extended: bool = False


def layout_of(head: bytes) -> JsonLayout | None:
    """How a text that may be JSON is laid out, by its beginning; None when it is something else."""
    text = head.lstrip()
    start, inner = text[:1], text[1:].lstrip()[:1]
    if not (start == b"[" or (start == b"{" and inner in (b'"', b"}"))):
        return None
    line, ended, _ = text.partition(b"\n")
    level = LOOSE if ended and _brackets(line)[1].sum() > 0 else LINES
    if start == b"[" and inner in (b"[", b"{"):
        level = IN_ARRAY
    rows = [*itertools.islice(itertools.chain(*_rows(io.BytesIO(text), level)), _ROWS)]
    kind = OBJECTS if rows and rows[0][:1] == b"{" else _kind_of_arrays(rows)
    return None if kind is None else JsonLayout(level, kind, b'"$' in head)


def _kind_of_arrays(lines: list[bytes]) -> str | None:
    """NAMED where the first arrays hold more than numbers, or count the rows before them."""
    rows = [row for row in map(_parsed, lines) if isinstance(row, list) and row]
    firsts = [row[0] for row in rows]
    if rows and (isinstance(firsts[0], str) or any(isinstance(row[-1], list) for row in rows)):
        values = rows[0][1:]
        numbers = values[0] if len(values) == 1 and isinstance(values[0], list) else values
        if numbers and all(isinstance(number, int | float) for number in numbers):
            return NAMED
        return ARRAYS if isinstance(firsts[0], list) else None
    counted = len(firsts) > 2 and firsts in ([*range(len(rows))], [*range(1, len(rows) + 1)])
    if counted and any(isinstance(number, float) for row in rows for number in row[1:]):
        return NAMED
    inner = lines[0][1:].lstrip()[:1] if lines else b""
    return ARRAYS if inner and inner in b"-+.0123456789NI]n[" else None


def _parsed(line: bytes) -> Any:
    """What a line of JSON is; ``...`` for what is none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return ...


def _rows(file: Any, level: int | None) -> Iterator[list[bytes]]:
    """The elements of a JSON text in blocks, each on a line of its own, and what is between them
    with the next one.

    Args:
        level: how deep the elements are: 1 in an array, 0 one after the other; None for lines.
    """
    if level is None:
        for lines in whole_lines(file):
            yield list(filter(None, (line.strip(b" \t\r\n,") for line in lines.split(b"\n"))))
        return
    pending: list[bytes] = []
    enough, depth = 0, 0
    for block in blocks(file):
        pending.append(block)
        if sum(map(len, pending)) < enough:
            continue
        text = b"".join(pending)
        where, turns = _brackets(text)
        depths = depth + np.cumsum(turns)
        closes = (turns < 0) & (depths <= level)
        (cuts,) = np.nonzero(closes | ((turns > 0) & (depths == level)))
        ends = where[cuts] + (closes & (depths == level))[cuts]
        starts = [0, *(where[cuts] + 1).tolist()]
        yield _on_lines(
            [text[start:end] for start, end in zip(starts, ends.tolist(), strict=False)]
        )
        pending, depth = [text[starts[-1] :]], int(depths[cuts[-1]]) if len(cuts) else depth
        enough = 2 * len(pending[0])  # a long element is not looked at again with each block
    yield _on_lines([b"".join(pending)])


def _brackets(text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the brackets outside of strings, and 1 or -1 for one that opens or closes."""
    if b"\\" in text:
        text = re.sub(rb"\\.", b"  ", text, flags=re.DOTALL)
    data = np.frombuffer(text, np.uint8)
    where = np.flatnonzero(_TURNS[data])
    turns = _TURNS[data[where]]
    kept = (np.cumsum(turns == _QUOTE) % 2 == 0) & (turns != _QUOTE)
    return where[kept], turns[kept]


def _on_lines(elements: list[bytes]) -> list[bytes]:
    blanks = bytes.maketrans(b"\r\n", b"  ")
    return list(filter(None, (each.translate(blanks).strip(b" \t,") for each in elements)))


class JsonReader(TextReader):
    """One object for each row with the vector somewhere in it, or one array of numbers."""

    def __init__(self, source: Source, wanted: Columns, head: bytes, layout: JsonLayout):
        self._layout = layout
        self.format = "jsonl" if layout.level is LINES else "json"
        self._schema: pa.Schema | None = None
        self._id, self._kept = wanted.id, _leaves(wanted)
        super().__init__(source, wanted, head)
        types = [type_ for _, type_ in self._chosen or ()]
        self._schema = pruned([place for place, _ in self._chosen or ()], types)
        if layout.level is not LINES or layout.rows != OBJECTS:
            what = "objects" if layout.rows == OBJECTS else "arrays"
            named = ", what comes first names the row" * (layout.rows == NAMED)
            self.about = {**self.about, "text": f"{what}, {_PLACES[layout.level]}{named}"}

    def _type_of(self, place: Place, number: pa.DataType) -> pa.DataType:
        if place in self.places:
            value = getattr(place.type, "value_type", None)
            if self.kind == SPARK or (self.kind == LIST and pa.types.is_boolean(value)):
                return place.type
            # A column of numbers may be one of texts in the first block.
            if self.kind in (TEXT, BASE64) or is_text(place.take(self._first)[0].type):
                return pa.list_(pa.string()) if is_list(place.type) else pa.string()
        return super()._type_of(place, number)

    def _carried_type(self, place: Place) -> pa.DataType:
        if pa.types.is_temporal(place.type) or pa.types.is_null(place.type):
            return pa.string()  # as it is written
        is_id = pa.types.is_integer(place.type) and place.path == self._id
        if is_id or pa.types.is_floating(place.type):
            try:  # ids, and integers beyond 64 bits
                if next(self._read(pruned([place], [EXACT])), None) is not None:
                    return EXACT
            except (pa.ArrowInvalid, InputError):
                pass
        return place.type

    def _parsed(self, names: list[str] | None) -> Iterator[pa.RecordBatch]:
        schema = self._schema
        if names is not None:
            known = self.schema if schema is None or set(names) - set(schema.names) else schema
            schema = pa.schema([known.field(name) for name in names])
        return self._read(schema)

    def _read(self, schema: pa.Schema | None) -> Iterator[pa.RecordBatch]:
        n_rows = 0
        with open_text(self.source) as file:
            for rows in _rows(file, self._layout.level):
                if not rows:
                    continue
                text = self._objects(rows, n_rows)
                try:
                    table = _read_rows(text, schema, self._kept)
                except pa.ArrowInvalid as error:
                    self._refuse(rows, n_rows, error)
                for batch in table.combine_chunks().to_batches():
                    n_rows += len(batch)
                    yield batch

    def _objects(self, rows: list[bytes], n_rows: int) -> bytes:
        """The rows as objects, a line each."""
        if self._layout.rows == ARRAYS:
            rows = [b'{"vector":%b}' % row for row in rows]
        for number, row in enumerate(rows if self._layout.rows == NAMED else ()):
            match _parsed(row):
                case [name, [*values]] | [name, *values]:
                    rows[number] = json.dumps({"id": name, "vector": values}).encode()
                case value:
                    rows[number] = row if value is ... else b"{}"
        text = b"\n".join(rows)
        if self._layout.extended:
            text = re.sub(rb'\{\s*"\$number\w+"\s*:\s*"([^"]*)"\s*\}', rb"\1", text)
            text = re.sub(rb'\{\s*"\$(?:oid|date|uuid)"\s*:\s*("[^"]*")\s*\}', rb"\1", text)
        return text

    def _refuse(self, rows: list[bytes], n_rows: int, error: pa.ArrowInvalid) -> NoReturn:
        """Raises an error that says which row could not be parsed, and why."""
        name = self.source.name
        for number, row in enumerate(rows, n_rows):
            if _parsed(row) is ...:
                raise InputError(
                    f"{name}: row {number} is cut, or no JSON: {row[:20]!r} to {row[-20:]!r} "
                    "(counting from 0); repair or remove it"
                ) from error
        if changed := _CHANGED.fullmatch(str(error)):
            column, new, old, at = changed.groups()
            raise InputError(
                f"{name}: row {n_rows + int(at)}: {column.strip('/').replace('/', '.')!r} is of "
                f"type {old}, and of type {new} before (counting from 0); write one type in all "
                "rows"
            ) from error
        if in_row := re.fullmatch(r"(.*) in row (\d+)", str(error)):
            raise pa.ArrowInvalid(f"{in_row[1]} in row {n_rows + int(in_row[2])}") from error
        raise error


def _leaves(wanted: Columns) -> Set[str]:
    """The last parts of the names of columns that travel along."""
    return {name.rpartition(".")[2] for name in wanted.carried}


def _read_rows(text: bytes, schema: pa.Schema | None, kept: Set[str]) -> pa.Table:
    """The objects of a text, or what the schema has of them. What is of another type than most
    values in its place is null, so that its row is a bad one, but not in the columns ``kept``.

    Raises:
        pa.ArrowInvalid: it is no JSON, or a column that is kept has values of several types.
    """
    try:
        return _read_json(text, schema)
    except pa.ArrowInvalid as error:
        rows = list(map(_parsed, text.split(b"\n"))) if _CHANGED.fullmatch(str(error)) else [...]
        if ... in rows:
            raise
    type_ = _type_of_most(rows) if schema is None else pa.struct(list(schema))
    fitting = (json.dumps(_fitting(row, type_, kept) or {}) for row in rows)
    return _read_json("\n".join(fitting).encode(), schema)


def _read_json(text: bytes, schema: pa.Schema | None) -> pa.Table:
    options = pyarrow.json.ParseOptions()
    if schema is not None:
        options = pyarrow.json.ParseOptions(schema, unexpected_field_behavior="ignore")
    read = pyarrow.json.ReadOptions(use_threads=False, block_size=len(text) + 1)
    return pyarrow.json.read_json(pa.BufferReader(text), read, options)


def _type_of_most(values: list[Any]) -> pa.DataType:
    """The type of most values; of the values in them, if these are objects or lists."""
    kinds = Counter(float if type(value) is int else type(value) for value in values)
    del kinds[type(None)]
    kind = max(kinds, key=lambda each: (kinds[each], each is float), default=None)
    values = [value for value in values if type(value) is kind or kind is float]
    if kind is dict:
        names = dict.fromkeys(itertools.chain(*values))
        fields = {name: [each[name] for each in values if name in each] for name in names}
        return pa.struct([(name, _type_of_most(inner)) for name, inner in fields.items()])
    if kind is list:
        return pa.list_(_type_of_most([*itertools.chain(*values)]))
    number = pa.float64() if float in map(type, values) else pa.int64()
    return {None: pa.null(), float: number, str: pa.string(), bool: pa.bool_()}[kind]


def _fitting(value: Any, type_: pa.DataType | None, kept: Set[str]) -> Any:
    """The value without what is of another type, where one is known."""
    if type_ is None:
        return value
    if pa.types.is_struct(type_):
        types = {field.name: None if field.name in kept else field.type for field in type_}
        fields = value.items() if isinstance(value, dict) else ()
        return {name: _fitting(inner, types.get(name), kept) for name, inner in fields} or None
    if is_list(type_):
        inner_type = type_.value_type
        return [_fitting(v, inner_type, kept) for v in value] if isinstance(value, list) else None
    if is_number(type_):
        return value if type(value) in (int, float) else None
    return value if not is_text(type_) or isinstance(value, str) else None


class DocumentReader(TableReader):
    """The rows are the elements of a list somewhere in one object; lists beside it that are as long
    travel with it. In memory as a whole.

    Args:
        where: the path of that list, "" for lists at the top.
        rows: its elements.
    """

    format = "json"

    def __init__(self, source: Source, wanted: Columns, where: str, rows: pa.RecordBatch):
        self.source, self._table = source, rows
        super().__init__(source, rows.schema, len(rows), wanted)
        text = f"the elements of {where!r}" if where else "lists of one object"
        self.about = {**self.about, "text": text}

    def _all_batches(self, rows: int, names: list[str]) -> Iterator[pa.RecordBatch]:
        yield self._table.select(names)


def open_document(source: Source, wanted: Columns) -> DocumentReader | None:
    """A reader of the rows in the one object that a text is; None when there are more objects, or
    the object is a row.

    Raises:
        InputError: several lists could be the rows, or pandas' layouts of columns.
    """
    with reading(source.name, "json"):
        with open_text(source) as file:
            n_rows = itertools.accumulate(map(len, _rows(file, LOOSE)))
            if any(number > 1 for number in n_rows):
                return None
        with open_text(source) as file:
            document = json.loads(file.read().removeprefix(MARK))
    located = _rows_of(source.name, document, wanted.vectors)
    if located is None:
        return None
    where, columns = located
    kept = _leaves(wanted)
    try:
        arrays = {name: _array(name, values, kept) for name, values in columns.items()}
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise InputError(f"{source.name}: {error}; write one type in all rows") from error
    rows = pa.RecordBatch.from_pydict(arrays)
    # Paths from the top of the object lead to the same columns.
    for path in [*wanted.named, wanted.usual]:
        if path is not None and path.startswith(f"{where}.") and path not in rows.schema.names:
            place = place_of(rows.schema, path.removeprefix(f"{where}."))
            rows = rows if place is None else rows.append_column(path, place.take(rows)[0])
    return DocumentReader(source, wanted, where, rows)


def _array(name: str, values: list[Any], kept: Set[str]) -> pa.Array:
    """The values as most of them are; integers beyond 64 bits as they are written."""
    if any(type(value) is int and abs(value) >> 63 for value in values):
        return pa.array([value if value is None else str(value) for value in values])
    if name in kept:
        return pa.array(values)
    type_ = _type_of_most(values)
    return pa.array([_fitting(value, type_, kept) for value in values], type_, safe=False)


def _rows_of(
    path: str, document: dict[str, Any], column: str | None
) -> tuple[str, dict[str, list[Any]]] | None:
    """Where the list of rows is in the object, and their columns; None when the object is a row."""
    if {"columns", "index", "data"} <= document.keys():
        raise InputError(
            f"{path}: names of columns and rows apart, as pandas writes them by "
            'orient="split"; write it with frame.to_json(path, orient="records", lines=True)'
        )
    if column is not None and any(part.isdecimal() for part in column.split(".")):
        return None
    lists = [each for each in _lists(document, "") if _holds_vectors(each[1])]
    if column is not None:
        named = [each for each in lists if f"{column}.".startswith(f"{each[0]}.")]
        lists = named or lists
    elif not lists:
        _refuse_keyed(path, document)
    if not lists:
        return None
    where, rows, parent = lists[0]
    if any(_is_vector(value) and len(value) != len(rows) for value in document.values()):
        return None
    if any(other is not parent for _, _, other in lists):
        several = ", ".join(name for name, _, _ in lists)
        raise InputError(
            f"{path}: several lists could be the rows: {several}; name one by `column`"
        )
    if isinstance(rows[0], dict):
        objects = [row if isinstance(row, dict) else {} for row in rows]
        names = dict.fromkeys(itertools.chain(*objects))
        return where, {name: [row.get(name) for row in objects] for name in names}
    beside = {n: v for n, v in parent.items() if isinstance(v, list) and len(v) == len(rows)}
    return where.rpartition(".")[0], beside


def _lists(value: dict[str, Any], path: str) -> Iterator[tuple[str, list[Any], dict[str, Any]]]:
    """Every list in objects in objects, its path, and the object that it is in."""
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _lists(inner, f"{path}{name}.")
        elif isinstance(inner, list):
            yield f"{path}{name}", inner, value


def _holds_vectors(values: list[Any]) -> bool:
    """Whether most of the first values are vectors, or objects with a vector in them."""
    first = values[:_ROWS]
    return 2 * sum(_is_vector(v) or _has_vector(v) for v in first) > len(first)


def _has_vector(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_is_vector(inner) or _has_vector(inner) for inner in value.values())
    return isinstance(value, str) and text_kind(value, named=False) is not None


def _is_vector(value: Any) -> bool:
    """A list of numbers, some of which may be something else."""
    first = value[:_ROWS] if isinstance(value, list) else []
    numbers = sum(isinstance(each, int | float) for each in first)
    return numbers > 0 and 2 * numbers >= len(first)


def _refuse_keyed(path: str, document: dict[str, Any]) -> None:
    """Raises InputError for an object with a key for each row.

    Of fields with numbered names, numbers are one vector, unless several objects of them are the
    columns of a table.
    """
    if len(document) > 1 and all(map(_is_vector, document.values())):
        raise InputError(
            f"{path}: one object of {len(document)} lists of numbers: if each is a vector, write "
            f'one a line: {{"id": "{next(iter(document))}", "vector": [...]}}'
        )
    objects = [value for value in document.values() if isinstance(value, dict)]
    for each in [document, *objects]:
        fields, numbered = [*each.values()], bool(each) and all(map(str.isdecimal, each))
        if len(fields) > 1 and all(isinstance(field, dict) for field in fields):
            alike = all(field.keys() == fields[0].keys() for field in fields)
            numbers = any(isinstance(value, int | float) for value in fields[0].values())
            is_keyed = alike and (_has_vector(fields[0]) or (numbered and numbers))
        elif all(isinstance(field, int | float) for field in fields):
            is_keyed = numbered and each is not document and len(objects) > 1
        else:
            is_keyed = (numbered or len(fields) > 2) and all(map(_is_vector, fields))
        if is_keyed:
            raise InputError(
                f"{path}: an object with a key for each row, as pandas writes it by default or by "
                'orient="index"; write it with frame.to_json(path, orient="records", lines=True)'
            )
