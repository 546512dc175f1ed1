"""One value for each row that lies beside the vectors: names, classes, texts, weights.

They come from files, or from memory, in the order of the rows. All but weights travel along with
the rows as a column of the inputs does. Shapes: N rows, B rows in a block.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dinkcli.data.base import PARAMETERS, Block, Columns, Reader, and_more, total
from dinkcli.data.files import Stream, is_remote, sources
from dinkcli.errors import InputError, UsageError

if TYPE_CHECKING:
    from dinkcli.data.dataset import DataSet

References = str | Sequence[str] | None
WEIGHT = "weight"
_ROWS = 1 << 16


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
    files: dict[str, tuple[str, ...]] = {}
    for role, references in given.items():
        many = (references,) if isinstance(references, str) else tuple(references or ())
        missing = [each for each in many if not names_file(each)]
        if len(many) == 1 and missing:
            fields[role] = many[0]
        elif missing:
            raise UsageError(f"`{PARAMETERS[role]}` {missing[0]}: no such file")
        elif many:
            files[role] = many
    return Columns(column, files=files, **fields)


def names_file(reference: str) -> bool:
    """Whether a reference is to a file rather than to a column."""
    path, _ = split_reference(reference)
    if path == "-" or is_remote(path):
        return True
    if os.path.exists(path):
        return not os.path.isdir(path) or "/" in path
    return glob.has_magic(path) and bool(glob.glob(path, recursive=True))


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
        values: all of them, mapped from a temporary file.
        stream: the file that can be read only once, if there is one.
    """

    role: str
    name: str
    given: tuple[str, ...]
    counts: tuple[int, ...]
    files: tuple[tuple[str, int], ...]
    values: pa.ChunkedArray
    stream: str | None = None

    def check(self, inputs: Sequence[tuple[str, int | None]]) -> None:
        """Raises DinkError unless there is one file for all ``inputs`` or one for each, and one
        value for each of their rows; inputs are their names and rows as far as these are known."""
        parameter = PARAMETERS[self.role]
        if len(self.given) not in (1, len(inputs)):
            raise UsageError(
                f"`{parameter}` is given {len(self.given)} times for {len(inputs)} inputs: give "
                "one file for the rows of all of them, or one for each"
            )
        if len(self.given) == 1:
            inputs = [(and_more(inputs[0][0], len(inputs)), total(rows for _, rows in inputs))]
        for given, count, (name, n_rows) in zip(self.given, self.counts, inputs, strict=True):
            if n_rows is None or n_rows == count:
                continue
            hint = ""
            if count == n_rows + 1 and self.values[-1].as_py() in ("", None):
                hint = " (the last one is empty)"
            elif count == n_rows - 1 and split_reference(given)[0].lower().endswith(
                (".csv", ".tsv")
            ):
                hint = f" (the first line, {self.name!r}, is read as the names of the columns)"
            in_memory = given == parameter
            where = f"`{parameter}`" + ("" if in_memory else f" {given}")
            raise (UsageError if in_memory else InputError)(
                f"{where}: {_many(count, self.role)} for the {_many(n_rows, 'row')} of "
                f"{name}; expected one for each row{hint}"
            )


