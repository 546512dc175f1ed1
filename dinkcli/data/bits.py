"""Binary embeddings: bits that are packed eight to a byte, read as -1 and +1.

Shapes: B rows in a block, D features, which are bits here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from dinkcli.data.base import Block, Reader
from dinkcli.errors import InputError, UsageError

_LIKE_BITS = 0.2  # each bit of a byte is set in at least this share of bytes, and not in as many
_FEW = 64


class BitsReader(Reader):
    """The bits of another reader's bytes, most significant first, as ``numpy.packbits`` packs them.

    Unpacked in the block, eight times as large as on disk.

    Args:
        packed: a reader of uint8, or of int8 shifted by -128 as sentence-transformers writes
            ``precision="binary"``.
        dim: D; all bits without it.

    Raises:
        InputError: other numbers.
        UsageError: more dimensions than bits.
    """

    def __init__(self, packed: Reader, dim: int | None):
        whole = packed.dtype.kind in "iu" and packed.dtype.itemsize == 1
        # Texts and lists of other types hold bytes as well; blocks are looked at one by one.
        if not whole and not hasattr(packed, "places"):
            raise InputError(
                f"{packed.path}: --bits expects bytes (uint8, or int8 shifted by -128), and these "
                f"are {packed.dtype}"
            )
        n_bits = 8 * packed.n_features
        if dim is not None and not n_bits - 8 < dim <= n_bits:
            raise UsageError(
                f"{packed.path}: --bits --dim {dim}: {packed.n_features} bytes a row hold "
                f"{n_bits - 7} to {n_bits} dimensions"
            )
        self.packed = packed
        for name in ("path", "format", "column", "feature_names", "carried", "notes", "source"):
            setattr(self, name, getattr(packed, name))
        self.n_rows, self.n_bytes = packed.n_rows, packed.n_bytes
        self.n_features = n_bits if dim is None else dim
        self.dtype = np.dtype(np.int8)
        self.about = {**packed.about, "bits": "packed, read as -1 and +1"}
        self._shifted: bool | None = {"i1": True, "u1": False}.get(packed.dtype.str[1:])

    def blocks(self, rows: int, since: int = 0, until: int | None = None) -> Iterator[Block]:
        for block in self.packed.blocks(rows, since, until):
            yield replace(block, vectors=self._unpacked(block.vectors, block.start))

    def _unpacked(self, vectors: np.ndarray, start: int) -> np.ndarray:
        """(B, D) int8 of -1 and +1."""
        low, high = (float(vectors.min()), float(vectors.max())) if vectors.size else (0.0, 0.0)
        if self._shifted is None:
            self._shifted = low < 0
        least = -128 if self._shifted else 0
        if not least <= low <= high <= least + 255:
            raise InputError(
                f"{self.path}: --bits expects bytes from {least} to {least + 255}, and of the "
                f"{len(vectors)} rows from row {start} on the smallest number is {low:g} and the "
                f"largest {high:g}"
            )
        values = (vectors.astype(np.int16) - least).astype(np.uint8)
        bits = np.unpackbits(values, axis=1, count=self.n_features).view(np.int8)
        return bits * np.int8(2) - np.int8(1)


def look_packed(reader: Reader) -> bool:
    """Whether uint8 numbers look like packed bits: all eight bits of a byte vary alike."""
    if reader.dtype != np.uint8 or reader.n_rows is None:
        return False
    if reader.source is not None and reader.source.path is None:
        return False  # it may come only once
    block = next(iter(reader.blocks(4096, 0, 1)), None)
    if block is None or block.vectors.dtype != np.uint8 or block.vectors.size < _FEW:
        return False
    shares = np.unpackbits(block.vectors.reshape(-1, 1), axis=1).mean(0)
    return bool((shares > _LIKE_BITS).all() and (shares < 1 - _LIKE_BITS).all())
