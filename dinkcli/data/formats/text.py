"""Text of any encoding and compression: csv and its relatives, and vectors of words (GloVe,
word2vec, fastText). ``dialect_of`` looks at the first records once; pyarrow reads the rest by it.
"""

from __future__ import annotations

import codecs
import csv
import functools
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from dinkcli.data.base import Columns, reading
from dinkcli.data.derived import offset_of
from dinkcli.data.files import Source, codec_of, unpacked, unpacked_head
from dinkcli.data.formats.columns import LIST, NUMBERS, Place
from dinkcli.data.formats.numerals import NULLS, NUMBER, kind_of, type_of_most
from dinkcli.data.formats.table import TableReader
from dinkcli.data.formats.types import is_number, is_text
from dinkcli.data.formats.vectors import vectors_of
from dinkcli.errors import InputError, UsageError

BLOCK_BYTES = 4 << 20


def encoding_of(head: bytes) -> str:
    """utf-8, or utf-16 by its mark or by a zero in every other byte."""
    even, odd, is_long = head[:64:2], head[1:64:2], len(head) >= 8
    if head[:2] == codecs.BOM_UTF16_LE or (is_long and all(even) and not any(odd)):
        return "utf-16-le"
    if head[:2] == codecs.BOM_UTF16_BE or (is_long and all(odd) and not any(even)):
        return "utf-16-be"
    return "utf-8"


def decoded(head: bytes) -> bytes | None:
    """The beginning of a text in UTF-8, without a mark, as far as it is whole; None of no text."""
    try:
        text = codecs.getincrementaldecoder(encoding_of(head))().decode(head)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text.removeprefix("\ufeff").encode()


def open_text(source: Source) -> pa.NativeFile:
    """A text, which may be compressed, in UTF-8."""
    head = source.head(64)
    codec = codec_of(head)
    if codec is not None:
        head = unpacked_head(source, codec, 64)
    local = codec is None and source.path is not None
    file: Any = pa.OSFile(source.path) if local else unpacked(source.open(), codec)
    file = file if isinstance(file, pa.NativeFile) else pa.PythonFile(file, "r")
    encoding = encoding_of(head)
    return file if encoding == "utf-8" else pa.transcoding_input_stream(file, encoding, "utf-8")


def whole_lines(file: Any) -> Iterator[bytes]:
    """Blocks of about 4 MB of whole lines, without a mark before the first; \\n ends lines that
    \\r alone does."""
    rest, block = b"", file.read(BLOCK_BYTES).removeprefix(codecs.BOM_UTF8)
    only_returns = b"\r" in block and b"\n" not in block
    while block:
        following = file.read(BLOCK_BYTES)
        text = rest + (block.replace(b"\r", b"\n") if only_returns else block)
        end = text.rfind(b"\n") + 1 if following else len(text)
        if end:
            yield text[:end]
        rest, block = text[end:], following


_LOOKED_AT = 4096  # rows that say of which types the columns are


class TextReader(TableReader):
    """A text, whose first block says what its columns are. A subclass parses it."""

    def __init__(self, source: Source, wanted: Columns):
        self.source = source
        with reading(source.name, self.format):
            first = next(self._parsed(None), None)
        if first is None or not len(first):
            raise InputError(f"{source.name}: no rows in this {self.format} file")
        self._first = first.slice(0, _LOOKED_AT)
        super().__init__(source, self._typed(self._first), None, wanted)
        if self.places:
            self.dtype = self._number_type()

    def _number_type(self) -> np.dtype:
        """float32, or float64 for numbers that lie far from zero beside their spread."""
        narrow, wide = np.dtype("f4"), np.dtype("f8")
        if self.kind not in (NUMBERS, LIST):
            return narrow
        vectors, _ = vectors_of(self._first, self.places, self.kind, self.n_features, wide)
        vectors = vectors[(np.abs(vectors) < 1e30).all(1)]
        return wide if len(vectors) and offset_of(vectors) is not None else narrow

    def _typed(self, first: pa.RecordBatch) -> pa.Schema:
        """The schema that the columns are chosen from, by the first rows."""
        return first.schema

    def _parsed(self, names: list[str] | None) -> Iterator[pa.RecordBatch]:
        """Batches with the columns ``names``, or with all of them, of types found out."""
        raise NotImplementedError

    def _all_batches(self, rows: int, names: list[str]) -> Iterator[pa.RecordBatch]:
        return self._parsed(names)


SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "pipes", " ": "spaces"}
RUNS, LISTS = "runs of spaces", "lists without quotes around them"
ONE_COLUMN = "\x1f"  # separates nothing: no text holds it
_RECORDS = 20  # that are looked at
_VALUES = {"number", "decimal comma", "vector", "thousands", "blanks", "signed"}
_BEFORE = re.compile(r"#.*\s*|sep=.\s*|[\s,;|]*", re.DOTALL)  # lines before the first record
_LISTS = rb"(?m)(?<![^,;|\t])[ ]*([\[{(][^\[\]{}()\"\r\n]*[\]})])[ ]*(?=[,;|\t\r\n]|$)"
_REFUSED = {
    "thousands": "separators between thousands (or decimal commas, which cannot be told apart)",
    "blanks": "blanks between thousands",
    "signed": "signs around",
}


@dataclass(frozen=True)
class Dialect:
    """How to split a text, by the first of its records."""

    separator: str
    records: list[list[str]]
    quoted: bool = True  # fields may stand in double quotes
    rewriting: str = ""  # RUNS and LISTS before lines can be split
    before: int = 0  # lines before the first record
    header: bool = False  # the first record has the names
    decimal: str = "."

    def cells(self, header: bool) -> list[tuple[str, str]]:
        """(field, kind) of all records, or all but the first."""
        return [(cell, kind_of(cell)) for record in self.records[header:] for cell in record]

    @functools.cached_property
    def badness(self) -> tuple[int, int, int]:
        """Fields that look wrongly split, fields that may be, and fewer numbers than others."""
        counts = Counter(kind for _, kind in self.cells(len(self.records) > 1))
        numbers = sum(counts[kind] for kind in _VALUES - {"thousands"})
        odd, unsure = counts["unsplit"] + counts["broken"], counts["decimal comma"]
        return (odd, unsure + counts["thousands"], -numbers)

    @property
    def names(self) -> list[str]:
        """Of the columns, made unique; f0, f1, ... without a header."""
        if not self.header:
            return [f"f{i}" for i in range(len(self.records[0]))]
        taken: dict[str, None] = {}
        for name in self.records[0]:
            new = (f"{name}.{number}" for number in itertools.count(1))  # as pandas does it
            taken[next(each for each in itertools.chain([name], new) if each not in taken)] = None
        return [*taken]

    @property
    def described(self) -> str:
        """As ``info`` says it."""
        parts = [
            RUNS if self.rewriting == RUNS else SEPARATORS.get(self.separator, "one column"),
            "a header" if self.header else "no header",
            "decimal commas" if self.decimal == "," else "",
            "" if self.quoted else "no quotes",
            LISTS if self.rewriting == LISTS else "",
            f"{self.before} line{'s' * (self.before > 1)} before" if self.before else "",
        ]
        return ", ".join(filter(None, parts))

    @property
    def counts_rows(self) -> bool:
        """Whether the first field of a text without a header is 0, 1, 2, ... or 1, 2, 3, ..."""
        firsts = [record[0] for record in self.records]
        if self.header or len(self.records[0]) < 3 or len(firsts) < 3:
            return False
        fractions = any(re.search(f"[.{self.decimal}]", cell) for cell, _ in self.cells(False))
        counts = [str(number) for number in range(len(firsts) + 1)]
        return fractions and firsts in (counts[:-1], counts[1:])

    def settled(self, name: str, before: int) -> Dialect:
        """With what its fields say of the header and the decimal sign; InputError for numbers that
        cannot be read."""
        header = self._has_header()
        cells = self.cells(header)
        counts = Counter(kind for _, kind in cells)
        marks = counts["decimal comma"] + counts["thousands"]
        # Where most numbers have points, or all are in one field, others are nobody's business.
        points = sum(kind == "number" and "." in cell for cell, kind in cells)
        commas = marks > points and not counts["vector"]
        numbers = counts["number"] + counts["decimal comma"] + counts["vector"]
        refused = {kind for kind in ("blanks", "signed") if counts[kind] > numbers}
        if commas and counts["thousands"] and not _are_decimals(cells):
            refused.add("thousands")
        for kind in refused:
            example = next(cell for cell, each in cells if each == kind)
            raise InputError(
                f"{name}: numbers such as {example!r} have {_REFUSED[kind]}; write plain numbers, "
                "such as -1234.5"
            )
        return replace(self, before=before, header=header, decimal="," if commas else ".")

    def _has_header(self) -> bool:
        """Names are no numbers, or they are 0, 1, 2, ... (as pandas writes them) above others."""
        first = self.records[0]
        if len(self.records) < 2 or any(cell in NULLS and cell for cell in first):
            return False
        numbers = [int(m[1]) for cell in first if (m := re.fullmatch(r"([0-9]{1,9})(\.0)?", cell))]
        low, size = min(numbers, default=0), len(numbers)
        fractions = any("." in cell for cell in self.records[1])
        # 1, 2 above 3, 4 is a row as well. In any order, as of a table whose columns were chosen.
        counted = size > 1 and numbers == [*range(low, low + size)] and (not low or fractions)
        counted |= 3 < size == len(first) and fractions and {*range(low, low + size)} == {*numbers}
        return not _VALUES & {*map(kind_of, first)} or (counted and self.records[1] != first)

    def rewritten(self, lines: bytes) -> bytes:
        """Whole lines of a text that cannot be split as they are."""
        if self.rewriting == LISTS:
            return re.sub(_LISTS, rb'"\1"', lines)
        return re.sub(rb"(?m)^ | (?=\r?$)", b"", re.sub(rb" {2,}", b" ", lines))


