"""The formats of what is written: suffixes, compression, which of them a pipe can take; and their
writers, on a file that appears whole, on an open stream, or into folders by cluster."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa

from dinkcli.assigning.layout import Layout, Rows, as_arrow
from dinkcli.data.atomic import atomic_path, by_suffix, check_target
from dinkcli.data.formats.types import is_bytes, is_text, seconds_of
from dinkcli.errors import OutputError, UsageError
from dinkcli.processes.group import World

_TEXT_CODECS = {".gz": "gzip", ".zst": "zstd"}
_ROW_GROUP_BYTES = 64 << 20
_ROW_GROUP_ROWS = 1 << 20
_FORMULA = r"^([=+\-@\t\r\n])"  # what a spreadsheet takes for the start of one


class Writer:
    """Takes rows in order; ``close`` completes what was written, and leaves the file open."""

    suffixes: tuple[str, ...] = ()  # of files; the first is what parts are named with
    text = False  # compressed as a whole by a second suffix; others compress their content, or not
    flat = False  # without lists, see ``Layout.schema``
    no_pipe = ""  # why it cannot be written to standard output

    def __init__(self, file: IO[bytes], layout: Layout, safe: bool = False):
        self.file, self.layout, self.schema = file, layout, layout.schema(self.flat)
        self.safe = safe
        self.begin()

    def begin(self) -> None: ...

    def write(self, rows: Rows) -> None:
        self.write_batch(self.layout.record_batch(rows, self.schema))

    def write_batch(self, batch: pa.RecordBatch) -> None: ...

    def close(self) -> None: ...

    def refuse_types(self, refused: Callable[[pa.DataType], bool], why: str) -> None:
        """Raises UsageError for the first column of the input that the format cannot hold."""
        for column in self.layout.carried:
            if refused(column.type):
                raise UsageError(f"column {column.name!r} of the input is {column.type}: {why}")


class ArrowFileWriter(Writer):
    """Can be mapped into memory: uncompressed, it is read without a copy."""

    suffixes: tuple[str, ...] = ("arrow", "feather")
    no_pipe = "an Arrow file is read from its end, which a pipe does not have"
    open = staticmethod(pa.ipc.new_file)

    def begin(self) -> None:
        self._arrow = self.open(self.file, self.schema)

    def write_batch(self, batch: pa.RecordBatch) -> None:
        self._arrow.write_batch(batch)

    def close(self) -> None:
        self._arrow.close()


class ArrowStreamWriter(ArrowFileWriter):
    """Can be read while it is written."""

    suffixes = ("arrows",)
    no_pipe = ""
    open = staticmethod(pa.ipc.new_stream)


class ParquetWriter(Writer):
    suffixes = ("parquet",)
    no_pipe = "a parquet file is read from its end, which a pipe does not have"

    def begin(self) -> None:
        import pyarrow.parquet as pq  # takes as long to load as a small file to write

        # Floats that never repeat gain nothing from a dictionary; everything else does.
        unique = ("row", "distance", "probabilities")
        dictionary = [name for name in self.schema.names if name not in unique]
        self._parquet = pq.ParquetWriter(
            self.file, self.schema, compression="zstd", use_dictionary=dictionary
        )
        self._pending: list[pa.RecordBatch] = []

    def write_batch(self, batch: pa.RecordBatch) -> None:
        self._pending.append(batch)
        n_bytes = sum(batch.nbytes for batch in self._pending)
        if n_bytes >= _ROW_GROUP_BYTES or sum(map(len, self._pending)) >= _ROW_GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        if self._pending:
            self._flush()
        self._parquet.close()

    def _flush(self) -> None:
        table = pa.Table.from_batches(self._pending, self.schema)
        self._parquet.write_table(table, row_group_size=max(1, len(table)))
        self._pending = []


class NpyWriter(Writer):
    """Labels (N,) int32, or probabilities (N, K) when soft. With more than that for each row, a
    structured array (N,) with one field for each column. Ids are left out."""

    suffixes = ("npy",)

    def begin(self) -> None:
        layout, file = self.layout, self.file
        others = [name for name in layout.carried.names if name != layout.id_name]
        if others:
            raise UsageError(
                f"`columns` {others[0]}: an npy file has no columns of the input; choose csv, "
                "jsonl, parquet or arrow"
            )
        if layout.n_rows is None and not file.seekable():
            raise UsageError(
                "npy names the number of rows before the first of them, and neither this input "
                "nor this output can be gone back to; write to a file (-o), or another format"
            )
        self._n_rows = 0
        self._start = file.tell() if file.seekable() else 0
        self._write_header(layout.n_rows or 0)

    def write(self, rows: Rows) -> None:
        values = self.layout.array(rows)
        self.file.write(np.ascontiguousarray(values).view(np.uint8).data)
        self._n_rows += len(rows)

    def close(self) -> None:
        if self._n_rows != self.layout.n_rows:
            self.file.seek(self._start)
            self._write_header(self._n_rows)  # of the same length: it is padded
            self.file.seek(0, io.SEEK_END)

    def _write_header(self, n_rows: int) -> None:
        kind = self.layout.array_type
        descr, shape = np.lib.format.dtype_to_descr(kind.base), (n_rows, *kind.shape)
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, header)


class CsvWriter(Writer):
    """``row,cluster`` or the id first; a list gives one column for each of its elements."""

    suffixes = ("csv",)
    text = flat = True

    def begin(self) -> None:
        import pyarrow.csv

        self.refuse_types(
            lambda type_: pa.types.is_nested(type_) or _is_binary(type_),
            "csv holds numbers and text; choose parquet, arrow, or for lists jsonl",
        )
        names = self.schema.names
        if self.safe:
            names = _defused(pa.array(names)).to_pylist()
        header = io.StringIO()  # pyarrow would put every name in quotes
        csv.writer(header, lineterminator="\n").writerow(names)
        self.file.write(header.getvalue().encode())
        types = [self._cells(pa.array([], type_)).type for type_ in self.schema.types]
        self._csv_schema = pa.schema(list(zip(names, types, strict=True)))
        options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed")
        self._csv = pyarrow.csv.CSVWriter(self.file, self._csv_schema, write_options=options)

    def write_batch(self, batch: pa.RecordBatch) -> None:
        columns = [self._cells(column) for column in batch.columns]
        self._csv.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._csv_schema))

    def _cells(self, column: pa.Array) -> pa.Array:
        """What goes to csv: seconds, and plain texts for views and dictionaries of them."""
        if pa.types.is_duration(column.type):
            return seconds_of(column)
        if not is_text(column.type):
            return column
        texts = column.cast(pa.string())
        return _defused(texts) if self.safe else texts

    def close(self) -> None:
        self._csv.close()


class JsonlWriter(Writer):
    """One object a row, lists as lists; what JSON cannot hold (NaN) becomes null."""

    suffixes = ("jsonl", "ndjson")
    text = True

    def begin(self) -> None:
        self.refuse_types(_is_binary, "JSON holds no bytes; choose parquet or arrow")
        keys = [json.dumps(name) + ":" for name in self.schema.names]
        self._keys = [("," if i else "{") + key for i, key in enumerate(keys)]

    def write_batch(self, batch: pa.RecordBatch) -> None:
        if not len(batch):
            return
        import pyarrow.compute as pc

        pieces: list[Any] = []
        for key, column in zip(self._keys, batch.columns, strict=True):
            pieces += [key, _json_texts(column)]
        lines = pc.binary_join_element_wise(*pieces, "}\n", "").cast(pa.large_string())
        _, offsets, text = lines.buffers()
        ends = memoryview(offsets).cast("q")
        first, last = ends[lines.offset], ends[lines.offset + len(lines)]
        self.file.write(memoryview(text)[first:last])


def _is_binary(type_: pa.DataType) -> bool:
    """Bytes of any representation."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return is_bytes(type_) or pa.types.is_binary_view(type_)


