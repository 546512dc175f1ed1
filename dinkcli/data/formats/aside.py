"""Files that say something of each row, without vectors: text, csv, json, parquet, Arrow, npy.

Shapes: N rows, B rows in a batch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from dinkcli.data.base import Columns, reading
from dinkcli.data.files import HEAD_BYTES, Source, look, suffix_of
from dinkcli.data.formats import arrow, foreign, jsonrows, raw
from dinkcli.data.formats.columns import place_of
from dinkcli.data.formats.table import TableReader
from dinkcli.data.formats.text import (
    ONE_COLUMN,
    SEPARATORS,
    CsvReader,
    Dialect,
    decoded,
    open_text,
    records_of,
    whole_lines,
)
from dinkcli.errors import InputError, UsageError

_ROWS = 1 << 16
_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")

# Chooses a column among those of a schema.
Choose = Callable[[pa.Schema], str]


def values_of(
    source: Source, role: str, column: str | None, choose: Choose
) -> tuple[str, Iterator[pa.Array]]:
    """Name of the column, or "" where there are none, and the values of all N rows in batches.

    By its first bytes a file is parquet, Arrow or npy; by its name csv or json, with a column
    also by its beginning; else each line is a value.

    Args:
        role: "id", "label" or "text": what the values are.
        column: the one to take from a file that has columns.
        choose: takes one where none is named.

    Raises:
        UsageError: no such column, or a column of a file without columns.
        InputError: a damaged file, or one that holds something else.
    """
    source, kind, head = look(source)
    if kind == "npy":
        _refuse(source, column, "an .npy file has none")
        return "", _of_array(source)
    if kind in arrow.READERS:
        return _of_table(source, role, column, choose, arrow.READERS[kind])
    try:
        text = decoded(head)
    except UnicodeDecodeError:
        text = b"\0"
    if b"\0" in text:
        what = foreign.named(head, source) or f"it starts with {head[:8]!r}"
        raise InputError(
            f"{source.name}: {what}; expected lines of text, csv, json, parquet, Arrow or npy"
        )
    suffix = suffix_of(source.name)
    if suffix not in _SUFFIXES and column is None:
        return "", _of_lines(source)
    if suffix in _SUFFIXES[2:] or (suffix not in _SUFFIXES and text.lstrip()[:1] in (b"{", b"[")):
        layout = jsonrows.layout_of(text)
        if layout is None or (layout.level, layout.rows) == (jsonrows.LINES, jsonrows.ARRAYS):
            _refuse(source, column, "these JSON values have none")
            return "", _of_json(source)
        json_lines = partial(jsonrows.JsonReader, head=text, layout=layout)
        return _of_table(source, role, column, choose, json_lines)
    dialect = _dialect(text.decode(), len(head) < HEAD_BYTES, "\t" if suffix == ".tsv" else None)
    csv = partial(CsvReader, head=text, dialect=dialect)
    return _of_table(source, role, column, choose, csv)


def _refuse(source: Source, column: str | None, why: str) -> None:
    if column is not None:
        raise UsageError(f"{source.name}:{column} names a column, but {why}")


def _of_table(
    source: Source,
    role: str,
    column: str | None,
    choose: Choose,
    make: Callable[[Source, Columns], TableReader],
) -> tuple[str, Iterator[pa.Array]]:
    schema = make(source, Columns(alone=True)).schema
    name = choose(schema) if column is None else column
    if place_of(schema, name) is None:
        known = ", ".join(map(repr, schema.names))
        raise UsageError(f"{source.name}: no column {name!r}; it has {known}")
    named: dict[str, Any] = {role: name}
    reader = make(source, Columns(alone=True, **named))
    batches = (block.carried for block in reader.blocks(_ROWS))
    return name, (batch.column(0) for batch in batches if batch is not None)


def _of_array(source: Source) -> Iterator[pa.Array]:
    """Of a 1-D array, or one of one column: texts, numbers, booleans or dates."""
    path: Any = source.path
    with reading(source.name, "npy"):
        try:
            array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            if "bject" not in str(error):
                raise
            raise InputError(
                f"{source.name}: the array holds Python objects (a pickle), which dink never "
                "loads; save texts as np.array(texts, dtype=str)"
            ) from error
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim != 1 or array.dtype.kind not in "USiufbM":
            raise InputError(
                f"{source.name}: {array.dtype} of shape {array.shape}, expected texts or numbers "
                "of shape (rows,)"
            )
        size = os.path.getsize(path)
        if size > array.offset + array.nbytes:
            layout = raw.RawLayout(array.dtype, (len(array), 1), array.offset)
            raw.refuse_more(source.name, layout, size)
        for start in range(0, len(array), _ROWS):
            part = np.asarray(array[start : start + _ROWS])
            if part.dtype.kind == "S":
                yield pa.array(part.tolist(), pa.binary()).cast(pa.string())
            else:
                yield pa.array(part.astype(part.dtype.newbyteorder("="), copy=False))


def _of_lines(source: Source) -> Iterator[pa.Array]:
    """Every line, without its end. Blank lines count: they are rows without a text."""
    done = 0
    with reading(source.name, "text"), open_text(source) as file:
        for text in whole_lines(file):
            lines = text.removesuffix(b"\n").split(b"\n")
            yield _decoded([line.removesuffix(b"\r") for line in lines], source.name, done)
            done += len(lines)


def _decoded(lines: list[bytes], name: str, before: int) -> pa.Array:
    try:
        return pa.array([line.decode() for line in lines], pa.string())
    except UnicodeDecodeError:
        # A line that is UTF-8 comes back from the characters it stands for.
        numbered = enumerate(lines, before + 1)
        bad = next(n for n, line in numbered if line.decode(errors="replace").encode() != line)
        raise InputError(
            f"{name}: line {bad} is not UTF-8 text; convert the file to UTF-8"
        ) from None


def _of_json(source: Source) -> Iterator[pa.Array]:
    """One array of values, or a value a line."""
    with open_text(source) as file:
        text = file.read().removeprefix(b"\xef\xbb\xbf")
    try:
        try:
            values = json.loads(text)
        except ValueError:
            lines = text.replace(b"\r", b"\n").split(b"\n")
            values = [json.loads(line) for line in lines if line.strip()]
        if not isinstance(values, list) or any(isinstance(each, (list, dict)) for each in values):
            raise ValueError("expected one text or number for each row")
        yield pa.array(values)
    except (ValueError, pa.ArrowException) as error:
        raise InputError(f"{source.name}: cannot be read as json: {error}") from error


def _dialect(text: str, whole: bool, separator: str | None) -> Dialect:
    """How a csv of any fields is split, by its beginning. The first record has the names.

    Without a separator under which all records have as many fields it is one column.
    """
    chosen = ONE_COLUMN
    for candidate in SEPARATORS if separator is None else (separator,):
        sizes = {len(record) for record in records_of(text, whole, candidate, True)}
        if candidate != " " and len(sizes) == 1 and sizes != {1}:
            chosen = candidate
            break
    return Dialect(chosen, records_of(text, whole, chosen, True) or [[""]], header=True)
