"""Opens inputs: every file is looked at before any row is read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

from dinkcli.data.base import ANY_COLUMNS, OPTIONS, Columns, Reader
from dinkcli.data.bits import BitsReader, look_packed
from dinkcli.data.dataset import STOP, DataSet
from dinkcli.data.files import HEAD_BYTES, Source
from dinkcli.data.formats import raw
from dinkcli.data.sources import sources
from dinkcli.errors import InputError, UsageError

if TYPE_CHECKING:
    from dinkcli.models.model import Model

_MOST_NOTES = 5


def open_data(inputs: Any, columns: Columns = ANY_COLUMNS, bad_rows: str = STOP) -> DataSet:
    """Opens and validates every input before any row is read; a data set stays as it is.

    Args:
        inputs: a path or paths of files, folders of them, patterns, URLs, or ``-`` for standard
            input; or what ``array.open_memory`` takes.
        columns: which to read from inputs that have columns.
        bad_rows: see ``DataSet``.

    Raises:
        UsageError: a path that does not exist, a column that is missing or ambiguous, unequal
            dimensions.
        InputError: content of no known format, a damaged file, no rows.
    """
    if isinstance(inputs, DataSet):
        return inputs
    if isinstance(inputs, (str, os.PathLike)):
        inputs = [inputs]
    if (
        isinstance(inputs, Sequence)
        and len(inputs)
        and all(isinstance(each, (str, os.PathLike)) for each in inputs)
    ):
        groups = _open_paths([os.fspath(path) for path in inputs], columns)
    else:
        from dinkcli.data.array import open_memory

        groups = [[open_memory(inputs, columns)]]
    return _joined(groups, columns, bad_rows)


def open_rows(
    inputs: Any,
    column: str | None = None,
    bad_rows: str = STOP,
    *,
    model: Model | None = None,
    **beside: Any,
) -> DataSet:
    """The inputs of a function, with what it was given of each row.

    Args:
        inputs, bad_rows: as for ``open_data``.
        column: of the vectors.
        model: whose rows they are to be: its columns are read where no others are named.
        beside: ``ids``, ``labels``, ``texts`` and ``sample_weight``, each None, the text of a
            column or a file (see ``columns_of``), a path, or N values in memory; and others that
            ``columns_of`` takes.

    Raises:
        DinkError: as ``open_data``; other numbers of values than of rows.
    """
    from dinkcli.data.sidefiles import PARAMETERS, attached, columns_of

    values = {name: beside.pop(name) for name in PARAMETERS if beside.get(name) is not None}
    for name in [name for name in values if isinstance(values[name], (str, os.PathLike))]:
        beside[name] = os.fspath(values.pop(name))
    columns = columns_of(column, **beside)
    if model is None:
        data = open_data(inputs, columns, bad_rows)
    else:
        data = model.rows_of(open_data(inputs, model.as_trained(columns), bad_rows))
    return attached(data, **values) if values else data


def _open_paths(paths: Sequence[str], columns: Columns) -> list[list[Reader]]:
    """The readers of each path."""
    if columns.files:
        from dinkcli.data.sidefiles import check_standard_input

        check_standard_input(columns, paths)
    groups: list[list[Reader]] = []
    names = columns
    for path in paths:
        groups.append([])
        for source in sources(path):
            reader = open_source(source, names)
            groups[-1].append(reader)
            if reader.feature_names and not names.features:
                # The columns of later inputs may stand in another order.
                found = tuple(reader.feature_names)
                names = replace(columns, features=found, features_of=reader.path)
    return groups


def _joined(groups: list[list[Reader]], columns: Columns, bad_rows: str) -> DataSet:
    """The readers of all inputs as one data set."""
    opened = [reader for group in groups for reader in group]
    if columns.bits:
        opened = [BitsReader(reader, columns.dim) for reader in opened]
    readers = [reader for reader in opened if reader.n_rows != 0]
    empty = [reader.path for reader in opened if reader.n_rows == 0]
    if not readers:
        data = DataSet(opened, columns)
        raise InputError(f"{data.name}: 0 rows of {data.n_features} features; nothing to do")
    _check_agreement(readers)
    own = {reader.own_id for reader in readers}
    if columns.id is None and len(own) == 1:
        columns = replace(columns, id=own.pop())
    notes = [note for reader in readers for note in reader.notes][:_MOST_NOTES]
    if not columns.bits and look_packed(readers[0]):
        notes.append(
            f"{readers[0].path} looks like packed bits (binary embeddings); --bits reads each bit "
            "as -1 or +1"
        )
    if empty:
        more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
        notes.append(f"without rows, left out: {', '.join(empty[:3])}{more}")
    parts = [sum(reader.n_rows != 0 for reader in group) for group in groups]
    taken = readers[0].carried.names
    beside = None
    if columns.files:
        from dinkcli.data.sidefiles import open_side_columns

        _check_one_meaning(columns, readers)
        columns, beside = open_side_columns(columns, [n for n in parts if n], taken)
        beside.check(readers, [reader.n_rows for reader in readers])
    data = DataSet(readers, columns, bad_rows, notes, beside=beside)
    if data.n_features == 0:
        raise InputError(f"{data.name}: rows of 0 features; nothing to do")
    return data


def _check_one_meaning(columns: Columns, readers: Sequence[Reader]) -> None:
    """Raises UsageError for the name of a file that is also that of a column."""
    for role, names in columns.files.items():
        for name, reader in product(names, readers):
            if name in getattr(reader, "column_names", ()):
                raise UsageError(
                    f"{OPTIONS[role]} {name}: is a file, and a column of {reader.path}; write "
                    f"./{name} for the file, {reader.path}:{name} for the column"
                )


def _check_agreement(readers: Sequence[Reader]) -> None:
    first = readers[0]
    for reader in readers[1:]:
        if reader.n_features != first.n_features:
            raise UsageError(
                f"{reader.path}: {reader.n_features} features per row, but {first.path} has "
                f"{first.n_features}; inputs of one run must agree"
            )
        if reader.carried.names != first.carried.names:
            raise InputError(
                f"{reader.path} and {first.path}: words name the rows of one of them alone; "
                "inputs of one run must agree"
            )
        for here, there in zip(reader.carried, first.carried, strict=True):
            if here.type != there.type:
                raise InputError(
                    f"{reader.path}: column {here.name!r} is {here.type}, but in {first.path} "
                    f"it is {there.type}; a column that travels along must have one type"
                )


def open_source(source: Source, columns: Columns = ANY_COLUMNS) -> Reader:
    """The reader of whatever is in ``source``."""
    head = source.head(HEAD_BYTES)
    if head.startswith(raw.NPY_MAGIC):  # what reads the rest takes a while to load
        return raw.open_npy(source, columns)
    from dinkcli.data.contents import open_contents

    return open_contents(source, columns, head)