def _defused(texts: pa.Array) -> pa.Array:
    import pyarrow.compute as pc  # takes as long to load as a small file to write

    return pc.replace_substring_regex(texts, _FORMULA, r"'\1")


def _json_texts(column: pa.Array) -> pa.Array:
    """Each value as JSON. Numbers and lists of them by Arrow, without a loop over rows."""
    import pyarrow.compute as pc

    if pa.types.is_duration(column.type):
        column = seconds_of(column)
    type_ = column.type
    if pa.types.is_integer(type_):
        return pc.fill_null(column.cast(pa.string()), "null")
    if pa.types.is_floating(type_):
        column = column if pa.types.is_float64(type_) else column.cast(pa.float32())
        finite = pc.fill_null(pc.is_finite(column), False)
        return pc.if_else(finite, column.cast(pa.string()), "null")
    if pa.types.is_fixed_size_list(type_) and not column.null_count:
        texts = _json_texts(column.flatten())
        size = type_.list_size
        offsets = as_arrow(np.arange(0, size * len(column) + 1, size, dtype=np.int32))
        joined = pc.binary_join(pa.ListArray.from_arrays(offsets, texts), ",")
        return pc.binary_join_element_wise("[", joined, "]", "")
    if pa.types.is_temporal(type_):  # the text that Arrow writes to csv
        column = column.cast(pa.string())
    encode = json.JSONEncoder(ensure_ascii=False, default=str).encode
    return pa.array([encode(_without_nan(value)) for value in column.to_pylist()], pa.string())


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, list) else value


