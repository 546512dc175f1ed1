"""Readers over other readers: packed bits as numbers, rows less an offset, and temporary copies of
what cannot be read again.

Shapes: N rows, B rows in a block, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dinkcli.data.base import Block, Reader, is_wide, usual_block_rows
from dinkcli.data.files import LocalFile, Temporary
from dinkcli.data.formats.raw import RawLayout, RawReader
from dinkcli.errors import InputError, UsageError

if TYPE_CHECKING:
    from dinkcli.data.dataset import DataSet

_LIKE_BITS = 0.2  # each bit of a byte is set in at least this share of bytes, and not in as many
_FEW_BYTES = 64
# Of the spread of the rows: where float32 rounds more than this away, they are moved to zero first.
_LOST = 2.0**-20
# Directions are rounded by 2**-25 of their norm, wherever they point. Those that spread less than
# this are the same ones but for rounding in float64.
_LOST_DIRECTION, _SAME_DIRECTION = 2.0**-12, 1e-13


class BitsReader(Reader):
    """All or ``dim`` bits of another reader's bytes, as ``numpy.packbits`` packs them, read as -1
    and +1. Bytes are uint8, or int8 shifted by -128 as sentence-transformers writes them."""

    def __init__(self, packed: Reader, dim: int | None):
        whole = packed.dtype.kind in "iu" and packed.dtype.itemsize == 1
        # Texts and lists of other types hold bytes as well; blocks are looked at one by one.
        if not whole and not hasattr(packed, "places"):
            raise InputError(
                f"{packed.path}: `bits` expects bytes (uint8, or int8 shifted by -128), and these "
                f"are {packed.dtype}"
            )
        n_bits = 8 * packed.n_features
        if dim is not None and not n_bits - 8 < dim <= n_bits:
            raise UsageError(
                f"{packed.path}: `bits` `dim` {dim}: {packed.n_features} bytes a row hold "
                f"{n_bits - 7} to {n_bits} dimensions"
            )
        for name in Reader.__annotations__:
            if hasattr(packed, name):
                setattr(self, name, getattr(packed, name))
        self._packed = packed
        self.n_features = n_bits if dim is None else dim
        self.dtype = np.dtype(np.int8)
        self.about = {**packed.about, "bits": "packed, read as -1 and +1"}
        self._shifted: bool | None = {"i1": True, "u1": False}.get(packed.dtype.str[1:])

    def blocks(self, rows: int, since: int = 0, until: int | None = None) -> Iterator[Block]:
        for block in self._packed.blocks(rows, since, until):
            yield replace(block, vectors=self._unpacked(block))

    def _unpacked(self, block: Block) -> np.ndarray:
        """(B, D) int8 of -1 and +1."""
        vectors = block.vectors
        low, high = (float(vectors.min()), float(vectors.max())) if vectors.size else (0.0, 0.0)
        if self._shifted is None:
            self._shifted = low < 0
        least = -128 if self._shifted else 0
        if not least <= low <= high <= least + 255:
            raise InputError(
                f"{self.path}: `bits` expects bytes from {least} to {least + 255}, and of the "
                f"{len(vectors)} rows from row {block.start} on the smallest number is {low:g} and "
                f"the largest {high:g}"
            )
        values = (vectors.astype(np.int16) - least).astype(np.uint8)
        bits = np.unpackbits(values, axis=1, count=self.n_features).view(np.int8)
        return bits * np.int8(2) - np.int8(1)


def look_packed(reader: Reader) -> bool:
    """Whether uint8 numbers look like packed bits: all eight bits of a byte vary alike."""
    comes_once = reader.source is not None and reader.source.path is None
    if reader.dtype != np.uint8 or reader.n_rows is None or comes_once:
        return False
    block = next(iter(reader.blocks(4096, 0, 1)), None)
    if block is None or block.vectors.dtype != np.uint8 or block.vectors.size < _FEW_BYTES:
        return False
    shares = np.unpackbits(block.vectors.reshape(-1, 1), axis=1).mean(0)
    return bool((shares > _LIKE_BITS).all() and (shares < 1 - _LIKE_BITS).all())


def around_usual_row(data: DataSet, metric: str) -> DataSet:
    """``repeatable`` rows less their offset, if they need one: the middle of the first block of
    numbers that are wider than float32, so that it is the same for all processes. Raises InputError
    for directions that are the same in float32."""
    wide = (r for r in data.readers if data.offset is None and is_wide(r.dtype))
    for block in (b for reader in wide for b in reader.blocks(usual_block_rows(reader.n_features))):
        with np.errstate(over="ignore"):
            good = np.isfinite(block.vectors.astype(np.float32)).all(1) & block.good
        if good.any() and metric == "cosine":
            _refuse_one_direction(block.vectors[good], data.name)
            return data
        if good.any():
            return data.around(offset_of(block.vectors[good]))
    return data


def offset_of(vectors: np.ndarray) -> np.ndarray | None:
    """(D,) float64 in the middle of finite rows (B, D); None where float32 holds what tells these
    apart. Both go by the median, so that a few far rows neither move it nor hide what is lost."""
    values = vectors.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        # Beyond 2**53 float64 itself does not say what is lost.
        lost = np.where(
            np.abs(values) < 2.0**53, values - values.astype(np.float32), values / 2**25
        )
        offset = values[0] + np.median(values - values[0], axis=0)
        if vectors.dtype.kind in "iu":
            offset = np.round(offset)
        spread = np.square(subtracted(vectors, offset)).sum(1)
        apart = spread > 0  # copies of the middle row need no offset
        lost, spread = np.square(lost).sum(1)[apart], spread[apart]
        if not len(spread) or not np.isfinite(offset).all():
            return None
        return offset if np.median(lost) > _LOST**2 * np.median(spread) else None


def subtracted(vectors: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """(B, D) float64, the ``vectors`` (B, D) less the ``offset`` (D,); of integers of 64 bits too
    no digit is lost."""
    apart = vectors.astype(np.float64) - offset
    if vectors.dtype.kind not in "iu" or vectors.dtype.itemsize < 8:
        return apart
    if not (np.abs(apart) < 2.0**62).all():
        return apart  # beyond what 64 bits hold
    whole = np.floor(offset)
    # Modulo 2**64, so that neither sign nor size matters.
    integers = np.array([int(each) % (1 << 64) for each in whole], np.uint64)
    exact = (vectors.astype(np.uint64) - integers).view(np.int64)
    return exact.astype(np.float64) - (offset - whole)


def _refuse_one_direction(vectors: np.ndarray, name: str) -> None:
    """Raises InputError for rows whose directions float32 cannot tell apart."""
    values = vectors.astype(np.float64)
    norms = np.linalg.norm(values, axis=1)
    units = values[norms > 0] / norms[norms > 0, None]
    if not len(units):
        return
    spread = np.sqrt(np.square(units - units.mean(0)).sum(1).mean())
    if _SAME_DIRECTION < spread < 2.0**-25 / _LOST_DIRECTION:
        raise InputError(
            f"{name}: the directions of the rows differ by {spread:.1g} only, which float32 cannot "
            "tell apart under cosine: they lie far from zero beside their spread; subtract their "
            "mean first, or use the euclidean metric"
        )


class CopyReader(RawReader):
    """The rows of ``data``, of one reader, in a temporary file where they can be read again, and
    what travels along in another."""

    def __init__(self, data: DataSet):
        self.origin = origin = data.readers[0]
        doing = f"copying {origin.path} for repeated reading"
        file, self._columns = Temporary(".rows", doing), ColumnsFile(doing)
        dtype = origin.dtype.newbyteorder("=")
        n_rows, bad = 0, [np.empty(0, np.int64)]
        self._problems: dict[int, str] = {}  # of the first bad row of each block
        for block in data.blocks(dtype=dtype, nonzero=None):
            if block.bad is not None:
                bad.append(block.start + np.flatnonzero(block.bad))
                self._problems[int(bad[-1][0])] = block.problem
            file.write(block.vectors.data)
            if block.carried is not None:
                self._columns.add(block.carried)
            n_rows += len(block)
        file.flush()
        self._bad = np.concatenate(bad)
        layout = RawLayout(dtype, (n_rows, data.n_features))
        super().__init__(LocalFile(origin.path, keeps=file), origin.format, layout, origin.column)
        for name in ("feature_names", "carried", "n_bytes", "notes", "about"):
            setattr(self, name, getattr(origin, name))

    def blocks(self, rows: int, since: int = 0, until: int | None = None) -> Iterator[Block]:
        table = self._columns.table()
        for block in super().blocks(rows, since, until):
            if table is not None:
                part = table.slice(block.start, len(block)).combine_chunks()
                block = replace(block, carried=part.to_batches()[0])
            bad = self._bad[slice(*np.searchsorted(self._bad, (block.start, block.start + rows)))]
            if len(bad):
                problem = self._problems.get(int(bad[0]), " has no usable vector")
                mask = np.isin(np.arange(block.start, block.start + len(block)), bad)
                block = replace(block, bad=mask, problem=problem)
            yield block


class ColumnsFile:
    """Batches of columns in a temporary file, mapped from there; ``doing`` as for ``Temporary``."""

    _file: Temporary | None = None

    def __init__(self, doing: str):
        self._doing = doing

    def add(self, batch: pa.RecordBatch) -> None:
        if self._file is None:
            self._file = Temporary(".columns", self._doing)
            self._writer = pa.ipc.new_stream(self._file, batch.schema)
        self._writer.write_batch(batch)

    def table(self) -> Any:
        """All batches; None without any."""
        if self._file is None:
            return None
        self._file.flush()
        return pa.ipc.open_stream(pa.memory_map(self._file.name)).read_all()
