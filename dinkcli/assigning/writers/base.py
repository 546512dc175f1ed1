"""What every writer of assignments offers, and the table that all of them share.

Shapes: B rows in a batch, K clusters, M = ``AssignOptions.top``.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa

from dinkcli.data.base import NOTHING_CARRIED
from dinkcli.data.formats.types import is_bytes
from dinkcli.errors import UsageError
from dinkcli.options import HARD, AssignOptions

_LISTS = ("clusters", "probabilities")


@dataclass(frozen=True)
class Layout:
    """What the output will hold, known before the first row.

    Attributes:
        n_rows: rows that will be written, or None where only the end of the input tells.
        n_clusters: K, the length of soft assignments.
        options: what is found out about each row.
        id_name: name of the id column; without one the row number is written as ``row``.
        carried: columns of the input that travel along, the id column among them.
        metadata: of the schema and of the columns about clusters: the model and its fingerprint.
        names: of the clusters, to be written in a column ``name``; outliers have an empty one.
        parents: (K,) int32 groups of the clusters, by the column that they are written to; outliers
            have -1.

    Raises:
        UsageError: two columns would have one name.
    """

    n_rows: int | None
    n_clusters: int
    options: AssignOptions = HARD
    id_name: str | None = None
    carried: pa.Schema = NOTHING_CARRIED
    metadata: dict[str, str] = field(default_factory=dict)
    names: tuple[str, ...] | None = None
    parents: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        twice = [name for name, count in Counter(self.schema().names).items() if count > 1]
        if twice:
            raise UsageError(
                f"column {twice[0]!r} of the input cannot travel along: the output has a column "
                "of that name itself; leave it out or rename it"
            )

    def with_rows(self, n_rows: int | None) -> Layout:
        """The same for another number of rows."""
        return replace(self, n_rows=n_rows)

    @property
    def n_probabilities(self) -> int:
        """Probabilities per row: K, M or 0."""
        return self.n_clusters if self.options.soft else self.options.top or 0

    def schema(self, flat: bool = False) -> pa.Schema:
        """Columns: id or row, cluster, name, levels, distance, clusters, probabilities, then those
        that travel along.

        ``flat`` gives each element of a list a column of its own, for formats without lists.
        """
        ids = self.carried.field(self.id_name) if self.id_name else _field("row", pa.int64())
        found = self._fields(flat)
        fields = [f.with_metadata(self.metadata) for f in found] if self.metadata else found
        others = [field for field in self.carried if field.name != self.id_name]
        return pa.schema([ids, *fields, *others], metadata=self.metadata or None)

    def _fields(self, flat: bool) -> list[pa.Field]:
        """What is found out about a row."""
        fields = [_field("cluster", pa.int32())]
        if self.names is not None:
            fields.append(_field("name", pa.string()))
        fields += [_field(name, pa.int32()) for name in self.parents]
        if self.options.distance:
            fields.append(_field("distance", pa.float32()))
        kind = pa.float16() if self.options.probability_type == "float16" else pa.float32()
        if self.options.top is not None:
            fields += self._many("clusters", pa.int32(), flat)
        if self.n_probabilities:
            fields += self._many("probabilities", kind, flat)
        return fields

    def _many(self, name: str, type_: pa.DataType, flat: bool) -> list[pa.Field]:
        if not flat:
            element = pa.field("element", type_, nullable=False)
            return [_field(name, pa.list_(element, self.n_probabilities))]
        # Soft assignments are numbered by cluster, from 0; the best M by rank, from 1.
        first = 0 if self.options.soft else 1
        single = {"clusters": "cluster", "probabilities": "probability"}[name]
        numbers = range(first, first + self.n_probabilities)
        return [_field(f"{single}_{j}", type_) for j in numbers]

    def record_batch(self, rows: Any, schema: pa.Schema) -> pa.RecordBatch:
        """``rows`` (``Assignments``) as a record batch of ``schema``."""
        named: dict[str | None, Any] = {}
        if rows.carried is not None:
            named |= zip(rows.carried.schema.names, rows.carried.columns, strict=True)
        ids = named.pop(self.id_name, self._numbers(rows))
        columns = [ids, *self._columns(rows, schema), *named.values()]
        arrays = [c if isinstance(c, pa.Array) else as_arrow(c) for c in columns]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _numbers(self, rows: Any) -> np.ndarray:
        """What stands for rows without an id."""
        return rows.rows

    def _columns(self, rows: Any, schema: pa.Schema) -> list[Any]:
        """The values of ``_fields``."""
        columns: list[Any] = [rows.labels]
        if self.names is not None:
            # The label -1 takes the last one.
            columns.append(
                pa.array([*self.names, ""]).take(as_arrow(rows.labels % (len(self.names) + 1)))
            )
        columns += self._above(rows.labels).values()
        if rows.distances is not None:
            columns.append(rows.distances)
        for name, values in zip(_LISTS, (rows.clusters, rows.probabilities), strict=True):
            if values is None:
                continue
            if name in schema.names:
                type_, flat = schema.field(name).type, as_arrow(values.reshape(-1))
                columns.append(pa.FixedSizeListArray.from_arrays(flat, type=type_))
            else:
                columns += list(values.T)
        return columns

    def _above(self, labels: np.ndarray) -> dict[str, np.ndarray]:
        """(B,) int32 groups of each level; the label -1 takes the last one."""
        return {
            name: np.append(group, np.int32(-1))[labels] for name, group in self.parents.items()
        }

    @property
    def array_type(self) -> np.dtype:
        """Of one row in an array. Outliers show in the labels only, so that soft assignments keep
        them then."""
        options = self.options
        kind = {"float32": "<f4", "float16": "<f2"}[options.probability_type]
        plain = not (options.distance or options.top or self.names is not None or self.parents)
        if plain and not (options.soft and options.marks_outliers):
            return np.dtype(kind if options.soft else "<i4")
        fields: list[tuple] = [("cluster", "<i4")]
        if self.names is not None:
            fields.append(("name", f"<U{max(1, *map(len, self.names))}"))
        fields += [(name, "<i4") for name in self.parents]
        if options.distance:
            fields.append(("distance", "<f4"))
        if options.top:
            fields.append(("clusters", "<i4", (options.top,)))
        if self.n_probabilities:
            fields.append(("probabilities", kind, (self.n_probabilities,)))
        return np.dtype(fields)

    def array(self, rows: Any) -> np.ndarray:
        """``rows`` as an array of that type."""
        if not self.array_type.names:
            return rows.labels if rows.probabilities is None else rows.probabilities
        values = np.empty(len(rows), self.array_type)
        values["cluster"] = rows.labels
        if self.names is not None:
            values["name"] = np.array([*self.names, ""])[rows.labels]
        for name, group in self._above(rows.labels).items():
            values[name] = group
        for name in ("distance", *_LISTS):
            if name in values.dtype.fields:
                values[name] = getattr(rows, "distances" if name == "distance" else name)
        return values


class Rows(Protocol):
    """What a writer is given: assignments, or what else a layout knows to make a table of.

    Attributes:
        rows: (B,) int64, numbers of the rows, ascending where parts are written.
    """

    @property
    def rows(self) -> np.ndarray: ...

    def __len__(self) -> int: ...

    def __getitem__(self, where: slice) -> Any: ...


def as_arrow(values: np.ndarray) -> pa.Array:
    """Numbers (B,) without nulls. ``pa.array`` would load pandas where that is installed, which
    takes longer than all of a small run."""
    values = np.ascontiguousarray(values)
    type_ = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(type_, len(values), [None, pa.py_buffer(values)])


def rows_at(values: Any, where: slice | np.ndarray) -> Any:
    """The rows of an array or a record batch in a slice, without a copy, or at positions; None
    stays."""
    if isinstance(values, pa.RecordBatch) and isinstance(where, np.ndarray):
        return values.take(as_arrow(where))
    return None if values is None else values[where]


class Writer(Protocol):
    """Takes rows in order; ``close`` completes what was written."""

    def write(self, rows: Rows) -> None: ...

    def close(self) -> None: ...


def _field(name: str, type_: pa.DataType) -> pa.Field:
    return pa.field(name, type_, nullable=False)


def is_binary(type_: pa.DataType) -> bool:
    """Bytes of any representation."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return is_bytes(type_) or pa.types.is_binary_view(type_)


def refuse_types(layout: Layout, refused: Callable[[pa.DataType], bool], why: str) -> None:
    """Raises UsageError for the first column of the input that a format cannot hold."""
    for name, type_ in zip(layout.carried.names, layout.carried.types, strict=True):
        if refused(type_):
            raise UsageError(f"column {name!r} of the input is {type_}: {why}")


class Unclosed(io.RawIOBase):
    """Passes writes on to a file that outlives whoever closes this."""

    def __init__(self, file: IO[bytes]):
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._file.write(data)
