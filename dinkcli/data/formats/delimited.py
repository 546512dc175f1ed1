"""csv and its relatives: fields between commas, tabs, semicolons, pipes or spaces."""

from __future__ import annotations

import functools
import io
import itertools
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from dinkcli.data.base import Columns
from dinkcli.data.files import Source
from dinkcli.data.formats.columns import NUMBERS, Place
from dinkcli.data.formats.dialect import Dialect
from dinkcli.data.formats.numerals import NULLS, type_of_most
from dinkcli.data.formats.text import BLOCK_BYTES, TextReader, whole_lines
from dinkcli.data.formats.types import is_number
from dinkcli.errors import UsageError

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
