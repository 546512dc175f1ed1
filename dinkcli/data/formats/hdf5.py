"""HDF5: the files of the nearest-neighbour benchmarks, Keras features, AnnData's h5ad.

Shapes: N rows, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from dinkcli.data.base import Columns, reading
from dinkcli.data.files import Source
from dinkcli.data.formats.table import Batches, TableReader
from dinkcli.data.machine import require
from dinkcli.errors import ExtraError, InputError, UsageError


class Hdf5Reader(TableReader):
    """One (N, D) dataset, with the (N,) datasets beside it as columns that can travel along."""

    format = "hdf5"

    def __init__(self, source: Source, wanted: Columns):
        self.source = source
        try:
            self._h5py = require("h5py", "hdf5", f"{source.name}: HDF5")
        except ExtraError as error:
            raise ExtraError(
                f"{error}; or convert it where it is installed: import h5py, numpy as np; "
                f"np.save('embeddings.npy', h5py.File({source.name!r})['NAME'][:])"
            ) from error
        with reading(source.name, self.format), _damage(), self._open() as file:
            found: dict[str, Any] = {}
            file.visititems(lambda name, item: found.update({name: item}))
            column = _chosen(source.name, found, wanted)
            n_rows, n_features = found[column].shape
            value = pa.from_numpy_dtype(found[column].dtype.newbyteorder("="))
            fields = [pa.field(column, pa.list_(value, n_features))]
            for name, item in found.items():
                type_ = _type_of(item, n_rows)
                if type_ is not None:
                    fields.append(pa.field(name, type_))
        if wanted.vectors is not None:
            wanted = replace(wanted, vectors=column)  # without slashes around it
        super().__init__(source, pa.schema(fields), n_rows, wanted)

    def _open(self) -> Any:
        return self._h5py.File(self.source.path or self.source.open(), "r")

    def _batches(self, rows: int, names: list[str], since: int = 0) -> Batches:
        schema = pa.schema([self.schema.field(name) for name in names])
        with _damage(), self._open() as file:
            for start in range(since // rows * rows, self.n_rows or 0, rows):
                arrays = [
                    _values(file[name], start, start + rows, schema.field(name).type)
                    for name in names
                ]
                yield start, pa.RecordBatch.from_arrays(arrays, schema=schema)


@contextmanager
def _damage() -> Iterator[None]:
    """The library raises these on damaged files too."""
    try:
        yield
    except (RuntimeError, KeyError, TypeError) as error:
        raise OSError(str(error)) from error


def _chosen(path: str, found: dict[str, Any], wanted: Columns) -> str:
    arrays = {
        name: item
        for name, item in found.items()
        if len(getattr(item, "shape", None) or ()) == 2 and item.dtype.kind in "fiub"
    }
    shapes = [f"{name} {item.shape}" for name, item in arrays.items()]
    shown = ", ".join(shapes[:12]) or "none of two dimensions"
    if wanted.vectors is not None:
        name = wanted.vectors.strip("/")
        if name not in arrays:
            raise UsageError(f"{path}: no dataset {wanted.vectors!r} of vectors; it has {shown}")
        return name
    if wanted.usual in arrays:
        return str(wanted.usual)
    floats = [name for name, item in arrays.items() if item.dtype.kind == "f"] or list(arrays)
    if not floats:
        raise InputError(f"{path}: no dataset of shape (rows, features) in this HDF5 file")
    if len(floats) > 1:
        best = "train" if "train" in floats else floats[0]
        raise UsageError(
            f"{path}: {len(floats)} datasets could hold the embeddings: {shown}; "
            f"choose one with `column` {best}"
        )
    return floats[0]


def _type_of(item: Any, n_rows: int) -> pa.DataType | None:
    """The type of a column with N values, or None for what is none."""
    if {"codes", "categories"} <= set(getattr(item, "keys", tuple)()):
        shape = getattr(item["codes"], "shape", None)
        return pa.string() if shape == (n_rows,) else None
    if getattr(item, "shape", None) != (n_rows,):
        return None
    if item.dtype.kind in "fiub":
        return pa.from_numpy_dtype(item.dtype.newbyteorder("="))
    return pa.string() if item.dtype.kind in "SO" else None


def _values(item: Any, start: int, stop: int, type_: pa.DataType) -> pa.Array:
    if not hasattr(item, "dtype"):  # categories of AnnData and pandas
        codes = item["codes"][start:stop].astype(np.int64)
        names = _texts(item["categories"][:])
        return names.take(pa.array(codes, mask=codes < 0))
    values = item[start:stop]
    if pa.types.is_string(type_):
        return _texts(values)
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    if pa.types.is_fixed_size_list(type_):
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=type_)
    return pa.array(values, type_)


def _texts(values: np.ndarray) -> pa.Array:
    texts = (v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values)
    return pa.array(list(texts), pa.string())
