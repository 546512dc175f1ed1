"""Writers on a file that appears whole, and on an open stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from dinkcli.assigning.writers.base import Layout, Writer
from dinkcli.assigning.writers.formats import Encoding
from dinkcli.data.atomic import atomic_path


@contextmanager
def open_writer(path: str, layout: Layout, encoding: Encoding) -> Iterator[Writer]:
    """A writer whose file appears under ``path`` when the block ends well, or not at all."""
    with atomic_path(path) as temporary, open(temporary, "w+b") as file:
        writer = encoding.writer(file, layout)
        try:
            yield writer
        except BaseException:
            # The file goes, but a parquet writer would complain about it when it is collected.
            with suppress(Exception):
                writer.close()
            raise
        writer.close()


@contextmanager
def stream_writer(file: IO[bytes], layout: Layout, encoding: Encoding) -> Iterator[Writer]:
    """A writer on an open stream such as standard output."""
    writer = encoding.writer(file, layout)
    yield writer
    writer.close()
    file.flush()
