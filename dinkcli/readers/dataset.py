"""Several inputs as one data set, with the checks that all of them share.

Shapes: N rows, B rows in a block, D features.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from dinkcli.errors import InputError, UsageError
from dinkcli.readers.base import ANY_COLUMNS, Block, Columns, Reader

BLOCK_BYTES = 8 << 20
STOP, SKIP, LABEL = BAD_ROWS = ("stop", "skip", "label")
_COMPACT = ("float16", "int8", "uint8", "int16")


@dataclass(frozen=True)
class DataSet:
    """Several files read one after the other as one (N, D) array of rows.

    Attributes:
        bad_rows: what becomes of rows that are not finite, null, ragged, or of norm 0 where a
            direction is needed: "stop" raises at the first; "skip" and "label" mark them in
            ``Block.bad`` for the consumer to leave out or to label -1.
        notes: what the user should know about the inputs.
    """

    readers: Sequence[Reader]
    columns: Columns = ANY_COLUMNS
    bad_rows: str = STOP
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.bad_rows not in BAD_ROWS:
            raise UsageError(f"--bad-rows {self.bad_rows}: expected {', '.join(BAD_ROWS)}")

    @property
    def n_rows(self) -> int | None:
        """N, bad rows included; None when an input is a stream or a text, without a length."""
        total = 0
        for reader in self.readers:
            if reader.n_rows is None:
                return None
            total += reader.n_rows
        return total

    @property
    def known_rows(self) -> int:
        """N of a data set that was ``counted``."""
        n_rows = self.n_rows
        if n_rows is None:
            raise ValueError(f"{self.name}: the number of rows is not known")
        return n_rows

    @property
    def n_features(self) -> int:
        return self.readers[0].n_features

    @property
    def dtype(self) -> np.dtype:
        """The smallest that holds every value: that of all files where it is narrow, or float32."""
        found = {reader.dtype.newbyteorder("=") for reader in self.readers}
        dtype = found.pop()
        return dtype if not found and dtype.name in _COMPACT else np.dtype(np.float32)

    @property
    def carried(self) -> pa.Schema:
        """Names and types of the columns that travel along with the rows."""
        return self.readers[0].carried

    @property
    def column(self) -> str | None:
        return self.readers[0].column

    @property
    def name(self) -> str:
        more = len(self.readers) - 1
        return self.readers[0].path + (f" and {more} more" if more else "")

    def blocks(
        self,
        rows: int | None = None,
        since: int = 0,
        *,
        dtype: np.dtype | type = np.float32,
        nonzero: bool = False,
    ) -> Iterator[Block]:
        """All rows in order in blocks of about 8 MB, starts counted over all files.

        Args:
            rows: in a block, at most.
            since: blocks that end before this row are left out; the others are as without it.
            dtype: float32, or ``self.dtype``.
            nonzero: a row of norm 0 is bad, since it has no direction.

        Raises:
            InputError: at the first bad row, unless ``bad_rows`` says otherwise.
        """
        rows = rows or max(1, BLOCK_BYTES // (4 * self.n_features))
        before = 0
        for number, reader in enumerate(self.readers):
            if reader.n_rows is not None and before + reader.n_rows <= since:
                before += reader.n_rows
                continue
            done = 0
            blocks = (
                _checked(block, np.dtype(dtype), nonzero)
                for block in reader.blocks(rows, max(0, since - before))
            )
            for block in blocks:
                if block.bad is not None and self.bad_rows == STOP:
                    self._refuse(number, block, blocks, rows, nonzero)
                done = block.start + len(block)
                yield replace(block, start=before + block.start)
            before += done if reader.n_rows is None else reader.n_rows

    def blocks_at(
        self, places: Sequence[tuple[int, int]], rows: int, dtype: np.dtype, nonzero: bool = False
    ) -> Iterator[Block]:
        """Blocks of seekable inputs: for each (number of the reader, first row), ``rows`` rows."""
        lengths = [reader.n_rows or 0 for reader in self.readers]
        before = np.concatenate([[0], np.cumsum(lengths)])
        for number, start in places:
            reader: Any = self.readers[number]
            block = Block(start, reader.rows(start, start + rows))
            block = _checked(block, dtype, nonzero)
            if block.bad is not None and self.bad_rows == STOP:
                self._refuse(number, block, iter(()), rows, nonzero)
            yield replace(block, start=int(before[number]) + start)

    def _refuse(
        self, number: int, block: Block, rest: Iterator[Block], rows: int, nonzero: bool
    ) -> NoReturn:
        """Counts the bad rows to the end, so that the user knows what to expect."""
        path = self.readers[number].path
        others = (
            _checked(other, np.dtype(np.float32), nonzero)
            for reader in self.readers[number + 1 :]
            for other in reader.blocks(rows)
        )
        count = sum(
            int(each.bad.sum())
            for each in itertools.chain([block], rest, others)
            if each.bad is not None
        )
        assert block.bad is not None
        row = block.start + int(block.bad.argmax())
        number_of = "1 such row" if count == 1 else f"{count} bad rows"
        raise InputError(
            f"{path}: row {row}{block.problem} (counting from 0; {number_of} from there to the "
            "end); repair or remove such rows, or go on without them by --bad-rows skip"
        )

    def load(self) -> np.ndarray:
        """All usable rows in memory, (N, D) float32."""
        return self.load_rows(np.empty((self.known_rows, self.n_features), np.float32))[0]

    def load_rows(
        self, result: np.ndarray, nonzero: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Puts all usable rows into ``result`` (N, D), whose dtype is one that ``blocks`` gives.

        Returns:
            The part of ``result`` that they fill, and which rows they are, if not all.
        """
        good = np.ones(len(result), bool)
        done = 0
        for block in self.blocks(dtype=result.dtype, nonzero=nonzero):
            vectors = block.vectors
            if block.bad is not None:
                vectors = vectors[~block.bad]
                good[block.start : block.start + len(block)] = ~block.bad
            result[done : done + len(vectors)] = vectors
            done += len(vectors)
        if done == len(result):
            return result, None
        return result[:done], np.flatnonzero(good)

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the data a model was trained on, without reading all of them."""
        return {
            "rows": self.n_rows,
            "features": self.n_features,
            "dtype": sorted({str(reader.dtype) for reader in self.readers}),
            "files": [os.path.basename(reader.path) for reader in self.readers],
            "bytes": sum(reader.n_bytes for reader in self.readers),
        }


def _checked(block: Block, dtype: np.dtype, nonzero: bool) -> Block:
    """The block in ``dtype``, C-ordered and native, with all of its bad rows found and zeroed.

    The same memory if it is that already.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        vectors = np.ascontiguousarray(block.vectors, dtype=dtype)
        bad = _not_finite(vectors)
    if bad is None and block.bad is None and not nonzero:
        return replace(block, vectors=vectors)
    problem = block.problem
    none = np.zeros(len(block), bool)
    worst = none if block.bad is None else block.bad
    for mask, say in ((bad, _value_problem), (_zero(vectors) if nonzero else None, _zero_problem)):
        if mask is None or not (mask & ~worst).any():
            continue
        row = int((mask & ~worst).argmax())
        if not worst.any() or row < int(worst.argmax()):
            problem = say(block.vectors[row], vectors[row])
        worst = worst | mask
    if not worst.any():
        return replace(block, vectors=vectors)
    return replace(
        block, vectors=np.where(worst[:, None], dtype.type(0), vectors), bad=worst, problem=problem
    )


