"""JSON: rows as lines, in one array, one after the other, or all in one object.

A row is an object with the vector somewhere in it, or an array of numbers.
"""

from __future__ import annotations

import contextlib
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
from dinkcli.data.formats.text import TextReader, open_text, whole_lines
from dinkcli.data.formats.types import is_list, is_number, is_text
from dinkcli.errors import InputError

# How deep the rows are: in one array, or one after the other over several lines, or a line each.
IN_ARRAY, LOOSE, LINES = 1, 0, None
OBJECTS, ARRAYS, NAMED = "objects", "arrays", "named"  # NAMED: a name, then numbers or an array
EXACT = pa.decimal128(38, 0)
_CHANGED = re.compile(r".*Column\((.*)\) changed from (\w+) to (\w+) in row (\d+)")
_ROWS = 20  # that say what all are
_NUMBERS = {int, float}
_TEXTS = {
    (IN_ARRAY, ARRAYS): "the elements of one array",
    (IN_ARRAY, OBJECTS): "the elements of one array",
    (IN_ARRAY, NAMED): "the elements of one array, what comes first names the row",
    (LOOSE, OBJECTS): "objects one after the other",
    (LINES, ARRAYS): "one array a line",
    (LINES, NAMED): "one array a line, what comes first names the row",
}


@dataclass(frozen=True)
class JsonLayout:
    """
    Attributes:
        level: IN_ARRAY, LOOSE or LINES.
        rows: OBJECTS, ARRAYS or NAMED.
        commas: there is one behind each line, as in an array without its brackets.
        extended: numbers and ids are objects, as MongoDB exports them.
    """

    level: int | None
    rows: str
    commas: bool = False
    extended: bool = False


def layout_of(head: bytes) -> JsonLayout | None:
    """How a text that may be JSON is laid out, by its beginning; None when it is something else."""
    text = head.lstrip()
    start, inner = text[:1], text[1:].lstrip()[:1]
    line = text.split(b"\n", 1)[0].rstrip()
    if start == b"[":
        level = IN_ARRAY if inner in (b"[", b"{") else LINES
    elif start == b"{" and inner in (b'"', b"}"):
        one_line = Splitter(LOOSE).depth_after(line) <= 0 or b"\n" not in text
        level = LINES if one_line else LOOSE
    else:
        return None
    lines = text if level is LINES else Splitter(level).split(text).lstrip()
    rows = OBJECTS if lines[:1] == b"{" else _kind_of_arrays(lines)
    commas = level is LINES and line.endswith(b",")
    return None if rows is None else JsonLayout(level, rows, commas, b'"$' in head)


