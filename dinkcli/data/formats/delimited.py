"""csv and its relatives: fields between commas, tabs, semicolons, pipes or spaces.

``dialect_of`` looks at the first records once; ``CsvReader`` has pyarrow read them all.
"""

from __future__ import annotations

import csv
import functools
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from dinkcli.data.base import Columns
from dinkcli.data.files import Source
from dinkcli.data.formats.columns import NUMBERS, Place
from dinkcli.data.formats.numerals import NULLS, kind_of, type_of_most
from dinkcli.data.formats.text import BLOCK_BYTES, TextReader, whole_lines
from dinkcli.data.formats.types import is_number
from dinkcli.errors import UsageError

SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "pipes", " ": "spaces"}
_RECORDS = 20
_VALUES = {"number", "decimal comma", "vector", "thousands", "blanks", "signed"}
_BEFORE = re.compile(r"#.*\s*|sep=.\s*|[\s,;|]*", re.DOTALL)  # lines before the first record
_LISTS = r"(?m)(?<![^,;|\t])[ ]*([\[{(][^\[\]{}()\"\r\n]*[\]})])[ ]*(?=[,;|\t\r\n]|$)"


class DialectError(ValueError):
    """It is a text of fields, but one that cannot be read; the message says why."""


@dataclass(frozen=True)
class Dialect:
    """How to split a text.

    Attributes:
        names: of the columns, made unique; f0, f1, ... without a header.
        header: whether the first record has the names.
        quoted: fields may stand in double quotes.
        comments: lines before the first record.
        decimal: "." or ",".
        runs: several spaces are one separator.
        lists: lists have no quotes around them.
        doubled: names that several columns have.
        firsts: the first field of each record looked at.
        fractions: some field is a number with a fraction, or a list.
    """

    separator: str
    names: list[str]
    header: bool = False
    quoted: bool = True
    comments: int = 0
    decimal: str = "."
    runs: bool = False
    doubled: frozenset[str] = frozenset()
    firsts: Sequence[str] = ()
    lists: bool = False
    fractions: bool = False

    @property
    def described(self) -> str:
        """As ``info`` says it."""
        parts = ["runs of spaces" if self.runs else SEPARATORS.get(self.separator, "one column")]
        parts.append("a header" if self.header else "no header")
        if self.decimal == ",":
            parts.append("decimal commas")
        if not self.quoted:
            parts.append("no quotes")
        if self.lists:
            parts.append("lists without quotes around them")
        if self.comments:
            parts.append(f"{self.comments} lines before" if self.comments > 1 else "1 line before")
        return ", ".join(parts)

    def rewritten(self, lines: bytes) -> bytes:
        """Whole lines of a text that cannot be split as they are."""
        if self.lists:
            return re.sub(_LISTS.encode(), rb'"\1"', lines)
        lines = re.sub(rb" {2,}", b" ", lines)
        return re.sub(rb"(?m)^ | (?=\r?$)", b"", lines)

    @property
    def counts_rows(self) -> bool:
        """Whether the first field of a text without a header is 0, 1, 2, ... or 1, 2, 3, ..."""
        if self.header or len(self.names) < 3 or self.firsts[0] not in ("0", "1"):
            return False
        start = int(self.firsts[0])
        counted = [str(number) for number in range(start, start + len(self.firsts))]
        return len(counted) > 2 and self.fractions and list(self.firsts) == counted


def dialect_of(text: str, whole: bool) -> Dialect | None:
    """The dialect of a text by its beginning, or None when it has no fields of numbers.

    Args:
        whole: the text is all there is; else its last record may go on.

    Raises:
        DialectError: there are fields, of a kind that is refused.
    """
    lines = [*io.StringIO(text, newline="")]  # ended by \n, \r and \r\n alone
    comments = len([*itertools.takewhile(_BEFORE.fullmatch, lines)])
    body = "".join(lines[comments:])
    best = _best(body, whole)
    if best is None or best.badness[0]:
        # Perhaps its lists have no quotes around them.
        listed = re.sub(_LISTS, r'"\1"', body) if '"' not in body else body
        other = _best(listed, whole) if listed != body else None
        if other is not None and not other.badness[0]:
            return replace(other.dialect(comments), lists=True)
    if best is None:
        _refuse_ragged(body, whole, comments)
        return None
    if best.broken:
        raise DialectError(
            f"a list is cut at its {SEPARATORS.get(best.separator, 'separators')}: "
            f"{best.broken!r}; write lists with quotes around them, or as jsonl"
        )
    if best.separator != "," and best.quoted and _has_stray_quotes(best, text):
        best = _candidate(body, whole, best.separator, quoted=False) or best
    return best.dialect(comments)


