"""Several inputs as one data set, (N, D), with the checks that all of them share."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeVar

import numpy as np
import pyarrow as pa

from dinkcli.data.base import ANY_COLUMNS, Block, Columns, Reader, and_more, total, usual_block_rows
from dinkcli.data.derived import CopyReader, subtracted
from dinkcli.data.sidefiles import NOTHING_BESIDE, SideColumns
from dinkcli.errors import InputError, UsageError

Item = TypeVar("Item")
STOP, SKIP, LABEL = BAD_ROWS = ("stop", "skip", "label")
_COMPACT = ("float16", "int8", "uint8", "int16")
# Norms of rows up to this have squared distances, and sums of millions of them, that float32 holds.
LARGEST_NORM = 5e17


@dataclass(frozen=True)
class DataSet:
    """Several files read one after the other as one (N, D) array of rows.

    At rows that are not finite, null, ragged, or of norm 0 where a direction is needed,
    ``bad_rows`` "stop" raises; "skip" and "label" mark them in ``Block.bad`` for the consumer to
    leave out or to label -1.
    """

    readers: Sequence[Reader]
    columns: Columns = ANY_COLUMNS
    bad_rows: str = STOP
    notes: Sequence[str] = ()  # what the user should know about the inputs
    first: int = 0  # limits of a ``part``, row numbers over all inputs
    stop: int | None = None
    beside: SideColumns = NOTHING_BESIDE  # what files beside the inputs say of the rows
    offset: np.ndarray | None = None  # (D,) float64, subtracted from all rows

    def __post_init__(self) -> None:
        if self.bad_rows not in BAD_ROWS:
            raise UsageError(f"`bad_rows` {self.bad_rows}: expected {', '.join(BAD_ROWS)}")

    def part(self, first: int, stop: int) -> DataSet:
        """The rows [first, stop) alone, of the same inputs. Numbers of rows stay those over all
        inputs, or in their file; ``n_rows`` and the lengths of arrays are those of the part."""
        limit = self.first + self.known_rows
        if not self.first <= first <= stop <= limit:
            raise ValueError(f"rows [{first}, {stop}) of [{self.first}, {limit})")
        return replace(self, first=first, stop=stop)

    @property
    def whole(self) -> DataSet:
        """All rows of the inputs, where this is a part."""
        return replace(self, first=0, stop=None)

    def around(self, offset: np.ndarray | None) -> DataSet:
        """The rows less an ``offset`` (D,) float64, unless they have one."""
        return self if offset is None or self.offset is not None else replace(self, offset=offset)

    def repeatable(self) -> DataSet:
        """The same rows in inputs of known length that can be read any number of times: a pipe
        comes once, and a text does not know its rows, so these are copied."""
        plain = DataSet(self.readers, bad_rows=self.bad_rows)
        readers = [
            CopyReader(replace(plain, readers=[reader]))
            if reader.n_rows is None or reader.comes_once
            else reader
            for reader in self.readers
        ]
        self.beside.check(readers, [reader.n_rows for reader in readers])
        return replace(self, readers=readers)

    @property
    def stream(self) -> str | None:
        """The input that can be read only once, if there is one."""
        return next((r.path for r in self.readers if r.comes_once), None)

    @property
    def n_rows(self) -> int | None:
        """N, bad rows included; None when an input is a stream or a text, without a length."""
        if self.stop is not None:
            return self.stop - self.first
        return total(reader.n_rows for reader in self.readers)

    @property
    def known_rows(self) -> int:
        """N where it has to be known, as in ``repeatable`` inputs."""
        if self.n_rows is None:
            raise ValueError(f"{self.name}: the number of rows is not known")
        return self.n_rows

    @property
    def held_bytes(self) -> int:
        """What all rows take in memory."""
        return self.known_rows * self.n_features * self.dtype.itemsize

    @property
    def n_features(self) -> int:
        return self.readers[0].n_features

    @property
    def dtype(self) -> np.dtype:
        """The smallest that holds every value: that of all files where it is narrow, or float32."""
        dtypes = {reader.dtype.newbyteorder("=") for reader in self.readers}
        is_compact = len(dtypes) == 1 and min(dtypes).name in _COMPACT
        return dtypes.pop() if is_compact and self.offset is None else np.dtype(np.float32)

    @property
    def carried(self) -> pa.Schema:
        """Of the columns that travel along with the rows."""
        carried = [f for f in self.readers[0].carried if f.name not in self._unwritten]
        return pa.schema([*carried, *self.beside.schema])

    @property
    def _unwritten(self) -> set[str | None]:
        """The columns that are read for their numbers alone."""
        wanted = self.columns
        others = {wanted.id, wanted.label, wanted.text, *wanted.others}
        return {wanted.weight, wanted.keep} - others

    @property
    def column(self) -> str | None:
        return self.readers[0].column

    @property
    def feature_names(self) -> Sequence[str]:
        return self.readers[0].feature_names

    @property
    def name(self) -> str:
        return and_more(self.readers[0].path, len(self.readers))

    def blocks(
        self,
        rows: int | None = None,
        since: int = 0,
        until: int | None = None,
        *,
        dtype: np.dtype | type = np.float32,
        nonzero: bool | None = False,
    ) -> Iterator[Block]:
        """All rows in order in blocks of at most ``rows``, or of about 4 MB, starts counted over
        all files. The first and the last block of a part are cut to it.

        Args:
            since, until: blocks that end before or begin after these rows are left out; the others
                are the same as without.
            dtype: float32, or ``self.dtype``.
            nonzero: whether rows are for directions, and one of norm 0 is bad, or for distances,
                and one of so large numbers that float32 cannot hold their squares; None for any.

        Raises:
            InputError: at the first bad row, unless ``bad_rows`` says otherwise.
        """
        counts = [reader.n_rows or 0 for reader in self.readers]
        is_part = until is not None or self.stop is not None
        rows = rows or usual_block_rows(self.n_features)
        blocks = self._checked(rows, since, until, np.dtype(dtype), nonzero)
        for number, before, block in blocks:
            counts[number] = self.readers[number].n_rows or block.start + len(block)
            if before + block.start + len(block) > self.beside.n_rows:
                continue  # the rest is counted alone
            if block.bad is not None and self.bad_rows == STOP:
                self._refuse(self.readers[number].path, block, blocks, is_part)
            block = replace(block, start=before + block.start)
            if self._unwritten and block.carried is not None:
                names = [n for n in block.carried.schema.names if n not in self._unwritten]
                block = replace(block, carried=block.carried.select(names) if names else None)
            yield self.beside.joined(block)
        if not is_part:
            self.beside.check(self.readers, counts)

    def _checked(
        self, rows: int, since: int, until: int | None, dtype: np.dtype, nonzero: bool | None
    ) -> Iterator[tuple[int, int, Block]]:
        """(number of the reader, rows before it, block), bad rows marked, starts as in the file."""
        since = max(since, self.first)
        if self.stop is not None:
            until = self.stop if until is None else min(until, self.stop)
        before = 0
        for number, reader in enumerate(self.readers):
            if until is not None and (before >= until or since >= until):
                return
            done = reader.n_rows or 0
            if reader.n_rows is None or before + done > since:
                last = None if until is None else until - before
                for block in reader.blocks(rows, max(0, since - before), last):
                    start = max(0, self.first - before - block.start)
                    stop = len(block) if self.stop is None else self.stop - before - block.start
                    if start > 0 or stop < len(block):
                        block = block[start:stop]
                    done = reader.n_rows or block.start + len(block)
                    if self.offset is not None:
                        block = replace(block, vectors=subtracted(block.vectors, self.offset))
                    yield number, before, checked(block, dtype, nonzero)
            before += done

    def _refuse(
        self, path: str, block: Block, rest: Iterator[tuple[int, int, Block]], is_part: bool
    ) -> NoReturn:
        """Counts the bad rows to the end, so that the user knows what to expect."""
        row, count = block.start + int(block.good.argmin()), int((~block.good).sum())
        count += sum(int((~each.good).sum()) for _, _, each in rest)
        number_of = "1 such row" if count == 1 else f"{count} bad rows"
        end = "end of this process's share" if is_part else "end"
        raise InputError(
            f"{path}: row {row}{block.problem} (counting from 0; {number_of} "
            f"from there to the {end}); repair or remove such rows, or go on without them by "
            "`bad_rows` skip"
        )

    def load_rows(
        self, result: np.ndarray | None = None, nonzero: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The usable rows in ``result`` (N, D), float32 or ``self.dtype``, or in fresh memory; and
        which of the N rows they are, if not all, counted from ``first`` in a part."""
        if result is None:
            result = np.empty((self.known_rows, self.n_features), np.float32)
        good = np.ones(len(result), bool)
        done = 0
        for block in self.blocks(dtype=result.dtype, nonzero=nonzero):
            vectors = block.vectors if block.bad is None else block.vectors[block.good]
            start = block.start - self.first
            good[start : start + len(block)] = block.good
            result[done : done + len(vectors)] = vectors
            done += len(vectors)
        return result[:done], None if done == len(result) else np.flatnonzero(good)

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the data a model was trained on, without reading all of them."""
        return {
            "rows": self.whole.n_rows,
            "features": self.n_features,
            "dtype": sorted({str(reader.dtype) for reader in self.readers}),
            "files": [os.path.basename(reader.path) for reader in self.readers],
            "bytes": sum(reader.n_bytes for reader in self.readers),
            **({"dim": self.n_features} if self.columns.dim else {}),
            **({"bits": True} if self.columns.bits else {}),
        }


def checked(block: Block, dtype: np.dtype, nonzero: bool | None) -> Block:
    """The block in ``dtype``, C-ordered and native, with all of its bad rows marked and zeroed."""
    with np.errstate(over="ignore", invalid="ignore"):
        vectors = _converted(block.vectors, dtype)
        unusable = _unusable(vectors, nonzero)
    bad = unusable if block.bad is None else unusable | block.bad
    if nonzero:
        bad = bad | _zero(vectors)
    if not bad.any():
        return replace(block, vectors=vectors)
    row = int(bad.argmax())
    if block.bad is not None and block.bad[row]:
        problem = block.problem
    elif unusable[row]:
        problem = _value_problem(block.vectors[row], vectors[row])
    else:
        problem = " has norm 0, which has no direction"
    vectors = np.where(bad[:, None], dtype.type(0), vectors)
    return replace(block, vectors=vectors, bad=bad, problem=problem)


def _converted(vectors: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The numbers in ``dtype``, C-ordered; the same memory if they are that already."""
    torch: Any = sys.modules.get("torch")
    if torch is None or vectors.dtype != np.float16 or dtype != np.float32:
        return np.ascontiguousarray(vectors, dtype=dtype)
    # NumPy converts halves one by one, which takes 17 times as long.
    return torch.from_numpy(np.require(vectors, requirements=["C", "W"])).float().numpy()