def _kind_of_arrays(lines: bytes) -> str | None:
    """NAMED where the first arrays hold more than numbers, or count the rows before them."""
    rows: list[Any] = []
    with contextlib.suppress(ValueError, RecursionError):
        for line in lines.split(b"\n")[:_ROWS]:
            rows.append(json.loads(line))
    rows = [row for row in rows if isinstance(row, list) and row]
    if rows and (isinstance(rows[0][0], str) or any(isinstance(row[-1], list) for row in rows)):
        values = rows[0][1:]
        numbers = values[0] if len(values) == 1 and isinstance(values[0], list) else values
        if numbers and all(isinstance(number, int | float) for number in numbers):
            return NAMED
        return ARRAYS if isinstance(rows[0][0], list) else None
    firsts = [row[0] for row in rows]
    counted = len(firsts) > 2 and firsts in ([*range(len(rows))], [*range(1, len(rows) + 1)])
    if counted and any(isinstance(number, float) for row in rows for number in row[1:]):
        return NAMED
    inner = lines[1:].lstrip()[:1]
    return ARRAYS if inner and inner in b"-+.0123456789NI]n[" else None


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
        if said := _TEXTS.get((layout.level, layout.rows)):
            self.about = {**self.about, "text": said}

    def _type_of(self, place: Place) -> pa.DataType:
        if place in self.places:
            value = getattr(place.type, "value_type", None)
            if self.kind == SPARK or (self.kind == LIST and pa.types.is_boolean(value)):
                return place.type
            # A column of numbers may be one of texts in the first block.
            if self.kind in (TEXT, BASE64) or is_text(place.take(self._first)[0].type):
                return pa.list_(pa.string()) if is_list(place.type) else pa.string()
        return super()._type_of(place)

    def _carried_type(self, place: Place) -> pa.DataType:
        if pa.types.is_temporal(place.type) or pa.types.is_null(place.type):
            return pa.string()  # as it is written
        number = pa.types.is_floating(place.type)
        if (number or (pa.types.is_integer(place.type) and place.path == self._id)) and (
            self._is_exact(place)
        ):
            return EXACT  # ids, and integers beyond 64 bits
        return place.type

    def _is_exact(self, place: Place) -> bool:
        """Whether the numbers of the first block are integers."""
        try:
            return next(self._read(pruned([place], [EXACT])), None) is not None
        except (pa.ArrowInvalid, InputError):
            return False

    def _parsed(self, names: list[str] | None) -> Iterator[pa.RecordBatch]:
        schema = self._schema
        if names is not None:
            known = self.schema if schema is None or set(names) - set(schema.names) else schema
            schema = pa.schema([known.field(name) for name in names])
        yield from self._read(schema)

    def _read(self, schema: pa.Schema | None) -> Iterator[pa.RecordBatch]:
        level, n_rows = self._layout.level, 0
        split = bytes if level is LINES else Splitter(level).split
        with self._open() as file:
            for lines in whole_lines(file, split):
                text = self._objects(lines.strip(), n_rows)
                if not text:
                    continue
                try:
                    table = _read_rows(text, schema, self._kept)
                except pa.ArrowInvalid as error:
                    self._refuse(text, n_rows, error)
                for batch in table.combine_chunks().to_batches():
                    n_rows += len(batch)
                    yield batch

    def _objects(self, text: bytes, n_rows: int) -> bytes:
        """The lines as objects."""
        layout = self._layout
        if layout.commas:
            text = re.sub(rb",[ \t\r]*(?=\n|$)", b"", text)
        if layout.extended:
            text = re.sub(rb'\{\s*"\$number\w+"\s*:\s*"([^"]*)"\s*\}', rb"\1", text)
            text = re.sub(rb'\{\s*"\$(?:oid|date|uuid)"\s*:\s*("[^"]*")\s*\}', rb"\1", text)
        if layout.rows == NAMED:
            lines = []
            for row, line in _numbered_lines(text, n_rows):
                try:
                    name, *values = json.loads(line)
                except (ValueError, TypeError, RecursionError) as error:
                    raise InputError(
                        f"{self.path}: row {row} is cut, or no JSON array (counting from 0); "
                        "repair or remove it"
                    ) from error
                if len(values) == 1 and isinstance(values[0], list):
                    values = values[0]
                lines.append(json.dumps({"id": name, "vector": values}).encode())
            return b"\n".join(lines)
        if layout.rows == ARRAYS and text:
            return b'{"vector":' + re.sub(rb"\s*\n\s*", b'}\n{"vector":', text) + b"}"
        return text

    def _refuse(self, text: bytes, n_rows: int, error: pa.ArrowInvalid) -> NoReturn:
        """Raises an error that says which row could not be parsed, and why."""
        for row, line in _numbered_lines(text, n_rows):
            try:
                json.loads(line)
            except (ValueError, RecursionError):
                raise InputError(
                    f"{self.source.name}: row {row} is cut, or no JSON: {line[:20]!r} to "
                    f"{line[-20:]!r} (counting from 0); repair or remove it"
                ) from error
        if changed := _CHANGED.fullmatch(str(error)):
            raise InputError(
                f"{self.source.name}: row {n_rows + int(changed[4])}: "
                f"{changed[1].strip('/').replace('/', '.')!r} is of type {changed[3]}, and of type "
                f"{changed[2]} before (counting from 0); write one type in all rows"
            ) from error
        if names_row := re.fullmatch(r"(.*) in row (\d+)", str(error)):
            message = f"{names_row[1]} in row {n_rows + int(names_row[2])}"
            raise pa.ArrowInvalid(message) from error
        raise error