def dialect_of(name: str, text: str, whole: bool) -> Dialect | None:
    """The dialect of a text by its beginning, which may be the ``whole`` of it, or None when it has
    no fields of numbers; InputError for fields of a kind that is refused."""
    lines = [*io.StringIO(text, newline="")]  # ended by \n, \r and \r\n alone
    before = len([*itertools.takewhile(_BEFORE.fullmatch, lines)])
    body = "".join(lines[before:])
    best = _best(body, whole)
    if '"' not in body and (best is None or best.badness[0]):
        listed = _best(body, whole, LISTS)
        if listed is not None and not listed.badness[0]:
            return listed.settled(name, before)
    if best is None:
        _refuse_ragged(name, body, whole, before)
        return None
    for cell, kind in best.cells(len(best.records) > 1):
        if kind == "broken":
            raise InputError(
                f"{name}: a list is cut at its {SEPARATORS[best.separator]}: {cell!r}; write lists "
                "with quotes around them, or as jsonl"
            )
    # Quotes may be part of the texts, as in what PostgreSQL's COPY writes: without them no field
    # has a line break, and where none is, a text without a header may have one later.
    if best.separator != "," and best.quoted:
        breaks = any("\n" in cell for record in best.records for cell in record)
        if breaks if '"' in text else not best.settled(name, before).header:
            best = _split(body, whole, replace(best, quoted=False)) or best
    return best.settled(name, before)


def _best(text: str, whole: bool, rewriting: str = "") -> Dialect | None:
    """The dialect under which least looks wrong; of equals the first, commas before tabs."""
    found = []
    for separator in SEPARATORS:
        ways = ("", RUNS) if separator == " " and not rewriting else (rewriting,)
        quotings = (True, False) if '"' in text else (True,)
        tried = (Dialect(separator, [], *how) for how in itertools.product(quotings, ways))
        fitting = (_split(text, whole, dialect) for dialect in tried)
        found.append(next(filter(None, fitting), None))
    return min(filter(None, found), key=lambda each: each.badness, default=None)