def _not_finite(vectors: np.ndarray) -> np.ndarray | None:
    """(B,) bool, or None when all values are finite."""
    if vectors.dtype.kind != "f":
        return None
    if vectors.dtype == np.float16:
        # Sums in float16 overflow; the largest exponent is what infinity and NaN have in common.
        if (vectors.view(np.uint16) & 0x7FFF).max(initial=0) < 0x7C00:
            return None
    else:
        # A dot product with itself, the quickest pass there is, finds almost every block clean;
        # one that overflows although each value is finite only costs the exact look below.
        flat = vectors.reshape(-1)
        if np.isfinite(np.dot(flat, flat)):
            return None
    bad = ~np.isfinite(vectors).all(1)
    return bad if bad.any() else None


def _zero(vectors: np.ndarray) -> np.ndarray:
    """Rows of zeros. Squares find the few that may be; those of tiny numbers vanish in float32."""
    squares = vectors.astype(np.float32, copy=False)
    zero = np.einsum("ij,ij->i", squares, squares) == 0
    if zero.any():
        zero[zero] = ~vectors[zero].any(axis=1)
    return zero


def _value_problem(stored: np.ndarray, converted: np.ndarray) -> str:
    feature = int((~np.isfinite(converted)).argmax())
    return f" holds {stored[feature]} in feature {feature}, expected numbers finite in float32"


def _zero_problem(stored: np.ndarray, converted: np.ndarray) -> str:
    return " has norm 0, which has no direction"
