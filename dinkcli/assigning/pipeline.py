"""From inputs to an output: what is asked about each row, the columns that say it, and the run that
reads, assigns and writes in memory that stays flat.

Shapes: B rows in a block, K clusters.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from dinkcli.assigning.assigner import Assignments, assign, assigner_for
from dinkcli.assigning.layout import Layout, Rows, as_arrow, row_type, without_nulls
from dinkcli.assigning.parts import PartsWriter, open_output
from dinkcli.assigning.writers import Output
from dinkcli.data.dataset import LABEL, SKIP, DataSet
from dinkcli.models.matching import Matching, ids_of
from dinkcli.models.model import OUTLIER, Model
from dinkcli.models.statistics import VERY_FAR
from dinkcli.options import AssignOptions


@dataclass(frozen=True)
class Job:
    """A model, the data it is put to, and what is asked about each row.

    Attributes:
        model_name: what the output's metadata call the model.
        matching: ids of an older model for the clusters.
        by_cluster: what is written of the n_ids ids beside them, (n_ids,) int32 groups or strings,
            by column.
    """

    model: Model
    data: DataSet
    options: AssignOptions
    model_name: str = "model"
    matching: Matching | None = None
    by_cluster: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def temperature(self) -> float:
        """Of the probabilities."""
        given = self.options.temperature
        return self.model.temperature if given is None else given

    @property
    def n_ids(self) -> int:
        return ids_of(self.matching, self.model.n_clusters)[1]

    @property
    def reach(self) -> np.ndarray | None:
        """(n_ids,) the distance that 99 % of the rows of each cluster lay within so far."""
        statistics, owners = self.model.statistics, self.model.center_clusters
        if not self.options.distance or statistics is None:
            return None
        reach = np.zeros(self.n_ids)
        inside = owners != OUTLIER
        ids = ids_of(self.matching, self.model.n_clusters)[0][owners[inside]]
        np.maximum.at(reach, ids, np.sqrt(statistics.quantiles(VERY_FAR)[inside]))
        return reach

    @property
    def layout(self) -> Layout:
        metadata = metadata_of(self.model, self.model_name)
        if self.matching is not None:
            metadata["dink.match"] = self.matching.old.fingerprint
        return Layout(
            None if self.data.bad_rows == SKIP else self.data.n_rows,
            self._columns,
            self.data.columns.id,
            self.data.carried,
            metadata,
            self._row_type,
        )

    @property
    def _columns(self) -> pa.Schema:
        """What is written about each row."""
        options = self.options
        types: dict[str, pa.DataType] = {"cluster": pa.int32()}
        for name, values in self.by_cluster.items():
            types[name] = pa.string() if values.dtype.kind == "U" else pa.int32()
        if options.distance:
            types["distance"] = pa.float32()
        if options.top is not None:
            types["clusters"] = _list_of(pa.int32(), options.top)
        if options.soft or options.top is not None:
            kind = pa.float16() if options.probability_type == "float16" else pa.float32()
            types["probabilities"] = _list_of(kind, options.top or self.n_ids)
        return without_nulls(types)

    @property
    def _row_type(self) -> np.dtype:
        """Of a row in an array. Outliers show in the labels only, so that soft assignments keep
        them then."""
        texts = [each for each in self.by_cluster.values() if each.dtype.kind == "U"]
        kind = row_type(self._columns, max([1, *(each.itemsize // 4 for each in texts)]))
        alone = {"cluster"} if self.options.marks_outliers else {"cluster", "probabilities"}
        return kind[-1] if alone.issuperset(kind.names or ()) else kind

    def written(self, assigned: Assignments) -> Rows:
        """What is written of the rows that were assigned."""
        labels = assigned.labels
        columns = {
            "cluster": labels,
            "distance": assigned.distances,
            "clusters": assigned.clusters,
            "probabilities": assigned.probabilities,
        }
        # The label -1 takes the last one.
        for name, values in self.by_cluster.items():
            if values.dtype.kind == "U":
                at = as_arrow(labels % (len(values) + 1))
                columns[name] = pa.DictionaryArray.from_arrays(at, [*values.tolist(), ""])
            else:
                columns[name] = np.append(values, np.int32(-1))[labels]
        return Rows(assigned.rows, columns, assigned.carried)

    @property
    def countable_rows(self) -> int | None:
        """N, bad rows included, of inputs that can be read from where one likes."""
        return None if self.data.stream is not None else self.data.n_rows

    @property
    def identity(self) -> dict[str, Any]:
        """What the output depends on, as plain JSON: a run goes on only where it is the same."""
        return {
            "model": self.model.fingerprint,
            "match": None if self.matching is None else self.matching.old.fingerprint,
            "input": self.data.fingerprint(),
            "bad_rows": self.data.bad_rows,
            "columns": self.data.carried.names,
            "id_column": self.data.columns.id,
            **asdict(self.options),
            "temperature": self.temperature,
            **{name: values.tolist() for name, values in self.by_cluster.items()},
            **self.data.beside_identity(),
        }


@dataclass
class Counts:
    """What a run has assigned and written.

    Attributes:
        sizes: (n_ids,) int64, rows of each cluster.
        reach: (n_ids,) float64, the distance that 99 % of the rows of each cluster lay within so
            far; None where the model does not know it.
        rows: written.
        rows_before: written by earlier runs, of those that this one was to write.
        parts: complete parts in the folder (of the share), or None without parts.
        complete: no part is missing in the folder, or None without parts.
        outliers: rows with the label -1, bad ones not counted.
        bad: rows that were skipped or labelled -1 because they have no usable vector.
        certainty: sum of the probabilities that rows have of being in their own cluster.
        judged: rows of which it is the sum; 0 where probabilities were not asked for.
        distance: sum of the distances of the rows, as far as they were asked for.
        measured: rows of which it is the sum; 0 without.
        far: rows beyond the reach of their cluster.
    """

    sizes: np.ndarray
    reach: np.ndarray | None = None
    rows: int = 0
    rows_before: int = 0
    parts: int | None = None
    complete: bool | None = None
    outliers: int = 0
    bad: int = 0
    certainty: float = 0.0
    judged: int = 0
    distance: float = 0.0
    measured: int = 0
    far: int = 0

    def add(self, rows: Assignments) -> None:
        # One bin more in front takes the label -1.
        counts = np.bincount(rows.labels + 1, minlength=len(self.sizes) + 1)
        self.rows += len(rows)
        self.outliers += int(counts[0])
        self.sizes += counts[1:]
        if rows.own is not None:
            self.certainty += float(np.nansum(rows.own, dtype=np.float64))
            self.judged += int(np.isfinite(rows.own).sum())
        if rows.distances is not None:
            known = np.isfinite(rows.distances)
            self.distance += float(rows.distances[known].sum(dtype=np.float64))
            self.measured += int(known.sum())
            if self.reach is not None:
                # An outlier, of the label -1, is far from wherever it came.
                reach = np.append(self.reach, 0.0)[rows.labels]
                self.far += int((rows.distances > reach)[known].sum())


def run(
    job: Job,
    output: Output,
    device: str = "auto",
    on_rows: Callable[[int], None] = lambda done: None,
) -> Counts:
    """Assigns all rows of a job and writes those that are not there yet.

    Args:
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        on_rows: called with the number of rows written so far, those of earlier runs included.

    Raises:
        DinkError: see ``dinkcli.errors``; the output is then what it was, or has all parts that
            were complete.
    """
    counts = Counts(np.zeros(job.n_ids, np.int64), job.reach)
    local_rank = 0 if output.shard is None else output.shard.local_rank
    assigner = assigner_for(job.model, job.data, device, job.options, job.matching, local_rank)

    def count_bad(n_bad: int) -> None:
        counts.bad += n_bad

    missing: list[tuple[int, int | None]] = [(0, None)]
    with open_output(output, job.layout, job.identity, job.countable_rows) as writer:
        if isinstance(writer, PartsWriter):
            counts.rows_before, missing = writer.rows_before, writer.missing
        for first, stop in missing:
            data = job.data if stop is None else job.data.part(first, stop)
            for assigned in assign(assigner, data, first, count_bad):
                writer.write(job.written(assigned))
                counts.add(assigned)
                on_rows(counts.rows_before + counts.rows)
    if isinstance(writer, PartsWriter):
        counts.parts, counts.complete = writer.n_parts, writer.complete
    if job.data.bad_rows == LABEL:
        counts.outliers -= counts.bad
    return counts


def _list_of(type_: pa.DataType, length: int) -> pa.DataType:
    return pa.list_(pa.field("element", type_, nullable=False), length)


def metadata_of(model: Model, name: str) -> dict[str, str]:
    """What an output says of the model that it was made by."""
    # A name need not be text; metadata have to be.
    text = os.fsencode(os.path.basename(name)).decode("utf-8", "replace")
    return {"dink.model": text, "dink.fingerprint": model.fingerprint}