def _split(text: str, whole: bool, dialect: Dialect) -> Dialect | None:
    """The dialect with the records of the text, if all of them agree and have numbers."""
    if dialect.rewriting:
        text = dialect.rewritten(text.encode()).decode()
    records = records_of(text, whole, dialect.separator, dialect.quoted)
    first, rest = records[:1], {*map(len, records[1:])}
    if first and rest == {len(first[0]) + 1} and not _VALUES & {*map(kind_of, first[0])}:
        first[0].insert(0, "")  # R writes no name above those of the rows
    sizes = {len(record) for record in records}
    if len(sizes) != 1 or (dialect.separator != "," and sizes == {1}):
        return None
    cells = map(kind_of, records[-1] + records[len(records) // 2])
    return replace(dialect, records=records) if _VALUES & {*cells} else None


def _refuse_ragged(name: str, text: str, whole: bool, before: int) -> None:
    """Raises InputError for a table of numbers of which a row has more fields, or fewer."""
    for separator, called in SEPARATORS.items():
        records = records_of(text, whole, separator, True)
        lengths = [len(record) for record in records]
        usual = max(lengths, key=lengths.count, default=0)
        fine = [record for record in records if len(record) == usual]
        if usual > 1 and 2 * len(fine) >= len(records) and kind_of(fine[-1][-1]) == "number":
            row = next(i for i, length in enumerate(lengths) if length != usual)
            raise InputError(
                f"{name}: line {before + row + 1} has {lengths[row]} fields between {called}, and "
                f"most have {usual}; repair or remove it"
            )


def records_of(text: str, whole: bool, separator: str, quoted: bool) -> list[list[str]]:
    """The fields of the first records, without blanks around them; none where quotes are not
    closed."""
    csv.field_size_limit(1 << 30)
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
    )
    try:
        fields = (list(map(str.strip, record)) for record in reader)
        filled = (record for record in fields if len(record) > 1 or any(record))
        records = [*itertools.islice(filled, _RECORDS + 1)]
    except csv.Error:
        return []
    may_go_on = len(records) > _RECORDS or (not whole and len(records) > 1)
    return records[:-1] if may_go_on else records


def _are_decimals(cells: list[tuple[str, str]]) -> bool:
    """Whether what looks like thousands are decimal commas: others are, and none has two marks."""
    marked = [(cell, kind) for cell, kind in cells if kind in ("decimal comma", "thousands")]
    sure = any(kind == "decimal comma" or cell.lstrip("+-")[:1] == "0" for cell, kind in marked)
    return sure and all(len(re.findall("[.,]", cell)) == 1 for cell, _ in marked)


class CsvReader(TextReader):
    """A text of separated fields. What travels along keeps its text."""

    format = "csv"
    _types: Mapping[str, pa.DataType] = {}  # that columns are parsed to, once they are chosen

    def __init__(self, source: Source, wanted: Columns, head: bytes, dialect: Dialect):
        self.dialect, self.has_names = dialect, dialect.header
        self._may_break = dialect.quoted and b'"' in head  # lines, in quotes
        for name, option in wanted.named.items():
            if dialect.header and dialect.records[0].count(name) > 1:
                raise UsageError(
                    f"{source.name}: {option} {name}: several columns are named {name!r}; "
                    "give each a name of its own"
                )
        self.row_number = dialect.names[0] if dialect.counts_rows else None
        super().__init__(source, wanted)
        number = pa.from_numpy_dtype(self.dtype) if self.kind == NUMBERS else pa.string()
        types = {place.top: number for place in self.places}
        self._types = {place.top: pa.string() for place in self.needed} | types
        self.about = {**self.about, "text": dialect.described}
        if not dialect.header:
            self.notes = [*self.notes, *self._look_at_the_rest()]

    def _look_at_the_rest(self) -> Iterator[str]:
        """What stands beside the numbers of a text without a header."""
        read = {place.top for place in self.needed}
        # A separator at the end of each line makes a column of nothing.
        rest = [f.name for f in self.schema if not pa.types.is_null(f.type) and f.name not in read]
        others = [name for name in rest if name != self.row_number]
        if others and self.kind == NUMBERS:
            shown = ", ".join(others[:5]) + ", ..." * (len(others) > 5)
            yield (
                f"{self.path} has no header; read as {self.dialect.described}; the vectors are "
                f"{self.places[0].path} to {self.places[-1].path}, not {shown}"
            )
        if self.row_number in rest:
            yield (
                f"{self.path} has no header, and its first field counts the rows: it is not read "
                f"as a coordinate; `ids` {self.row_number} names rows by it"
            )

    def _typed(self, first: pa.RecordBatch) -> pa.Schema:
        types = {}
        for name, column in zip(first.schema.names, first.columns, strict=True):
            types[name] = column.type
            if pa.types.is_string(column.type):  # of numbers, where most cells are
                cells = [cell.strip().replace(",", ".") for cell in column.drop_null().to_pylist()]
                types[name] = type_of_most(cells) or column.type
            elif not (is_number(column.type) or pa.types.is_null(column.type)):
                types[name] = pa.string()
        if not self.dialect.header:
            # Without names, the numbers between two texts belong together.
            runs = [list(run) for _, run in itertools.groupby(types, lambda n: is_text(types[n]))]
            numbers = max((run for run in runs if not is_text(types[run[0]])), key=len, default=[])
            types |= dict.fromkeys(types.keys() - numbers, pa.string())
        return pa.schema(list(types.items()))

    def _carried_field(self, place: Place) -> pa.Field:
        return pa.field(place.path, pa.string())

    def _all_batches(self, rows: int, names: list[str]) -> Iterator[pa.RecordBatch]:
        done = 0
        try:
            for batch in self._parsed(names):
                yield self._plain_numbers(batch)
                done += 1
            return
        except pa.ArrowInvalid as error:
            if "conversion error" not in str(error) or not self._types:
                raise
        # A cell that is no number makes its row a bad one: it is looked at as a text.
        self._types = dict.fromkeys(self._types, pa.string())
        yield from map(self._plain_numbers, itertools.islice(self._parsed(names), done, None))

    def _parsed(self, names: list[str] | None) -> Iterator[pa.RecordBatch]:
        dialect = self.dialect
        read = pyarrow.csv.ReadOptions(
            block_size=BLOCK_BYTES,
            column_names=dialect.names,
            skip_rows=dialect.before,
            skip_rows_after_names=int(dialect.header),
        )
        parse = pyarrow.csv.ParseOptions(
            delimiter=dialect.separator,
            quote_char='"' if dialect.quoted else False,
            newlines_in_values=self._may_break,
        )
        convert = pyarrow.csv.ConvertOptions(
            include_columns=names,
            column_types=self._types,
            decimal_point=dialect.decimal,
            null_values=NULLS,
        )
        with open_text(self.source) as file:
            text = _Rewritten(file, dialect) if dialect.rewriting else file
            with pyarrow.csv.open_csv(text, read, parse, convert) as batches:
                yield from batches

    def _plain_numbers(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Numbers that are read as texts with a point, without the header where it comes again, in
        files that were put together."""
        vectors = [place.top for place in self.places if place.top in batch.schema.names]
        if self.kind != NUMBERS or not vectors or not is_text(batch.column(vectors[0]).type):
            return batch
        if self.dialect.header:
            again = functools.reduce(pc.and_, (pc.equal(batch[name], name) for name in vectors))
            batch = batch.filter(pc.invert(again).fill_null(True))
        for name in vectors if self.dialect.decimal == "," else ():
            plain = pc.replace_substring(batch[name], ",", ".")
            batch = batch.set_column(batch.schema.names.index(name), name, plain)
        return batch


class _Rewritten(io.RawIOBase):
    """A text with lines that can be split."""

    def __init__(self, file: pa.NativeFile, dialect: Dialect):
        self._lines = map(dialect.rewritten, whole_lines(file))

    def read(self, size: int = -1) -> bytes:
        return next(self._lines, b"")

    def readable(self) -> bool:
        return True


class Words(NamedTuple):
    """How words and their vectors stand in a file."""

    start: int  # lines, or bytes in binary files, before the first
    n_rows: int | None  # where the first line says it
    n_features: int
    separator: str = ""  # none in binary files


WORD, VECTOR = "word", "vector"
_LINES = 50  # that are looked at
_COUNTS = re.compile(r"([0-9]{1,12})[ \t]([0-9]{1,6})[ \t]*\r?\n")  # of words, and their numbers
_ENDS_IN_A_FIELD = re.compile(rf"[,;|\t] *{NUMBER.pattern}$", re.IGNORECASE)


def words_of(text: str, whole: bool) -> Words | None:
    """Words are all that is before the last D numbers of a line, where all lines have them. A line
    "N D" may come first."""
    counts = _COUNTS.match(text)
    lines = text[counts.end() if counts else 0 :].split("\n")[:_LINES]
    if not whole and 1 < len(lines) < _LINES:
        lines.pop()
    lines = list(filter(None, (line.rstrip(" \t\r") for line in lines)))
    for separator in (" ", "\t") if counts else (" ",):
        fields = [line.split(separator) for line in lines]
        tails = [[*itertools.takewhile(NUMBER.fullmatch, line[::-1])] for line in fields]
        shortest = min(map(len, tails), default=0)
        size = int(counts[2]) if counts else shortest
        if not 0 < size <= shortest or min(map(len, fields)) == size:
            continue
        if counts:
            return Words(1, int(counts[1]), size, separator)
        words = [separator.join(line[:-size]) for line in fields]
        are_fields = all(NUMBER.fullmatch(line[0]) for line in fields)
        if size > 1 and not are_fields and not all(map(_ENDS_IN_A_FIELD.search, words)):
            return Words(0, None, size, separator)
    return None


def binary_words(head: bytes) -> Words | None:
    """Those of a word2vec binary file, by its beginning; None when it is none."""
    counts = _COUNTS.match(head[:64].decode("latin-1"))
    if counts is None or not int(counts[2]):
        return None
    words = Words(counts.end(), int(counts[1]), int(counts[2]))
    first = _binary_word(words.n_features).match(head, words.start)
    return words if first and first[1] else None


def _binary_word(n_features: int) -> re.Pattern[bytes]:
    return re.compile(rb"\n*([^ \n]{0,4096}) (.{%d})" % (4 * n_features), re.DOTALL)


class WordsReader(TableReader):
    """A word before the D numbers of each line (GloVe, word2vec, fastText), or in word2vec's binary
    files, where it is a word, a space, and D float32, N times."""

    own_id = WORD

    def __init__(self, source: Source, wanted: Columns, words: Words):
        self._words, n_rows = words, words.n_rows
        self.format, type_ = "word2vec binary", pa.list_(pa.float32(), words.n_features)
        if words.separator:  # the number of lines that are no words is not known
            self.format, type_, n_rows = "word vectors", pa.list_(pa.string()), None
        schema = pa.schema([(WORD, pa.string()), (VECTOR, type_)])
        super().__init__(source, schema, n_rows, replace(wanted, id=wanted.id or WORD))
        if words.separator:
            self.about = {**self.about, "text": "a word before the numbers of each line"}

    def _all_batches(self, rows: int, names: list[str]) -> Iterator[pa.RecordBatch]:
        with open_text(self.source) as file:
            for columns in self._of_lines(file) if self._words.separator else self._of_bytes(file):
                yield pa.RecordBatch.from_arrays(columns, [WORD, VECTOR])

    def _of_lines(self, file: pa.NativeFile) -> Iterator[list[pa.Array]]:
        """Splits all lines from the right at once."""
        before, promised, n_features, separator = self._words
        n_rows = -before
        for block in whole_lines(file):
            text = (line.rstrip(" \t\r") for line in str(block, "utf-8", "replace").split("\n"))
            lines = pa.array(filter(None, text), pa.string())[n_rows < 0 :]
            n_rows = max(n_rows, 0) + len(lines)
            tokens = pc.split_pattern(lines, separator, max_splits=n_features, reverse=True)
            yield [pc.utf8_trim(pc.list_element(tokens, 0), " "), pc.list_slice(tokens, 1)]
        if promised not in (None, n_rows):
            raise InputError(
                f"{self.path}: the first line promises {promised} words, {n_rows} could be read; "
                "write or copy the file again"
            )

    def _of_bytes(self, file: pa.NativeFile) -> Iterator[list[pa.Array]]:
        word, data = _binary_word(self._words.n_features), b""
        n_left = self._words.n_rows or 0
        file.read(self._words.start)
        while n_left and (more := file.read(BLOCK_BYTES)):
            data, position = data + more, 0
            words: list[str] = []
            vectors: list[bytes] = []
            while len(words) < n_left and (record := word.match(data, position)):
                position = record.end()
                words.append(record[1].decode("utf-8", "replace"))
                vectors.append(record[2])
            data, n_left = data[position:], n_left - len(words)
            values = np.frombuffer(b"".join(vectors), "<f4").astype(np.float32)
            lists = pa.FixedSizeListArray.from_arrays(values, self._words.n_features)
            yield [pa.array(words, pa.string()), lists]
            if len(data) > BLOCK_BYTES:
                break
        if not n_left and (data + file.read(64)).strip(b"\n"):
            raise InputError(
                f"{self.path}: more follows after the {self._words.n_rows} words that the first "
                "line promises; a word with a space in it cannot be read from a binary file; write "
                "it as text (binary=False)"
            )
