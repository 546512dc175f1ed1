"""NumPy .npy files, and the members of .npz archives. Never unpickles."""

from __future__ import annotations

import io
import shutil
import zipfile
from typing import IO

import numpy as np

from dinkcli.data.base import ANY_COLUMNS, Columns, reading
from dinkcli.data.files import LocalFile, Source, Temporary
from dinkcli.data.formats import foreign
from dinkcli.data.formats.raw import RawLayout, RawReader, refuse_more
from dinkcli.errors import InputError, UsageError

MAGIC = b"\x93NUMPY"
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
