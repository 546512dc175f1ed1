"""What Python holds in memory behind the protocol of readers: arrays, tensors, frames, lists.

No library of these is imported: a frame comes through Arrow's capsules, a tensor by its methods.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dinkcli.data.base import ANY_COLUMNS, Block, Columns, Reader
from dinkcli.data.files import Source
from dinkcli.data.formats.table import TableReader
from dinkcli.errors import DinkError, InputError, UsageError

_EXPECTED = (
    "expected paths, or 2-D (rows, features) numbers: an array, a tensor, a sparse matrix, a list "
    "of lists, or a frame or a table with a column of vectors or one column per dimension"
)


def open_memory(values: Any, columns: Columns) -> Reader:
    """The reader of (N, D) numbers in memory: an array of NumPy, masked or not, or of what gives
    one; a tensor of torch; a sparse matrix of SciPy; a list of N lists, arrays or dictionaries; a
    frame, table, column or series that gives itself to Arrow. Raises InputError or UsageError for
    anything else."""
    try:
        if hasattr(values, "detach"):
            values = _of_tensor(values)
        if hasattr(values, "tocsr") or isinstance(values, np.ndarray):
            return ArrayReader(values.tocsr() if hasattr(values, "tocsr") else values, columns)
        table = _as_table(values)
        if table is not None:
            return MemoryTable(table, columns)
        if hasattr(values, "__array__") or hasattr(values, "__dlpack__"):
            make = np.asarray if hasattr(values, "__array__") else np.from_dlpack
            return ArrayReader(make(values), columns)
        if isinstance(values, Sequence) and not isinstance(values, (str, bytes)):
            return _of_sequence(values, columns)
    except DinkError:
        raise
    except (pa.ArrowException, TypeError, ValueError, BufferError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{_kind(values)}: cannot be read: {reason}; {_EXPECTED}") from error
    raise UsageError(f"{_kind(values)}: {_EXPECTED}")


def column_of(values: Any, parameter: str) -> pa.ChunkedArray:
    """One value for each row: an array, a tensor, a column, or a sequence; raises UsageError for
    something else, or of several dimensions."""
    what = _kind(values)
    try:
        array = _of_tensor(values) if hasattr(values, "detach") else values
        table = None if isinstance(array, np.ndarray) else _as_table(array)
        if table is not None and table.num_columns == 1:
            return table.column(0)
        if hasattr(array, "__array__"):
            array = np.asarray(array)
            what = f"shape {array.shape}"
            if array.ndim != 1:
                raise ValueError
            array = list(array) if array.dtype == object else array
        return pa.chunked_array([pa.array(array)])
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise UsageError(
            f"`{parameter}`: {what}, expected one value for each row: an array, a column, or a list"
        ) from error


class ArrayReader(Reader):
    """(N, D) numbers: an array, of which rows with a masked element are bad, or a sparse matrix by
    rows, which is made dense a block at a time."""

    def __init__(self, array: Any, columns: Columns = ANY_COLUMNS):
        is_array = isinstance(array, np.ndarray)
        self.path = self.format = "array" if is_array else "sparse matrix"
        columns.refuse(self.path, f"{'an' if is_array else 'a'} {self.path} has none")
        if array.dtype.kind == "V" and "float" in array.dtype.name:  # bfloat16 and its like
            array = array.astype(np.float32)
        if len(array.shape) == 3 and array.shape[1] == 1:
            array = array[:, 0]
        if len(array.shape) != 2 or array.dtype.kind not in "fiub":
            raise InputError(
                f"{self.path} of shape {array.shape} and dtype {array.dtype}, "
                "expected 2-D (rows, features) of floats or integers"
            )
        self._array, self._mask = array, np.ma.getmask(array)
        self.n_rows, self.n_features = array.shape
        self.dtype = np.dtype(np.uint8) if array.dtype.kind == "b" else array.dtype

    def blocks(self, rows: int, since: int = 0, until: int | None = None) -> Iterator[Block]:
        for start in range(self._array.shape[0])[since // rows * rows : until : rows]:
            part: Any = self._array[start : start + rows]
            vectors = np.asarray(part.toarray() if hasattr(part, "toarray") else part)
            vectors = vectors.view(np.uint8) if vectors.dtype.kind == "b" else vectors
            mask = self._mask[start : start + rows] if self._mask is not np.ma.nomask else None
            if mask is None or not mask.any():
                yield Block(start, vectors)
                continue
            bad = np.asarray(mask.any(1))
            feature = int(mask[bad.argmax()].argmax())
            vectors = np.where(bad[:, None], vectors.dtype.type(0), vectors)
            yield Block(start, vectors, None, bad, f" is masked in feature {feature}")


class MemoryTable(TableReader):
    """A table of Arrow."""

    format = "table"

    def __init__(self, table: pa.Table, columns: Columns):
        self._table = table
        super().__init__(Source("table"), table.schema, len(table), columns)

    def _all_batches(self, rows: int, names: list[str]) -> Iterator[pa.RecordBatch]:
        yield from self._table.select(names).to_batches()


def _of_tensor(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    if "strided" not in str(tensor.layout):
        tensor = tensor.to_dense()
    if "bfloat16" in str(tensor.dtype) or "float8" in str(tensor.dtype):
        tensor = tensor.float()
    return tensor.numpy()


def _as_table(values: Any) -> pa.Table | None:
    """What gives itself to Arrow as a table, a column of its own as one of a table."""
    if isinstance(values, (pa.Table, pa.RecordBatch)):
        return pa.table(values)
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return pa.table({"vectors": values})
    if hasattr(values, "__arrow_c_stream__"):
        try:
            return pa.table(values)
        except (pa.ArrowException, TypeError, ValueError):
            return pa.table({"vectors": pa.chunked_array(values)})
    if hasattr(values, "__arrow_c_array__"):
        array = pa.array(values)
        is_struct = pa.types.is_struct(array.type)
        return pa.Table.from_struct_array(array) if is_struct else pa.table({"vectors": array})
    if hasattr(values, "to_numpy") and hasattr(values, "index"):  # of pandas before version 3
        columns = values.to_frame("vectors") if not hasattr(values, "columns") else values
        return pa.Table.from_pandas(columns)
    return None


def _of_sequence(values: Sequence[Any], columns: Columns) -> Reader:
    first = next((each for each in values if each is not None), None)
    if isinstance(first, Mapping):
        rows = pa.array([each if each is None else dict(each) for each in values])
        return MemoryTable(pa.Table.from_struct_array(rows), columns)
    if hasattr(first, "detach"):
        values = [each if each is None else _of_tensor(each) for each in values]
    elif isinstance(first, np.ma.MaskedArray):
        return ArrayReader(np.ma.stack(values), columns)
    try:
        return ArrayReader(np.asarray(values), columns)
    except (ValueError, InputError):  # of several lengths, or with None
        if columns.named:
            raise
    rows = [list(each) if isinstance(each, tuple) else each for each in values]
    return MemoryTable(pa.table({"vectors": pa.array(rows)}), columns)


def _kind(values: Any) -> str:
    return f"input of type {type(values).__module__}.{type(values).__qualname__}"
