"""What every writer of assignments offers, and the table that most of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from dinkcli.readers.base import NOTHING_CARRIED

if TYPE_CHECKING:
    from dinkcli.assigner import Assignments


@dataclass(frozen=True)
class Layout:
    """What the output will hold, known before the first row.

    Attributes:
        n_rows: rows that will be written.
        n_probabilities: K for soft assignments, 0 for hard ones.
        id_name: name of the id column; without one the row number is written as ``row``.
        carried: columns of the input that travel along, the id column among them.
    """

    n_rows: int
    n_probabilities: int = 0
    id_name: str | None = None
    carried: pa.Schema = NOTHING_CARRIED

    def schema(self, flat: bool = False) -> pa.Schema:
        """Columns: id or row, cluster, and probabilities (one column each when ``flat``)."""
        fields = [
            self.carried.field(self.id_name)
            if self.id_name
            else pa.field("row", pa.int64(), nullable=False),
            pa.field("cluster", pa.int32(), nullable=False),
        ]
        if self.n_probabilities and flat:
            names = [f"probability_{j}" for j in range(self.n_probabilities)]
            fields += [pa.field(name, pa.float32(), nullable=False) for name in names]
        elif self.n_probabilities:
            value = pa.field("element", pa.float32(), nullable=False)
            fields.append(
                pa.field("probabilities", pa.list_(value, self.n_probabilities), nullable=False)
            )
        return pa.schema(fields)

    def record_batch(self, rows: Assignments, schema: pa.Schema) -> pa.RecordBatch:
        """``rows`` as a record batch of ``schema``."""
        first = (
            np.arange(rows.start, rows.start + len(rows), dtype=np.int64)
            if self.id_name is None or rows.carried is None
            else rows.carried.column(self.id_name)
        )
        columns = [first, rows.labels]
        if rows.probabilities is not None:
            if "probabilities" in schema.names:
                values = pa.array(rows.probabilities.reshape(-1))
                type_ = schema.field("probabilities").type
                columns.append(pa.FixedSizeListArray.from_arrays(values, type=type_))
            else:
                columns += list(rows.probabilities.T)
        arrays = [
            column if isinstance(column, pa.Array) else pa.array(column) for column in columns
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)


class Writer(Protocol):
    """Takes assignments in order; ``close`` completes what was written."""

    def write(self, rows: Assignments) -> None: ...

    def close(self) -> None: ...
