"""One value for each row that lies beside the vectors: names, classes, texts, weights.

They come from files, or from memory, in the order of the rows. All but weights travel along with
the rows as a column of the inputs does. Shapes: N rows, B rows in a block.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dinkcli.data.base import OPTIONS, Block, Columns, Reader, and_more, total
from dinkcli.data.files import Stream, is_remote, sources
from dinkcli.errors import InputError, UsageError

if TYPE_CHECKING:
    from dinkcli.data.dataset import DataSet

References = str | Sequence[str] | None
WEIGHT = "weight"
PARAMETERS = {"texts": "text", "labels": "label", "ids": "id", "sample_weight": WEIGHT}


def columns_of(
    column: str | None = None,
    *,
    ids: References = None,
    labels: References = None,
    texts: References = None,
    sample_weight: References = None,
    **fields: Any,
) -> Columns:
    """What to read, from references as people write them.

    Args:
        column: that of the vectors.
        ids, labels, texts, sample_weight: what has one value for each row: the name of a column of
            the inputs, or files FILE[:COLUMN], one for the rows of all inputs or one for each. What
            is there (or a URL, or ``-``) is a file, and of a folder the name ends with a slash or
            holds one.
        fields: others of ``Columns``.

    Raises:
        UsageError: several references, one of which is no file.
    """
    given = {"id": ids, "label": labels, "text": texts, WEIGHT: sample_weight}
    for role, references in given.items():
        many = (references,) if isinstance(references, str) else tuple(references or ())
        missing = [each for each in many if not names_file(each)]
        if not missing:
            if many:
                fields["files"] = {**fields.get("files", {}), role: many}
        elif len(many) == 1:
            fields[role] = many[0]
        else:
            raise UsageError(f"{OPTIONS[role]} {missing[0]}: no such file")
    return Columns(column, **fields)


def names_file(reference: str) -> bool:
    """Whether a reference is to a file rather than to a column."""
    path, _ = split_reference(reference)
    if path == "-" or is_remote(path):
        return True
    return (os.path.exists(path) and not (os.path.isdir(path) and "/" not in path)) or bool(
        glob.has_magic(path) and glob.glob(path, recursive=True)
    )


def split_reference(reference: str) -> tuple[str, str | None]:
    """The file and the column of FILE:COLUMN."""
    path, colon, column = reference.rpartition(":")
    if not colon or os.path.exists(reference) or not path or not column:
        return reference, None
    if is_remote(reference) and (not is_remote(path) or "/" in column):
        return reference, None
    return path, column


@dataclass(frozen=True)
class SideColumn:
    """One value for each row.

    Attributes:
        role: "id", "label", "text" or "weight".
        name: of the column.
        given: the references, one for all rows or one for each INPUT.
        counts: values in each of them.
        files: the files that were read, with the number of values in each.
        stream: the one of them that can be read only once, if there is one.
        values: all of them, mapped from a temporary file.
    """

    role: str
    name: str
    given: tuple[str, ...]
    counts: tuple[int, ...]
    files: tuple[tuple[str, int], ...]
    stream: str | None
    values: pa.ChunkedArray

    def check(self, inputs: Sequence[tuple[str, int | None]]) -> None:
        """Compares the numbers of values with those of rows.

        Args:
            inputs: what each INPUT of the command line is called, and its rows as far as they are
                known.

        Raises:
            UsageError: neither one file nor one for each input.
            InputError: other numbers.
        """
        option = OPTIONS[self.role]
        if len(self.given) not in (1, len(inputs)):
            raise UsageError(
                f"{option} is given {len(self.given)} times for {len(inputs)} inputs: give "
                "one file for the rows of all of them, or one for each"
            )
        if len(self.given) == 1:
            inputs = [(and_more(inputs[0][0], len(inputs)), total(rows for _, rows in inputs))]
        for given, count, (name, n_rows) in zip(self.given, self.counts, inputs, strict=True):
            if n_rows is not None and n_rows != count:
                raise InputError(
                    f"{option} {given}: {_many(count, self.role)} for the {_many(n_rows, 'row')} "
                    f"of {name}; expected one for each row{self._hint(count - n_rows)}"
                )

    def _hint(self, more: int) -> str:
        if more == 1 and self.values[-1].as_py() in ("", None):
            return " (the last one is empty)"
        if more == -1 and self.files and self.files[0][0].lower().endswith((".csv", ".tsv")):
            return f" (the first line, {self.name!r}, is read as the names of the columns)"
        return ""


@dataclass(frozen=True)
class SideColumns:
    """All that lies beside a data set.

    Attributes:
        columns: one of each name.
        parts: how many of the readers each INPUT of the command line stands for.
        weights: those of the rows.
    """

    columns: tuple[SideColumn, ...]
    parts: tuple[int, ...]
    weights: SideColumn | None = None

    @property
    def all(self) -> tuple[SideColumn, ...]:
        return self.columns if self.weights is None else (*self.columns, self.weights)

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([pa.field(each.name, each.values.type) for each in self.columns])

    @property
    def paths(self) -> list[str]:
        return [path for each in self.all for path, _ in each.files]

    @property
    def stream(self) -> str | None:
        """One that can be read only once, if there is one."""
        return next((each.stream for each in self.all if each.stream), None)

    @property
    def n_rows(self) -> int:
        """How many rows the shortest speaks of."""
        return min(sum(each.counts) for each in self.all)

    def identity(self) -> list[list[Any]]:
        """What tells them from others, as plain JSON."""
        return [[OPTIONS[each.role], each.name, list(each.counts)] for each in self.all]

    def check(self, readers: Sequence[Reader], counts: Sequence[int | None]) -> None:
        """Raises DinkError unless there is one value for each row of the readers, of which there
        are ``counts``."""
        inputs, first = [], 0
        for number in self.parts:
            rows = total(counts[first : first + number])
            inputs.append((and_more(readers[first].path, number), rows))
            first += number
        for each in self.all:
            each.check(inputs)

    def joined(self, block: Block) -> Block:
        """The block with their values for its rows."""
        if not self.columns:
            return block
        old = block.carried
        arrays, fields = ([], []) if old is None else (old.columns, list(old.schema))
        parts = [each.values.slice(block.start, len(block)) for each in self.columns]
        arrays = [*arrays, *(part.combine_chunks() for part in parts)]
        schema = pa.schema([*fields, *self.schema])
        return replace(block, carried=pa.RecordBatch.from_arrays(arrays, schema=schema))


def open_side_columns(
    columns: Columns, parts: Sequence[int], taken: Sequence[str]
) -> tuple[Columns, SideColumns]:
    """Reads the files that ``columns`` name; the columns then have the names of what they hold.

    Args:
        parts: see ``SideColumns``.
        taken: names of the columns of the inputs that travel along.

    Raises:
        DinkError: a file is missing or damaged, or does not say which column is meant.
    """
    found: dict[str, SideColumn] = {}
    named: dict[str, Any] = {}
    weights = None
    for role, given in ((role, columns.files[role]) for role in OPTIONS if role in columns.files):
        side = _read(role, given)
        if role == WEIGHT:
            weights = side
            continue
        other = found.get(side.name)
        if side.name in taken or (other is not None and other.given != side.given):
            whose = "an input" if other is None else OPTIONS[other.role]
            raise UsageError(
                f"{OPTIONS[role]} {given[0]}: its column {side.name!r} has the name of one of "
                f"{whose}; rename one of them"
            )
        found[side.name] = side
        named[role] = side.name
    return replace(columns, **named), SideColumns(tuple(found.values()), tuple(parts), weights)


def check_standard_input(columns: Columns, paths: Sequence[str]) -> None:
    """Raises UsageError where it would be read for more than one thing."""
    given = [
        OPTIONS[role] for role, paths in columns.files.items() for path in paths if path == "-"
    ]
    if len(given) > 1 or (given and "-" in paths):
        raise UsageError(
            f"{given[-1]} -: standard input is read once, and it is something else already"
        )


def attached(data: DataSet, **values: Any) -> DataSet:
    """The data set with values from memory in the place of files.

    Args:
        values: ``ids``, ``labels``, ``texts`` or ``sample_weight``: what ``array.column_of`` takes.

    Raises:
        InputError, UsageError: other numbers of them than of rows.
    """
    from dinkcli.data.array import column_of

    found: list[SideColumn] = []
    named: dict[str, Any] = {}
    for parameter, role in PARAMETERS.items():
        if parameter in values:
            column = column_of(values[parameter], parameter)
            found.append(SideColumn(role, role, (parameter,), (len(column),), (), None, column))
            if role != WEIGHT:
                named[role] = role
    weights = found.pop() if found and found[-1].role == WEIGHT else None
    beside = SideColumns(tuple(found), (len(data.readers),), weights)
    beside.check(data.readers, [reader.n_rows for reader in data.readers])
    return replace(data, columns=replace(data.columns, **named), beside=beside)


def _read(role: str, given: tuple[str, ...]) -> SideColumn:
    from dinkcli.data.formats.aside import values_of
    from dinkcli.data.spool import ColumnsFile

    option, name = OPTIONS[role], ""
    counts: list[int] = []
    files: list[tuple[str, int]] = []
    stream = None
    copy = ColumnsFile(f"copying {option} {given[0]}")
    type_: pa.DataType | None = None

    def choose(schema: pa.Schema) -> str:
        return _chosen(schema, role, f"{option} {path}")

    for path, column in map(split_reference, given):
        counts.append(0)
        for source in _sources(option, path):
            stream = source.name if isinstance(source, Stream) else stream
            own_name, arrays = values_of(source, role, column, choose)
            name = name or own_name or role
            files.append((source.name, 0))
            for array in arrays:
                array = _as_type(array, type_, f"{option} {source.name}")
                type_ = array.type
                copy.add(pa.RecordBatch.from_arrays([array], [""]))
                files[-1] = (source.name, files[-1][1] + len(array))
            counts[-1] += files[-1][1]
    if not sum(counts):
        raise InputError(f"{option} {given[0]}: nothing is in it, expected one {role} a row")
    return SideColumn(
        role, name, given, tuple(counts), tuple(files), stream, copy.table().column(0)
    )


def _as_type(values: pa.Array, type_: pa.DataType | None, what: str) -> pa.Array:
    """Values of the type of those before them."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    try:
        return values if type_ is None else values.cast(type_)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"{what}: values are {values.type}, and {type_} before; write one type in all files"
        ) from error


