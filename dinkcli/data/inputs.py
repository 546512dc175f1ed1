"""Opens inputs: every file is looked at before any row is read. Its first bytes say what is in it,
not its name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any, NoReturn

from dinkcli.data.base import ANY_COLUMNS, PARAMETERS, Columns, Reader
from dinkcli.data.dataset import STOP, DataSet
from dinkcli.data.derived import BitsReader, look_packed
from dinkcli.data.files import HEAD_BYTES, Source, look, sources
from dinkcli.data.formats import foreign, raw
from dinkcli.data.sidefiles import columns_of, open_side_columns
from dinkcli.errors import InputError, TextsError, UsageError

if TYPE_CHECKING:
    from dinkcli.models.model import Model

_MOST_NOTES = 5


def open_data(inputs: Any, columns: Columns = ANY_COLUMNS, bad_rows: str = STOP) -> DataSet:
    """Opens and validates every input before any row is read: a path or paths of files, folders of
    them, patterns, URLs, or ``-`` for standard input; or what ``array.open_memory`` takes. A data
    set stays as it is.

    Raises:
        UsageError: a path that does not exist, a column that is missing or ambiguous, unequal
            dimensions.
        InputError: content of no known format, a damaged file, no rows.
    """
    if isinstance(inputs, DataSet):
        return inputs
    if isinstance(inputs, (str, os.PathLike)):
        inputs = [inputs]
    are_paths = isinstance(inputs, Sequence) and len(inputs) > 0
    if are_paths and all(isinstance(each, (str, os.PathLike)) for each in inputs):
        groups = _open_paths([os.fspath(path) for path in inputs], columns)
    else:
        from dinkcli.data.array import open_memory

        groups = [[open_memory(inputs, columns)]]
    return _joined(groups, columns, bad_rows)


def open_inputs(
    inputs: Any,
    column: str | None = None,
    bad_rows: str = STOP,
    *,
    model: Model | None = None,
    lists_are_files: bool = False,
    **beside: Any,
) -> DataSet:
    """``open_data`` with what a function or a command was given of each row (see ``columns_of``);
    the columns of the ``model`` are read where no others are named."""
    columns = columns_of(column, lists_are_files, **beside)
    if model is None:
        return open_data(inputs, columns, bad_rows)
    return model.rows_of(open_data(inputs, model.as_trained(columns), bad_rows))


def _open_paths(paths: Sequence[str], columns: Columns) -> list[list[Reader]]:
    """The readers of each path."""
    on_stdin = [role for role, files in columns.files.items() for each in files if each == "-"]
    if len(on_stdin) > 1 or (on_stdin and "-" in paths):
        raise UsageError(
            f"`{PARAMETERS[on_stdin[-1]]}` -: standard input is read once, and it is something "
            "else already"
        )
    groups: list[list[Reader]] = []
    for path in paths:
        groups.append([])
        for source in sources(path):
            reader = _open_source(source, columns)
            groups[-1].append(reader)
            if reader.feature_names and not columns.features:
                # The columns of later inputs may stand in another order.
                names = tuple(reader.feature_names)
                columns = replace(columns, features=names, features_of=reader.path)
    return groups


def _joined(groups: list[list[Reader]], columns: Columns, bad_rows: str) -> DataSet:
    """The readers of all inputs as one data set."""
    opened = [reader for group in groups for reader in group]
    if columns.bits:
        opened = [BitsReader(reader, columns.dim) for reader in opened]
    readers = [reader for reader in opened if reader.n_rows != 0]
    empty = [reader.path for reader in opened if reader.n_rows == 0]
    if not readers:
        data = DataSet(opened, columns)
        raise InputError(f"{data.name}: 0 rows of {data.n_features} features; nothing to do")
    _check_agreement(readers)
    own = {reader.own_id for reader in readers}
    if columns.id is None and len(own) == 1:
        columns = replace(columns, id=own.pop())
    notes = [note for reader in readers for note in reader.notes][:_MOST_NOTES]
    if not columns.bits and look_packed(readers[0]):
        notes.append(
            f"{readers[0].path} looks like packed bits (binary embeddings); `bits` reads each bit "
            "as -1 or +1"
        )
    if empty:
        more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
        notes.append(f"without rows, left out: {', '.join(empty[:3])}{more}")
    _check_one_meaning(columns, readers)
    parts = [sum(reader.n_rows != 0 for reader in group) for group in groups]
    taken = readers[0].carried.names
    columns, beside = open_side_columns(columns, list(filter(None, parts)), taken)
    beside.check(readers, [reader.n_rows for reader in readers])
    data = DataSet(readers, columns, bad_rows, notes, beside=beside)
    if data.n_features == 0:
        raise InputError(f"{data.name}: rows of 0 features; nothing to do")
    return data


def _check_one_meaning(columns: Columns, readers: Sequence[Reader]) -> None:
    """Raises UsageError for the name of a file that is also that of a column."""
    for role, names in columns.files.items():
        for name, reader in product(names, readers):
            if name in getattr(reader, "column_names", ()):
                raise UsageError(
                    f"`{PARAMETERS[role]}` {name}: is a file, and a column of {reader.path}; write "
                    f"./{name} for the file, {reader.path}:{name} for the column"
                )


def _check_agreement(readers: Sequence[Reader]) -> None:
    first = readers[0]
    for reader in readers[1:]:
        if reader.n_features != first.n_features:
            raise UsageError(
                f"{reader.path}: {reader.n_features} features per row, but {first.path} has "
                f"{first.n_features}; inputs of one run must agree"
            )
        own, other = (
            ", ".join(f"{field.name!r} ({field.type})" for field in each.carried) or "none"
            for each in (reader, first)
        )
        if own != other:
            raise InputError(
                f"{reader.path}: the columns that travel along are {own}, but in {first.path} "
                f"{other}; inputs of one run must agree"
            )


def _open_source(source: Source, columns: Columns) -> Reader:
    """The reader of whatever is in ``source``. What reads each kind takes a while to load."""
    source, kind, head = look(source, streamed=("npy", "arrow stream"))
    if kind in raw.OPENERS:
        return raw.OPENERS[kind](source, columns)
    if kind is not None:
        from dinkcli.data.formats import columnar

        return columnar.READERS[kind](source, columns)
    return _open_text(source, columns, head) or _fail(source, head)


def _open_text(source: Source, columns: Columns, head: bytes) -> Reader | None:
    """A reader of a text by its beginning, or None when it is none that dink reads."""
    from dinkcli.data.formats import jsonrows, text

    whole = len(head) < HEAD_BYTES
    start = text.decoded(head)
    if start is None:  # perhaps word2vec: words in another encoding, or its binary files
        words = None if b"\0" in head else text.words_of(head.decode("utf-8", "replace"), whole)
        words = words or text.binary_words(head)
        return None if words is None else text.WordsReader(source, columns, words)
    if b"\r" in start and b"\n" not in start:
        start = start.replace(b"\r", b"\n")
    if start.strip() in (b"[]", b"{}"):
        raise InputError(f"{source.name}: no rows in this json file; nothing to do")
    if re.match(rb"\s*\[?\s*\{\s*'", start):
        raise InputError(
            f"{source.name}: text in single quotes, as Python prints dictionaries; write it with "
            "json.dumps(row)"
        )
    foreign.refuse_foreign_text(start, source.name)
    layout = jsonrows.layout_of(start)
    if layout is not None:
        return jsonrows.open_json(source, columns, layout)
    words = text.words_of(start.decode(), whole)
    if words is not None:
        return text.WordsReader(source, columns, words)
    dialect = text.dialect_of(source.name, start.decode(), whole)
    if dialect is not None:
        return text.CsvReader(source, columns, start, dialect)
    separated = os.path.splitext(source.name)[1].lower() in (".csv", ".tsv")
    if separated and whole and re.fullmatch(rb"\s*[^\r\n]+\s*", start):
        raise InputError(f"{source.name}: a header and no rows; nothing to do")
    return None


def _fail(source: Source, head: bytes) -> NoReturn:
    what = foreign.named(head, source)
    if what is not None:
        raise InputError(f"{source.name}: {what}")
    texts = source.name.lower().endswith((".txt", ".csv", ".tsv"))
    start = f"it starts with {head[:8]!r}" if head else "it is empty"
    message = (
        f"{source.name}: no format that dink reads ({start}): expected npy, npz, parquet, Arrow, "
        "safetensors, fvecs, HDF5, jsonl, json, csv of numbers or word vectors; convert it to one"
        + (", or, if it is about the rows of another, give it as `texts`" if texts else "")
    )
    prose = texts and sum(map(str.isalpha, head.decode("utf-8", "replace"))) > len(head) / 2
    raise TextsError(message, source.name) if prose else InputError(message)
