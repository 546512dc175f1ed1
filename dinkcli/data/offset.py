"""Rows far from zero: what is subtracted from them, in the type of the file, before they become
float32.

Shapes: B rows in a block, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from dinkcli.data.base import Block, Reader, is_wide
from dinkcli.data.dataset import BLOCK_BYTES, DataSet
from dinkcli.errors import InputError

# Of the spread of the rows: where float32 rounds more than this away, they are moved to zero first.
_LOST = 2.0**-20
# Directions are rounded by 2**-25 of their norm, wherever they point. Those that spread less than
# this are the same ones but for rounding in float64.
_LOST_DIRECTION, _SAME_DIRECTION = 2.0**-12, 1e-13


class OffsetReader(Reader):
    """The rows of another reader less an offset; its blocks are float64, where differences of
    float64 numbers and of integers are exact, or nearly so.

    Args:
        offset: (D,) float64.
    """

    def __init__(self, stored: Reader, offset: np.ndarray):
        self.stored, self._offset = stored, offset
        for name in Reader.__annotations__:
            if hasattr(stored, name):
                setattr(self, name, getattr(stored, name))
        self.dtype = np.dtype(np.float32)  # that they are wanted in

    def blocks(self, rows: int, since: int = 0, until: int | None = None) -> Iterator[Block]:
        for block in self.stored.blocks(rows, since, until):
            yield replace(block, vectors=subtracted(block.vectors, self._offset))


def around(data: DataSet, offset: np.ndarray | None) -> DataSet:
    """The rows less an ``offset`` (D,) float64; as they are without one, or when that was done."""
    if offset is None or data.offset is not None:
        return data
    return replace(data, readers=[OffsetReader(r, offset) for r in data.readers], offset=offset)


def around_usual_row(data: DataSet, metric: str) -> DataSet:
    """The rows less their offset, if they need one: the mean of the first block of numbers that
    are wider than float32, so that it is the same for all processes.

    Args:
        data: repeatable, with all rows.

    Raises:
        InputError: directions that are the same in float32.
    """
    for reader in data.readers if data.offset is None else ():
        if not is_wide(reader.dtype):
            continue
        for block in reader.blocks(max(1, BLOCK_BYTES // (4 * reader.n_features))):
            rows = _usable(block)
            if len(rows) and metric == "cosine":
                _refuse_one_direction(rows, data.name)
            elif len(rows):
                return around(data, offset_of(rows))
            if len(rows):
                return data
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


def _usable(block: Block) -> np.ndarray:
    with np.errstate(over="ignore"):
        good = np.isfinite(block.vectors.astype(np.float32)).all(1)
    return block.vectors[good if block.bad is None else good & ~block.bad]


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
