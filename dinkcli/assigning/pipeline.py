"""From inputs to an output: what is asked about each row, the columns that say it, and the run that
reads, assigns and writes in memory that stays flat.

Shapes: B rows in a block, K clusters.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from dinkcli.assigning.assigner import assign, assigner_for
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
    """A model, the data it is put to, and what is asked about each row."""

    model: Model
    data: DataSet
    options: AssignOptions
    model_name: str = "model"  # in the output's metadata
    matching: Matching | None = None  # ids of an older model for the clusters
    # What is written of the ids beside them, (n_ids,) int32 groups or strings, by column.
    by_cluster: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def temperature(self) -> float:
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
        options, data, characters = self.options, self.data, 1
        types: dict[str, pa.DataType] = {"cluster": pa.int32()}
        for name, values in self.by_cluster.items():
            types[name] = pa.int32()
            if values.dtype.kind == "U":
                types[name], characters = pa.string(), max(characters, values.itemsize // 4)
        if options.distance:
            types["distance"] = pa.float32()
        if options.top is not None:
            types["clusters"] = _list_of(pa.int32(), options.top)
        if options.soft or options.top is not None:
            kind = pa.float16() if options.probability_type == "float16" else pa.float32()
            types["probabilities"] = _list_of(kind, options.top or self.n_ids)
        columns = without_nulls(types)
        row = row_type(columns, characters)
        # Outliers show in the labels only, so that soft assignments keep them then.
        alone = {"cluster"} if options.marks_outliers else {"cluster", "probabilities"}
        metadata = metadata_of(self.model, self.model_name)
        if self.matching is not None:
            metadata["dink.match"] = self.matching.old.fingerprint
        return Layout(
            None if data.bad_rows == SKIP else data.n_rows,
            columns,
            data.columns.id,
            data.carried,
            metadata,
            row[-1] if alone.issuperset(types) else row,
        )

    def written(self, rows: Rows) -> Rows:
        """What is written of rows that were assigned."""
        labels, columns = rows.columns["cluster"], dict(rows.columns)
        # The label -1 takes the last one.
        for name, values in self.by_cluster.items():
            if values.dtype.kind == "U":
                at = as_arrow(labels % (len(values) + 1))
                columns[name] = pa.DictionaryArray.from_arrays(at, [*values.tolist(), ""])
            else:
                columns[name] = np.append(values, np.int32(-1))[labels]
        return replace(rows, columns=columns)

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
            **({"beside": beside} if (beside := self.data.beside.identity()) else {}),
        }


@dataclass
class Counts:
    """What a run has assigned and written."""

    sizes: np.ndarray  # (n_ids,) int64, rows of each cluster
    reach: np.ndarray | None = None  # see ``Job.reach``
    rows: int = 0
    rows_before: int = 0  # written by earlier runs, of those that this one was to write
    parts: int | None = None  # complete ones in the folder (of the share); None without parts
    complete: bool | None = None  # no part is missing in the folder; None without parts
    outliers: int = 0  # rows with the label -1, bad ones not counted
    bad: int = 0  # rows that were skipped or labelled -1 because they have no usable vector
    certainty: float = 0.0  # sum of the probabilities that rows have of being in their own cluster
    judged: int = 0  # rows of which it is the sum
    distance: float = 0.0  # sum of the distances of rows
    measured: int = 0  # rows of which it is the sum
    far: int = 0  # rows beyond the reach of their cluster

    def add(self, rows: Rows) -> None:
        labels, own = rows.columns["cluster"], rows.columns.get("own")
        distances = rows.columns.get("distance")
        # One bin more in front takes the label -1.
        counts = np.bincount(labels + 1, minlength=len(self.sizes) + 1)
        self.rows += len(rows)
        self.bad += rows.n_bad
        self.outliers += int(counts[0])
        self.sizes += counts[1:]
        if own is not None:
            self.certainty += float(np.nansum(own, dtype=np.float64))
            self.judged += int(np.isfinite(own).sum())
        if distances is not None:
            known = np.isfinite(distances)
            self.distance += float(distances[known].sum(dtype=np.float64))
            self.measured += int(known.sum())
            if self.reach is not None:
                # An outlier, of the label -1, is far from wherever it came.
                reach = np.append(self.reach, 0.0)[labels]
                self.far += int((distances > reach)[known].sum())


def run(
    job: Job,
    output: Output,
    device: str = "auto",
    on_rows: Callable[[int, int], None] = lambda done, total: None,
) -> Counts:
    """Assigns all rows of a job and writes those that are not there yet. On an error the output is
    what it was, or has all parts that were complete. ``on_rows`` is called with the number of rows
    written so far, by earlier runs too, and of all, 0 where only the end of the input tells."""
    counts = Counts(np.zeros(job.n_ids, np.int64), job.reach)
    local_rank = 0 if output.shard is None else output.shard.local_rank
    assigner = assigner_for(job.model, job.data, device, job.options, job.matching, local_rank)

    missing: list[tuple[int, int | None]] = [(0, None)]
    total = job.data.n_rows
    n_rows = None if job.data.stream else total  # of inputs that can be read from where one likes
    with open_output(output, job.layout, job.identity, n_rows) as writer:
        if isinstance(writer, PartsWriter):
            counts.rows_before, missing = writer.rows_before, writer.missing
            total = writer.n_rows or total
        for first, stop in missing:
            data = job.data if stop is None else job.data.part(first, stop)
            for assigned in assign(assigner, data, first):
                writer.write(job.written(assigned))
                counts.add(assigned)
                on_rows(counts.rows_before + counts.rows, total or 0)
    if isinstance(writer, PartsWriter):
        counts.parts, counts.complete = len(writer.there), writer.complete
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
