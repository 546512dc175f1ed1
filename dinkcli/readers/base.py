"""What every reader offers, and the checks that all of them share.

Shapes: N rows in a file, B rows in a block, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from dinkcli.errors import InputError

NOTHING_CARRIED = pa.schema([])


@dataclass(frozen=True)
class Columns:
    """The columns to read from inputs that have columns.

    Attributes:
        vectors: the list column of the embeddings, or a pattern such as ``dim_*`` for one column
            per dimension; None finds the only candidate.
        usual: taken when ``vectors`` is None and the input has it (what a model was trained on).
        id: the column that names rows; it travels along.
        others: more columns that travel along.
    """

    vectors: str | None = None
    usual: str | None = None
    id: str | None = None
    others: tuple[str, ...] = ()

    @property
    def carried(self) -> dict[str, str]:
        """The columns that travel along, with the option that asked for each."""
        ids = {} if self.id is None else {self.id: "--id-column"}
        return ids | {name: "--columns" for name in self.others if name != self.id}

    @property
    def named(self) -> dict[str, str]:
        """All columns asked for by name, with their options."""
        return ({} if self.vectors is None else {self.vectors: "--column"}) | self.carried


ANY_COLUMNS = Columns()


@dataclass(frozen=True)
class Block:
    """Consecutive rows of one input.

    Attributes:
        start: number of the first row, counting from 0.
        vectors: (B, D), in the file's own dtype until a consumer converts it.
        carried: the B values of each carried column, or None without such columns.
    """

    start: int
    vectors: np.ndarray
    carried: pa.RecordBatch | None = None

    def __len__(self) -> int:
        return len(self.vectors)


class Reader(Protocol):
    """One input, opened and validated: shape and dtype are known, no row is read yet.

    Attributes:
        path: what messages call it.
        column: the parquet column that holds the vectors, when it is one.
        carried: names and types of the columns that travel along; none without columns.
        n_bytes: size of the file.
    """

    path: str
    n_rows: int
    n_features: int
    dtype: np.dtype
    column: str | None
    carried: pa.Schema
    n_bytes: int

    def blocks(self, rows: int) -> Iterator[Block]:
        """All rows in file order, at most ``rows`` at a time, starts counted in this file."""
        ...


def finite_float32(vectors: np.ndarray, path: str, start: int) -> np.ndarray:
    """The block as C-ordered, native float32, (B, D); the same memory if it is that already.

    Raises:
        InputError: naming the first row and column that are NaN, infinite, or beyond float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        result = np.ascontiguousarray(vectors, dtype=np.float32)
        # One pass of additions finds almost every block clean; a sum that overflows although
        # each value is finite only costs the exact look below.
        if np.isfinite(result.sum()):
            return result
    bad = ~np.isfinite(result)
    if not bad.any():
        return result
    row, feature = np.unravel_index(int(bad.argmax()), bad.shape)
    raise InputError(
        f"{path}: row {start + row} holds {vectors[row, feature]} in feature {feature} "
        f"(counting from 0; {int(bad.any(1).sum())} such rows in this block of {len(result)}); "
        "dink needs numbers that are finite in float32: repair or remove these rows"
    )
