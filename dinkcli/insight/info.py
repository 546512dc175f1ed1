"""What there is to know about inputs before training on them. Needs no torch."""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from dinkcli.data.dataset import LABEL
from dinkcli.data.derived import CopyReader
from dinkcli.data.formats.table import TableReader
from dinkcli.data.inputs import open_inputs
from dinkcli.data.machine import default_memory, size_text
from dinkcli.models.file import as_model, is_model
from dinkcli.models.model import Model
from dinkcli.results import Result

_SHOWN_COLUMNS = 12
_UNIT = 1e-3  # float16 rounds a norm of 1 by less


@dataclass(frozen=True)
class Info(Result):
    """Facts about inputs, all of their rows read.

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

    indent = 10

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        formats = [n if k == 1 else f"{k} {n} files" for n, k in self.formats.items()]
        chosen = f" ({self.chosen})" if self.chosen else ""
        norms = ""
        if self.norms is not None:
            norms = "{0:.4g} to {2:.4g}, mean {1:.4g}".format(*self.norms)
            norms += ", all of them 1" * self.unit
        bad = f"{self.n_bad} rows null, ragged or not finite, {self.n_zero} of norm 0"
        how = "held in memory" if self.held else "read anew for each pass (`memory` sets the limit)"
        lines = {
            "input": self.name,
            "format": ", ".join(formats),
            "text": self.text,
            "rows": str(self.n_rows),
            "features": str(self.n_features),
            "dtype": self.dtype,
            "column": f"{self.column}{chosen}" if self.column else self.chosen,
            "columns": _some([f"{name} ({kind})" for name, kind in self.columns.items()]),
            "size": size_text(self.n_bytes) if self.n_bytes else "",
            "norms": norms,
            "bad": bad + (f"; first {self.first_bad}" if self.n_bad else ""),
            "training": f"{size_text(self.memory)} of rows, {how}",
        }
        return [(name, value) for name, value in lines.items() if value]


@dataclass(frozen=True)
class ModelInfo(Result):
    """What a model is, and which columns it reads.

    Attributes:
        facts: those of ``Model.summary``.
    """

    facts: dict[str, Any]

    indent = 15

    def to_dict(self) -> dict[str, Any]:
        return self.facts

    def lines(self) -> list[tuple[str, str]]:
        shown = {name: _some(v) if isinstance(v, list) else v for name, v in self.facts.items()}
        given = {name: value for name, value in shown.items() if value not in (None, "", False)}
        return [(name.replace("_", " "), str(value)) for name, value in given.items()]


def _some(values: list[Any]) -> str:
    """The first of them in a line, and how many more there are."""
    more = len(values) - _SHOWN_COLUMNS
    shown = ", ".join(map(str, values[:_SHOWN_COLUMNS]))
    return shown + (f", {more} more" if more > 0 else "")


def info(
    inputs: Any,
    *,
    column: str | None = None,
    dim: int | None = None,
    bits: bool = False,
    memory: int | None = None,
) -> Info | ModelInfo:
    """What inputs are and how training would read them, all N rows read once; of a model, what it
    is and which columns it reads.

    Args:
        inputs: as for ``train``; or a ``Model``, or the path of one.
        column: of the vectors, as for ``train``.
        dim: D, of vectors in a column of bytes.
        bits: the bytes are packed bits.
        memory: bytes that rows may take in training.

    Raises:
        DinkError: inputs that cannot be read. Bad rows are counted.
    """
    alone = inputs[0] if isinstance(inputs, (list, tuple)) and len(inputs) == 1 else inputs
    is_path = isinstance(alone, (str, os.PathLike))
    if isinstance(alone, Model) or (is_path and is_model(os.fspath(alone))):
        return ModelInfo(as_model(alone).summary())
    data = open_inputs(inputs, column, dim=dim, bits=bits)
    data = replace(data, bad_rows=LABEL).repeatable()
    n_bad = n_zero = n_good = 0
    first_bad = ""
    low, high, total = math.inf, 0.0, 0.0
    for block in data.blocks():
        if block.bad is not None:
            n_bad += int(block.bad.sum())
            first_bad = first_bad or f"row {block.start + block.bad.argmax()}{block.problem}"
        vectors = block.vectors[block.good].astype(np.float64)
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        low, high = float(norms.min(initial=low)), float(norms.max(initial=high))
        total += float(norms.sum())
        n_zero += int((norms == 0).sum())
        n_good += len(norms)
    first: Any = data.readers[0]
    first = first.origin if isinstance(first, CopyReader) else first
    fields = first.schema if isinstance(first, TableReader) else ()
    return Info(
        name=data.name,
        formats=dict(Counter(reader.format for reader in data.readers)),
        n_rows=data.known_rows,
        n_features=data.n_features,
        dtype=", ".join(sorted({str(reader.dtype) for reader in data.readers})),
        column=data.column,
        columns={field.name: str(field.type) for field in fields},
        chosen=first.about.get("chosen", ""),
        text=first.about.get("text", ""),
        n_bytes=sum(reader.n_bytes for reader in data.readers),
        n_bad=n_bad,
        first_bad=first_bad,
        n_zero=n_zero,
        norms=(low, total / n_good, high) if n_good else None,
        unit=n_good > 0 and low >= 1 - _UNIT and high <= 1 + _UNIT,
        memory=data.held_bytes,
        held=data.held_bytes <= (default_memory() if memory is None else memory),
    )