def _unusable(vectors: np.ndarray, nonzero: bool | None) -> np.ndarray:
    """(B,) bool, rows that are not finite, or too long for distances."""
    none = np.zeros(len(vectors), bool)
    if vectors.dtype.kind != "f":
        return none
    limit = float(np.finfo(vectors.dtype).max)
    if nonzero is False and vectors.dtype == np.float32:  # its square is summed
        limit = LARGEST_NORM / max(1, vectors.shape[1]) ** 0.5
    if vectors.dtype == np.float16:
        # Sums in float16 overflow; the largest exponent is what infinity and NaN have in common.
        if (vectors.view(np.uint16) & 0x7FFF).max(initial=0) < 0x7C00:
            return none
    else:
        # A dot product with itself, the quickest pass there is, finds almost every block clean;
        # one that is too large although each value is small only costs the exact look below.
        flat = vectors.reshape(-1)
        # As a float of Python: NumPy would round the limit to float32, where it may be infinite.
        if float(np.dot(flat, flat)) <= min(limit, 1e150) ** 2:
            return none
    return ~(np.abs(vectors) <= limit).all(1)


def _zero(vectors: np.ndarray) -> np.ndarray:
    """Rows of zeros. Squares find the few that may be; those of tiny numbers vanish in float32."""
    squares = vectors.astype(np.float32, copy=False)
    zero = np.einsum("ij,ij->i", squares, squares) == 0
    if zero.any():
        zero[zero] = ~vectors[zero].any(axis=1)
    return zero


