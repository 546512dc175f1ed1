"""What every reader offers.

Shapes: N rows in a file, B rows in a block, D features.
"""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from dinkcli.errors import DinkError, InputError, UsageError

if TYPE_CHECKING:
    from dinkcli.data.files import Source

# Of a block: large enough for a thread that reads ahead, small enough for memory to be used again.
BLOCK_BYTES = 4 << 20
NOTHING_CARRIED = pa.schema([])
# What has one value for each row, in the order of columns that travel along: the parameter that
# names a column of the inputs, or files beside them. ``NUMBERS`` are read, and do not travel.
PARAMETERS = {
    **{"weight": "sample_weight", "keep": "keep"},
    **{"text": "texts", "label": "labels", "id": "ids"},
}
NUMBERS = ("weight", "keep")


@dataclass(frozen=True)
class Columns:
    """What to read of the inputs; ``sidefiles.columns_of`` makes it of what people write.

    ``vectors`` is the column of the embeddings, or the member of an archive, or a pattern such as
    ``dim_*`` for one column per dimension; None finds the only candidate.
    """

    vectors: str | None = None
    usual: str | None = None  # in place of None, if the input has it: what a model was trained on
    features: tuple[str, ...] = ()  # one column per dimension: named columns are read by these
    features_of: str = "the model"  # or the first of several inputs
    id: str | None = None  # names rows
    label: str | None = None  # their true labels
    text: str | None = None  # says what a row is
    weight: str | None = None
    keep: str | None = None  # decides which near-duplicate stays
    others: tuple[str, ...] = ()  # more columns that travel along
    # Files with a value for each row, or values in memory, in place of such a column.
    beside: Mapping[str, tuple[str, ...] | pa.ChunkedArray] = field(default_factory=dict)
    bits: bool = False  # bytes are packed bits, of which ``dim`` or all are dimensions
    dim: int | None = None  # D, for columns of bytes, which do not say it themselves
    alone: bool = False  # no vectors are looked for, only what travels along

    @property
    def files(self) -> dict[str, tuple[str, ...]]:
        """The files beside the inputs."""
        return {role: given for role, given in self.beside.items() if isinstance(given, tuple)}

    @property
    def carried(self) -> dict[str, str]:
        """The columns that travel along, with the parameter that names each."""
        named = {getattr(self, role): parameter for role, parameter in PARAMETERS.items()}
        named.pop(None, None)
        return named | {name: "columns" for name in self.others if name not in named}

    @property
    def named(self) -> dict[str, str]:
        """All columns that are named, with their parameters."""
        return ({} if self.vectors is None else {self.vectors: "column"}) | self.carried

    def refuse(self, name: str, why: str, member: bool = False) -> None:
        """Raises UsageError where a column is named: the input ``name`` has none, or none but the
        vectors, which are a ``member``."""
        for column, parameter in (self.carried if member else self.named).items():
            if parameter in ("column", "columns"):
                raise UsageError(f"{name}: `{parameter}` names a column, but {why}")
            raise UsageError(f"{no_such_column(parameter, column)} in {name}: {why}")


ANY_COLUMNS = Columns()


def no_such_column(parameter: str, name: str) -> str:
    """The beginning of the message on a ``name`` that is neither a column nor a file."""
    words = "not nearest, farthest or first, " if parameter == "keep" else ""
    no_file = "" if parameter == "columns" else "no such file, and "
    return f"`{parameter}` {name}: {words}{no_file}no such column"


@dataclass(frozen=True)
class Block:
    """Consecutive rows of one input. The vectors (B, D) are in the file's own dtype until a caller
    converts them, and not to be changed: they may be memory of the input itself."""

    start: int  # number of the first row, counting from 0
    vectors: np.ndarray
    carried: pa.RecordBatch | None = None  # the B values of each carried column
    bad: np.ndarray | None = None  # (B,) bool, rows without a usable vector (theirs are zeros)
    problem: str = ""  # of the first bad row, as it follows "row 17" in a sentence

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def good(self) -> np.ndarray:
        """(B,) bool, the rows that are not bad."""
        return np.ones(len(self), bool) if self.bad is None else ~self.bad

    def __getitem__(self, where: slice) -> Block:
        """Consecutive rows of the block, without a copy."""
        start, stop, _ = where.indices(len(self))
        carried = None if self.carried is None else self.carried.slice(start, stop - start)
        part = Block(self.start + start, self.vectors[start:stop], carried)
        if self.bad is None or not self.bad[start:stop].any():
            return part
        is_first = not self.bad[:start].any()  # which is what the problem is about
        problem = self.problem if is_first else " has no usable vector"
        return replace(part, bad=self.bad[start:stop], problem=problem)


class Reader:
    """One input, opened and validated: shape and dtype are known."""

    path: str  # what messages call it
    n_rows: int | None  # N, or None where it is known only when the end comes
    n_features: int
    dtype: np.dtype
    format: str  # such as "parquet"
    source: Source | None = None  # where its bytes come from, if not from memory
    column: str | None = None  # that holds the vectors, when it is one
    feature_names: Sequence[str] = ()  # in the order of dimensions, of columns for each
    own_id: str | None = None  # the column that names rows unless another one is asked for
    carried: pa.Schema = NOTHING_CARRIED  # the columns that travel along
    n_bytes: int = 0  # size of the file, 0 for a stream
    about: Mapping[str, str] = MappingProxyType({})  # how it is read, for people, by topic
    notes: Sequence[str] = ()  # what the user should know before it is read

    @property
    def comes_once(self) -> bool:
        """Whether it can be read only once."""
        return self.source is not None and self.source.comes_once

    def blocks(self, rows: int, since: int = 0, until: int | None = None) -> Iterator[Block]:
        """Rows in file order, at most ``rows`` at a time, starts counted in this file.

        Blocks that end before the row ``since`` or begin at or after the row ``until`` are left
        out, and as far as the format lets it, not read; the others are the same as without.
        """
        raise NotImplementedError


def usual_block_rows(n_features: int) -> int:
    """How many rows of float32 make a block."""
    return max(1, BLOCK_BYTES // (4 * n_features))


def is_wide(dtype: np.dtype) -> bool:
    """Whether float32 does not hold all numbers of a type."""
    return dtype.itemsize > 4 or (dtype.kind in "iu" and dtype.itemsize == 4)


def and_more(name: str, number: int) -> str:
    """What several inputs are called."""
    return name + (f" and {number - 1} more" if number > 1 else "")


def total(counts: Iterable[int | None]) -> int | None:
    """The sum of numbers of rows; None where one is not known."""
    known = list(counts)
    return None if None in known else sum(filter(None, known))


# What the libraries underneath raise on damaged data.
_DAMAGE = (
    *(pa.ArrowException, OSError, ValueError, EOFError, OverflowError, RecursionError),
    *(NotImplementedError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)


@contextmanager
def reading(path: str, format: str) -> Iterator[None]:
    """Turns what libraries raise on damaged or vanished data into one line about ``path``."""
    try:
        yield
    except DinkError:
        raise
    except _DAMAGE as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"{path}: cannot be read as {format} (truncated or damaged): {lines[0]}; "
            "write or copy it again"
        ) from error
