"""Cells as an array of vectors, by flat values and offsets: B rows in a batch, D features."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinkcli.data.formats.columns import BASE64, BYTES, NUMBERS, SPARK, TEXT, Place, list_lengths
from dinkcli.data.formats.numerals import BRACKETS, CALL, CALL_END, NULLS, NUMBER, SCALAR
from dinkcli.data.formats.types import is_list, is_number, is_text


class Faults:
    """The rows of a batch without a usable vector, and what is wrong with the first of them."""

    def __init__(self, n_rows: int):
        self.mask: np.ndarray | None = None
        self.problem = ""
        self._first = n_rows

    def add(self, mask: np.ndarray, problem: str | Callable[[int], str]) -> None:
        """``problem`` is what is wrong with the rows of ``mask``, or says it of one row."""
        if not mask.any():
            return
        first = int(mask.argmax())
        if first < self._first:
            self._first = first
            self.problem = problem if isinstance(problem, str) else problem(first)
        self.mask = mask if self.mask is None else self.mask | mask


def vectors_of(
    batch: pa.RecordBatch, places: Sequence[Place], kind: str, size: int, dtype: np.dtype
) -> tuple[np.ndarray, Faults]:
    """(B, D) of ``dtype``, zeros in rows that are at fault; without any, no copy of a list column.
    ``places`` and ``kind`` as in ``columns.VectorColumns``; ``size`` is D."""
    faults = Faults(len(batch))
    if kind == NUMBERS:
        return _from_numbers(batch, places, dtype, faults), faults
    what = f"column {places[0].path!r}"
    array, crowded = places[0].take(batch)
    if crowded is not None:
        advice = f"`column` {places[0].first} takes the first of each"
        faults.add(
            crowded > 1,
            lambda row: f" of {what} holds {crowded[row]} vectors, expected one; {advice}",
        )
        array = pc.if_else(pa.array(crowded > 1), pa.scalar(None, array.type), array)
    lists = _lists(array, kind, what, faults)
    if kind != BYTES:
        return _from_lists(lists, what, size, faults), faults
    values = _from_lists(lists, what, size * dtype.itemsize, faults, "bytes")
    return np.ascontiguousarray(values).view(dtype), faults


def lengths_of(batch: pa.RecordBatch, place: Place, kind: str) -> np.ndarray:
    """(B,) number of elements (or bytes) of each row; 0 for null."""
    array, _ = place.take(batch)
    return list_lengths(_lists(array, kind, "", Faults(len(array))))


def _lists(array: pa.Array, kind: str, what: str, faults: Faults) -> pa.Array:
    """Each cell as a list of numbers or bytes; null where it is null, or at fault."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if kind == BYTES:
        return _as_list_of_bytes(array)
    if kind == BASE64:
        return _decoded(array, what, faults)
    if kind == TEXT:
        return _parsed(array, what, faults)
    return _spark_lists(array) if kind == SPARK else array


def _parsed(cells: pa.Array, what: str, faults: Faults) -> pa.Array:
    """Numbers between commas, semicolons or blanks, with or without brackets around them; or lists
    of texts."""
    bare = None if is_list(cells.type) else _bare(cells)
    if bare is None:
        lists = cells.cast(pa.large_list(pa.large_string()))
    else:
        # The separator of the first cell is that of all others, or the careful way finds out.
        first = str(next(iter(bare.drop_null()[:1]), ""))
        separator = next((each for each in (", ", ",", ";") if each in first), None)
        split = pc.split_pattern(bare, separator) if separator else pc.ascii_split_whitespace(bare)
        lists = _without_empty(split, bare)
    try:
        return _with_values(lists, lists.values.cast(pa.float32()))
    except pa.ArrowInvalid:
        if bare is not None:
            lists = _without_empty(pc.split_pattern_regex(bare, r"\s*[,;]\s*|\s+"), bare)
        return _token_by_token(lists, what, faults)


def _bare(cells: pa.Array) -> pa.Array:
    """The texts without what is around their numbers."""
    cells = cells.cast(pa.large_string())
    first = str(next(iter(cells.drop_null()[:1]), ""))
    if "(" in first:
        for pattern, new in ((CALL, ""), (CALL_END, ""), (SCALAR, r"\1")):
            cells = pc.replace_substring_regex(cells, pattern, new)
    return pc.utf8_trim(cells, BRACKETS)


