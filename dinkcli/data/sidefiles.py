"""One value for each row that lies beside the vectors: names, classes, texts, weights.

They come from files, or from memory, in the order of the rows. Shapes: N rows, B rows in a block.
"""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dinkcli.data.base import (
    NUMBERS,
    PARAMETERS,
    Block,
    Columns,
    Reader,
    and_more,
    total,
    usual_block_rows,
)
from dinkcli.data.derived import ColumnsFile
from dinkcli.data.files import is_remote, sources
from dinkcli.errors import DinkError, InputError, UsageError

if TYPE_CHECKING:
    from dinkcli.data.dataset import DataSet


def columns_of(column: str | None = None, lists_are_files: bool = True, **given: Any) -> Columns:
    """What to read, from what people say.

    ``given`` are fields of ``Columns``, and by parameter what has one value for each row: the name
    of a column of the inputs; or files FILE[:COLUMN], one for the rows of all inputs or one for
    each (what is there, or a URL, or ``-``, is a file; of a folder the name holds a slash); or what
    ``array.column_of`` takes, also in a list unless ``lists_are_files``.

    Raises:
        UsageError: several references, one of which is no file; or values of no such kind.
    """
    from dinkcli.data.array import column_of

    fields: dict[str, Any] = {}
    beside: dict[str, tuple[str, ...] | pa.ChunkedArray] = {}
    for role, parameter in PARAMETERS.items():
        values = given.pop(parameter, None)
        if isinstance(values, (str, os.PathLike)):
            values = [os.fspath(values)]
        elif values is not None and not lists_are_files:
            beside[role] = column_of(values, parameter)
            continue
        missing = [each for each in values or () if not names_file(each)]
        if missing and len(values) > 1:
            raise UsageError(f"`{parameter}` {missing[0]}: no such file")
        if missing:
            fields[role] = missing[0]
        elif values:
            beside[role] = tuple(values)
    return Columns(column, beside=beside, **fields, **given)


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


@dataclass
class SideColumn:
    """One value for each row. ``given`` are references, one for all rows or one for each INPUT;
    none for values in memory."""

    role: str  # a key of ``PARAMETERS``
    given: tuple[str, ...] = ()
    counts: list[int] = field(default_factory=list)  # of values, in each reference
    files: list[tuple[str, int]] = field(default_factory=list)  # that were read, and their values
    values: Any = None  # all of them; those of files are mapped from a temporary one
    name: str = ""  # of the column

    @property
    def parameter(self) -> str:
        return PARAMETERS[self.role]

    def check(self, inputs: Sequence[tuple[str, int | None]]) -> None:
        """Raises DinkError unless there is one file for all ``inputs`` (names, and numbers of rows
        where these are known) or one for each, with one value for each of their rows."""
        if len(self.counts) not in (1, len(inputs)):
            raise UsageError(
                f"`{self.parameter}` is given {len(self.given)} times for {len(inputs)} inputs: "
                "give one file for the rows of all of them, or one for each"
            )
        if len(self.counts) == 1:
            inputs = [(and_more(inputs[0][0], len(inputs)), total(rows for _, rows in inputs))]
        for number, (count, (name, n_rows)) in enumerate(zip(self.counts, inputs, strict=True)):
            if n_rows in (None, count):
                continue
            given = f" {self.given[number]}" if self.given else ""
            is_csv = split_reference(given)[0].lower().endswith((".csv", ".tsv"))
            hint = ""
            if count == n_rows + 1 and self.values[-1].as_py() in ("", None):
                hint = " (the last one is empty)"
            elif count == n_rows - 1 and is_csv:
                hint = f" (the first line, {self.name!r}, is read as the names of the columns)"
            error = InputError if self.given else UsageError
            values = f"{count} {self.role}{'s' * (count != 1)}"
            raise error(
                f"`{self.parameter}`{given}: {values} for the {n_rows} row{'s' * (n_rows != 1)} of "
                f"{name}; expected one for each row{hint}"
            )


@dataclass(frozen=True)
class SideColumns:
    """All that lies beside a data set."""

    all: Sequence[SideColumn] = ()  # one of each role
    parts: Sequence[int] = ()  # how many readers each INPUT of the command line stands for

    def of(self, role: str) -> SideColumn | None:
        return next((each for each in self.all if each.role == role), None)

    @property
    def columns(self) -> list[SideColumn]:
        """Those that travel along, one of each name."""
        return list({each.name: each for each in self.all if each.role not in NUMBERS}.values())

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([pa.field(each.name, each.values.type) for each in self.columns])

    @property
    def n_rows(self) -> float:
        """How many rows the shortest speaks of."""
        return min((len(each.values) for each in self.all), default=math.inf)

    def identity(self) -> list[list[Any]]:
        """What tells them from others, as plain JSON."""
        weights = [each for each in self.all if each.role in NUMBERS]
        return [[each.parameter, each.name, each.counts] for each in [*self.columns, *weights]]

    def check(self, readers: Sequence[Reader], counts: Sequence[int | None]) -> None:
        """Raises DinkError unless there is one value for each of the readers' ``counts`` rows."""
        inputs, first = [], 0
        for number in self.parts:
            rows = total(counts[first : first + number])
            inputs.append((and_more(readers[first].path, number), rows))
            first += number
        for each in self.all:
            each.check(inputs)

    def joined(self, block: Block) -> Block:
        """The block with their values for its rows."""
        values = [each.values.slice(block.start, len(block)) for each in self.columns]
        if not values:
            return block
        arrays, schema = [each.combine_chunks() for each in values], self.schema
        if block.carried is not None:
            arrays = [*block.carried.columns, *arrays]
            schema = pa.schema([*block.carried.schema, *schema])
        return replace(block, carried=pa.RecordBatch.from_arrays(arrays, schema=schema))