def _best(body: str, whole: bool) -> _Candidate | None:
    found = []
    for separator in SEPARATORS:
        candidate = _candidate(body, whole, separator, quoted=True)
        if candidate is None and '"' in body:
            candidate = _candidate(body, whole, separator, quoted=False)
        if candidate is not None:
            found.append(candidate)
    # The first of equals: commas before tabs.
    return min(found, key=lambda each: each.badness, default=None)


@dataclass
class _Candidate:
    separator: str
    quoted: bool
    runs: bool
    records: list[list[str]]
    kinds: list[list[str]]

    @property
    def badness(self) -> tuple[int, int, int, int]:
        counts = Counter(kind for _, kind in self.cells(len(self.kinds) > 1))
        odd = counts["unsplit"] + counts["broken"]
        numbers = sum(counts[kind] for kind in _VALUES - {"thousands"})
        return (odd, counts["decimal comma"] + counts["thousands"], -bool(numbers), -numbers)

    @property
    def broken(self) -> str:
        """A cell with one bracket of a list, or ""."""
        cells = self.cells(len(self.kinds) > 1)
        return next((cell.strip() for cell, kind in cells if kind == "broken"), "")

    def cells(self, header: bool) -> list[tuple[str, str]]:
        """(cell, kind) of all records, or all but the first."""
        records, kinds = self.records[header:], self.kinds[header:]
        return [*zip(itertools.chain(*records), itertools.chain(*kinds), strict=True)]

    def dialect(self, comments: int) -> Dialect:
        first = [cell.strip() for cell in self.records[0]]
        header = _is_header(first, self.kinds, self.records)
        cells = self.cells(header)
        counts = Counter(kind for _, kind in cells)
        marks = counts["decimal comma"] + counts["thousands"]
        # Where most numbers have points, or all are in one cell, others are nobody's business.
        points = sum(kind == "number" and "." in cell for cell, kind in cells)
        few = bool(counts["vector"]) or marks <= points
        if counts["thousands"] and not few and not _are_decimals(cells):
            example = next(cell.strip() for cell, kind in cells if kind == "thousands")
            raise DialectError(
                f"numbers such as {example!r} have separators between thousands (or decimal "
                "commas, which cannot be told apart); write plain numbers, such as 1234.5"
            )
        numbers = counts["number"] + counts["decimal comma"] + counts["vector"]
        for kind, what in (("blanks", "blanks between thousands"), ("signed", "signs around")):
            if counts[kind] > numbers:
                example = next(cell.strip() for cell, each in cells if each == kind)
                raise DialectError(
                    f"numbers such as {example!r} have {what}; write plain numbers, such as -1234.5"
                )
        decimal = "," if marks and not few else "."
        names = first if header else [f"f{i}" for i in range(len(first))]
        times = Counter(names)
        firsts = [row[0].strip() for row in self.records[header:]]
        return Dialect(
            self.separator,
            unique_names(names),
            header,
            self.quoted,
            comments,
            decimal,
            self.runs,
            frozenset(name for name, number in times.items() if number > 1),
            firsts,
            fractions=any("." in cell or decimal == "," in cell for cell, _ in cells),
        )


def _refuse_ragged(text: str, whole: bool, before: int) -> None:
    """Raises DialectError for a table of numbers of which a row has more fields, or fewer."""
    for separator in SEPARATORS:
        records = records_of(text, whole, separator, True)
        lengths = Counter(len(record) for record in records)
        usual, times = lengths.most_common(1)[0] if lengths else (0, 0)
        fine = [record for record in records if len(record) == usual]
        if usual < 2 or 2 * times < len(records) or kind_of(fine[-1][-1]) != "number":
            continue
        number, record = next((i, r) for i, r in enumerate(records) if len(r) != usual)
        raise DialectError(
            f"line {before + number + 1} has {len(record)} fields between "
            f"{SEPARATORS[separator]}, and most have {usual}; repair or remove it"
        )


def _has_stray_quotes(quoted: _Candidate, text: str) -> bool:
    """Whether quotes are part of the texts, as in what PostgreSQL's COPY writes: without them
    no field has a line break, and where none is, a text without a header may have one later."""
    if '"' in text:
        return any("\n" in cell for record in quoted.records for cell in record)
    return not quoted.dialect(0).header