def _without_empty(lists: pa.Array, bare: pa.Array) -> pa.Array:
    """A cell without numbers is a list without elements, and a spelled null is null."""
    for nulls, value in ((NULLS[1:], None), (NULLS[:1], [])):
        those = pc.is_in(bare, value_set=pa.array(nulls, bare.type))
        if pc.any(those).as_py():
            lists = pc.if_else(those, pa.scalar(value, lists.type), lists)
    return lists


def _token_by_token(lists: pa.Array, what: str, faults: Faults) -> pa.Array:
    """Spelled nulls are null elements, what is no number puts its row at fault."""
    numbers, wrong = numbers_of(lists.values, pa.float32())
    where = np.flatnonzero(wrong)
    rows = np.searchsorted(lists.offsets.to_numpy(), where, "right") - 1

    def problem(row: int) -> str:
        token = lists.values[where[rows == row][0]].as_py().strip()
        if "..." in token:
            return f": {what} was printed with '...' in place of numbers, which are lost"
        return f": {what} holds {token[:40]!r}, expected numbers"

    faults.add(np.isin(np.arange(len(lists)), rows), problem)
    return _with_values(lists, numbers)


def numbers_of(texts: pa.Array, type_: pa.DataType) -> tuple[pa.Array, np.ndarray]:
    """Texts as numbers, null where a text is none, and (B,) bool: it is neither number nor null."""
    texts = pc.utf8_trim_whitespace(texts.cast(pa.large_string()))
    null = pc.or_(pc.is_null(texts), pc.is_in(texts, value_set=pa.array(NULLS, texts.type)))
    fine = pc.match_substring_regex(texts, f"^{NUMBER.pattern}$", ignore_case=True)
    usable = pc.and_not(pc.fill_null(fine, False), null)
    numbers = pc.if_else(usable, texts, pa.scalar(None, texts.type)).cast(type_)
    return numbers, pc.invert(pc.or_(usable, null)).to_numpy(zero_copy_only=False)


def _with_values(lists: pa.Array, values: pa.Array) -> pa.Array:
    kind = pa.large_list if pa.types.is_large_list(lists.type) else pa.list_
    around, counts = lists.buffers()[:2], (lists.null_count, lists.offset)
    return pa.Array.from_buffers(kind(values.type), len(lists), around, *counts, children=[values])


def _decoded(cells: pa.Array, what: str, faults: Faults) -> pa.Array:
    """float32 in base64, as OpenAI's ``encoding_format="base64"`` gives them."""
    decoded: list[np.ndarray | None] = []
    for cell in cells.to_pylist():
        try:
            blob = base64.b64decode(cell.strip(), validate=True)
            decoded.append(np.frombuffer(blob, "<f4").astype(np.float32))
        except (ValueError, AttributeError):  # of no base64, and of null
            decoded.append(None)
    lists = pa.array(decoded, pa.list_(pa.float32()))
    faults.add(_nulls(lists) & ~_nulls(cells), f": {what} holds no base64 of float32")
    return lists


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


def _spark_lists(array: pa.StructArray) -> pa.Array:
    """Dense vectors are their values; sparse ones (type 0) are spread over zeros."""
    if not pc.any(pc.equal(array.field("type"), 0)).as_py():
        return pc.struct_field(array, "values")  # null where the struct is
    return pa.array(list(map(_spread, array.to_pylist())), pa.large_list(pa.float64()))


def _spread(cell: dict[str, Any] | None) -> Any:
    if cell is None or cell["type"] != 0:
        return cell and cell["values"]
    try:
        dense = np.zeros(cell["size"])
        dense[np.array(cell["indices"], np.uint32)] = cell["values"]
    except (IndexError, ValueError, TypeError, OverflowError):
        return []
    return dense


def _from_numbers(
    batch: pa.RecordBatch, places: Sequence[Place], dtype: np.dtype, faults: Faults
) -> np.ndarray:
    result = np.empty((len(batch), len(places)), dtype)
    for feature, place in enumerate(places):
        values, _ = place.take(batch)
        what = f": column {place.path!r}"
        if is_text(values.type):
            type_ = pa.float32() if dtype == np.float32 else pa.float64()
            cells, (values, wrong) = values, numbers_of(values, type_)
            for row in np.flatnonzero(wrong)[:1]:
                faults.add(wrong, f"{what} holds {str(cells[row])[:40]!r}, expected a number")
        if pa.types.is_null(values.type):
            values = values.cast(pa.int8())
        if values.null_count:
            faults.add(_nulls(values), f"{what} is null")
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
    return array.is_null().to_numpy(zero_copy_only=False)