def _sources(option: str, path: str) -> list[Any]:
    try:
        return list(sources(path))
    except UsageError as error:
        raise UsageError(f"{option} {error}") from None


def _chosen(schema: pa.Schema, role: str, what: str) -> str:
    """The only column, or the one that is called as it is meant, or the only one of texts.

    Raises:
        UsageError: none or several could be meant.
    """
    from dinkcli.data.formats.columns import names_of
    from dinkcli.data.formats.types import is_text

    names = schema.names
    texts = [field.name for field in schema if is_text(field.type)]
    for candidates in (names, [role] if role in names else [], texts if role == "text" else []):
        if len(candidates) == 1:
            return str(candidates[0])
    example = (texts or names or ["COLUMN"])[0]
    raise UsageError(
        f"{what}: {len(names)} columns, {names_of(names)}; say which one holds the {role}s, as in "
        f"{what.partition(' ')[2]}:{example}"
    )


def _many(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)


@dataclass
class _Numbers:
    """Numbers of rows as they are read: NaN where there is none.

    Attributes:
        starts: number of the first row from each file, and the file's name.
        problems: what stands there in place of a number, by row; the first of each batch.
    """

    parts: list[np.ndarray] = field(default_factory=list)
    starts: list[tuple[int, str]] = field(default_factory=list)
    problems: dict[int, str] = field(default_factory=dict)
    n_rows: int = 0

    def add(self, values: pa.Array) -> None:
        try:
            numbers = values.cast(pa.float64())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            numbers = pa.array(map(_number, values.to_pylist()), pa.float64())
        if numbers.null_count:
            row = int(numbers.is_null().to_numpy(zero_copy_only=False).argmax())
            value = values[row].as_py()
            self.problems[self.n_rows + row] = (
                "is null" if value is None else f"holds {str(value)[:40]!r}, expected a number"
            )
        self.parts.append(numbers.to_numpy(zero_copy_only=False))
        self.n_rows += len(values)

    def place(self, row: int) -> str:
        """The file of a row, and its number there."""
        first, path = next(pair for pair in reversed(self.starts) if pair[0] <= row)
        return f"{path}: row {row - first}"

    def values(self) -> np.ndarray:
        return np.concatenate([np.empty(0), *self.parts])