@dataclass(frozen=True)
class SideColumns:
    """All that lies beside a data set.

    Attributes:
        columns: that travel along, one of each name.
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
    def stream(self) -> str | None:
        """A file that can be read only once, if there is one."""
        return next((each.stream for each in self.all if each.stream), None)

    @property
    def n_rows(self) -> int:
        """How many rows the shortest speaks of."""
        return min(sum(each.counts) for each in self.all)

    def identity(self) -> list[list[Any]]:
        """What tells them from others, as plain JSON."""
        return [[PARAMETERS[each.role], each.name, list(each.counts)] for each in self.all]

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
        parts = [each.values.slice(block.start, len(block)) for each in self.columns]
        arrays, schema = [part.combine_chunks() for part in parts], self.schema
        if block.carried is not None:
            arrays = [*block.carried.columns, *arrays]
            schema = pa.schema([*block.carried.schema, *schema])
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
    named: dict[str, SideColumn] = {}
    fields: dict[str, Any] = {}
    weights = None
    for role, parameter in PARAMETERS.items():
        if role not in columns.files:
            continue
        side = _read(role, columns.files[role])
        if role == WEIGHT:
            weights = side
            continue
        other = named.get(side.name)
        if side.name in taken or (other is not None and other.given != side.given):
            whose = "an input" if other is None else f"`{PARAMETERS[other.role]}`"
            raise UsageError(
                f"`{parameter}` {side.given[0]}: its column {side.name!r} has the name of one of "
                f"{whose}; rename one of them"
            )
        named[side.name] = side
        fields[role] = side.name
    return replace(columns, **fields), SideColumns(tuple(named.values()), tuple(parts), weights)


def check_standard_input(columns: Columns, paths: Sequence[str]) -> None:
    """Raises UsageError where it would be read for more than one thing."""
    roles = [role for role, files in columns.files.items() for path in files if path == "-"]
    if len(roles) > 1 or (roles and "-" in paths):
        raise UsageError(
            f"`{PARAMETERS[roles[-1]]}` -: standard input is read once, and it is something else "
            "already"
        )


def attached(data: DataSet, **values: Any) -> DataSet:
    """The data set with values from memory in the place of files.

    Args:
        values: ``ids``, ``labels``, ``texts`` or ``sample_weight``: what ``array.column_of`` takes.

    Raises:
        InputError, UsageError: other numbers of them than of rows.
    """
    from dinkcli.data.array import column_of

    sides: dict[str, SideColumn] = {}
    for role, parameter in PARAMETERS.items():
        if parameter in values:
            column = column_of(values[parameter], parameter)
            sides[role] = SideColumn(role, role, (parameter,), (len(column),), (), column)
    weights = sides.pop(WEIGHT, None)
    beside = SideColumns(tuple(sides.values()), (len(data.readers),), weights)
    beside.check(data.readers, [reader.n_rows for reader in data.readers])
    fields: dict[str, Any] = {role: role for role in sides}
    return replace(data, columns=replace(data.columns, **fields), beside=beside)


def _read(role: str, given: tuple[str, ...]) -> SideColumn:
    from dinkcli.data.derived import ColumnsFile
    from dinkcli.data.formats.aside import values_of

    parameter, name = PARAMETERS[role], ""
    counts: list[int] = []
    files: list[tuple[str, int]] = []
    stream = type_ = None
    copy = ColumnsFile(f"copying `{parameter}` {given[0]}")
    for path, column in map(split_reference, given):
        counts.append(0)
        try:
            opened = list(sources(path))
        except UsageError as error:
            raise UsageError(f"`{parameter}` {error}") from None
        for source in opened:
            stream = source.name if isinstance(source, Stream) else stream
            own_name, arrays = values_of(source, role, column, path)
            name = name or own_name or role
            count = 0
            for array in arrays:
                array = _as_type(array, type_, f"`{parameter}` {source.name}")
                type_ = array.type
                copy.add(pa.RecordBatch.from_arrays([array], [""]))
                count += len(array)
            files.append((source.name, count))
            counts[-1] += count
    if not sum(counts):
        raise InputError(f"`{parameter}` {given[0]}: nothing is in it, expected one {role} a row")
    values = copy.table().column(0)
    return SideColumn(role, name, given, tuple(counts), tuple(files), values, stream)


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


def _many(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)


def read_weights(data: DataSet, nonzero: bool = False) -> np.ndarray | None:
    """(N,) float64 weights of the rows, from a file or a column; None without. A bad row's is 0
    where it is none.

    Args:
        nonzero: see ``DataSet.blocks``.

    Raises:
        UsageError: no such column.
        InputError: the weight of a usable row is no number, not finite or negative.
    """
    side, name = None if data.beside is None else data.beside.weights, data.columns.weight
    if side is not None:
        numbers, what = _Numbers(_pieces(side)), "the weight"
    elif name is not None:
        numbers, what = _column_numbers(name, data, f"`{PARAMETERS[WEIGHT]}`"), f"column {name!r}"
    else:
        return None
    weights = numbers.values
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any() and data.bad_rows != "stop":
        for block in data.whole.blocks(nonzero=nonzero):
            if block.bad is not None:
                rows = block.start + np.flatnonzero(block.bad)
                weights[rows[wrong[rows]]], wrong[rows] = 0, False
    if wrong.any():
        row = int(wrong.argmax())
        expected = "expected a finite number, not negative"
        problem = numbers.problems.get(row, f"is {weights[row]:g}, {expected}")
        number = int(wrong.sum())
        many = "" if number == 1 else f"; {number} rows have no usable weight"
        error = UsageError if side is not None and not side.files else InputError
        raise error(f"{numbers.place(row)}: {what} {problem} (counting from 0{many})")
    return weights


def read_numbers(name: str, data: DataSet, who: str) -> np.ndarray:
    """(N,) float64, a column of numbers that every input has.

    Args:
        who: asks for it, as a message begins.

    Raises:
        UsageError: no such column.
        InputError: a value that is no number.
    """
    numbers = _column_numbers(name, data, who)
    for row, problem in numbers.problems.items():
        raise InputError(f"{numbers.place(row)}: column {name!r} {problem} (counting from 0)")
    return numbers.values


class _Numbers:
    """One number for each row.

    Args:
        pieces: files, and what is read from each.

    Attributes:
        values: (N,) float64, NaN where there is no number.
        problems: what stands there in place of a number, by row; the first of each batch.
    """

    def __init__(self, pieces: Iterable[tuple[str, Iterable[pa.Array]]]):
        self.problems: dict[int, str] = {}
        self._starts: list[tuple[int, str]] = []
        parts, n_rows = [np.empty(0)], 0
        for path, arrays in pieces:
            self._starts.append((n_rows, path))
            for values in arrays:
                try:
                    numbers = values.cast(pa.float64())
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                    numbers = pa.array(map(_number, values.to_pylist()), pa.float64())
                if numbers.null_count:
                    row = int(numbers.is_null().to_numpy(zero_copy_only=False).argmax())
                    value = values[row].as_py()
                    self.problems[n_rows + row] = (
                        "is null"
                        if value is None
                        else f"holds {str(value)[:40]!r}, expected a number"
                    )
                parts.append(numbers.to_numpy(zero_copy_only=False))
                n_rows += len(values)
        self.values = np.concatenate(parts)

    def place(self, row: int) -> str:
        """The file of a row, and its number there."""
        first, path = next(pair for pair in reversed(self._starts) if pair[0] <= row)
        return f"{path}: row {row - first}"


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _pieces(side: SideColumn) -> Iterator[tuple[str, list[pa.Array]]]:
    first = 0
    for path, count in side.files or ((PARAMETERS[side.role], len(side.values)),):
        yield path, side.values.slice(first, count).chunks
        first += count


def _column_numbers(name: str, data: DataSet, who: str) -> _Numbers:
    return _Numbers((reader.path, _column(name, reader, who)) for reader in data.readers)


def _column(name: str, reader: Reader, who: str) -> Iterator[pa.Array]:
    """The values of a column of one input, in batches."""
    from dinkcli.data.derived import CopyReader
    from dinkcli.data.formats.table import TableReader

    if isinstance(reader, CopyReader) and name not in reader.carried.names:
        reader = reader.origin
    if name in reader.carried.names:
        for block in reader.blocks(_ROWS):
            if block.carried is not None:
                yield block.carried.column(name)
    elif isinstance(reader, TableReader) and name in reader.column_names:
        yield from reader.numbers(name)
    else:
        raise UsageError(f"{who} {name}: no such file, and no such column in {reader.path}")