NOTHING_BESIDE = SideColumns()


def open_side_columns(
    columns: Columns, parts: Sequence[int], taken: Sequence[str]
) -> tuple[Columns, SideColumns]:
    """Reads what lies beside the inputs; the columns then have the names of what is there, which
    are not those of columns that travel along already (``taken``)."""
    sides = [_read(role, columns.beside[role]) for role in PARAMETERS if role in columns.beside]
    named: dict[str, SideColumn] = {}
    for side in sides:
        if side.role in NUMBERS:
            continue
        other = named.setdefault(side.name, side)
        if side.name in taken or other.given != side.given:
            whose = "an input" if other is side else f"`{other.parameter}`"
            raise UsageError(
                f"`{side.parameter}` {''.join(side.given[:1])}: its column {side.name!r} has the "
                f"name of one of {whose}; rename one of them"
            )
    fields: dict[str, Any] = {each.role: each.name for each in sides if each.role not in NUMBERS}
    return replace(columns, **fields), SideColumns(sides, parts)


def _read(role: str, given: tuple[str, ...] | pa.ChunkedArray) -> SideColumn:
    from dinkcli.data.formats.aside import values_of

    parameter = PARAMETERS[role]
    if isinstance(given, pa.ChunkedArray):
        return SideColumn(role, (), [len(given)], [(parameter, len(given))], given, role)
    side, type_ = SideColumn(role, given), None
    copy = ColumnsFile(f"copying `{parameter}` {given[0]}")
    for path, column in map(split_reference, given):
        try:
            opened = list(sources(path))
        except UsageError as error:
            raise UsageError(f"`{parameter}` {error}") from None
        side.counts.append(0)
        for source in opened:
            own_name, arrays = values_of(source, role, column, path)
            side.name = side.name or own_name or role
            count = 0
            for array in arrays:
                array = _as_type(array, type_, f"`{parameter}` {source.name}")
                type_ = array.type
                copy.add(pa.RecordBatch.from_arrays([array], [""]))
                count += len(array)
            side.files.append((source.name, count))
            side.counts[-1] += count
    if not sum(side.counts):
        raise InputError(f"`{parameter}` {given[0]}: nothing is in it, expected one {role} a row")
    side.values = copy.table().column(0)
    return side


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


def read_weights(data: DataSet, nonzero: bool = False) -> np.ndarray | None:
    """(N,) float64 weights of the rows of ``repeatable`` data; None without. A bad row's is 0 where
    it is none; ``nonzero`` as for ``DataSet.blocks``. Raises InputError or UsageError where that of
    a usable row is no number, not finite or negative."""
    if data.columns.weight is None and data.beside.of("weight") is None:
        return None
    weights, problems = _numbers("weight", data)
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any() and data.bad_rows != "stop":
        for block in data.whole.blocks(nonzero=nonzero):
            if block.bad is not None:
                rows = block.start + np.flatnonzero(block.bad)
                weights[rows[wrong[rows]]], wrong[rows] = 0, False
    if wrong.any():
        row = int(wrong.argmax())
        expected = "expected a finite number, not negative"
        problem = problems.get(row, f"is {weights[row]:g}, {expected}")
        many = f"; {wrong.sum()} rows have no usable weight" if wrong.sum() > 1 else ""
        raise _error("weight", data, row, f"{problem} (counting from 0{many})")
    return weights


def read_keep(data: DataSet) -> np.ndarray:
    """(N,) float64, what ``Columns.keep`` says of the rows of ``repeatable`` data; raises
    InputError for what is no number."""
    values, problems = _numbers("keep", data)
    for row, problem in problems.items():
        raise _error("keep", data, row, f"{problem} (counting from 0)")
    return values


def _numbers(role: str, data: DataSet) -> tuple[np.ndarray, dict[int, str]]:
    """(N,) float64, NaN where there is no number; and what stands there, by row, of the first such
    row of each batch."""
    side, name = data.beside.of(role), getattr(data.columns, role)
    blocks = (b for r in data.readers for b in r.blocks(usual_block_rows(r.n_features)))
    columns = (b.carried.column(name) for b in blocks if b.carried is not None)
    problems: dict[int, str] = {}
    parts, n_rows = [np.empty(0)], 0
    for values in columns if side is None else side.values.chunks:
        try:
            numbers = values.cast(pa.float64())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            numbers = pa.array(map(_number, values.to_pylist()), pa.float64())
        if numbers.null_count:
            row = int(numbers.is_null().to_numpy(zero_copy_only=False).argmax())
            value = values[row].as_py()
            told = f"holds {str(value)[:40]!r}, expected a number"
            problems[n_rows + row] = "is null" if value is None else told
        parts.append(numbers.to_numpy(zero_copy_only=False))
        n_rows += len(values)
    return np.concatenate(parts), problems


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _error(role: str, data: DataSet, row: int, problem: str) -> DinkError:
    """What is wrong with a value, with the file that it is from."""
    side = data.beside.of(role)
    error: type[DinkError] = InputError
    if side is None:
        files = [(reader.path, reader.n_rows or 0) for reader in data.readers]
        what = f"column {getattr(data.columns, role)!r}"
    else:
        files, what = side.files, f"the {role}"
        error = InputError if side.given else UsageError
    ends = np.cumsum([n_rows for _, n_rows in files])
    number = int(np.searchsorted(ends, row, "right"))
    path, n_rows = files[number]
    return error(f"{path}: row {row - ends[number] + n_rows}: {what} {problem}")