def read_weights(data: DataSet, nonzero: bool = False) -> np.ndarray | None:
    """(N,) float64 weights of the rows, from a file or a column; None without. A bad row's is 0
    where it is none.

    Args:
        nonzero: see ``DataSet.blocks``.

    Raises:
        UsageError: no such column.
        InputError: the weight of a usable row is no number, not finite or negative.
    """
    side = None if data.beside is None else data.beside.weights
    if side is not None:
        found = _Numbers()
        first = 0
        for path, count in side.files or (("sample_weight", len(side.values)),):
            found.starts.append((first, path))
            for chunk in side.values.slice(first, count).chunks:
                found.add(chunk)
            first += count
        what = "the weight"
    elif data.columns.weight is not None:
        found = _column_numbers(data.columns.weight, data, OPTIONS[WEIGHT])
        what = f"column {data.columns.weight!r}"
    else:
        return None
    weights = found.values()
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any() and data.bad_rows != "stop":
        for block in data.whole.blocks(nonzero=nonzero):
            if block.bad is not None:
                rows = block.start + np.flatnonzero(block.bad)
                weights[rows[wrong[rows]]], wrong[rows] = 0, False
    if wrong.any():
        row = int(wrong.argmax())
        expected = "expected a finite number, not negative"
        problem = found.problems.get(row, f"is {weights[row]:g}, {expected}")
        number = int(wrong.sum())
        many = "" if number == 1 else f"; {number} rows have no usable weight"
        error = UsageError if side is not None and not side.files else InputError
        raise error(f"{found.place(row)}: {what} {problem} (counting from 0{many})")
    return weights