def _value_problem(stored: np.ndarray, converted: np.ndarray) -> str:
    if not np.isfinite(converted).all():
        feature = int(np.isfinite(converted).argmin())
        return f" holds {stored[feature]} in feature {feature}, expected numbers finite in float32"
    feature = int(np.abs(converted).argmax())
    limit = LARGEST_NORM / len(converted) ** 0.5
    return (
        f" holds {stored[feature]:g} in feature {feature}; squared distances would overflow "
        f"float32, expected numbers up to {limit:.2g}"
    )


def read_ahead(items: Iterator[Item], depth: int = 2) -> Iterator[Item]:
    """The same items in the same order, ``depth`` of them made in advance on a thread, which ends
    when this generator does. An exception of ``items`` is raised here, in its place."""
    ready: queue.Queue[tuple[Item] | BaseException | None] = queue.Queue(depth)
    stop = threading.Event()

    def work() -> None:
        end = None
        try:
            for item in items:
                ready.put((item,))
                if stop.is_set():
                    return
        except BaseException as error:  # whatever it is belongs to the consumer
            end = error
        ready.put(end)

    thread = threading.Thread(target=work, name="dink-read-ahead", daemon=True)
    thread.start()
    try:
        while isinstance(made := ready.get(), tuple):
            yield made[0]
        if made is not None:
            raise made
    finally:
        stop.set()
        with suppress(queue.Empty):
            while True:  # there is room for what the thread has in hand
                ready.get_nowait()
        thread.join(timeout=1)  # a read from a stalled pipe may never return
