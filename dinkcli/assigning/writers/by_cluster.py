"""A folder with a folder for each cluster, hive style, so that DuckDB, Spark and pyarrow read only
the clusters that a query asks for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from dinkcli.assigning.writers.base import Layout, Rows
from dinkcli.errors import OutputError, UsageError

_COLUMN = "cluster"


class _Spool:
    """Rows on their way, in a file of their own: Arrow divides them, and wants to ask for them."""

    def __init__(self, path: str, layout: Layout):
        self._layout, self._schema = layout, layout.schema()
        self._writer = pa.ipc.new_stream(path, self._schema)

    def write(self, rows: Rows) -> None:
        self._writer.write_batch(self._layout.record_batch(rows, self._schema))

    def close(self) -> None:
        self._writer.close()


@contextmanager
def partition_writer(path: str, layout: Layout) -> Iterator[_Spool]:
    """A writer whose folder, of ``cluster=0`` and the like, appears under ``path`` when the block
    ends well, or not at all. Outliers are in ``cluster=-1``.

    Raises:
        UsageError: something is there already.
        OutputError: the operating system refused.
    """
    import pyarrow.dataset as ds  # loads pandas where that is installed

    if os.path.lexists(path):
        raise UsageError(f"{path}: is there already; name a folder that is not, or remove it first")
    parent = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(parent):
        raise UsageError(f"{path}: no such folder: {parent}; make it first")
    try:
        with tempfile.TemporaryDirectory(prefix=".dink.", dir=parent) as folder:
            rows, clusters = os.path.join(folder, "rows"), os.path.join(folder, "clusters")
            spool = _Spool(rows, layout)
            try:
                yield spool
            finally:
                spool.close()
            with pa.memory_map(rows) as source, pa.ipc.open_stream(source) as batches:
                kind = pa.schema([(_COLUMN, pa.int32())])
                ds.write_dataset(
                    batches,
                    clusters,
                    format="parquet",
                    partitioning=ds.partitioning(kind, flavor="hive"),
                    max_partitions=1 << 20,
                )
            os.makedirs(clusters, exist_ok=True)  # of no rows
            os.rename(clusters, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
