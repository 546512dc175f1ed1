"""What there is to know about inputs before training on them. Needs no torch.

Shapes: N rows, D features.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from dinkcli.data.dataset import LABEL, DataSet
from dinkcli.data.formats.table import TableReader
from dinkcli.data.memory import default_memory, in_memory
from dinkcli.data.spool import CopyReader, repeatable

_UNIT = 1e-3  # float16 rounds a norm of 1 by less


@dataclass(frozen=True)
class Info:
    """Facts about a data set, all of its rows read.

    Attributes:
        formats: number of files of each format.
        column: that holds the vectors.
        columns: names and types of all columns of the first file.
        chosen: why the vectors are read from there, or "".
        text: how a text is written (separator, header), or "".
        n_bytes: of the files.
        n_bad: rows that are null, ragged, or not finite.
        first_bad: the first of them and what is wrong with it, or "".
        n_zero: rows of norm 0, which have no direction.
        norms: smallest, mean and largest norm of the usable rows; None without any.
        unit: whether all norms are 1.
        memory: bytes that the rows would take.
        held: whether training holds them in memory, or reads them anew for each pass.
    """

    name: str
    formats: dict[str, int]
    n_rows: int
    n_features: int
    dtype: str
    column: str | None
    columns: dict[str, str]
    chosen: str
    text: str
    n_bytes: int
    n_bad: int
    first_bad: str
    n_zero: int
    norms: tuple[float, float, float] | None
    unit: bool
    memory: int
    held: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def describe(data: DataSet, memory: int | None = None) -> Info:
    """Reads all rows once.

    Args:
        memory: bytes that rows may take in training.

    Raises:
        InputError: a damaged input. Bad rows are counted, whatever ``data.bad_rows`` is.
    """
    data = repeatable(replace(data, bad_rows=LABEL))
    n_bad = n_zero = done = 0
    first_bad = ""
    low, high, total = math.inf, 0.0, 0.0
    for block in data.blocks():
        good = slice(None) if block.bad is None else ~block.bad
        vectors = block.vectors[good].astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        if block.bad is not None:
            n_bad += int(block.bad.sum())
            first_bad = first_bad or f"row {block.start + block.bad.argmax()}{block.problem}"
        if len(norms):
            n_zero += int((norms == 0).sum())
            low, high = min(low, float(norms.min())), max(high, float(norms.max()))
            total += float(norms.sum())
            done += len(norms)
    first: Any = data.readers[0]
    first = first.origin if isinstance(first, CopyReader) else first
    return Info(
        name=data.name,
        formats=dict(Counter(reader.format for reader in data.readers)),
        n_rows=data.known_rows,
        n_features=data.n_features,
        dtype=", ".join(sorted({str(reader.dtype) for reader in data.readers})),
        column=data.column,
        columns={f.name: str(f.type) for f in first.schema}
        if isinstance(first, TableReader)
        else {},
        chosen=first.about.get("chosen", ""),
        text=first.about.get("text", ""),
        n_bytes=sum(reader.n_bytes for reader in data.readers),
        n_bad=n_bad,
        first_bad=first_bad,
        n_zero=n_zero,
        norms=(low, total / done, high) if done else None,
        unit=bool(done) and low >= 1 - _UNIT and high <= 1 + _UNIT,
        memory=data.known_rows * data.n_features * data.dtype.itemsize,
        held=in_memory(data, default_memory() if memory is None else memory),
    )
