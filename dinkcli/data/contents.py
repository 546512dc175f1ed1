"""The reader of a file, chosen by content: the first bytes say what most files are."""

from __future__ import annotations

import os
import re
from typing import NoReturn

from dinkcli.data.base import Columns, Reader, reading
from dinkcli.data.files import HEAD_BYTES, Source, without_codec
from dinkcli.data.formats import (
    arrow,
    delimited,
    foreign,
    hdf5,
    jsonrows,
    raw,
    words,
)
from dinkcli.data.formats.aside import TABLES
from dinkcli.data.formats.text import decoded, open_text
from dinkcli.data.packed import Kept, codec_of, unpacked_head
from dinkcli.errors import InputError, TextsError


def open_contents(source: Source, columns: Columns, head: bytes) -> Reader:
    """The reader of whatever is in ``source``, which may be compressed and begins with ``head``.

    Raises:
        InputError: content of no known format, or a damaged file.
        UsageError: columns that the format has not got.
    """
    codec = codec_of(head)
    if codec is not None:
        if source.n_bytes:  # else it comes once
            head = unpacked_head(source, codec, HEAD_BYTES)
            reader = None if _is_binary(head) else _open_text(source, columns, head)
            if reader is not None:
                return reader
        source = Kept(source, codec)
        head = source.head(HEAD_BYTES)
        if not head:
            raise InputError(f"{source.name}: nothing is in this {codec} file")
    elif (
        not source.n_bytes
        and source.path is None
        and head
        and not head.startswith(arrow.STREAM_MAGIC)  # which comes in order, like npy
    ):
        source = Kept(source)
    return (
        _open_binary(source, columns, head)
        or _open_text(source, columns, head)
        or _fail(source, head)
    )


def _open_binary(source: Source, columns: Columns, head: bytes) -> Reader | None:
    """A reader by the first bytes, which say what a file is."""
    suffix = os.path.splitext(without_codec(source.name))[1].lower()
    if head.startswith(raw.NPY_MAGIC):
        return raw.open_npy(source, columns)
    if head.startswith(b"PK\x03\x04"):
        columns.refuse(source.name, "an .npz file has none", member=True)
        return raw.open_npz(source, columns.vectors, columns.usual)
    for magic, table in TABLES.items():
        if head.startswith(magic):
            return table(source, columns)
    if raw.is_safetensors(head, source.n_bytes):
        columns.refuse(source.name, "a safetensors file has none", member=True)
        return raw.open_safetensors(source, columns)
    if head and suffix in raw.VECS:
        columns.refuse(source.name, f"a {suffix} file has none")
        return raw.open_vecs(source, suffix)
    if head.startswith(hdf5.MAGIC):
        return hdf5.Hdf5Reader(source, columns)
    return None


def _open_text(source: Source, columns: Columns, head: bytes) -> Reader | None:
    """A reader of a text by its beginning, or None when it is none that dink reads."""
    whole = len(head) < HEAD_BYTES
    try:
        text = decoded(head)
    except UnicodeDecodeError:
        return _open_words(source, columns, head, whole)
    if "\0" in text[:HEAD_BYTES].decode():
        return _open_words(source, columns, head, whole)
    if b"\r" in text and b"\n" not in text:
        text = text.replace(b"\r", b"\n")
    if text.strip() in (b"[]", b"{}"):
        raise InputError(f"{source.name}: no rows in this json file; nothing to do")
    if re.match(rb"\s*\[?\s*\{\s*'", text):
        raise InputError(
            f"{source.name}: text in single quotes, as Python prints dictionaries; write it with "
            "json.dumps(row)"
        )
    layout = jsonrows.layout_of(text)
    if layout is not None:
        single = layout.rows == jsonrows.OBJECTS and layout.level != jsonrows.IN_ARRAY
        if single and (document := _document(source, columns)):
            return document
        return jsonrows.JsonReader(source, columns, text, layout)
    words_ = words.word_layout(text, whole)
    if words_ is not None:
        return words.WordsReader(source, columns, text, words_)
    try:
        dialect = delimited.dialect_of(text.decode(), whole)
    except delimited.DialectError as error:
        raise InputError(f"{source.name}: {error}") from error
    if dialect is not None:
        return delimited.CsvReader(source, columns, text, dialect)
    separated = os.path.splitext(source.name)[1].lower() in (".csv", ".tsv")
    if separated and whole and re.fullmatch(rb"\s*[^\r\n]+\s*", text):
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
        if not jsonrows.is_one_object(file):
            return None
    return jsonrows.open_document(source, columns)


def _fail(source: Source, head: bytes) -> NoReturn:
    what = foreign.named(head, source) or foreign.named_text(head, source.name)
    if what is not None:
        raise InputError(f"{source.name}: {what}")
    texts = source.name.lower().endswith((".txt", ".csv", ".tsv"))
    message = (
        f"{source.name}: no format that dink reads ({_found(head)}): expected npy, npz, parquet, "
        "Arrow, safetensors, fvecs, HDF5, jsonl, json, csv of numbers or word vectors; convert it "
        "to one" + (", or, if it is about the rows of another, give it by --texts" if texts else "")
    )
    prose = texts and sum(map(str.isalpha, head.decode("utf-8", "replace"))) > len(head) / 2
    raise TextsError(message, source.name) if prose else InputError(message)


def _is_binary(head: bytes) -> bool:
    """Whether something has to be read from anywhere in the file."""
    known = (raw.NPY_MAGIC, b"PK\x03\x04", *TABLES, hdf5.MAGIC)
    return head.startswith(known) or words.binary_layout(head) is not None


def _found(head: bytes) -> str:
    return f"it starts with {head[:8]!r}" if head else "it is empty"
