"""Writers of assignments, chosen by the suffix of the output."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import IO

from dinkcli.atomic import atomic_path, check_target
from dinkcli.errors import UsageError
from dinkcli.writers.base import Layout, Writer
from dinkcli.writers.csv import CsvWriter
from dinkcli.writers.npy import NpyWriter
from dinkcli.writers.parquet import ParquetWriter

WRITERS: dict[str, Callable[[IO[bytes], Layout], Writer]] = {
    "csv": CsvWriter,
    "npy": NpyWriter,
    "parquet": ParquetWriter,
}


def format_of(path: str, formats: Collection[str] = tuple(WRITERS)) -> str:
    """The format that the suffix of ``path`` names, checked together with its folder.

    Raises:
        UsageError: an unknown suffix, or a place that cannot be written.
    """
    suffix = os.path.splitext(path)[1].removeprefix(".").lower()
    if suffix not in formats:
        found = f"suffix .{suffix}" if suffix else "no suffix"
        raise UsageError(f"{path}: {found}, expected one of .{', .'.join(formats)}")
    check_target(path)
    return suffix


@contextmanager
def open_writer(path: str, layout: Layout) -> Iterator[Writer]:
    """A writer whose file appears under ``path`` when the block ends well, or not at all."""
    make_writer = WRITERS[format_of(path)]
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        writer = make_writer(file, layout)
        yield writer
        writer.close()


@contextmanager
def stream_writer(file: IO[bytes], layout: Layout) -> Iterator[Writer]:
    """A CSV writer on an open stream such as standard output."""
    writer = CsvWriter(file, layout)
    yield writer
    writer.close()
    file.flush()
