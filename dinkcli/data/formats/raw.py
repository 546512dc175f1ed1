"""Arrays that lie in a file as they are: npy, npz, safetensors, fvecs and their like.

Read, not mapped: a mapped file that shrinks kills the process, and mapped pages count as memory.
Never unpickles. Shapes: N rows, D features.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, BinaryIO

import numpy as np

from dinkcli.data.base import ANY_COLUMNS, NOTHING_SAID, Block, Columns, Reader, reading
from dinkcli.data.files import LocalFile, Source, Temporary, read_exactly
from dinkcli.data.formats import foreign
from dinkcli.errors import InputError, UsageError


@dataclass(frozen=True)
class RawLayout:
    """Where the (N, D) numbers are.

    Attributes:
        record: dtype of a stored row: a number in an (N, D) array, or a structure with the
            vector in its field "v" and its dimension in "d".
        offset: of the first byte.
        fortran: stored column by column.
        bfloat16: the record's uint16 are the upper halves of float32.
    """

    record: np.dtype
    shape: tuple[int, int]
    offset: int = 0
    fortran: bool = False
    bfloat16: bool = False

    @property
    def n_bytes(self) -> int:
        n_rows, n_features = self.shape
        return n_rows * self.record.itemsize * (1 if self.record.names else n_features)


class RawReader(Reader):
    """Rows of fixed size, one after the other.

    Args:
        is_whole: nothing else is in the file.

    Raises:
        InputError: fewer bytes than the layout needs, or more.
    """

    source: Source

    def __init__(
        self,
        source: Source,
        format: str,
        layout: RawLayout,
        column: str | None = None,
        about: Mapping[str, str] = NOTHING_SAID,
        is_whole: bool = False,
    ):
        self.source, self.format, self.layout, self.column = source, format, layout, column
        self.path, self.n_bytes, self.about = source.name, source.n_bytes, about
        self.n_rows, self.n_features = layout.shape
        number = layout.record["v"].base if layout.record.names else layout.record
        self.dtype = np.dtype(np.float32) if layout.bfloat16 else number
        needed = layout.offset + layout.n_bytes
        if source.n_bytes and source.n_bytes < needed:
            raise InputError(
                f"{self.path}: truncated: shape {layout.shape} of {self.dtype} needs {needed} "
                f"bytes, the file has {source.n_bytes}; write or copy it again"
            )
        self._is_whole = is_whole
        if is_whole and source.n_bytes:
            refuse_more(self.path, layout, source.n_bytes)

    def blocks(self, rows: int, since: int = 0, until: int | None = None) -> Iterator[Block]:
        self.source.check_unchanged()
        n_rows = self.layout.shape[0]
        with reading(self.path, self.format), self.source.open() as file:
            start = since // rows * rows
            if self.source.n_bytes:
                self._seek(file, start)
            else:
                read_exactly(file, bytearray(self.layout.offset), self.path)
                start = 0
            for begin in range(start, n_rows if until is None else min(until, n_rows), rows):
                block = Block(begin, self._read(file, begin, min(n_rows, begin + rows)))
                if begin + rows > since:  # a stream has no other way to come there
                    yield block
            if self._is_whole and until is None and not self.source.n_bytes and file.read(1):
                refuse_more(self.path, self.layout, None)
        self.source.check_unchanged()

    def _seek(self, file: BinaryIO, row: int) -> None:
        layout = self.layout
        if not layout.fortran:
            width = 1 if layout.record.names else self.n_features
            file.seek(layout.offset + row * width * layout.record.itemsize)

    def _read(self, file: BinaryIO, start: int, stop: int) -> np.ndarray:
        layout = self.layout
        if layout.fortran:
            return self._read_columns(file, start, stop)
        if layout.record.names:
            records = np.empty(stop - start, layout.record)
            read_exactly(file, records, self.path)
            if (records["d"] != self.n_features).any():
                row = int((records["d"] != self.n_features).argmax())
                raise InputError(
                    f"{self.path}: row {start + row} has {records['d'][row]} elements, expected "
                    f"{self.n_features} as in row 0 (counting from 0); "
                    "all vectors must have one length"
                )
            return records["v"]
        values = np.empty((stop - start, self.n_features), layout.record)
        read_exactly(file, values, self.path)
        if layout.bfloat16:
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values

    def _read_columns(self, file: BinaryIO, start: int, stop: int) -> np.ndarray:
        layout = self.layout
        values = np.empty((self.n_features, stop - start), layout.record)
        for feature, column in enumerate(values):
            position = feature * layout.shape[0] + start
            file.seek(layout.offset + position * layout.record.itemsize)
            read_exactly(file, column, self.path)
        return values.T


def refuse_more(name: str, layout: RawLayout, n_bytes: int | None) -> None:
    """Raises InputError where a file has more than its array; ``n_bytes`` is None for a stream
    that goes on after it."""
    more = None if n_bytes is None else n_bytes - layout.offset - layout.n_bytes
    if more is None or more > 0:
        raise InputError(
            f"{name}: {'more' if more is None else more} bytes come after the array of shape "
            f"{layout.shape}; of several arrays in one file only the first would be read: save "
            "one, made with np.concatenate"
        )


NPY_MAGIC = b"\x93NUMPY"
_HEADER_BYTES = 64 << 10
_LOCAL_HEADER_BYTES = 30


def open_npy(
    source: Source,
    columns: Columns = ANY_COLUMNS,
    dimensions: int = 2,
) -> RawReader:
    """An array of numbers, format 1 to 3, any byte order, C or Fortran order.

    ``dimensions=1`` takes a 1-D array instead, as one feature.
    """
    columns.refuse(source.name, "an .npy file has none")
    if source.n_bytes:
        with source.open() as file:
            layout = read_layout(file, source.name, dimensions)
    else:
        layout = read_layout(io.BytesIO(source.head(_HEADER_BYTES)), source.name, dimensions)
        if layout.fortran:
            raise InputError(
                f"{source.name}: an array in Fortran order cannot be read from a stream; "
                "save it in C order, or give the file"
            )
    return RawReader(source, "npy", layout, is_whole=True)


def read_layout(file: IO[bytes], name: str, dimensions: int = 2) -> RawLayout:
    """The layout that the header at the position of ``file`` describes."""
    start = file.tell()
    with reading(name, "npy"):
        try:
            version = np.lib.format.read_magic(file)
            # Versions 2 and 3 differ only in how names of structured fields are encoded.
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
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
    if dimensions == 2 and len(shape) == 3 and shape[1] == 1:
        shape = (shape[0], shape[2])
    if len(shape) != dimensions or min(shape, default=0) < 0:
        expected = "2-D (rows, features)" if dimensions == 2 else "1-D (rows,)"
        raise InputError(f"{name}: the array has shape {shape}, expected {expected}")
    n_rows, n_features = (*shape, 1)[:2]
    return RawLayout(dtype, (n_rows, n_features), file.tell() - start, fortran_order)


def open_npz(source: Source, member: str | None, usual: str | None) -> RawReader:
    """A member of an .npz archive. A compressed one is unpacked into a temporary file first."""
    name = source.name
    with reading(name, "npz"), source.open() as file, zipfile.ZipFile(file) as archive:
        names = [info.filename.removesuffix(".npy") for info in _members(archive)]
        if not names:
            what = foreign.named_zip(archive, name)
            raise InputError(
                f"{name}: {what}"
                if what
                else f"{name}: a zip file without .npy members; save the vectors as .npy"
            )
        kinds = {each: _kind(archive, each) for each in names} if len(names) > 1 else {}
        chosen, why = choose_member(name, names, member, usual, kinds)
        info = _members(archive)[names.index(chosen)]
        with archive.open(info) as packed:
            layout = read_layout(packed, f"{name}: {chosen}")
        refuse_more(f"{name}: {chosen}", layout, info.file_size)
        if info.compress_type == zipfile.ZIP_STORED:
            file.seek(info.header_offset)
            header = file.read(_LOCAL_HEADER_BYTES)
            lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(
                header[28:30], "little"
            )
            offset = info.header_offset + _LOCAL_HEADER_BYTES + lengths + layout.offset
            stored = RawLayout(layout.record, layout.shape, offset, layout.fortran)
            return RawReader(source, "npz", stored, chosen, {"chosen": why})
        with archive.open(info) as packed:
            copy = Temporary(".npy", f"unpacking {name}")
            shutil.copyfileobj(packed, copy, 1 << 20)
            copy.flush()
    member_file = LocalFile(name, path=copy.name, keeps=copy)
    reader = RawReader(member_file, "npz", layout, chosen, {"chosen": why})
    reader.n_bytes = source.n_bytes
    return reader


def choose_member(
    path: str, names: list[str], member: str | None, usual: str | None, kinds: dict[str, str]
) -> tuple[str, str]:
    """The member of an archive that --column names, or the only one, and why it is that.

    Args:
        kinds: "f" for members of two dimensions of floats, "i" for those of integers; others are
            no candidates.
    """
    if member is not None:
        if member not in names:
            raise UsageError(f"{path}: no member {member!r}; it has {', '.join(names[:12])}")
        return member, "named by --column"
    if usual in names:
        return str(usual), "as in training"
    if len(names) == 1:
        return names[0], "the only one"
    for kind, what in (("f", "floats"), ("i", "integers")):
        found = [name for name in names if kinds.get(name) == kind]
        if len(found) == 1:
            return found[0], f"the only one of two dimensions of {what}"
        if found:
            names = found
            break
    raise UsageError(
        f"{path}: {len(names)} members: {', '.join(names[:12])}; "
        f"choose one with --column {names[0]}"
    )


def _kind(archive: zipfile.ZipFile, name: str) -> str:
    """ "f" or "i" for an (N, D) array, else ""."""
    try:
        with archive.open(f"{name}.npy") as packed:
            layout = read_layout(packed, name)
    except InputError:
        return ""
    return "f" if layout.record.kind == "f" else "i"


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    return [info for info in archive.infolist() if info.filename.endswith(".npy")]


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