def _numbered_lines(text: bytes, first: int) -> Iterator[tuple[int, bytes]]:
    """Each line that is not blank, and the number of its row."""
    return enumerate(filter(None, map(bytes.strip, text.split(b"\n"))), first)


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
        if _CHANGED.fullmatch(str(error)) is None:
            raise
        try:
            rows = [json.loads(line) for _, line in _numbered_lines(text, 0)]
        except (ValueError, RecursionError):
            raise error from None
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
    kinds = Counter(map(type, values))
    whole = kinds.pop(int, 0)
    kinds[float] += whole
    kinds.pop(type(None), None)
    kind = kinds.most_common(1)[0][0]
    if kind is dict:
        objects = [value for value in values if type(value) is dict]
        names = dict.fromkeys(itertools.chain(*objects))
        fields = {name: [each[name] for each in objects if name in each] for name in names}
        return pa.struct([(name, _type_of_most(inner)) for name, inner in fields.items()])
    if kind is list:
        lists = (value for value in values if type(value) is list)
        return pa.list_(_type_of_most([*itertools.chain(*lists)]))
    if kind is float and not kinds[float]:
        return pa.null()
    number = pa.int64() if whole == kinds[float] else pa.float64()
    return {float: number, str: pa.string(), bool: pa.bool_()}[kind]


def _fitting(value: Any, type_: pa.DataType, kept: Set[str]) -> Any:
    """The value without what is of another type."""
    if pa.types.is_struct(type_):
        if not isinstance(value, dict):
            return None
        known = {field.name: field.type for field in type_}
        return {
            name: inner if name in kept or name not in known else _fitting(inner, known[name], kept)
            for name, inner in value.items()
        }
    if is_list(type_):
        inner = type_.value_type
        if not isinstance(value, list) or (is_number(inner) and {*map(type, value)} <= _NUMBERS):
            return value if isinstance(value, list) else None
        return [_fitting(each, inner, kept) for each in value]
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
    """A reader of the rows in the one object that a text is; None when the object is a row.

    Raises:
        InputError: several lists could be the rows, or pandas' layouts of columns.
    """
    with reading(source.name, "json"), open_text(source) as file:
        document = json.loads(file.read())
    located = _rows_of(source.name, document, wanted.vectors)
    if located is None:
        return None
    where, columns = located
    kept = _leaves(wanted)
    try:
        arrays = {name: _array(name, values, kept) for name, values in columns.items()}
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise InputError(f"{source.name}: {error}; write one type in all rows") from error
    # Paths from the top of the object lead to the same columns.
    schema = pa.schema([(name, array.type) for name, array in arrays.items()])
    rows = pa.RecordBatch.from_arrays([*arrays.values()], schema=schema)
    for path in [*wanted.named, wanted.usual]:
        if path is None or not path.startswith(f"{where}.") or path in schema.names:
            continue
        place = place_of(schema, path.removeprefix(f"{where}."))
        if place is not None:
            rows = rows.append_column(path, place.take(rows)[0])
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
        named = [f for f in lists if column == f[0] or column.startswith(f"{f[0]}.")]
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
            f"{path}: several lists could be the rows: {several}; name one by --column"
        )
    if isinstance(rows[0], dict):
        names = dict.fromkeys(itertools.chain(*(row for row in rows if isinstance(row, dict))))
        objects = [row if isinstance(row, dict) else {} for row in rows]
        return where, {name: [row.get(name) for row in objects] for name in names}
    beside = {n: v for n, v in parent.items() if isinstance(v, list) and len(v) == len(rows)}
    return where.rpartition(".")[0], beside


def _lists(value: dict[str, Any], path: str) -> Iterator[tuple[str, list[Any], dict[str, Any]]]:
    """Every list in objects in objects, its path, and the object that it is in."""
    for name, inner in value.items():
        where = f"{path}.{name}" if path else name
        if isinstance(inner, dict):
            yield from _lists(inner, where)
        elif isinstance(inner, list):
            yield where, inner, value


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
    if len(document) > 1 and all(map(_is_vector, document.values())):
        raise InputError(
            f"{path}: one object of {len(document)} lists of numbers: if each is a vector, write "
            f'one a line: {{"id": "{next(iter(document))}", "vector": [...]}}'
        )
    objects = [value for value in document.values() if isinstance(value, dict)]
    if _is_keyed(document) or any(_is_keyed(each, several=len(objects) > 1) for each in objects):
        raise InputError(
            f"{path}: an object with a key for each row, as pandas writes it by default or by "
            'orient="index"; write it with frame.to_json(path, orient="records", lines=True)'
        )


def _is_keyed(value: dict[str, Any], several: bool = False) -> bool:
    """Whether each field of an object is the vector or the object of a row.

    Numbered numbers are one vector, unless ``several`` objects of them are columns of a table.
    """
    fields = [*value.values()]
    numbered = bool(fields) and all(name.isdecimal() for name in value)
    if len(fields) > 1 and all(isinstance(field, dict) for field in fields):
        return _has_vector(fields[0]) and all(field.keys() == fields[0].keys() for field in fields)
    if all(isinstance(field, int | float) for field in fields):
        return several and numbered
    return (numbered or len(fields) > 2) and all(map(_is_vector, fields))