def _candidate(text: str, whole: bool, separator: str, quoted: bool) -> _Candidate | None:
    """The text under one separator, if all of its records agree and have numbers."""
    for runs in (False, True) if separator == " " else (False,):
        cut = re.sub(r"(?m)^ +| +$", "", re.sub(" {2,}", " ", text)) if runs else text
        records = records_of(cut, whole, separator, quoted)
        if not records or len({len(record) for record in records}) != 1:
            continue
        if separator != "," and len(records[0]) == 1:
            continue
        kinds = [[kind_of(cell) for cell in record] for record in records]
        last = set(kinds[-1]) | set(kinds[len(kinds) // 2])
        if last & _VALUES:
            return _Candidate(separator, quoted, runs, records, kinds)
    return None


def records_of(text: str, whole: bool, separator: str, quoted: bool) -> list[list[str]]:
    """The fields of the first records; none where quotes are not closed."""
    csv.field_size_limit(1 << 30)
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
    )
    records = []
    try:
        for record in reader:
            if record and (len(record) > 1 or record[0].strip()):
                records.append(record)
            if len(records) > _RECORDS:
                break
    except csv.Error:
        return []
    if len(records) > _RECORDS or (not whole and len(records) > 1):
        records.pop()  # it may go on
    return records


def _is_header(first: list[str], kinds: list[list[str]], records: list[list[str]]) -> bool:
    """Names are no numbers, or they are 0, 1, 2, ... (as pandas writes them) above others."""
    if len(records) < 2:
        return False
    if any(cell in NULLS and cell for cell in first):
        return False
    numbers = [int(m[1]) for cell in first if (m := re.fullmatch(r"([0-9]{1,9})(\.0)?", cell))]
    low, size = min(numbers, default=0), len(numbers)
    fractions = any("." in cell for cell in records[1])
    counted = size > 1 and numbers == [*range(low, low + size)]
    if counted and low and not fractions:
        counted = False  # 1, 2 above 3, 4 is a row as well
    # In any order, as a table has them whose columns were chosen.
    counted |= 3 < size == len(first) and fractions and sorted(numbers) == [*range(low, low + size)]
    return not _VALUES & set(kinds[0]) or (counted and records[1] != records[0])


def _are_decimals(cells: list[tuple[str, str]]) -> bool:
    """Whether what looks like thousands are decimal commas: others are without doubt, and none
    has two marks."""
    marked = [(c.strip(), kind) for c, kind in cells if kind in ("decimal comma", "thousands")]
    sure = any(kind == "decimal comma" or cell.lstrip("+-")[:1] == "0" for cell, kind in marked)
    return sure and all(len(re.findall("[.,]", cell)) == 1 for cell, _ in marked)


def unique_names(names: list[str]) -> list[str]:
    """The names, with .1, .2 and so on behind those that came before, as pandas does it."""
    taken: set[str] = set()
    found = []
    for name in names:
        new, number = name, 0
        while new in taken:
            number += 1
            new = f"{name}.{number}"
        taken.add(new)
        found.append(new)
    return found


_LOOKED_AT = 1024  # rows that say whether a column of texts is one of numbers
_TEXT_OF = {pa.float32(): pa.string(), pa.float64(): pa.string()}


class CsvReader(TextReader):
    """A text of separated fields. What travels along keeps its text."""

    format = "csv"
    _odd = False  # whether a cell of the vectors is no number

    def __init__(self, source: Source, wanted: Columns, head: bytes, dialect: Dialect):
        self.dialect, self.has_names = dialect, dialect.header
        for name, option in wanted.named.items():
            if name in dialect.doubled:
                raise UsageError(
                    f"{source.name}: {option} {name}: several columns are named {name!r}; "
                    "give each a name of its own"
                )
        self.row_number = dialect.names[0] if dialect.counts_rows else None
        super().__init__(source, wanted, head)
        self.about = {**self.about, "text": dialect.described}
        self._look_at_the_rest()

    def _look_at_the_rest(self) -> None:
        """Says what stands beside the numbers of a text without a header."""
        if self.dialect.header:
            return
        used = {place.top for place in self.needed}
        others = [name for name in self.schema.names if name not in used]
        # A separator at the end of each line makes a column of nothing.
        others = [
            name
            for name in others
            if name != self.row_number and not pa.types.is_null(self.schema.field(name).type)
        ]
        if others and self.kind == NUMBERS:
            shown = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
            self._note(
                f"{self.path} has no header; read as {self.dialect.described}; the vectors are "
                f"{self.places[0].path} to {self.places[-1].path}, not {shown}"
            )
        if self.row_number is not None and self.row_number not in used:
            self._note(
                f"{self.path} has no header, and its first field counts the rows: it is not read "
                f"as a coordinate; --ids {self.row_number} names rows by it"
            )

    def _note(self, note: str) -> None:
        self.notes = [*self.notes, note]

    def _typed(self, first: pa.RecordBatch) -> pa.Schema:
        schema = first.schema
        for i, field in enumerate(schema):
            if pa.types.is_string(field.type):
                cells = [c.strip() for c in first.column(i)[:_LOOKED_AT].drop_null().to_pylist()]
                number = type_of_most([cell.replace(",", ".") for cell in cells])
                if number is not None:
                    schema, self._odd = schema.set(i, field.with_type(number)), True
        kept = [is_number(type_) or pa.types.is_null(type_) for type_ in schema.types]
        if not self.dialect.header and not all(kept):
            # Without names, the numbers between two texts belong together.
            ends = [-1, *(i for i, number in enumerate(kept) if not number), len(kept)]
            low, high = max(itertools.pairwise(ends), key=lambda pair: pair[1] - pair[0])
            kept = [low < i < high for i in range(len(kept))]
        return pa.schema(
            [
                field if number else pa.field(field.name, pa.string())
                for field, number in zip(schema, kept, strict=True)
            ]
        )

    def _carried_type(self, place: Place) -> pa.DataType:
        return pa.string()

    def _parsed(self, names: list[str] | None) -> Iterator[pa.RecordBatch]:
        if self._chosen is None:
            yield from self._read(names, {})
            return
        done = 0
        types = {place.top: type_ for place, type_ in self._chosen}
        if not self._odd:
            try:
                for batch in self._read(names, types):
                    yield batch
                    done += len(batch)
                return
            except pa.ArrowInvalid as error:
                if "conversion error" not in str(error):
                    raise
                self._odd = True
        # A cell that is no number makes its row a bad one: it is looked at as a text.
        types = {name: _TEXT_OF.get(type_, type_) for name, type_ in types.items()}
        vectors = [place.top for place in self.places] if self.kind == NUMBERS else []
        for batch in self._read(names, types):
            skipped, done = min(done, len(batch)), max(0, done - len(batch))
            batch = self._without_headers(batch.slice(skipped), vectors)
            for name in vectors:
                if self.dialect.decimal == "," and name in batch.schema.names:
                    plain = pc.replace_substring(batch.column(name), ",", ".")
                    batch = batch.set_column(batch.schema.names.index(name), name, plain)
            yield batch

    def _without_headers(self, batch: pa.RecordBatch, vectors: list[str]) -> pa.RecordBatch:
        """Without the first line where it comes again, as in files put together."""
        again = [pc.equal(batch.column(n), n) for n in vectors if n in batch.schema.names]
        if not self.dialect.header or not again:
            return batch
        return batch.filter(pc.invert(pc.fill_null(functools.reduce(pc.and_, again), False)))

    def _read(
        self, names: list[str] | None, types: dict[str, pa.DataType]
    ) -> Iterator[pa.RecordBatch]:
        dialect = self.dialect
        with (
            self._open() as file,
            pyarrow.csv.open_csv(
                _Rewritten(file, dialect) if dialect.runs or dialect.lists else file,
                pyarrow.csv.ReadOptions(
                    block_size=BLOCK_BYTES,
                    column_names=dialect.names,
                    skip_rows=dialect.comments,
                    skip_rows_after_names=int(dialect.header),
                ),
                pyarrow.csv.ParseOptions(
                    delimiter=dialect.separator,
                    quote_char='"' if dialect.quoted else False,
                    newlines_in_values=dialect.quoted and b'"' in self._head,
                ),
                pyarrow.csv.ConvertOptions(
                    include_columns=names,
                    column_types=types,
                    decimal_point=dialect.decimal,
                    null_values=NULLS,
                ),
            ) as batches,
        ):
            yield from batches


class _Rewritten(io.RawIOBase):
    """A text in which runs of spaces are one, and none is at either end of a line; or one with
    quotes around its lists."""

    def __init__(self, file: pa.NativeFile, dialect: Dialect):
        self._lines = map(dialect.rewritten, whole_lines(file))

    def read(self, size: int = -1) -> bytes:
        return next(filter(None, self._lines), b"")

    def readable(self) -> bool:
        return True
