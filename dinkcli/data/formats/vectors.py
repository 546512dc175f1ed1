"""Arrow columns as an array of vectors. No loop over rows: flat values and offsets do it.

Shapes: B rows in a batch, D features.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinkcli.data.formats import numerals
from dinkcli.data.formats.columns import BASE64, BYTES, NUMBERS, SPARK, TEXT
from dinkcli.data.formats.places import Place


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
        kind: what they hold, see ``columns.Found``.
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
        return _from_lists(parsed.lists, what, size, faults)
    value = array.type.value_type
    if pa.types.is_boolean(value) or pa.types.is_decimal(value):
        array = array.cast(_like(array.type, pa.from_numpy_dtype(dtype)))
    return _from_lists(array, what, size, faults)


def _parse(array: pa.Array, kind: str) -> numerals.Parsed:
    return numerals.parse_base64(array) if kind == BASE64 else numerals.parse_numbers(array)


def _like(type_: pa.DataType, value: pa.DataType) -> pa.DataType:
    """A list type of the same sort with other values."""
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(value, type_.list_size)
    return pa.large_list(value) if pa.types.is_large_list(type_) else pa.list_(value)


def lengths_of(batch: pa.RecordBatch, place: Place, kind: str) -> np.ndarray:
    """(B,) number of elements (or bytes) of each row; 0 for null."""
    array, _ = place.take(batch)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if kind == SPARK:
        dense = pc.equal(array.field("type"), 1).to_numpy(zero_copy_only=False)
        sizes = array.field("size").fill_null(0).to_numpy(zero_copy_only=False)
        lengths = np.where(dense == 1, _lengths(array.field("values")), sizes)
        return np.where(_nulls(array), 0, lengths)
    if kind == BYTES:
        array = _as_list_of_bytes(array)
    elif kind in (TEXT, BASE64):
        array = _parse(array, kind).lists
    return _lengths(array)


def _lengths(lists: pa.Array) -> np.ndarray:
    if pa.types.is_fixed_size_list(lists.type):
        lengths = np.full(len(lists), lists.type.list_size)
    else:
        lengths = np.diff(lists.offsets.to_numpy())
    return np.where(_nulls(lists), 0, lengths)


def _from_lists(
    lists: pa.Array, what: str, size: int, faults: Faults, elements: str = "elements"
) -> np.ndarray:
    null = _nulls(lists)
    faults.add(null, f": {what} is null, expected a vector")
    if pa.types.is_fixed_size_list(lists.type):
        values = lists.values.slice(lists.offset * size, len(lists) * size)
        good = ~null
    else:
        offsets = lists.offsets.to_numpy()
        lengths = np.diff(offsets)
        good = (lengths == size) & ~null
        faults.add(
            ~good & ~null,
            lambda row: (
                f" of {what} has {lengths[row]} {elements}, expected {size}; "
                "all vectors must have one length"
            ),
        )
        if good.all():
            values = lists.values.slice(offsets[0], offsets[-1] - offsets[0])
        else:
            # Values of good rows only: rows at fault have any number of them.
            taken = offsets[:-1][good, None] + np.arange(size)
            values = lists.values.take(pa.array(taken.reshape(-1)))
    if good.all() and values.null_count == 0:
        return values.to_numpy(zero_copy_only=False).reshape(len(lists), size)
    if pa.types.is_fixed_size_list(lists.type) and not good.all():
        values = values.filter(pa.array(np.repeat(good, size)))
    null_element = np.zeros(len(lists), bool)
    null_element[good] = _nulls(values).reshape(-1, size).any(1)
    faults.add(null_element, f": {what} has a null element")
    filled = values.fill_null(0) if values.null_count else values
    result = np.zeros((len(lists), size), filled.type.to_pandas_dtype())
    result[good] = filled.to_numpy(zero_copy_only=False).reshape(-1, size)
    result[null_element] = 0
    return result


def _from_spark(array: pa.StructArray, what: str, size: int, faults: Faults) -> np.ndarray:
    """Dense vectors are their values; sparse ones (type 0) are spread over zeros."""
    null = _nulls(array)
    faults.add(null, f": {what} is null, expected a vector")
    types = array.field("type").fill_null(1).to_numpy(zero_copy_only=False)
    sparse = (types == 0) & ~null
    values = array.field("values")
    if not sparse.any() and not null.any():
        return _from_lists(values, what, size, faults)
    result = np.zeros((len(array), size))
    dense = ~sparse & ~null
    inner = Faults(int(dense.sum()))
    result[dense] = _from_lists(values.filter(pa.array(dense)), what, size, inner)
    if inner.mask is not None:
        at_fault = np.zeros(len(array), bool)
        at_fault[dense] = inner.mask
        faults.add(at_fault, inner.problem)
    if sparse.any():
        part = array.filter(pa.array(sparse))
        indices, numbers = part.field("indices"), part.field("values")
        lengths = _lengths(numbers)
        declared = part.field("size").fill_null(0).to_numpy(zero_copy_only=False)
        spread = np.repeat(np.arange(len(part)), lengths)
        position = indices.flatten().to_numpy(zero_copy_only=False)
        wrong = (declared != size) | (_lengths(indices) != lengths)
        if len(position) == len(spread):
            wrong[spread[(position < 0) | (position >= size)]] = True
        rows = np.flatnonzero(sparse)
        at_fault = np.zeros(len(array), bool)
        at_fault[rows[wrong]] = True
        faults.add(at_fault, f": {what} is no sparse vector of size {size}")
        if len(position) == len(spread):
            fine = ~wrong[spread]
            flat = numbers.flatten().to_numpy(zero_copy_only=False)
            result[rows[spread[fine]], position[fine]] = flat[fine]
    return result


def _from_numbers(
    arrays: list[pa.Array], names: list[str], dtype: np.dtype, faults: Faults
) -> np.ndarray:
    result = np.empty((len(arrays[0]), len(arrays)), dtype)
    for feature, (name, values) in enumerate(zip(names, arrays, strict=True)):
        if values.null_count:
            faults.add(_nulls(values), f": column {name!r} is null")
            values = values.fill_null(0)
        result[:, feature] = values.to_numpy(zero_copy_only=False)
    if faults.mask is not None:
        result[faults.mask] = 0
    return result


def _as_list_of_bytes(array: pa.Array) -> pa.Array:
    """Binary as lists of uint8 over the same memory, so that both are read in one way."""
    buffers = array.buffers()
    data = buffers[-1] if buffers[-1] is not None else pa.py_buffer(b"")
    values = pa.Array.from_buffers(pa.uint8(), data.size, [None, data])
    if pa.types.is_fixed_size_binary(array.type):
        type_ = pa.list_(pa.uint8(), array.type.byte_width)
        return pa.Array.from_buffers(
            type_, len(array), buffers[:1], offset=array.offset, children=[values]
        )
    type_ = pa.large_list(pa.uint8()) if pa.types.is_large_binary(array.type) else None
    return pa.Array.from_buffers(
        type_ or pa.list_(pa.uint8()),
        len(array),
        buffers[:2],
        offset=array.offset,
        children=[values],
    )


def _nulls(array: pa.Array) -> np.ndarray:
    if array.null_count == 0:
        return np.zeros(len(array), bool)
    return array.is_null().to_numpy(zero_copy_only=False)
