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


@dataclass(frozen=True)
class Block:
    """Consecutive rows of one input.

    Attributes:
        start: number of the first row, counting from 0.
        vectors: (B, D), in the file's own dtype until a consumer converts it.
        ids: (B,) values of the id column, or None.
    """

    start: int
    vectors: np.ndarray
    ids: pa.Array | None = None

    def __len__(self) -> int:
        return len(self.vectors)


class Reader(Protocol):
    """One input, opened and validated: shape and dtype are known, no row is read yet.

    Attributes:
        path: what messages call it.
        column: the parquet column that holds the vectors, when it is one.
        id_type: type of the id column, or None without one.
        n_bytes: size of the file.
    """

    path: str
    n_rows: int
    n_features: int
    dtype: np.dtype
    column: str | None
    id_type: pa.DataType | None
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
