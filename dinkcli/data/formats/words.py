"""Vectors of words: GloVe and word2vec text, fastText .vec, and word2vec's binary files.

A word is everything before the last D numbers of a line. Shapes: N words, D features.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinkcli.data.base import Columns
from dinkcli.data.files import Source, codec_of, unpacked
from dinkcli.data.formats.table import TableReader
from dinkcli.data.formats.text import BLOCK_BYTES, TextReader, whole_lines
from dinkcli.data.formats.vectors import numbers_of
from dinkcli.errors import InputError

WORD, VECTOR = "word", "vector"
_COUNTS = re.compile(rb"(\d{1,12})[ \t](\d{1,6})[ \t]*\r?\n")
_NUMBER = re.compile(rb"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(inf|nan)", re.I)
_LINES = 50
_LONGEST_WORD = 1 << 12


@dataclass(frozen=True)
class WordLayout:
    """
    Attributes:
        n_words: N, as the first line says it, or None without such a line.
        n_features: D.
        separator: between a word and its numbers.
        binary: numbers are float32 as they are.
        start: bytes of the first line.
    """

    n_words: int | None
    n_features: int
    separator: str = " "
    binary: bool = False
    start: int = 0


def word_layout(head: bytes, whole: bool) -> WordLayout | None:
    """The layout of a text of words and numbers by its beginning; None when it is none."""
    counts = _COUNTS.match(head)
    start = counts.end() if counts else 0
    for separator in (b" ", b"\t"):
        lines = head[start:].split(b"\n")[:_LINES]
        if not whole and len(lines) > 1 and len(lines) < _LINES:
            lines.pop()
        lines = [line.rstrip(b" \t\r") for line in lines]
        lines = [line for line in lines if line]
        if not lines:
            return None
        if counts is not None:
            n_features = int(counts[2])
        else:
            tails = [_numbers_at_the_end(line, separator) for line in lines]
            n_features = min(tails)
            # A column of numbers and nothing before them is no text of words.
            worded = [len(line.split(separator)) > n_features for line in lines]
            if (
                n_features < 2
                or not all(worded)
                or all(_NUMBER.fullmatch(line.split(separator)[0]) for line in lines)
            ):
                continue
            if separator == b"\t" or all(
                looks_separated(li, separator, n_features) for li in lines
            ):
                return None  # a table of another sort
        if n_features and all(_fits(line, separator, n_features) for line in lines):
            n_words = int(counts[1]) if counts else None
            return WordLayout(n_words, n_features, separator.decode(), start=start)
    return None


def binary_layout(head: bytes) -> WordLayout | None:
    """The layout of a word2vec binary file by its beginning, which may be cut anywhere."""
    counts = _COUNTS.match(head[:64])
    if counts is None or not int(counts[2]):
        return None
    n_features, position = int(counts[2]), counts.end()
    for _ in range(2):
        end = head.find(b" ", position, position + _LONGEST_WORD)
        if end < 0:
            return None
        try:
            head[position:end].decode()
        except UnicodeDecodeError:
            return None
        position = end + 1 + 4 * n_features
        if position >= len(head):
            break
        position += head[position : position + 1] == b"\n"
    return WordLayout(int(counts[1]), n_features, " ", True, counts.end())


def _fits(line: bytes, separator: bytes, n_features: int) -> bool:
    fields = line.rsplit(separator, n_features)
    return len(fields) == n_features + 1 and all(map(_NUMBER.fullmatch, fields[1:]))


def _numbers_at_the_end(line: bytes, separator: bytes) -> int:
    count = 0
    for field in reversed(line.split(separator)):
        if not _NUMBER.fullmatch(field):
            break
        count += 1
    return count


def looks_separated(line: bytes, separator: bytes, n_features: int) -> bool:
    """Whether there is a number before another separator in front of the last D numbers."""
    word = line.rsplit(separator, n_features)[0]
    return re.search(rb"[,;|\t][ ]*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$", word) is not None


def with_word(wanted: Columns) -> Columns:
    """The word names its row, unless another column is asked for."""
    return wanted if wanted.id is not None else replace(wanted, id=WORD)


class WordsReader(TextReader):
    """A word and D numbers a line, after a line "N D" or without one."""

    format = "word vectors"
    own_id = WORD

    def __init__(self, source: Source, wanted: Columns, head: bytes, layout: WordLayout):
        self.layout = layout
        super().__init__(source, with_word(wanted), head)
        self.n_rows = None
        self.about = {**self.about, "text": "a word before the numbers of each line"}

    def _parsed(self, names: list[str] | None) -> Iterator[pa.RecordBatch]:
        layout, n_rows = self.layout, 0
        skipped = layout.start
        with self._open() as file:
            for text in whole_lines(file):
                text, skipped = text[skipped:], 0
                if text.strip():
                    batch = self._batch(text, n_rows)
                    n_rows += len(batch)
                    yield batch
        if layout.n_words is not None and n_rows != layout.n_words:
            raise InputError(
                f"{self.source.name}: the first line promises {layout.n_words} words, "
                f"{n_rows} could be read; write or copy the file again"
            )

    def _batch(self, text: bytes, first: int) -> pa.RecordBatch:
        """Splits all lines from the right at once."""
        size, separator = self.layout.n_features, self.layout.separator
        # Only a line feed ends a line.
        lines = pa.array(text.decode("utf-8", "replace").split("\n"))
        lines = pc.utf8_rtrim(lines, " \t\r")
        lines = lines.filter(pc.not_equal(lines, ""))
        fields = pc.split_pattern(lines, separator, max_splits=size, reverse=True)
        lengths = np.diff(fields.offsets.to_numpy())
        if (lengths != size + 1).any():
            row = int((lengths != size + 1).argmax())
            raise InputError(
                f"{self.source.name}: row {first + row} has {lengths[row] - 1} numbers, expected "
                f"{size} (counting from 0); write or copy it again"
            )
        tokens, start = fields.values, np.arange(len(lines)) * (size + 1)
        numbered = np.ones(len(tokens), bool)
        numbered[start] = False
        numbers = tokens.filter(pa.array(numbered))
        try:
            values = numbers.cast(pa.float32())
        except pa.ArrowInvalid:
            values, _ = numbers_of(numbers, pa.float32())  # null where one is none
        vectors = pa.FixedSizeListArray.from_arrays(values, size)
        words = pc.utf8_trim(tokens.take(pa.array(start)), " ")
        return pa.RecordBatch.from_arrays([words, vectors], [WORD, VECTOR])


class BinaryWordsReader(TableReader):
    """word2vec's binary files: a word, a space, and D float32, N times."""

    format = "word2vec binary"
    own_id = WORD

    def __init__(self, source: Source, wanted: Columns, layout: WordLayout):
        self.source, self.layout = source, layout
        vector = pa.list_(pa.float32(), layout.n_features)
        schema = pa.schema([(WORD, pa.string()), (VECTOR, vector)])
        super().__init__(source, schema, layout.n_words, with_word(wanted))

    def _all_batches(self, rows: int, names: list[str]) -> Iterator[pa.RecordBatch]:
        records = self._records()
        while some := list(itertools.islice(records, rows)):
            words = pa.array([word.decode("utf-8", "replace") for word, _ in some])
            values = np.frombuffer(b"".join(vector for _, vector in some), "<f4")
            vectors = pa.FixedSizeListArray.from_arrays(
                pa.array(values.astype(np.float32)), self.layout.n_features
            )
            yield pa.RecordBatch.from_arrays([words, vectors], [WORD, VECTOR])

    def _records(self) -> Iterator[tuple[bytes, bytes]]:
        """Each word and the bytes of its numbers."""
        n_words = self.layout.n_words or 0
        record = re.compile(rb"\n*([^ ]*) (.{%d})" % (4 * self.layout.n_features), re.DOTALL)
        data, position = b"", 0
        codec = codec_of(self.source.head(8))
        with self.source.open() as packed, unpacked(packed, codec) as file:
            file.read(self.layout.start)
            for number in range(n_words):
                while (found := record.match(data, position)) is None:
                    more = file.read(BLOCK_BYTES)
                    if not more:
                        raise InputError(
                            f"{self.path}: ended {n_words - number} words early; write or copy it "
                            "again"
                        )
                    data, position = data[position:] + more, 0
                position = found.end()
                yield found[1], found[2]
            if (data[position:] + file.read(64)).strip(b"\n"):
                raise InputError(
                    f"{self.path}: more follows after the {n_words} words that the "
                    "first line promises; a word with a space in it cannot be read from a binary "
                    "file; write it as text (binary=False)"
                )
