"""Safetensors files, and the fvecs, bvecs and ivecs of the nearest-neighbour benchmarks."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from dinkcli.data.base import Columns
from dinkcli.data.files import Source
from dinkcli.data.formats.npy import choose_member
from dinkcli.data.formats.raw import RawLayout, RawReader
from dinkcli.errors import InputError

_DTYPES = {
    **{"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"},
    "BOOL": "u1",
    **{f"{kind.upper()}{8 * size}": f"<{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)},
}
_HEADER_LIMIT = 100 << 20  # that of the format's own library
VECS = {".fvecs": "<f4", ".bvecs": "u1", ".ivecs": "<i4"}


def is_safetensors(head: bytes, n_bytes: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and length <= min(n_bytes - 8, _HEADER_LIMIT)


def open_safetensors(source: Source, wanted: Columns) -> RawReader:
    """The tensor of (N, D) numbers that --column names, or the only one."""
    name = source.name
    with source.open() as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        tensors = {
            key: _layout(value, 8 + length)
            for key, value in header.items()
            if len(value["shape"]) == 2 and value["dtype"] in _DTYPES
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{name}: damaged safetensors header: {error}; write it again") from error
    if not tensors:
        raise InputError(
            f"{name}: no tensor of shape (rows, features) in this safetensors file; "
            f"it has {', '.join(list(header)[:12]) or 'none'}"
        )
    kinds = {key: "f" if "F" in header[key]["dtype"] else "i" for key in tensors}
    chosen, why = choose_member(name, list(tensors), wanted.vectors, wanted.usual, kinds)
    return RawReader(source, "safetensors", tensors[chosen], chosen, {"chosen": why})


def _layout(value: dict[str, Any], start: int) -> RawLayout:
    n_rows, n_features = value["shape"]
    begin, end = value["data_offsets"]
    layout = RawLayout(
        np.dtype(_DTYPES[value["dtype"]]),
        (n_rows, n_features),
        start + begin,
        bfloat16=value["dtype"] == "BF16",
    )
    if min(n_rows, n_features, begin) < 0 or end - begin != layout.n_bytes:
        raise ValueError(f"{end - begin} bytes for shape ({n_rows}, {n_features})")
    return layout


def open_vecs(source: Source, suffix: str) -> RawReader:
    """Rows that each begin with their dimension as int32."""
    n_features = int.from_bytes(source.head(4), "little", signed=True)
    value = np.dtype(VECS[suffix])
    size = 4 + n_features * value.itemsize
    if n_features < 1 or source.n_bytes % size:
        raise InputError(
            f"{source.name}: {source.n_bytes} bytes are no whole number of {suffix[1:]} rows of "
            f"dimension {n_features}, which the first row says; write or copy it again"
        )
    record = np.dtype([("d", "<i4"), ("v", value, (n_features,))])
    return RawReader(source, suffix[1:], RawLayout(record, (source.n_bytes // size, n_features)))
