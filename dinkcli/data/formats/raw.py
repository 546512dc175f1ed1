"""Arrays that lie in a file as they are: npy, npz, safetensors, fvecs and their like.

Read, not mapped: a mapped file that shrinks kills the process, and mapped pages count as memory.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import IO, Any, BinaryIO

import numpy as np

from dinkcli.data.base import Block, Columns, Reader, reading
from dinkcli.data.files import Source, copied, read_exactly, suffix_of
from dinkcli.data.formats import foreign
from dinkcli.errors import InputError, UsageError


@dataclass(frozen=True)
class RawLayout:
    """Where the (N, D) numbers are."""

    number: np.dtype
    shape: tuple[int, int]
    offset: int = 0  # of the first byte
    fortran: bool = False  # stored column by column
    counted: bool = False  # each row begins with D as int32
    bfloat16: bool = False  # uint16 numbers are the upper halves of float32

    @property
    def dtype(self) -> np.dtype:
        """Of the vectors as they are read."""
        return np.dtype(np.float32) if self.bfloat16 else self.number

    @property
    def row(self) -> np.dtype:
        """The dtype of a stored row, with the vector in its field "v" where it is counted."""
        vector = (self.number, (self.shape[1],))
        return np.dtype([("d", "<i4"), ("v", *vector)] if self.counted else vector)

    @property
    def end(self) -> int:
        """The number of the byte after the last."""
        n_rows, n_features = self.shape
        return self.offset + n_rows * (n_features * self.number.itemsize + 4 * self.counted)


class RawReader(Reader):
    """Rows of fixed size, one after the other. Raises InputError for fewer bytes than the layout
    needs, or for more in a file of one array."""

    source: Source

    def __init__(self, source: Source, format: str, layout: RawLayout, column: str | None = None):
        self.source, self.path, self.n_bytes = source, source.name, source.n_bytes
        self.format, self.layout, self.column = format, layout, column
        (self.n_rows, self.n_features), self.dtype = layout.shape, layout.dtype
        if 0 < source.n_bytes < layout.end:
            raise InputError(
                f"{self.path}: truncated: shape {layout.shape} of {self.dtype} needs {layout.end} "
                f"bytes, the file has {source.n_bytes}; write or copy it again"
            )
        if format == "npy" and source.n_bytes:
            refuse_more(self.path, layout, source.n_bytes)

    def blocks(self, rows: int, since: int = 0, until: int | None = None) -> Iterator[Block]:
        self.source.check_unchanged()
        layout, (n_rows, _) = self.layout, self.layout.shape
        with reading(self.path, self.format), self.source.open() as file:
            start = since // rows * rows
            if not self.source.n_bytes:
                read_exactly(file, bytearray(layout.offset), self.path)
                start = 0
            elif not layout.fortran:
                file.seek(layout.offset + start * layout.row.itemsize)
            for begin in range(n_rows)[start:until:rows]:
                block = Block(begin, self._read(file, begin, min(n_rows, begin + rows)))
                if begin + rows > since:  # a stream has no other way to come there
                    yield block
            if self.format == "npy" and until is None and not self.source.n_bytes and file.read(1):
                refuse_more(self.path, layout, None)
        self.source.check_unchanged()

    def _read(self, file: BinaryIO, start: int, stop: int) -> np.ndarray:
        layout = self.layout
        if layout.fortran:
            columns = np.empty((self.n_features, stop - start), layout.number)
            for feature, column in enumerate(columns):
                number = feature * layout.shape[0] + start
                file.seek(layout.offset + number * layout.number.itemsize)
                read_exactly(file, column, self.path)
            return columns.T
        rows = np.empty(stop - start, layout.row)
        read_exactly(file, rows, self.path)
        if layout.bfloat16:
            return (rows.astype(np.uint32) << 16).view(np.float32)
        if not layout.counted:
            return rows
        if (wrong := rows["d"] != self.n_features).any():
            row = int(wrong.argmax())
            raise InputError(
                f"{self.path}: row {start + row} has {rows['d'][row]} elements, expected "
                f"{self.n_features} as in row 0 (counting from 0); "
                "all vectors must have one length"
            )
        return rows["v"]


def refuse_more(name: str, layout: RawLayout, n_bytes: int | None) -> None:
    """Raises InputError where a file has more than its array; ``n_bytes`` is None for a stream
    that goes on after it."""
    more: Any = "more" if n_bytes is None else n_bytes - layout.end
    if more == "more" or more > 0:
        raise InputError(
            f"{name}: {more} bytes come after the array of shape {layout.shape}; of several arrays "
            "in one file only the first would be read: save one, made with np.concatenate"
        )


def open_npy(source: Source, columns: Columns) -> RawReader:
    """An array of numbers, format 1 to 3, any byte order, C or Fortran order."""
    columns.refuse(source.name, "an .npy file has none")
    layout = _npy_layout(io.BytesIO(source.head(64 << 10)), source.name)
    if layout.fortran and not source.n_bytes:
        raise InputError(
            f"{source.name}: an array in Fortran order cannot be read from a stream; "
            "save it in C order, or give the file"
        )
    return RawReader(source, "npy", layout)


def _npy_layout(file: IO[bytes], name: str) -> RawLayout:
    """The layout that the header at the beginning of ``file`` describes."""
    try:
        version = np.lib.format.read_magic(file)
        # Versions 2 and 3 differ only in how names of structured fields are encoded.
        first = version == (1, 0)
        read = getattr(np.lib.format, f"read_array_header_{'1' if first else '2'}_0")
        shape, fortran_order, dtype = read(file)
    except Exception as error:  # numpy parses Python, which fails in many ways
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"{name}: damaged .npy header: {reason}; write it again") from error
    if dtype.hasobject:
        raise InputError(
            f"{name}: the array holds Python objects (a pickle), which dink never loads; "
            "save it as a plain 2-D array of floats"
        )
    if dtype.kind == "b":
        dtype = np.dtype(np.uint8)  # a byte each, 0 or 1
    if dtype.kind not in "fiu":
        raise InputError(f"{name}: the array holds {dtype}, expected floats or integers")
    if len(shape) == 3 and shape[1] == 1:
        shape = (shape[0], shape[2])
    if len(shape) != 2 or min(shape) < 0:
        raise InputError(f"{name}: the array has shape {shape}, expected 2-D (rows, features)")
    return RawLayout(dtype, shape, file.tell(), fortran_order)


def open_npz(source: Source, columns: Columns) -> RawReader:
    """A member of an .npz archive. A compressed one is unpacked into a temporary file first."""
    name = source.name
    columns.refuse(name, "an .npz file has none", member=True)
    with reading(name, "npz"), source.open() as file, zipfile.ZipFile(file) as archive:
        infos = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        members = {info.filename.removesuffix(".npy"): info for info in infos}
        if not members or {"indptr", "indices"} <= members.keys():
            what = foreign.named_zip(archive, name) or (
                "a zip file without .npy members; save the vectors as .npy"
            )
            raise InputError(f"{name}: {what}")
        layouts: dict[str, RawLayout | None] = dict.fromkeys(members)
        for each, info in members.items():
            with suppress(InputError), archive.open(info) as packed:
                layouts[each] = _npy_layout(packed, each)
        chosen, why = choose_member(name, layouts, columns)
        info = members[chosen]
        with archive.open(info) as packed:
            layout = _npy_layout(packed, f"{name}: {chosen}")
        refuse_more(f"{name}: {chosen}", layout, info.file_size)
        if info.compress_type == zipfile.ZIP_STORED:
            file.seek(info.header_offset)
            header = file.read(30)  # then name and other fields of these lengths, then the member
            lengths = [int.from_bytes(header[at : at + 2], "little") for at in (26, 28)]
            start = info.header_offset + len(header) + sum(lengths)
            layout, unpacked = replace(layout, offset=start + layout.offset), source
        else:
            with archive.open(info) as packed:
                unpacked = copied(source, packed)
    reader = RawReader(unpacked, "npz", layout, chosen)
    reader.n_bytes, reader.about = source.n_bytes, {"chosen": why}
    return reader


def choose_member(path: str, members: Mapping[str, Any], columns: Columns) -> tuple[str, str]:
    """The member of a file of several arrays that is named, or the only one, and why it is that;
    those of two dimensions have a ``dtype``, and others are None."""
    names = list(members)
    if (member := columns.vectors) is not None:
        if member not in names:
            raise UsageError(f"{path}: no member {member!r}; it has {', '.join(names[:12])}")
        return member, "named by `column`"
    if columns.usual in names:
        return str(columns.usual), "as in training"
    if len(names) == 1:
        return names[0], "the only one"
    for are_floats, what in ((True, "floats"), (False, "integers")):
        candidates = [
            name
            for name, array in members.items()
            if array is not None and (array.dtype.kind == "f") == are_floats
        ]
        if len(candidates) == 1:
            return candidates[0], f"the only one of two dimensions of {what}"
        if candidates:
            names = candidates
            break
    raise UsageError(
        f"{path}: {len(names)} members: {', '.join(names[:12])}; choose one with `column` "
        f"{names[0]}"
    )


_DTYPES = {
    **{"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2", "BOOL": "u1"},
    **{f"{kind.upper()}{8 * size}": f"<{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)},
}


def open_safetensors(source: Source, columns: Columns) -> RawReader:
    """The tensor of (N, D) numbers that is named, or the only one."""
    name = source.name
    columns.refuse(name, "a safetensors file has none", member=True)
    with source.open() as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        tensors = {
            key: _tensor_layout(value, 8 + length)
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
    chosen, why = choose_member(name, tensors, columns)
    reader = RawReader(source, "safetensors", tensors[chosen], chosen)
    reader.about = {"chosen": why}
    return reader


def _tensor_layout(value: dict[str, Any], start: int) -> RawLayout:
    n_rows, n_features = value["shape"]
    begin, end = value["data_offsets"]
    if min(n_rows, n_features, begin) < 0:
        raise ValueError(f"shape ({n_rows}, {n_features}) at {begin}")
    number, bfloat16 = np.dtype(_DTYPES[value["dtype"]]), value["dtype"] == "BF16"
    layout = RawLayout(number, (n_rows, n_features), start + begin, bfloat16=bfloat16)
    if start + end != layout.end:
        raise ValueError(f"{end - begin} bytes for shape ({n_rows}, {n_features})")
    return layout


_VECS = {".fvecs": "<f4", ".bvecs": "u1", ".ivecs": "<i4"}


def open_vecs(source: Source, columns: Columns) -> RawReader:
    """Rows that each begin with their dimension as int32."""
    suffix = suffix_of(source.name)
    columns.refuse(source.name, f"a {suffix} file has none")
    n_features = int.from_bytes(source.head(4), "little", signed=True)
    number = np.dtype(_VECS[suffix])
    size = 4 + n_features * number.itemsize
    if n_features < 1 or source.n_bytes % size:
        raise InputError(
            f"{source.name}: {source.n_bytes} bytes are no whole number of {suffix[1:]} rows of "
            f"dimension {n_features}, which the first row says; write or copy it again"
        )
    layout = RawLayout(number, (source.n_bytes // size, n_features), counted=True)
    return RawReader(source, suffix[1:], layout)


OPENERS = {
    "npy": open_npy,
    "npz": open_npz,
    "safetensors": open_safetensors,
    **{suffix[1:]: open_vecs for suffix in _VECS},
}
