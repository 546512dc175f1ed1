"""Readers of embedding files, chosen by content."""

from __future__ import annotations

import os
from collections.abc import Sequence

from dinkcli.data.base import ANY_COLUMNS, Columns, Reader
from dinkcli.data.dataset import STOP, DataSet
from dinkcli.data.files import Source
from dinkcli.data.formats import arrow, npy, parquet, tensors, text
from dinkcli.data.sources import sources
from dinkcli.errors import InputError, UsageError

__all__ = ["DataSet", "open_inputs"]

_HEAD_BYTES = 64 << 10


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
    opened = [open_source(source, columns) for path in paths for source in sources(path)]
    readers = [reader for reader in opened if reader.n_rows != 0]
    empty = [reader.path for reader in opened if reader.n_rows == 0]
    if not readers:
        data = DataSet(opened, columns)
        raise InputError(f"{data.name}: 0 rows of {data.n_features} features; nothing to do")
    _check_agreement(readers)
    notes = []
    if empty:
        more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
        notes.append(f"without rows, left out: {', '.join(empty[:3])}{more}")
    data = DataSet(readers, columns, bad_rows, notes)
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
        for here, there in zip(reader.carried, first.carried, strict=True):
            if here.type != there.type:
                raise InputError(
                    f"{reader.path}: column {here.name!r} is {here.type}, but in {first.path} "
                    f"it is {there.type}; a column that travels along must have one type"
                )


def open_source(source: Source, columns: Columns = ANY_COLUMNS) -> Reader:
    """The reader of whatever is in ``source``."""
    head = source.head(_HEAD_BYTES)
    suffix = os.path.splitext(source.name)[1].lower()
    if source.path is None and source.n_bytes == 0 and not _is_streamable(head):
        raise InputError(
            f"{source.name}: {_found(head)}, expected a npy array or an Arrow stream, which can "
            "be read as they come; give anything else as a file"
        )
    if head.startswith(npy.MAGIC):
        _refuse_columns(source, columns, "an .npy file has none")
        return npy.open_npy(source)
    if head.startswith(b"PK\x03\x04"):
        _refuse_columns(source, columns, "an .npz file has none", member=True)
        return npy.open_npz(source, columns.vectors, columns.usual)
    if head.startswith(parquet.MAGIC):
        return parquet.ParquetReader(source, columns)
    if head.startswith(arrow.FILE_MAGIC):
        return arrow.ArrowFileReader(source, columns)
    if head.startswith(arrow.STREAM_MAGIC):
        return arrow.ArrowStreamReader(source, columns)
    if tensors.is_safetensors(head, source.n_bytes):
        _refuse_columns(source, columns, "a safetensors file has none", member=True)
        return tensors.open_safetensors(source, columns)
    if head and suffix in tensors.VECS:
        _refuse_columns(source, columns, f"a {suffix} file has none")
        return tensors.open_vecs(source, suffix)
    unpacked = text.decompressed_head(source, _HEAD_BYTES)
    kind = text.text_format(unpacked)
    if kind is not None:
        reader = text.JsonLinesReader if kind == "jsonl" else text.CsvReader
        return reader(source, columns, unpacked)
    raise InputError(
        f"{source.name}: no format that dink reads ({_found(head)}): expected npy, npz, parquet, "
        "Arrow, safetensors, fvecs, jsonl or csv of numbers; convert it to one"
    )


def _is_streamable(head: bytes) -> bool:
    return head.startswith((npy.MAGIC, arrow.STREAM_MAGIC))


def _found(head: bytes) -> str:
    return f"it starts with {head[:8]!r}" if head else "it is empty"


def _refuse_columns(source: Source, columns: Columns, why: str, member: bool = False) -> None:
    named = columns.carried if member else columns.named
    for option in named.values():
        raise UsageError(f"{source.name}: {option} names a column, but {why}")
