"""Arrow columns as an array of vectors. No loop over rows: flat values and offsets do it.

Shapes: B rows in a batch, D features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinkcli.data.formats import numerals
from dinkcli.data.formats.columns import BASE64, BYTES, NUMBERS, SPARK, TEXT, Place, list_lengths
from dinkcli.data.formats.types import is_list, is_number, is_text


class Faults:
    """The rows of a batch without a usable vector, and what is wrong with the first of them."""

    def __init__(self, n_rows: int):
        self.mask: np.ndarray | None = None
        self.problem = ""
        self._n_rows = n_rows
        self._first = n_rows

    def add(self, mask: np.ndarray, problem: str | Callable[[int], str]) -> None:
        """``problem`` is what is wrong with the rows of ``mask``, or says it of one row.

        What was said of a row before stays.
        """
        if not mask.any():
            return
        first = int(mask.argmax())
        if first < self._first:
            self._first = first
            self.problem = problem if isinstance(problem, str) else problem(first)
        self.mask = mask if self.mask is None else self.mask | mask


def vectors_of(
    batch: pa.RecordBatch, places: list[Place], kind: str, size: int, dtype: np.dtype
) -> tuple[np.ndarray, Faults]:
    """(B, D) of ``dtype``, zeros in rows that are at fault; without any, no copy of a list column.

    Args:
        places: one column of vectors, or D columns of numbers.
        kind: what they hold, see ``columns.VectorColumns``.
        size: D.
    """
    faults = Faults(len(batch))
    if kind == NUMBERS:
        arrays = [place.take(batch)[0] for place in places]
        return _from_numbers(arrays, [place.path for place in places], dtype, faults), faults
    what = f"column {places[0].path!r}"
    array, crowded = places[0].take(batch)
    if crowded is not None:
        advice = f"--column {places[0].first} takes the first of each"
        faults.add(
            crowded > 1,
            lambda row: f" of {what} holds {crowded[row]} vectors, expected one; {advice}",
        )
        array = pc.if_else(pa.array(crowded > 1), pa.scalar(None, array.type), array)
    return _decoded(array, kind, what, size, dtype, faults), faults


def _decoded(
    array: pa.Array, kind: str, what: str, size: int, dtype: np.dtype, faults: Faults
) -> np.ndarray:
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if kind == SPARK:
        return _from_spark(array, what, size, faults)
    if kind == BYTES:
        values = _from_lists(_as_list_of_bytes(array), what, size * dtype.itemsize, faults, "bytes")
        return np.ascontiguousarray(values).view(dtype)
    if kind in (TEXT, BASE64):
        parsed = _parse(array, kind)
        if parsed.wrong is not None:
            faults.add(parsed.wrong, lambda row: f": {what} {parsed.problem(row)}")
        array = parsed.lists
    return _from_lists(array, what, size, faults)


def _parse(array: pa.Array, kind: str) -> numerals.Parsed:
    if is_list(array.type):
        return numerals.parse_tokens(array)
    return numerals.parse_base64(array) if kind == BASE64 else numerals.parse_numbers(array)


def lengths_of(batch: pa.RecordBatch, place: Place, kind: str) -> np.ndarray:
    """(B,) number of elements (or bytes) of each row; 0 for null."""
    array, _ = place.take(batch)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if kind == SPARK:
        dense = pc.equal(array.field("type"), 1).to_numpy(zero_copy_only=False)
        sizes = array.field("size").fill_null(0).to_numpy(zero_copy_only=False)
        lengths = np.where(dense == 1, list_lengths(array.field("values")), sizes)
        return np.where(_nulls(array), 0, lengths)
    if kind == BYTES:
        array = _as_list_of_bytes(array)
    elif kind in (TEXT, BASE64):
        array = _parse(array, kind).lists
    return list_lengths(array)


def _from_lists(
    lists: pa.Array, what: str, size: int, faults: Faults, elements: str = "elements"
) -> np.ndarray:
    null, lengths = _nulls(lists), list_lengths(lists)
    faults.add(null, f": {what} is null, expected a vector")
    good = (lengths == size) & ~null
    faults.add(
        ~good & ~null,
        lambda row: (
            f" of {what} has {lengths[row]} {elements}, expected {size}; "
            "all vectors must have one length"
        ),
    )
    values = (lists if good.all() else lists.filter(pa.array(good))).flatten()
    if not is_number(values.type):
        values = values.cast(pa.uint8() if pa.types.is_boolean(values.type) else pa.float64())
    if good.all() and values.null_count == 0:
        return values.to_numpy(zero_copy_only=False).reshape(len(lists), size)
    null_element = np.zeros(len(lists), bool)
    null_element[good] = _nulls(values).reshape(-1, size).any(1)
    faults.add(null_element, f": {what} has a null element")
    result = np.zeros((len(lists), size), values.type.to_pandas_dtype())
    result[good] = values.fill_null(0).to_numpy(zero_copy_only=False).reshape(-1, size)
    result[null_element] = 0
    return result


def _from_spark(array: pa.StructArray, what: str, size: int, faults: Faults) -> np.ndarray:
    """Dense vectors are their values; sparse ones (type 0) are spread over zeros."""
    types = array.field("type").fill_null(1).to_numpy(zero_copy_only=False)
    sparse = (types == 0) & ~_nulls(array)
    values = pc.struct_field(array, "values")  # null where the struct is
    if not sparse.any():
        return _from_lists(values, what, size, faults)
    zeros = pa.scalar([0.0] * size, values.type)
    result = _from_lists(pc.if_else(pa.array(sparse), zeros, values), what, size, faults).copy()
    rows, part = np.flatnonzero(sparse), array.filter(pa.array(sparse))
    declared = part.field("size").fill_null(0).to_numpy(zero_copy_only=False)
    n_indices, lengths = list_lengths(part.field("indices")), list_lengths(part.field("values"))
    fine = (declared == size) & (n_indices == lengths)
    wrong = np.zeros(len(array), bool)
    wrong[rows[~fine]] = True
    part = part.filter(pa.array(fine))
    row = np.repeat(rows[fine], lengths[fine])
    position, numbers = (
        part.field(name).flatten().to_numpy(zero_copy_only=False) for name in ("indices", "values")
    )
    inside = (position >= 0) & (position < size)
    wrong[row[~inside]] = True
    faults.add(wrong, f": {what} is no sparse vector of size {size}")
    result[row[inside], position[inside]] = numbers[inside]
    result[wrong] = 0
    return result


def _from_numbers(
    arrays: list[pa.Array], names: list[str], dtype: np.dtype, faults: Faults
) -> np.ndarray:
    result = np.empty((len(arrays[0]), len(arrays)), dtype)
    for feature, (name, values) in enumerate(zip(names, arrays, strict=True)):
        if is_text(values.type):
            cells, (values, wrong) = values, numerals.numbers_of(values)
            faults.add(
                wrong,
                lambda row, name=name, cells=cells: (  # type: ignore[misc]
                    f": column {name!r} holds {str(cells[row])[:40]!r}, expected a number"
                ),
            )
        if pa.types.is_null(values.type):
            values = values.cast(pa.int8())
        if values.null_count:
            faults.add(_nulls(values), f": column {name!r} is null")
            values = values.fill_null(0)
        if pa.types.is_decimal(values.type):
            values = values.cast(pa.float64())
        result[:, feature] = values.to_numpy(zero_copy_only=False)
    if faults.mask is not None:
        result[faults.mask] = 0
    return result


def _as_list_of_bytes(array: pa.Array) -> pa.Array:
    """Binary as lists of uint8, so that both are read in one way."""
    array = array.cast(pa.large_binary())
    *around, data = array.buffers()
    data = data if data is not None else pa.py_buffer(b"")
    values = pa.Array.from_buffers(pa.uint8(), data.size, [None, data])
    kind = pa.large_list(pa.uint8())
    return pa.Array.from_buffers(kind, len(array), around, offset=array.offset, children=[values])


def _nulls(array: pa.Array) -> np.ndarray:
    if array.null_count == 0:
        return np.zeros(len(array), bool)
    return array.is_null().to_numpy(zero_copy_only=False)