def read_numbers(name: str, data: DataSet, option: str) -> np.ndarray:
    """(N,) float64, a column of numbers that every input has.

    Raises:
        UsageError: no such column.
        InputError: a value that is no number.
    """
    found = _column_numbers(name, data, option)
    for row, problem in found.problems.items():
        raise InputError(f"{found.place(row)}: column {name!r} {problem} (counting from 0)")
    return found.values()


def _column_numbers(name: str, data: DataSet, option: str) -> _Numbers:
    found = _Numbers()
    for reader in data.readers:
        found.starts.append((found.n_rows, reader.path))
        for values in _column(name, reader, option):
            found.add(values)
    return found


def _column(name: str, reader: Reader, option: str) -> Iterator[pa.Array]:
    """The values of a column of one input, in batches."""
    from dinkcli.data.formats.table import TableReader
    from dinkcli.data.spool import CopyReader

    if isinstance(reader, CopyReader) and name not in reader.carried.names:
        reader = reader.origin
    if name in reader.carried.names:
        for block in reader.blocks(1 << 16):
            if block.carried is not None:
                yield block.carried.column(name)
    elif isinstance(reader, TableReader) and name in reader.column_names:
        yield from (values for _, values in reader.numbers(name))
    else:
        raise UsageError(f"{option} {name}: no such file, and no such column in {reader.path}")


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
