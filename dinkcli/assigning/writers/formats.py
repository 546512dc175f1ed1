"""The formats of assignments: suffixes, compression, which of them a pipe can take; and writers of
them on a file that appears whole, or on an open stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import IO

import pyarrow as pa

from dinkcli.assigning.shards import Shard
from dinkcli.assigning.writers.base import Layout, Unclosed, Writer
from dinkcli.data.atomic import atomic_path, by_suffix
from dinkcli.errors import UsageError

_TEXT_CODECS = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True)
class Format:
    """One kind of output.

    Attributes:
        writer: module and class, loaded for the first writer: all of them take 80 ms.
        suffixes: of its files; the first is what parts are named with.
        text: compressed as a whole by a second suffix; others compress their content, or not.
        no_pipe: why it cannot be written to standard output.
    """

    writer: str
    suffixes: tuple[str, ...]
    text: bool = False
    no_pipe: str | None = None


FORMATS = {
    "csv": Format("text.CsvWriter", ("csv",), text=True),
    "jsonl": Format("text.JsonlWriter", ("jsonl", "ndjson"), text=True),
    "npy": Format("npy.NpyWriter", ("npy",)),
    "parquet": Format(
        "columnar.ParquetWriter",
        ("parquet",),
        no_pipe="a parquet file is read from its end, which a pipe does not have",
    ),
    "arrow": Format(
        "columnar.ArrowFileWriter",
        ("arrow", "feather"),
        no_pipe="an Arrow file is read from its end, which a pipe does not have",
    ),
    "arrows": Format("columnar.ArrowStreamWriter", ("arrows",)),
}


@dataclass(frozen=True)
class Encoding:
    """A format with what is chosen about it.

    Attributes:
        format: a key of ``FORMATS``.
        compression: of a text as a whole, "gzip" or "zstd", or "none".
        csv_safe: see ``CsvWriter``.
    """

    format: str
    compression: str = "none"
    csv_safe: bool = False

    @property
    def suffix(self) -> str:
        """Of the name of a file, without the first dot."""
        ends = {codec: end for end, codec in _TEXT_CODECS.items()}
        return FORMATS[self.format].suffixes[0] + ends.get(self.compression, "")

    def writer(self, file: IO[bytes], layout: Layout) -> Writer:
        """A writer on an open file, which stays open when the writer is closed."""
        module, name = FORMATS[self.format].writer.split(".")
        make = getattr(import_module(f"dinkcli.assigning.writers.{module}"), name)
        options = {"safe": True} if self.csv_safe else {}
        if self.compression == "none":
            return make(file, layout, **options)
        sink = pa.CompressedOutputStream(pa.PythonFile(Unclosed(file), "w"), self.compression)
        return _Closing(make(sink, layout, **options), sink)


class _Closing:
    """A writer with the stream that has to be closed after it."""

    def __init__(self, writer: Writer, stream: pa.NativeFile):
        self.write = writer.write
        self._writer, self._stream = writer, stream

    def close(self) -> None:
        self._writer.close()
        self._stream.close()


def names_a_file(path: str) -> bool:
    """Whether the suffix of ``path`` is that of a format."""
    path = path.lower()
    for end in _TEXT_CODECS:
        path = path.removesuffix(end)
    return path.endswith(tuple(f".{s}" for each in FORMATS.values() for s in each.suffixes))


def encoding_of(
    path: str | None,
    format: str | None = None,
    *,
    csv_safe: bool = False,
    parts: bool = False,
) -> Encoding:
    """How to write to ``path``, or to standard output without one.

    The suffix chooses the format unless ``format`` does: csv on standard output, parquet for
    ``parts``, whose path is a folder.

    Raises:
        UsageError: an unknown format or suffix, one of a compression that the format does not have,
            or a format that cannot be written to a pipe.
    """
    codec = "none"
    if path is not None and not parts:
        for end, name in _TEXT_CODECS.items():
            if path.lower().endswith(end):
                path, codec = path[: -len(end)], name
    if format is None and path is not None and not parts:
        format = by_suffix(path, {s: name for name, f in FORMATS.items() for s in f.suffixes})
    format = format or ("parquet" if parts else "csv")
    if format not in FORMATS:
        raise UsageError(f"`format` {format}: expected one of {', '.join(FORMATS)}")
    if codec != "none" and not FORMATS[format].text:
        raise UsageError(
            f"{path}: {format} is not compressed as a whole; leave the last suffix out"
        )
    no_pipe = FORMATS[format].no_pipe
    if path is None and no_pipe:
        others = ", ".join(name for name, other in FORMATS.items() if not other.no_pipe)
        raise UsageError(
            f"`format` {format} on standard output: {no_pipe}; write to a file with -o, or choose "
            f"one of {others}"
        )
    if csv_safe and format != "csv":
        raise UsageError(f"`csv_safe` is about csv, and the output is {format}; leave it out")
    return Encoding(format, codec, csv_safe)


@dataclass(frozen=True)
class Output:
    """Where rows go.

    Attributes:
        path: a file, or a folder for parts.
        encoding: how they are written.
        rows_per_file: of the parts, or None for one file.
        resume: go on with the parts that are missing.
        shard: write only the parts of this share.
        stream: an open file, such as standard output, to write to instead; ``path`` is its name.
        by_cluster: a folder with a folder of parquet for each cluster.
    """

    path: str
    encoding: Encoding
    rows_per_file: int | None = None
    resume: bool = False
    shard: Shard | None = None
    stream: IO[bytes] | None = None
    by_cluster: bool = False


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
