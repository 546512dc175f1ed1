"""Files that say something of each row, without vectors: text, csv, json, parquet, Arrow, npy."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from dinkcli.data.base import PARAMETERS, Columns, reading
from dinkcli.data.files import HEAD_BYTES, Source, look, suffix_of
from dinkcli.data.formats import columnar, foreign, jsonrows, raw
from dinkcli.data.formats.columns import names_of, place_of
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
from dinkcli.data.formats.types import is_text
from dinkcli.errors import InputError, UsageError

_ROWS = 1 << 16
_CSV, _JSON = (".csv", ".tsv"), (".json", ".jsonl", ".ndjson")


def values_of(
    source: Source, role: str, column: str | None, path: str
) -> tuple[str, Iterator[pa.Array]]:
    """Name of the column, or "" where there are none, and the values of all N rows in batches.

    The only ``column``, or the one that goes by the ``role``, is taken where none is named;
    messages call the file ``path``. By its first bytes it is parquet, Arrow or npy; by its name csv
    or json, with a column also by its beginning; else each line is a value.
    """
    source, kind, head = look(source)
    suffix = suffix_of(source.name)
    table: Callable[[Source, Columns], TableReader] | None = columnar.READERS.get(kind or "")
    single, why = _of_array, "an .npy file has none"
    if kind != "npy" and table is None:
        text = decoded(head)
        if text is None:
            what = foreign.named(head, source) or f"it starts with {head[:8]!r}"
            raise InputError(
                f"{source.name}: {what}; expected lines of text, csv, json, parquet, Arrow or npy"
            )
        is_json = suffix in _JSON or (suffix not in _CSV and text.lstrip()[:1] in (b"{", b"["))
        if suffix not in _CSV + _JSON and column is None:
            single = _of_lines
        elif is_json:
            layout = jsonrows.layout_of(text)
            single, why = _of_json, "these JSON values have none"
            if layout is not None and layout.are_rows:
                table = partial(jsonrows.open_json, layout=layout)
        else:
            separators = ("\t",) if suffix == ".tsv" else SEPARATORS
            dialect = _dialect(text.decode(), len(head) < HEAD_BYTES, separators)
            table = partial(CsvReader, head=text, dialect=dialect)
    if table is None:
        if column is not None:
            raise UsageError(f"{source.name}:{column} names a column, but {why}")
        return "", single(source)
    schema = table(source, Columns(alone=True)).schema
    name = _chosen(schema, role, path) if column is None else column
    if place_of(schema, name) is None:
        raise UsageError(f"{source.name}: no column {name!r}; it has {names_of(schema.names)}")
    named: dict[str, Any] = {role: name}
    blocks = table(source, Columns(alone=True, **named)).blocks(_ROWS)
    return name, (block.carried.column(0) for block in blocks if block.carried is not None)


def _chosen(schema: pa.Schema, role: str, path: str) -> str:
    """The only column, or the one that is called as it is meant, or the only one of texts."""
    names = schema.names
    texts = [field.name for field in schema if is_text(field.type)]
    for candidates in (names, [role] if role in names else [], texts if role == "text" else []):
        if len(candidates) == 1:
            return str(candidates[0])
    example = (texts or names or ["COLUMN"])[0]
    raise UsageError(
        f"`{PARAMETERS[role]}` {path}: {len(names)} columns, {names_of(names)}; say which one "
        f"holds the {role}s, as in {path}:{example}"
    )


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
        array = array[:, 0] if array.shape[1:] == (1,) else array
        if array.ndim != 1 or array.dtype.kind not in "USiufbM":
            raise InputError(
                f"{source.name}: {array.dtype} of shape {array.shape}, expected texts or numbers "
                "of shape (rows,)"
            )
        layout = raw.RawLayout(array.dtype, (len(array), 1), array.offset)
        raw.refuse_more(source.name, layout, source.n_bytes)
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
            try:
                lines = text.decode().removesuffix("\n").split("\n")
            except UnicodeDecodeError as error:
                line = done + 1 + text.count(b"\n", 0, error.start)
                raise InputError(
                    f"{source.name}: line {line} is not UTF-8 text; convert the file to UTF-8"
                ) from error
            yield pa.array([line.removesuffix("\r") for line in lines], pa.string())
            done += len(lines)


def _of_json(source: Source) -> Iterator[pa.Array]:
    """One array of values, or a value a line."""
    with open_text(source) as file:
        text = file.read().removeprefix(codecs.BOM_UTF8)
    try:
        values = [value for value, _ in jsonrows.values_of(text.decode())]
        if len(values) == 1 and isinstance(values[0], list):
            values = values[0]
        if any(isinstance(each, (list, dict)) for each in values):
            raise ValueError("expected one text or number for each row")
        yield pa.array(values)
    except (ValueError, pa.ArrowException) as error:
        raise InputError(f"{source.name}: cannot be read as json: {error}") from error


def _dialect(text: str, whole: bool, separators: Iterable[str]) -> Dialect:
    """How a csv of any fields is split, by its beginning: one column where no separator fits."""
    chosen = ONE_COLUMN
    for candidate in separators:
        sizes = {len(record) for record in records_of(text, whole, candidate, True)}
        if candidate != " " and len(sizes) == 1 and sizes != {1}:
            chosen = candidate
            break
    return Dialect(chosen, records_of(text, whole, chosen, True) or [[""]], header=True)
