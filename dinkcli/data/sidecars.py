"""Files beside the vectors: a text, an id or a label for each row, in the order of the rows.

What they say travels along with the rows as a column of the inputs does. Shapes: N rows, B rows in
a block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dinkcli.data.base import Block, Reader, and_more, total
from dinkcli.errors import InputError, UsageError

if TYPE_CHECKING:
    from dinkcli.data.dataset import DataSet

ROLES = ("text", "label", "id")  # in the order of columns that travel along


@dataclass(frozen=True)
class Sidecar:
    """One value for each row.

    Attributes:
        option: that named the files.
        name: of the column.
        given: what the command line named, one for all rows or one for each INPUT.
        counts: values in each of them.
        paths: the files that were read.
        stream: the one of them that can be read only once, if there is one.
        values: all of them, mapped from a temporary file.
    """

    option: str
    name: str
    given: tuple[str, ...]
    counts: tuple[int, ...]
    paths: tuple[str, ...]
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
        if len(self.given) not in (1, len(inputs)):
            raise UsageError(
                f"{self.option} is given {len(self.given)} times for {len(inputs)} inputs: give "
                "one file for the rows of all of them, or one for each"
            )
        if len(self.given) == 1:
            inputs = [(and_more(inputs[0][0], len(inputs)), total(rows for _, rows in inputs))]
        for given, count, (name, n_rows) in zip(self.given, self.counts, inputs, strict=True):
            if n_rows is not None and n_rows != count:
                what = _many(count, self.option.removeprefix("--").removesuffix("s"))
                raise InputError(
                    f"{self.option} {given}: {what} for the {_many(n_rows, 'row')} of {name}; "
                    f"expected one for each row{self._hint(count - n_rows)}"
                )

    def _hint(self, more: int) -> str:
        if more == 1 and self.values[-1].as_py() in ("", None):
            return " (the last one is empty)"
        if more == -1 and self.paths and self.paths[0].lower().endswith((".csv", ".tsv")):
            return f" (the first line, {self.name!r}, is read as the names of the columns)"
        return ""


@dataclass(frozen=True)
class Sidecars:
    """All files beside the vectors of a data set.

    Attributes:
        columns: one of each name.
        parts: how many of the readers each INPUT of the command line stands for.
    """

    columns: tuple[Sidecar, ...]
    parts: tuple[int, ...]

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([pa.field(each.name, each.values.type) for each in self.columns])

    @property
    def paths(self) -> list[str]:
        return [path for each in self.columns for path in each.paths]

    @property
    def stream(self) -> str | None:
        """One that can be read only once, if there is one."""
        return next((each.stream for each in self.columns if each.stream), None)

    @property
    def n_rows(self) -> int:
        """How many rows the shortest speaks of."""
        return min(sum(each.counts) for each in self.columns)

    def identity(self) -> list[list[Any]]:
        """What tells them from others, as plain JSON."""
        return [[each.option, each.name, list(each.counts)] for each in self.columns]

    def check(self, readers: Sequence[Reader], counts: Sequence[int | None]) -> None:
        """Raises DinkError unless there is one value for each row of the readers, of which there
        are ``counts``."""
        inputs, at = [], 0
        for number in self.parts:
            rows = total(counts[at : at + number])
            inputs.append((and_more(readers[at].path, number), rows))
            at += number
        for each in self.columns:
            each.check(inputs)

    def joined(self, block: Block) -> Block:
        """The block with their values for its rows."""
        old = block.carried
        arrays, fields = ([], []) if old is None else (old.columns, list(old.schema))
        parts = [each.values.slice(block.start, len(block)) for each in self.columns]
        arrays = [*arrays, *(part.combine_chunks() for part in parts)]
        schema = pa.schema([*fields, *self.schema])
        return replace(block, carried=pa.RecordBatch.from_arrays(arrays, schema=schema))


def attached(data: DataSet, **values: Any) -> DataSet:
    """The data set with values from memory in the place of files.

    Args:
        values: ``ids``, ``labels`` or ``texts``: (N,) arrays or sequences.

    Raises:
        InputError: other numbers of them than of rows.
    """
    named: dict[str, Any] = {}
    found = []
    for role in ROLES:
        if f"{role}s" in values:
            column = pa.chunked_array([pa.array(values[f"{role}s"])])
            given, named[role] = (f"{role}s",), role
            found.append(Sidecar(f"--{role}s", role, given, (len(column),), (), None, column))
    beside = Sidecars(tuple(found), (len(data.readers),))
    beside.check(data.readers, [reader.n_rows for reader in data.readers])
    return replace(data, columns=replace(data.columns, **named), beside=beside)


def _many(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)
