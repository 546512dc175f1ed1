"""Numbers in text: csv (with or without a header) and jsonl. Compressed files as well.

Nothing says how many rows a text has: these are streams, which can be read again.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.json

from dinkcli.data.base import Columns, reading
from dinkcli.data.files import Source
from dinkcli.data.formats.columns import is_number
from dinkcli.data.formats.table import TableReader, counted
from dinkcli.errors import InputError

_BLOCK_BYTES = 4 << 20
_DELIMITERS = ",\t; "
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}


def text_format(head: bytes) -> str | None:
    """ "jsonl", "csv", or None for what is neither, by the first bytes (after decompression)."""
    if b"\0" in head:
        return None
    if head.lstrip()[:1] in (b"{", b"["):
        return "jsonl"
    try:
        lines = _lines(head)
        _dialect(lines)
    except (UnicodeDecodeError, ValueError):
        return None
    return "csv"


def decompressed_head(source: Source, size: int) -> bytes:
    """The first bytes of what is in a file that may be compressed."""
    head = source.head(size)
    codec = _codec(head)
    if codec is None:
        return head
    with reading(source.name, codec):
        packed = pa.CompressedInputStream(pa.BufferReader(source.head(8 * size)), codec)
        try:
            return packed.read(size)
        except OSError:  # the head ends in the middle of a compressed block
            return b""


def _codec(head: bytes) -> str | None:
    return next((name for magic, name in _COMPRESSED.items() if head.startswith(magic)), None)


def _lines(head: bytes) -> list[str]:
    text = head.decode("utf-8-sig", "strict" if len(head) < 4096 else "ignore")
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and not text.endswith(("\n", "\r")):
        lines.pop()  # it may go on
    return lines


def _dialect(lines: list[str]) -> tuple[str, list[str] | None]:
    """Delimiter, and the column names of the header if there is one.

    Raises:
        ValueError: no line of numbers.
    """
    rows: list[list[str]] = []
    for delimiter in _DELIMITERS:
        rows = [next(csv.reader([line], delimiter=delimiter)) for line in lines[:3]]
        if rows and len({len(row) for row in rows}) == 1 and len(rows[0]) > 1:
            break
    else:
        delimiter = ","
    if not rows or not any(_is_float(field) for field in rows[-1]):
        raise ValueError("no numbers")
    first = [field.strip() for field in rows[0]]
    numbers = [int(field) for field in first if field.isdecimal()]
    counted = len(numbers) > 1 and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    # Names are no numbers, or they are 0, 1, 2, ... (as pandas writes them) above something else.
    if len(rows) > 1 and (not any(map(_is_float, first)) or (counted and rows[1] != rows[0])):
        return delimiter, first
    return delimiter, None


def _is_float(text: str) -> bool:
    return re.fullmatch(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", text) is not None


class TextReader(TableReader):
    """A text that is parsed block by block."""

    def __init__(self, source: Source, wanted: Columns, head: bytes):
        self.source = source
        self._head = head
        self._codec = _codec(source.head(4))
        self._types: dict[str, pa.DataType] = {}
        with reading(source.name, self.format):
            first = next(self._parsed(None), None)
        if first is None:
            raise InputError(f"{source.name}: no rows in this {self.format} file")
        super().__init__(source, first.schema, None, wanted)
        # Once the columns are known they are parsed straight to what will be used.
        self._types = {field.name: field.type for field in self.carried}
        for name in self.columns:
            type_ = self.schema.field(name).type
            self._types[name] = pa.float32() if is_number(type_) else pa.list_(pa.float32())
        self.dtype = np.dtype(np.float32)

    def _open(self) -> pa.NativeFile:
        path = self.source.path
        file = pa.PythonFile(self.source.open(), "r") if path is None else pa.OSFile(path)
        return file if self._codec is None else pa.CompressedInputStream(file, self._codec)

    def _parsed(self, names: list[str] | None) -> Iterator[pa.RecordBatch]:
        """Batches with the columns ``names``, or with all of them, of types found out."""
        raise NotImplementedError

    def _batches(
        self, rows: int, names: list[str], since: int = 0
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        yield from counted(self._parsed(names))


class CsvReader(TextReader):
    """Fields between commas, tabs, semicolons or spaces."""

    format = "csv"

    def _parsed(self, names: list[str] | None) -> Iterator[pa.RecordBatch]:
        delimiter, header = _dialect(_lines(self._head))
        with (
            self._open() as file,
            pyarrow.csv.open_csv(
                file,
                pyarrow.csv.ReadOptions(
                    block_size=_BLOCK_BYTES, autogenerate_column_names=header is None
                ),
                pyarrow.csv.ParseOptions(delimiter=delimiter),
                pyarrow.csv.ConvertOptions(include_columns=names, column_types=self._types),
            ) as batches,
        ):
            yield from batches


class JsonLinesReader(TextReader):
    """One object a line with the vector as an array in one of its fields, or one array a line."""

    format = "jsonl"

    def _parsed(self, names: list[str] | None) -> Iterator[pa.RecordBatch]:
        if names is None:
            options = pyarrow.json.ParseOptions()
        else:
            types = [(name, self._types.get(name, self.schema.field(name).type)) for name in names]
            options = pyarrow.json.ParseOptions(
                pa.schema(types), unexpected_field_behavior="ignore"
            )
        arrays = self._head.lstrip()[:1] == b"["
        for lines in self._whole_lines():
            text = lines.strip()
            if not text:
                continue
            if arrays:
                text = b'{"vector":' + re.sub(rb"\s*\n\s*", b'}\n{"vector":', text) + b"}"
            read = pyarrow.json.ReadOptions(use_threads=False, block_size=len(text) + 1)
            table = pyarrow.json.read_json(pa.BufferReader(text), read, options)
            yield from table.combine_chunks().to_batches()

    def _whole_lines(self) -> Iterator[bytes]:
        with self._open() as file:
            rest = b""
            while more := file.read(_BLOCK_BYTES):
                rest += more
                end = rest.rfind(b"\n") + 1
                if end:
                    yield rest[:end]
                    rest = rest[end:]
            if rest:
                yield rest
