"""What is asked about each row, and the columns that say it.

Shapes: B rows in a block, K clusters.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from dinkcli.assigning.assigner import Assignments
from dinkcli.assigning.with_numpy import is_small
from dinkcli.assigning.writers.base import Layout, Rows, as_arrow, row_type, without_nulls
from dinkcli.data.dataset import SKIP, DataSet
from dinkcli.data.spool import is_stream
from dinkcli.models.matching import Matching, ids_of
from dinkcli.models.model import Model
from dinkcli.options import AssignOptions


@dataclass(frozen=True)
class Job:
    """A model, the data it is put to, and what is asked about each row.

    Attributes:
        model_name: what the output's metadata call the model.
        matching: ids of an older model for the clusters.
        names: of the n_ids ids, to be written beside them; None where they are not.
        parents: (n_ids,) int32 groups of the ids, by the column that each level goes to.
    """

    model: Model
    data: DataSet
    options: AssignOptions
    model_name: str = "model"
    matching: Matching | None = None
    names: tuple[str, ...] | None = None
    parents: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def temperature(self) -> float:
        """Of the probabilities."""
        asked = self.options.temperature
        return self.model.temperature if asked is None else asked

    @property
    def n_ids(self) -> int:
        return ids_of(self.matching, self.model.n_clusters)[1]

    @property
    def layout(self) -> Layout:
        metadata = metadata_of(self.model, self.model_name)
        if self.matching is not None:
            metadata["dink.match"] = self.matching.old
        return Layout(
            None if self.data.bad_rows == SKIP else self.data.n_rows,
            self._found,
            self.data.columns.id,
            self.data.carried,
            metadata,
            self._row_type,
        )

    @property
    def _found(self) -> pa.Schema:
        """Columns of what is found out about each row."""
        options = self.options
        types: dict[str, pa.DataType] = {"cluster": pa.int32()}
        if self.names is not None:
            types["name"] = pa.string()
        types |= dict.fromkeys(self.parents, pa.int32())
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
        kind = row_type(self._found, max([1, *map(len, self.names or ())]))
        alone = {"cluster"} if self.options.marks_outliers else {"cluster", "probabilities"}
        return kind[-1] if alone.issuperset(kind.names or ()) else kind

    def written(self, found: Assignments) -> Rows:
        """What is written of the rows that were assigned."""
        labels = found.labels
        columns = {
            "cluster": labels,
            "distance": found.distances,
            "clusters": found.clusters,
            "probabilities": found.probabilities,
        }
        # The label -1 takes the last one.
        if self.names is not None:
            at = as_arrow(labels % (len(self.names) + 1))
            columns["name"] = pa.DictionaryArray.from_arrays(at, [*self.names, ""])
        for name, groups in self.parents.items():
            columns[name] = np.append(groups, np.int32(-1))[labels]
        return Rows(found.rows, columns, found.carried)

    @property
    def countable_rows(self) -> int | None:
        """N, bad rows included, of inputs that can be read from where one likes."""
        if any(is_stream(reader) for reader in self.data.readers):
            return None
        return self.data.n_rows

    @property
    def is_small(self) -> bool:
        """Whether NumPy is done before torch would be loaded; the same for all shares of a job."""
        return self.options.max_size is None and is_small(self.model, self.data)

    @property
    def identity(self) -> dict[str, Any]:
        """What the output depends on, as plain JSON: a run goes on only where it is the same."""
        return {
            "model": self.model.fingerprint,
            "match": None if self.matching is None else self.matching.old,
            "input": self.data.fingerprint(),
            "bad_rows": self.data.bad_rows,
            "columns": self.data.carried.names,
            "id_column": self.data.columns.id,
            **asdict(self.options),
            "temperature": self.temperature,
            **({} if self.names is None else {"names": list(self.names)}),
            **{name: groups.tolist() for name, groups in self.parents.items()},
            **self.data.beside_identity(),
        }


def _list_of(type_: pa.DataType, length: int) -> pa.DataType:
    return pa.list_(pa.field("element", type_, nullable=False), length)


def metadata_of(model: Model, name: str) -> dict[str, str]:
    """What an output says of the model that it was made by."""
    # A name need not be text; metadata have to be.
    text = os.fsencode(os.path.basename(name)).decode("utf-8", "replace")
    return {"dink.model": text, "dink.fingerprint": model.fingerprint}