FORMATS: dict[str, type[Writer]] = {
    "csv": CsvWriter,
    "jsonl": JsonlWriter,
    "npy": NpyWriter,
    "parquet": ParquetWriter,
    "arrow": ArrowFileWriter,
    "arrows": ArrowStreamWriter,
}


@dataclass(frozen=True)
class Encoding:
    """A format with what is chosen about it."""

    format: str  # a key of ``FORMATS``
    compression: str = "none"  # or that of a text as a whole, "gzip" or "zstd"
    csv_safe: bool = False  # an apostrophe before texts that a spreadsheet would run as a formula


@dataclass(frozen=True)
class Output:
    """Where rows go."""

    path: str  # of a file, or of a folder
    encoding: Encoding
    rows_per_file: int | None = None  # of the parts; None for one file
    resume: bool = False  # go on with the parts that are missing
    shard: World | None = None  # write only the parts of this share
    stream: IO[bytes] | None = None  # to write to instead, such as standard output
    by_cluster: bool = False  # a folder with a folder of parquet for each cluster


def _without_codec(path: str) -> tuple[str, str]:
    """``path`` without the suffix of a compression, and that compression."""
    for end, codec in _TEXT_CODECS.items():
        if path.lower().endswith(end):
            return path[: -len(end)], codec
    return path, "none"


def names_a_file(path: str) -> bool:
    """Whether the suffix of ``path`` is that of a format."""
    suffixes = tuple(f".{s}" for each in FORMATS.values() for s in each.suffixes)
    return _without_codec(path)[0].lower().endswith(suffixes)


def encoding_of(
    path: str | None, format: str | None = None, *, csv_safe: bool = False, parts: bool = False
) -> Encoding:
    """How to write to ``path``, or to standard output without one; UsageError where that cannot be.

    The suffix chooses the format unless ``format`` does: csv on standard output, parquet for
    ``parts``, whose path is a folder.
    """
    codec = "none"
    if path is not None and not parts:
        path, codec = _without_codec(path)
        suffixes = {s: name for name, f in FORMATS.items() for s in f.suffixes}
        format = format or by_suffix(path, suffixes)
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


@contextmanager
def stream_writer(file: IO[bytes], layout: Layout, encoding: Encoding) -> Iterator[Writer]:
    """A writer on an open file, such as standard output."""
    sink: Any = file
    if encoding.compression != "none":
        sink = pa.CompressedOutputStream(file, encoding.compression)  # closes the file as well
    writer = FORMATS[encoding.format](sink, layout, encoding.csv_safe)
    yield writer
    writer.close()
    (file.flush if sink is file else sink.close)()


@contextmanager
def open_writer(path: str, layout: Layout, encoding: Encoding) -> Iterator[Writer]:
    """A writer whose file appears under ``path`` when the block ends well, or not at all."""
    with (
        atomic_path(path) as temporary,
        open(temporary, "w+b") as file,
        stream_writer(file, layout, encoding) as writer,
    ):
        try:
            yield writer
        except BaseException:
            # The file goes, but a parquet writer would complain about it when it is collected.
            with suppress(Exception):
                writer.close()
            raise


@contextmanager
def partition_writer(path: str, layout: Layout) -> Iterator[Writer]:
    """A writer whose folder, with a hive-style folder such as ``cluster=0`` for each cluster, so
    that DuckDB, Spark and pyarrow read only those that a query asks for, appears under ``path``
    when the block ends well, or not at all. Outliers are in ``cluster=-1``.
    """
    import pyarrow.dataset as ds  # loads pandas where that is installed

    if os.path.lexists(path):
        raise UsageError(f"{path}: is there already; name a folder that is not, or remove it first")
    check_target(path)
    try:
        parent = os.path.dirname(os.path.abspath(path))
        with tempfile.TemporaryDirectory(prefix=".dink.", dir=parent) as folder:
            # Arrow divides rows that it can ask for, so they wait in a file of their own.
            rows, clusters = os.path.join(folder, "rows"), os.path.join(folder, "clusters")
            spooled = Encoding("arrows")
            with open(rows, "wb") as file, stream_writer(file, layout, spooled) as writer:
                yield writer
            with pa.memory_map(rows) as source, pa.ipc.open_stream(source) as batches:
                kind = ds.partitioning(pa.schema([("cluster", pa.int32())]), flavor="hive")
                ds.write_dataset(
                    batches, clusters, format="parquet", partitioning=kind, max_partitions=1 << 20
                )
            os.makedirs(clusters, exist_ok=True)  # of no rows
            os.rename(clusters, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
