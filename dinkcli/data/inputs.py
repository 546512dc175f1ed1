"""Readers of embedding files, chosen by content."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from dinkcli.data.base import ANY_COLUMNS, Columns, Reader, reading
from dinkcli.data.bits import BitsReader, look_packed
from dinkcli.data.dataset import STOP, DataSet
from dinkcli.data.files import Source, without_codec
from dinkcli.data.formats import (
    arrow,
    delimited,
    document,
    foreign,
    hdf5,
    jsonlines,
    npy,
    tensors,
    words,
)
from dinkcli.data.formats.aside import TABLES
from dinkcli.data.formats.dialect import DialectError, dialect_of
from dinkcli.data.formats.jsontext import LINES, OBJECTS, is_one_object, layout_of
from dinkcli.data.formats.text import decoded, open_text
from dinkcli.data.packed import Kept, codec_of, unpacked_head
from dinkcli.data.sidefiles import check_standard_input, open_sidecars
from dinkcli.data.sources import sources
from dinkcli.errors import InputError, UsageError

__all__ = ["DataSet", "open_inputs"]

_HEAD_BYTES = 256 << 10
_MOST_NOTES = 5


def open_inputs(
    paths: Sequence[str], columns: Columns = ANY_COLUMNS, bad_rows: str = STOP
) -> DataSet:
    """Opens and validates every input before any row is read.

    Args:
        paths: files, folders of them, patterns, URLs, or ``-`` for standard input.
        columns: which to read from inputs that have columns.
        bad_rows: see ``DataSet``.

    Raises:
        UsageError: a path that does not exist, a column that is missing or ambiguous, unequal
            dimensions.
        InputError: content of no known format, a damaged file, no rows.
    """
    check_standard_input(columns, paths)
    groups = [[open_source(source, columns) for source in sources(path)] for path in paths]
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
            f"{readers[0].path} looks like packed bits (binary embeddings); --bits reads each bit "
            "as -1 or +1"
        )
    if empty:
        more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
        notes.append(f"without rows, left out: {', '.join(empty[:3])}{more}")
    parts = [sum(reader.n_rows != 0 for reader in group) for group in groups]
    taken = readers[0].carried.names
    columns, beside = open_sidecars(columns, [n for n in parts if n], taken)
    if beside is not None:
        beside.check(readers, [reader.n_rows for reader in readers])
    data = DataSet(readers, columns, bad_rows, notes, beside=beside)
    if data.n_features == 0:
        raise InputError(f"{data.name}: rows of 0 features; nothing to do")
    return data


def _check_agreement(readers: Sequence[Reader]) -> None:
    first = readers[0]
    for reader in readers[1:]:
        if reader.n_features != first.n_features:
            raise UsageError(
                f"{reader.path}: {reader.n_features} features per row, but {first.path} has "
                f"{first.n_features}; inputs of one run must agree"
            )
        if reader.carried.names != first.carried.names:
            raise InputError(
                f"{reader.path} and {first.path}: words name the rows of one of them alone; "
                "inputs of one run must agree"
            )
        for here, there in zip(reader.carried, first.carried, strict=True):
            if here.type != there.type:
                raise InputError(
                    f"{reader.path}: column {here.name!r} is {here.type}, but in {first.path} "
                    f"it is {there.type}; a column that travels along must have one type"
                )


def open_source(source: Source, columns: Columns = ANY_COLUMNS) -> Reader:
    """The reader of whatever is in ``source``, which may be compressed."""
    head = source.head(_HEAD_BYTES)
    codec = codec_of(head)
    if codec is not None:
        if source.n_bytes:  # else it comes once
            head = unpacked_head(source, codec, _HEAD_BYTES)
            reader = None if _is_binary(head) else _open_text(source, columns, head)
            if reader is not None:
                return reader
        source = Kept(source, codec)
        head = source.head(_HEAD_BYTES)
        if not head:
            raise InputError(f"{source.name}: nothing is in this {codec} file")
    elif not source.n_bytes and source.path is None and head and not _is_streamable(head):
        source = Kept(source)
    return (
        _open_binary(source, columns, head)
        or _open_text(source, columns, head)
        or _fail(source, head)
    )


def _open_binary(source: Source, columns: Columns, head: bytes) -> Reader | None:
    """A reader by the first bytes, which say what a file is."""
    suffix = os.path.splitext(without_codec(source.name))[1].lower()
    if head.startswith(npy.MAGIC):
        _refuse_columns(source, columns, "an .npy file has none")
        return npy.open_npy(source)
    if head.startswith(b"PK\x03\x04"):
        _refuse_columns(source, columns, "an .npz file has none", member=True)
        return npy.open_npz(source, columns.vectors, columns.usual)
    for magic, table in TABLES.items():
        if head.startswith(magic):
            return table(source, columns)
    if tensors.is_safetensors(head, source.n_bytes):
        _refuse_columns(source, columns, "a safetensors file has none", member=True)
        return tensors.open_safetensors(source, columns)
    if head and suffix in tensors.VECS:
        _refuse_columns(source, columns, f"a {suffix} file has none")
        return tensors.open_vecs(source, suffix)
    if head.startswith(hdf5.MAGIC):
        return hdf5.Hdf5Reader(source, columns)
    return None


def _open_text(source: Source, columns: Columns, head: bytes) -> Reader | None:
    """A reader of a text by its beginning, or None when it is none that dink reads."""
    whole = len(head) < _HEAD_BYTES
    try:
        text = decoded(head)
    except UnicodeDecodeError:
        return _open_words(source, columns, head, whole)
    if "\0" in text[:_HEAD_BYTES].decode():
        return _open_words(source, columns, head, whole)
    if text.strip() in (b"[]", b"{}"):
        raise InputError(f"{source.name}: no rows in this json file; nothing to do")
    layout = layout_of(text)
    if layout is not None:
        if layout in (LINES, OBJECTS) and (document := _document(source, columns)):
            return document
        return jsonlines.JsonLinesReader(source, columns, text, layout)
    words_ = words.word_layout(text, whole)
    if words_ is not None:
        return words.WordsReader(source, columns, text, words_)
    try:
        dialect = dialect_of(text.decode(), whole)
    except DialectError as error:
        raise InputError(f"{source.name}: {error}") from error
    if dialect is not None:
        return delimited.CsvReader(source, columns, text, dialect)
    if os.path.splitext(source.name)[1].lower() in (".csv", ".tsv") and whole and text.strip():
        lines = text.decode().strip().splitlines()
        if len(lines) == 1:
            raise InputError(f"{source.name}: a header and no rows; nothing to do")
    return None


def _open_words(source: Source, columns: Columns, head: bytes, whole: bool) -> Reader | None:
    """word2vec: text whose words are in another encoding, or its binary files."""
    layout = words.word_layout(head, whole) if b"\0" not in head else None
    if layout is not None:
        return words.WordsReader(source, columns, head, layout)
    layout = words.binary_layout(head)
    if layout is None or codec_of(source.head(8)) is not None:
        return None
    return words.BinaryWordsReader(source, columns, layout)


def _document(source: Source, columns: Columns) -> Reader | None:
    """A reader of a text that is one object, or None when there are more."""
    with reading(source.name, "json"), open_text(source) as file:
        if not is_one_object(file):
            return None
    return document.open_document(source, columns)


def _fail(source: Source, head: bytes) -> NoReturn:
    what = foreign.named(head, source) or foreign.named_text(head, source.name)
    if what is not None:
        raise InputError(f"{source.name}: {what}")
    texts = source.name.lower().endswith((".txt", ".csv", ".tsv"))
    raise InputError(
        f"{source.name}: no format that dink reads ({_found(head)}): expected npy, npz, parquet, "
        "Arrow, safetensors, fvecs, HDF5, jsonl, json, csv of numbers or word vectors; convert it "
        "to one" + (", or, if it is about the rows of another, give it by --texts" if texts else "")
    )


def _is_binary(head: bytes) -> bool:
    """Whether something has to be read from anywhere in the file."""
    known = (npy.MAGIC, b"PK\x03\x04", *TABLES, hdf5.MAGIC)
    return head.startswith(known) or words.binary_layout(head) is not None


def _is_streamable(head: bytes) -> bool:
    return head.startswith((npy.MAGIC, arrow.STREAM_MAGIC))


def _found(head: bytes) -> str:
    return f"it starts with {head[:8]!r}" if head else "it is empty"


def _refuse_columns(source: Source, columns: Columns, why: str, member: bool = False) -> None:
    named = columns.carried if member else columns.named
    for name, option in named.items():
        if option == "--sample-weight":
            raise UsageError(f"{option} {name}: no such file, and no such column in {source.name}")
        raise UsageError(f"{source.name}: {option} names a column, but {why}")