_OPEN, _CLOSE, _QUOTE = 1, 2, 3
_KINDS = np.zeros(256, np.uint8)
_KINDS[[ord("["), ord("{")]] = _OPEN
_KINDS[[ord("]"), ord("}")]] = _CLOSE
_KINDS[ord('"')] = _QUOTE
_COMMA, _NEWLINE, _SPACE, _BACKSLASH = b",\n \\"
_BLANKS = b" \t\r\n"


class Splitter:
    """Puts each element of a JSON text on a line of its own, block by block.

    Args:
        level: how deep the elements are: 1 in an array, 0 for values one after the other.
    """

    def __init__(self, level: int):
        self._level = level
        self._depth = 0
        self._in_string = False
        self._slash = b""  # at the end of the last block, where it speaks of the next one
        self._wants_comma = False

    def depth_after(self, block: bytes) -> int:
        """How many brackets are open after it."""
        self.split(block)
        return self._depth

    @property
    def is_between(self) -> bool:
        """Whether the last block ended with an element."""
        return self._wants_comma

    def split(self, block: bytes) -> bytes:
        """The block with line breaks between elements, and nowhere else."""
        data = np.frombuffer(block, np.uint8).copy()
        where, kinds, depths = self._brackets(data)
        data[(data == _NEWLINE) | (data == 13)] = _SPACE  # none is inside of a string
        if self._level:
            # The brackets around all of them.
            data[where[(kinds == _OPEN) & (depths == 1)]] = _SPACE
            data[where[(kinds == _CLOSE) & (depths == 0)]] = _SPACE
        ends = where[(kinds == _CLOSE) & (depths == self._level)]
        if self._wants_comma:
            ends = np.concatenate([[-1], ends])
        self._wants_comma = False
        return self._broken(data, ends)

    def _broken(self, data: np.ndarray, ends: np.ndarray) -> bytes:
        after = ends + 1
        if len(after) and after[-1] == len(data):
            self._wants_comma, after = True, after[:-1]
        if not self._level:
            fresh = after[~np.isin(data[after], list(_BLANKS))]
            data[np.setdiff1d(after, fresh)] = _NEWLINE
            return np.insert(data, fresh, _NEWLINE).tobytes()
        commas = data[after] == _COMMA
        data[after[commas]] = _NEWLINE
        for start in after[~commas].tolist():  # blanks before the comma: rare
            while start < len(data) and data[start] in _BLANKS:
                start += 1
            if start == len(data):
                self._wants_comma = True
            elif data[start] == _COMMA:
                data[start] = _NEWLINE
        return data.tobytes()

    def _brackets(self, data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions of brackets outside of strings, their kinds, and the depths after them."""
        data = self._without_escapes(data)
        where = np.flatnonzero(_KINDS[data])
        kinds = _KINDS[data[where]]
        quotes = kinds == _QUOTE
        inside = (np.cumsum(quotes) + self._in_string) % 2 == 1
        self._in_string = bool(inside[-1]) if len(inside) else self._in_string
        kept = ~inside & ~quotes
        where, kinds = where[kept], kinds[kept]
        depths = self._depth + np.cumsum(np.where(kinds == _OPEN, 1, -1))
        self._depth = int(depths[-1]) if len(depths) else self._depth
        return where, kinds, depths

    def _without_escapes(self, data: np.ndarray) -> np.ndarray:
        """The text with blanks for backslashes and what follows each."""
        if not self._slash and not (data == _BACKSLASH).any():
            return data
        text = self._slash + data.tobytes()
        blank = re.sub(rb"\\.", b"  ", text, flags=re.DOTALL)
        found = np.frombuffer(blank, np.uint8)[len(self._slash) :]
        self._slash = b"\\" if blank.endswith(b"\\") else b""
        return found


def is_one_object(file: Any) -> bool:
    """Whether nothing comes after the first element of a text; reads no further than needed."""
    splitter, ended = Splitter(0), False
    while block := file.read(1 << 20):
        if ended and block.strip():
            return False
        text = splitter.split(block).lstrip()
        _, end, rest = text.partition(b"\n")
        if rest.strip():
            return False
        ended = ended or bool(end) or splitter.is_between
    return True
