"""JSON with one element for each row, and JSON that is one object for all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.json

from dinkcli.data.base import Columns, reading
from dinkcli.data.files import Source
from dinkcli.data.formats import jsontext
from dinkcli.data.formats.columns import BASE64, LIST, SPARK, TEXT, Place, pruned
from dinkcli.data.formats.jsontext import ARRAYS, ELEMENTS, OBJECTS, Splitter
from dinkcli.data.formats.text import TextReader, open_text, whole_lines
from dinkcli.data.formats.types import is_list, is_text
from dinkcli.errors import InputError

EXACT = pa.decimal128(38, 0)
_CHANGED = re.compile(r".*Column\((.*)\) changed from (\w+) to (\w+) in row (\d+)")
_SAID = {
    ARRAYS: "one array a line",
    jsontext.MIXED: "one array a line, what comes first names the row",
    ELEMENTS: "the elements of one array",
    OBJECTS: "objects one after the other",
}


class JsonLinesReader(TextReader):
    """One object for each row with the vector somewhere in it, or one array of numbers."""

    def __init__(self, source: Source, wanted: Columns, head: bytes, layout: str):
        self._layout = layout
        self.format = "json" if layout in (ELEMENTS, OBJECTS) else "jsonl"
        # Elements of an array may be arrays of numbers themselves.
        text = head.lstrip()
        inner = text[1:].lstrip() if layout == ELEMENTS else text
        self._arrays = inner[:1] == b"["
        # A comma behind each line, as in an array without its brackets.
        self._commas = layout in (jsontext.LINES, ARRAYS, jsontext.MIXED) and (
            text.split(b"\n", 1)[0].rstrip().endswith(b",")
        )
        self._schema: pa.Schema | None = None
        self._id = wanted.id
        super().__init__(source, wanted, head)
        types = [type_ for _, type_ in self._chosen or ()]
        self._schema = pruned([place for place, _ in self._chosen or ()], types)
        if layout in _SAID:
            self.about = {**self.about, "text": _SAID[layout]}

    def _type_of(self, place: Place) -> pa.DataType:
        if place in self.places:
            value = getattr(place.type, "value_type", None)
            if self.kind == SPARK or (self.kind == LIST and pa.types.is_boolean(value)):
                return place.type
            if self.kind in (TEXT, BASE64) or is_text(self._parsed_type(place)):
                return pa.list_(pa.string()) if is_list(place.type) else pa.string()
        return super()._type_of(place)

    def _parsed_type(self, place: Place) -> pa.DataType:
        """The type in the first block: a column of numbers may be one of texts there."""
        return place.take(self._first)[0].type

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
        schema = pruned([place], [EXACT])
        try:
            return next(self._read(schema), None) is not None
        except (pa.ArrowInvalid, InputError):
            return False

    def _parsed(self, names: list[str] | None) -> Iterator[pa.RecordBatch]:
        schema = self._schema
        if names is not None:
            known = self.schema if schema is None or set(names) - set(schema.names) else schema
            schema = pa.schema([known.field(name) for name in names])
        yield from self._read(schema)

    def _refuse_cut(self, text: bytes, n_rows: int, error: pa.ArrowInvalid) -> None:
        """Raises InputError for the first line that is no JSON by itself."""
        for row, line in enumerate(filter(None, map(bytes.strip, text.split(b"\n"))), n_rows):
            try:
                json.loads(line)
            except (ValueError, RecursionError):
                raise InputError(
                    f"{self.source.name}: row {row} is cut, or no JSON: {line[:20]!r} to "
                    f"{line[-20:]!r} (counting from 0); repair or remove it"
                ) from error

    def _objects(self, text: bytes, n_rows: int) -> bytes:
        """The lines, each an array, as objects."""
        lines = []
        for row, line in enumerate(filter(None, map(bytes.strip, text.split(b"\n"))), n_rows):
            try:
                lines.append(jsontext.as_object(line))
            except (ValueError, TypeError, RecursionError) as error:
                raise InputError(
                    f"{self.source.name}: row {row} is cut, or no JSON array (counting from 0); "
                    "repair or remove it"
                ) from error
        return b"\n".join(lines)

    def _read(self, schema: pa.Schema | None) -> Iterator[pa.RecordBatch]:
        options = _only(schema)
        splitter = {ELEMENTS: Splitter(1), OBJECTS: Splitter(0)}.get(self._layout)
        n_rows = 0
        with self._open() as file:
            for lines in whole_lines(file, splitter.split if splitter else bytes):
                text = lines.strip()
                if self._commas:
                    text = re.sub(rb",[ \t\r]*(?=\n|$)", b"", text)
                if not text:
                    continue
                if self._layout == jsontext.MIXED:
                    text = self._objects(text, n_rows)
                elif self._arrays:
                    text = b'{"vector":' + re.sub(rb"\s*\n\s*", b'}\n{"vector":', text) + b"}"
                read = pyarrow.json.ReadOptions(use_threads=False, block_size=len(text) + 1)
                try:
                    table = pyarrow.json.read_json(pa.BufferReader(text), read, options)
                except pa.ArrowInvalid as error:
                    self._refuse_cut(text, n_rows, error)
                    if changed := _CHANGED.fullmatch(str(error)):
                        raise InputError(
                            f"{self.source.name}: row {n_rows + int(changed[4])}: "
                            f"{changed[1].strip('/').replace('/', '.')!r} is of type {changed[3]}, "
                            f"and of type {changed[2]} before (counting from 0); write one type in "
                            "all rows"
                        ) from error
                    if names_row := re.fullmatch(r"(.*) in row (\d+)", str(error)):
                        message = f"{names_row[1]} in row {n_rows + int(names_row[2])}"
                        raise pa.ArrowInvalid(message) from error
                    raise
                for batch in table.combine_chunks().to_batches():
                    n_rows += len(batch)
                    yield batch


def read_document(source: Source, schema: pa.Schema | None = None) -> pa.StructArray:
    """(1,) the one object that a text is, or what the schema has of it.

    Raises:
        InputError: it is too long.
    """
    with reading(source.name, "json"), open_text(source) as file:
        text = file.read().removeprefix(b"\xef\xbb\xbf")
        # Line breaks are no part of strings.
        text = text.replace(b"\r", b" ").replace(b"\n", b" ").strip()
        names = set(re.findall(rb'"(columns|index|data)"\s*:\s*\[', text))
        if len(names) == 3 and text[:1] == b"{":
            raise InputError(
                f"{source.name}: names of columns and rows apart, as pandas writes them by "
                'orient="split"; write it with frame.to_json(path, orient="records", lines=True)'
            )
        if len(text) >= (1 << 31) - 1:
            raise InputError(
                f"{source.name}: one JSON object of {len(text) >> 20} MB; write one object for "
                "each row (jsonl)"
            )
        read = pyarrow.json.ReadOptions(use_threads=False, block_size=len(text) + 1)
        table = pyarrow.json.read_json(pa.BufferReader(text), read, _only(schema))
        (batch,) = table.combine_chunks().to_batches()
        return batch.to_struct_array()


def _only(schema: pa.Schema | None) -> pyarrow.json.ParseOptions:
    """Reads the columns of the schema alone."""
    if schema is None:
        return pyarrow.json.ParseOptions()
    return pyarrow.json.ParseOptions(schema, unexpected_field_behavior="ignore")
