"""Which rows of a block have a vector that can be used.

Shapes: B rows in a block, D features.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np

from dinkcli.data.base import Block


def checked(block: Block, dtype: np.dtype, nonzero: bool) -> Block:
    """The block in ``dtype``, C-ordered and native, with all of its bad rows found and zeroed.

    The same memory if it is that already.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        vectors = _converted(block.vectors, dtype)
        bad = _not_finite(vectors)
    if bad is None and block.bad is None and not nonzero:
        return replace(block, vectors=vectors)
    problem = block.problem
    none = np.zeros(len(block), bool)
    worst = none if block.bad is None else block.bad
    for mask, say in ((bad, _value_problem), (_zero(vectors) if nonzero else None, _zero_problem)):
        if mask is None or not (mask & ~worst).any():
            continue
        row = int((mask & ~worst).argmax())
        if not worst.any() or row < int(worst.argmax()):
            problem = say(block.vectors[row], vectors[row])
        worst = worst | mask
    if not worst.any():
        return replace(block, vectors=vectors)
    return replace(
        block, vectors=np.where(worst[:, None], dtype.type(0), vectors), bad=worst, problem=problem
    )


def _converted(vectors: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The numbers in ``dtype``, C-ordered; the same memory if they are that already."""
    torch: Any = sys.modules.get("torch")
    if torch is None or vectors.dtype != np.float16 or dtype != np.float32:
        return np.ascontiguousarray(vectors, dtype=dtype)
    # NumPy converts halves one by one, which takes 17 times as long.
    halves = torch.from_numpy(np.require(vectors, requirements=["C", "W"]))
    floats: np.ndarray = halves.float().numpy()
    return floats


def _not_finite(vectors: np.ndarray) -> np.ndarray | None:
    """(B,) bool, or None when all values are finite."""
    if vectors.dtype.kind != "f":
        return None
    if vectors.dtype == np.float16:
        # Sums in float16 overflow; the largest exponent is what infinity and NaN have in common.
        if (vectors.view(np.uint16) & 0x7FFF).max(initial=0) < 0x7C00:
            return None
    else:
        # A dot product with itself, the quickest pass there is, finds almost every block clean;
        # one that overflows although each value is finite only costs the exact look below.
        flat = vectors.reshape(-1)
        if np.isfinite(np.dot(flat, flat)):
            return None
    bad = ~np.isfinite(vectors).all(1)
    return bad if bad.any() else None


def _zero(vectors: np.ndarray) -> np.ndarray:
    """Rows of zeros. Squares find the few that may be; those of tiny numbers vanish in float32."""
    squares = vectors.astype(np.float32, copy=False)
    zero = np.einsum("ij,ij->i", squares, squares) == 0
    if zero.any():
        zero[zero] = ~vectors[zero].any(axis=1)
    return zero


def _value_problem(stored: np.ndarray, converted: np.ndarray) -> str:
    feature = int((~np.isfinite(converted)).argmax())
    return f" holds {stored[feature]} in feature {feature}, expected numbers finite in float32"


def _zero_problem(stored: np.ndarray, converted: np.ndarray) -> str:
    return " has norm 0, which has no direction"
