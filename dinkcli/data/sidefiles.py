"""Reads files beside the vectors into sidecars."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from dinkcli.data.base import NOTHING_CARRIED, Columns
from dinkcli.data.beside import ColumnsFile
from dinkcli.data.files import Stream
from dinkcli.data.formats.aside import values_of
from dinkcli.data.formats.columns import names_of
from dinkcli.data.formats.types import is_text
from dinkcli.data.sidecars import ROLES, Sidecar, Sidecars
from dinkcli.data.sources import is_remote, sources
from dinkcli.errors import InputError, UsageError


def check_standard_input(columns: Columns, paths: Sequence[str]) -> None:
    """Raises UsageError where it would be read for more than one thing."""
    given = [f"--{role}s" for role in ROLES for path in getattr(columns, f"{role}s") if path == "-"]
    if len(given) > 1 or (given and "-" in paths):
        raise UsageError(
            f"{given[-1]} -: standard input is read once, and it is something else already"
        )


def open_sidecars(
    columns: Columns, parts: Sequence[int], taken: Sequence[str]
) -> tuple[Columns, Sidecars]:
    """Reads the files that ``columns`` name; the columns then have the names of what they hold.

    Args:
        parts: see ``Sidecars``.
        taken: names of the columns of the inputs that travel along.

    Raises:
        DinkError: a file is missing or damaged, or does not say which column is meant.
    """
    found: dict[str, Sidecar] = {}
    names: dict[str, str] = {}
    for role in ROLES:
        given, option = getattr(columns, f"{role}s"), f"--{role}s"
        if not given:
            continue
        side = _read(role, option, given)
        other = found.get(side.name)
        if side.name in taken or (other is not None and other.given != side.given):
            whose = "an input" if other is None else other.option
            raise UsageError(
                f"{option} {given[0]}: its column {side.name!r} has the name of one of {whose}; "
                "rename one of them"
            )
        found[side.name], names[role] = side, side.name
    named: dict[str, Any] = {**names, **{f"{role}s": () for role in names}}
    return replace(columns, **named), Sidecars(tuple(found.values()), tuple(parts))


def _read(role: str, option: str, given: tuple[str, ...]) -> Sidecar:
    name, counts, read, stream = "", [], [], None

    def choose(schema: pa.Schema) -> str:
        return _chosen(schema, role, f"{option} {path}")

    copy = _Copy()
    for path, column in map(_split, given):
        counts.append(0)
        for source in _sources(option, path):
            read.append(source.name)
            stream = source.name if isinstance(source, Stream) else stream
            here, arrays = values_of(source, role, column, choose)
            name = name or here or role
            counts[-1] += sum(copy.add(array, f"{option} {source.name}") for array in arrays)
    if not sum(counts):
        raise InputError(f"{option} {given[0]}: nothing is in it, expected one {role} a row")
    return Sidecar(option, name, given, tuple(counts), tuple(read), stream, copy.end())


class _Copy:
    """Values of one type in a temporary file."""

    def __init__(self) -> None:
        self._schema = NOTHING_CARRIED
        self._file: Any = None

    def add(self, array: pa.Array, what: str) -> int:
        """Writes the values; returns how many they are.

        Raises:
            InputError: they have not the type of those before them.
            OutputError: the folder of temporary files is full.
        """
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        try:
            if self._file is None:
                self._schema = pa.schema([pa.field("", array.type)])
                self._file = ColumnsFile(self._schema, f"copying {what}")
            array = array.cast(self._schema.types[0])
            self._file.write_batch(pa.RecordBatch.from_arrays([array], schema=self._schema))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(
                f"{what}: values are {array.type}, and {self._schema.types[0]} before; write one "
                "type in all files"
            ) from error
        return len(array)

    def end(self) -> pa.ChunkedArray:
        """All values, mapped: the file has no name any more, and stays for as long as they do."""
        self._file.end()
        return self._file.table().column(0)


def _split(given: str) -> tuple[str, str | None]:
    """The file and the column of FILE:COLUMN."""
    path, colon, column = given.rpartition(":")
    if not colon or os.path.exists(given) or not path or not column:
        return given, None
    if is_remote(given) and (not is_remote(path) or "/" in column):
        return given, None
    return path, column


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
