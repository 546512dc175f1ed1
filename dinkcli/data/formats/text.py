"""What readers of text share: bytes of any compression and encoding, parsed block by block.

Nothing says how many rows a text has: these are streams, which can be read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from dinkcli.data.base import Columns, reading
from dinkcli.data.files import Source, codec_of, unpacked, unpacked_head
from dinkcli.data.formats.columns import BASE64, LIST, NUMBERS, TEXT, Place
from dinkcli.data.formats.table import TableReader
from dinkcli.data.formats.types import is_number, is_text
from dinkcli.data.formats.vectors import vectors_of
from dinkcli.errors import InputError

BLOCK_BYTES = 4 << 20
_BOMS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


def encoding_of(head: bytes) -> str:
    """utf-8, or utf-16 by its mark or by a zero in every other byte."""
    for mark, name in _BOMS.items():
        if head.startswith(mark):
            return name
    few = head[:64]
    if len(few) >= 8 and b"\0" in few:
        for start, name in ((1, "utf-16-le"), (0, "utf-16-be")):
            if not any(few[start::2]) and all(few[1 - start :: 2]):
                return name
    return "utf-8"


def decoded(head: bytes) -> bytes:
    """The beginning of a text in UTF-8, without a mark, as far as it is whole.

    Raises:
        UnicodeDecodeError: it is no text.
    """
    encoding = encoding_of(head)
    if encoding != "utf-8":
        return head.decode(encoding, "ignore").removeprefix("\ufeff").encode()
    head = head.removeprefix(b"\xef\xbb\xbf")
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if len(head) - error.start >= 4:
            raise
        return head[: error.start]
    return head


def open_text(source: Source) -> pa.NativeFile:
    """A text, which may be compressed, in UTF-8."""
    head = source.head(64)
    codec = codec_of(head)
    if codec is not None:
        head = unpacked_head(source, codec, 64)
        file = unpacked(source.open(), codec)
        file = file if isinstance(file, pa.NativeFile) else pa.PythonFile(file, "r")
    elif source.path is None:
        file = pa.PythonFile(source.open(), "r")
    else:
        file = pa.OSFile(source.path)
    encoding = encoding_of(head)
    return file if encoding == "utf-8" else pa.transcoding_input_stream(file, encoding, "utf-8")


def whole_lines(file: Any, split: Callable[[bytes], bytes] = bytes) -> Iterator[bytes]:
    """Blocks of about 4 MB of whole lines, without a mark before the first.

    Args:
        split: what makes lines of each block that is read.
    """
    mark = b"\xef\xbb\xbf"
    rest: list[bytes] = []
    lines = b""  # held back, for the end of a text belongs to what comes before
    returns: bool | None = None  # lines end with \r alone
    while more := file.read(BLOCK_BYTES):
        if returns is None:
            returns = b"\r" in more and b"\n" not in more
        if returns:
            more = more.replace(b"\r", b"\n")
        more, mark = split(more.removeprefix(mark)), b""
        end = more.rfind(b"\n") + 1
        if end:
            if lines:
                yield lines
            lines, rest = b"".join([*rest, more[:end]]), []
        rest.append(more[end:])
    if lines or any(rest):
        yield b"".join([lines, *rest])


_LOOKED_AT = 4096  # rows that say whether float32 holds the numbers


class TextReader(TableReader):
    """A text. A subclass parses it, and says which types the parsed columns have.

    Args:
        head: the beginning of the decoded text.
    """

    def __init__(self, source: Source, wanted: Columns, head: bytes):
        self.source, self._head = source, head
        self._chosen: list[tuple[Place, pa.DataType]] | None = None
        with reading(source.name, self.format):
            first = next(self._parsed(None), None)
        if first is None or not len(first):
            raise InputError(f"{source.name}: no rows in this {self.format} file")
        super().__init__(source, self._typed(first), None, wanted)
        self._first = first.slice(0, _LOOKED_AT)
        self._number = self._number_type(self._first)
        # Once the columns are known they are parsed straight to what will be used.
        self._chosen = [(place, self._type_of(place)) for place in self.needed]
        self.carried = pa.schema(
            [
                field
                if (place := self._carriers[field.name]) is None
                else pa.field(field.name, self._written(self._carried_type(place)))
                for field in self.carried
            ]
        )
        self.dtype = np.dtype(self._number.to_pandas_dtype())

    def _number_type(self, first: pa.RecordBatch) -> pa.DataType:
        """float32, or float64 for numbers that lie far from zero beside their spread."""
        from dinkcli.data.offset import offset_of

        types = [place.take(first)[0].type for place in self.places]
        types = [getattr(type_, "value_type", type_) for type_ in types]
        if self.kind == NUMBERS and any(map(is_text, types)):
            return pa.float64()  # as texts are parsed
        if not types or self.kind not in (NUMBERS, LIST) or not all(map(is_number, types)):
            return pa.float32()
        size, kind = self.n_features, np.dtype(np.float64)
        vectors, _ = vectors_of(first, self.places, self.kind, size, kind)
        vectors = vectors[(np.abs(vectors) < 1e30).all(1)]
        far = len(vectors) and offset_of(vectors) is not None
        return pa.float64() if far else pa.float32()

    def _typed(self, first: pa.RecordBatch) -> pa.Schema:
        """The schema that the columns are chosen from, by the first block."""
        return first.schema

    def _type_of(self, place: Place) -> pa.DataType:
        """What a column is parsed to."""
        if place not in self.places:
            return self._carried_type(place)
        if self.kind == NUMBERS:
            return self._number
        return pa.string() if self.kind in (TEXT, BASE64) else pa.list_(self._number)

    @staticmethod
    def _written(type_: pa.DataType) -> pa.DataType:
        """Integers beyond 64 bits travel as text."""
        return pa.string() if pa.types.is_decimal(type_) else type_

    def _carried_type(self, place: Place) -> pa.DataType:
        """What a column that travels along is parsed to."""
        return place.type

    def _open(self) -> pa.NativeFile:
        return open_text(self.source)

    def _parsed(self, names: list[str] | None) -> Iterator[pa.RecordBatch]:
        """Batches with the columns ``names``, or with all of them, of types found out."""
        raise NotImplementedError

    def _all_batches(self, rows: int, names: list[str]) -> Iterator[pa.RecordBatch]:
        return self._parsed(names)
