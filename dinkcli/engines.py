"""A model inside the engines that people have: Ray, Spark, DuckDB and polars.

Each worker loads the model once and is handed vectors as Arrow columns: lists of any float or
integer type, or whatever else ``dinkcli.assign`` takes. Labels are those of ``dink assign``; a row
without a usable vector, or an outlier, has the label -1.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dinkcli.api import assign, train
from dinkcli.models.file import load
from dinkcli.models.model import Model

if TYPE_CHECKING:
    import duckdb
    import polars


class ArrowAssigner:
    """Takes Arrow tables and adds the column of clusters; what Ray Data's ``map_batches`` wants
    with ``batch_format="pyarrow"``.

    Args:
        model: a model, or the path of one that every worker sees.
        column: the name of the column of vectors.
        name: the name of the column to add, int32.
        options: as for ``dinkcli.assign``, such as ``max_distance``.

    Raises:
        DinkError: no such model, or vectors of another dimension.
    """

    def __init__(
        self,
        model: Model | str | os.PathLike[str],
        column: str = "embedding",
        name: str = "cluster",
        **options: Any,
    ):
        self.model = model if isinstance(model, Model) else load(os.fspath(model))
        self.column = column
        self.name = name
        self.options = {"device": "cpu", "bad_rows": "label", **options}

    def __call__(self, table: pa.Table) -> pa.Table:
        """The table with the clusters of its rows."""
        return table.append_column(self.name, self.labels(table.column(self.column)))

    def labels(self, vectors: pa.Array | pa.ChunkedArray) -> pa.Array:
        """(B,) int32 clusters of a column of B vectors."""
        if len(vectors) == vectors.null_count:  # without a single one their dimension is unknown
            return pa.array([-1] * len(vectors), pa.int32())
        return pa.array(assign(self.model, vectors, **self.options), pa.int32())


def train_loop(config: dict[str, Any]) -> None:
    """What Ray's ``TorchTrainer`` runs in each worker: they train one model together, which the
    first of them saves.

    Args:
        config: ``inputs`` and ``output``, paths that every worker sees, ``n_clusters``, and other
            arguments of ``dinkcli.train``.
    """
    from dinkcli.processes.collective import join

    options = {name: value for name, value in config.items() if name != "output"}
    group = join(options.get("device", "auto"), on_loss=lambda reason: None)
    model = train(**options, group=group)
    if group.rank == 0:
        model.save(config["output"])


def map_in_arrow(
    path: str, column: str = "embedding", name: str = "cluster", **options: Any
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What Spark's ``DataFrame.mapInArrow`` takes; the schema of its result is that of the table
    with ``cluster int`` at the end.

    Args:
        path: of the model, where every worker sees it; each task loads it once.
        column, name, options: as for ``ArrowAssigner``.
    """

    def assign_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        assigner = ArrowAssigner(path, column, name, **options)
        for batch in batches:
            yield from assigner(pa.Table.from_batches([batch])).to_batches()

    return assign_batches


def register(
    connection: duckdb.DuckDBPyConnection,
    model: Model | str | os.PathLike[str],
    name: str = "dink_assign",
    **options: Any,
) -> None:
    """Gives a DuckDB connection the function ``dink_assign(DOUBLE[]) -> INTEGER``; it takes lists
    and arrays of any kind of float."""
    assigner = ArrowAssigner(model, **options)
    # Both as text, which DuckDB takes though its annotations name only its enumerations.
    kinds: dict[str, Any] = {"type": "arrow", "null_handling": "special"}
    connection.create_function(name, assigner.labels, ["DOUBLE[]"], "INTEGER", **kinds)


def polars_expression(
    model: Model | str | os.PathLike[str], column: str = "embedding", **options: Any
) -> polars.Expr:
    """An expression for polars: ``frame.with_columns(polars_expression(model))`` adds the column
    ``cluster``, in eager and lazy frames alike."""
    import polars

    assigner = ArrowAssigner(model, **options)
    expression = polars.col(column).map_batches(
        lambda vectors: polars.Series(assigner.labels(vectors.to_arrow())),
        return_dtype=polars.Int32,
    )
    return expression.alias(assigner.name)
