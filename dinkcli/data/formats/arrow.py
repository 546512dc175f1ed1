"""Arrow IPC files (Feather version 2) and streams (what Hugging Face datasets keep on disk), and
Parquet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from dinkcli.data.base import ANY_COLUMNS, Columns, reading
from dinkcli.data.files import Source
from dinkcli.data.formats.table import Batches, TableReader, counted

_LARGE_BATCH = 64 << 20


class _ArrowReader(TableReader):
    """Arrow's own formats are memory as it is: a damaged offset would point anywhere."""

    def _validate(self, batch: pa.RecordBatch) -> None:
        batch.validate(full=True)


class ArrowFileReader(_ArrowReader):
    """One Arrow IPC file."""

    format = "arrow"

    def __init__(self, source: Source, wanted: Columns):
        self.source = source
        with reading(source.name, self.format), self._open() as file:
            found = pa.ipc.open_file(file)
            schema = found.schema
            # The lengths stand in the headers of the batches; mapped, only those are touched.
            self._lengths = [found.get_batch(i).num_rows for i in range(found.num_record_batches)]
        super().__init__(source, schema, sum(self._lengths), wanted)

    def _open(self) -> Any:
        path = self.source.path
        return self.source.open() if path is None else pa.memory_map(path)

    def _batches(self, rows: int, names: list[str], since: int = 0) -> Batches:
        fields = [self.schema.get_field_index(name) for name in names]
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        first = 0
        for index, length in enumerate(self._lengths):
            start = max(0, since - first) // rows * rows
            while start < length:
                # Mapped anew for each part, so that pages read before leave the process.
                with self._open() as file:
                    batch = pa.ipc.open_file(file, options=options).get_batch(index)
                    # A batch can be the whole file. Decompressed, it is in memory as a whole.
                    part = batch.nbytes
                    if _is_mapped(batch, file) and part > _LARGE_BATCH:
                        part = _LARGE_BATCH
                    size = max(rows, len(batch) * part // max(1, batch.nbytes) // rows * rows)
                    for offset in range(start, min(start + size, len(batch)), rows):
                        yield first + offset, batch.slice(offset, rows)
                start += size
                self.source.check_unchanged()
            first += length


def _is_mapped(batch: pa.RecordBatch, file: pa.NativeFile) -> bool:
    """Whether the batch lies in the mapped file rather than in memory of its own."""
    if not isinstance(file, pa.MemoryMappedFile):
        return False
    file.seek(0)
    whole = file.read_buffer(file.size())
    buffers = [b for column in batch.columns for b in column.buffers() if b is not None and b.size]
    return all(whole.address <= b.address < whole.address + whole.size for b in buffers)


class ArrowStreamReader(_ArrowReader):
    """An Arrow IPC stream, from a file or from a pipe."""

    format = "arrow stream"

    def __init__(self, source: Source, wanted: Columns):
        self.source = source
        self._stream: pa.RecordBatchReader | None = None
        self._peeked: list[pa.RecordBatch] = []
        n_rows = None
        with reading(source.name, self.format):
            if source.path is not None:
                # Mapped, counting rows touches only the headers of the batches.
                with pa.memory_map(source.path) as file, pa.ipc.open_stream(file) as stream:
                    schema = stream.schema
                    n_rows = sum(batch.num_rows for batch in stream)
            else:
                self._file: BinaryIO = source.open()
                self._stream = pa.ipc.open_stream(self._file)
                schema = self._stream.schema
        super().__init__(source, schema, n_rows, wanted)

    def _peek(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        """Batches of a pipe are kept for the one pass over it."""
        if self._stream is None:
            yield from super()._peek(names)
            return
        yield from list(self._peeked)
        with reading(self.path, self.format):
            for batch in self._stream:
                self._peeked.append(batch)
                yield batch

    def _all_batches(self, rows: int, names: list[str]) -> Iterator[pa.RecordBatch]:
        if self._stream is not None:
            while self._peeked:
                yield self._peeked.pop(0)
            yield from self._stream
            return
        with pa.OSFile(self.source.path) as file, pa.ipc.open_stream(file) as stream:
            yield from stream


class ParquetReader(TableReader):
    """One parquet file. Opened anew for each pass: there may be thousands of them."""

    format = "parquet"

    def __init__(self, source: Source, wanted: Columns = ANY_COLUMNS):
        self.source = source
        with reading(source.name, self.format), self._open() as file:
            self.metadata = file.metadata
            schema = file.schema_arrow
        super().__init__(source, schema, self.metadata.num_rows, wanted)

    def _open(self, **options: Any) -> pq.ParquetFile:
        # Without pre-buffering pages are read as they come; from afar, few large requests
        # matter more.
        path = self.source.path
        return pq.ParquetFile(
            self.source.open(exact=True) if path is None else path,
            pre_buffer=path is None,
            buffer_size=1 << 20,
            **options,
        )

    def _batches(self, rows: int, names: list[str], since: int = 0) -> Batches:
        with self._open(metadata=self.metadata) as file:
            if self.source.path is not None:
                since = since // rows * rows
                group, first = self._group_of(since)
                groups = list(range(group, file.num_row_groups))
                batches = file.iter_batches(rows, row_groups=groups, columns=names)
                yield from counted(_cut(batches, since - first, rows), since)
                return
            # Everything asked for at once is fetched at once: one row group at a time.
            group, first = self._group_of(since)
            for number in range(group, file.num_row_groups):
                yield from counted(
                    file.iter_batches(rows, row_groups=[number], columns=names), first
                )
                first += self.metadata.row_group(number).num_rows

    def _group_of(self, row: int) -> tuple[int, int]:
        """Number and first row of the row group that holds ``row``."""
        first = 0
        for number in range(self.metadata.num_row_groups):
            n_rows = self.metadata.row_group(number).num_rows
            if row < first + n_rows:
                return number, first
            first += n_rows
        return self.metadata.num_row_groups, first


def _cut(batches: Iterator[pa.RecordBatch], skipped: int, rows: int) -> Iterator[pa.RecordBatch]:
    """Batches of ``rows`` rows, without the first ``skipped`` rows of all."""
    held: list[pa.RecordBatch] = []
    n_held = 0
    for batch in batches:
        if skipped >= len(batch):
            skipped -= len(batch)
            continue
        batch, skipped = batch.slice(skipped), 0
        while n_held + len(batch) >= rows:
            wanted = rows - n_held
            yield _joined([*held, batch.slice(0, wanted)])
            batch, held, n_held = batch.slice(wanted), [], 0
        if len(batch):
            held.append(batch)
            n_held += len(batch)
    if held:
        yield _joined(held)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(batches) == 1:
        return batches[0]
    (joined,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return joined


READERS = {"parquet": ParquetReader, "arrow": ArrowFileReader, "arrow stream": ArrowStreamReader}
