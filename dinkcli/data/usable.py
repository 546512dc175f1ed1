"""Which rows of a block have a vector that can be used.

Shapes: B rows in a block, D features.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np

from dinkcli.data.base import Block

# Norms of rows up to this have squared distances, and sums of millions of them, that float32 holds.
LARGEST_NORM = 5e17


def checked(block: Block, dtype: np.dtype, nonzero: bool | None) -> Block:
    """The block in ``dtype``, C-ordered and native, with all of its bad rows found and zeroed.

    The same memory if it is that already.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        vectors = _converted(block.vectors, dtype)
        bad = _unusable(vectors, nonzero)
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


def _unusable(vectors: np.ndarray, nonzero: bool | None) -> np.ndarray | None:
    """(B,) bool, rows that are not finite, or too long for distances; None without any."""
    if vectors.dtype.kind != "f":
        return None
    limit = _limit(vectors, nonzero)
    if vectors.dtype == np.float16:
        # Sums in float16 overflow; the largest exponent is what infinity and NaN have in common.
        if (vectors.view(np.uint16) & 0x7FFF).max(initial=0) < 0x7C00:
            return None
    else:
        # A dot product with itself, the quickest pass there is, finds almost every block clean;
        # one that is too large although each value is small only costs the exact look below.
        flat = vectors.reshape(-1)
        if np.dot(flat, flat) <= min(limit, 1e150) ** 2:
            return None
    bad = ~(np.abs(vectors) <= limit).all(1)
    return bad if bad.any() else None


def _limit(vectors: np.ndarray, nonzero: bool | None) -> float:
    """The largest absolute value: finite, and where distances are taken, with a square that sums
    of float32 can hold."""
    if nonzero is not False or vectors.dtype != np.float32:
        return float(np.finfo(vectors.dtype).max)
    return LARGEST_NORM / max(1, vectors.shape[1]) ** 0.5


def _zero(vectors: np.ndarray) -> np.ndarray:
    """Rows of zeros. Squares find the few that may be; those of tiny numbers vanish in float32."""
    squares = vectors.astype(np.float32, copy=False)
    zero = np.einsum("ij,ij->i", squares, squares) == 0
    if zero.any():
        zero[zero] = ~vectors[zero].any(axis=1)
    return zero


def _value_problem(stored: np.ndarray, converted: np.ndarray) -> str:
    finite = np.isfinite(converted)
    if not finite.all():
        feature = int((~finite).argmax())
        return f" holds {stored[feature]} in feature {feature}, expected numbers finite in float32"
    feature = int(np.abs(converted).argmax())
    limit = LARGEST_NORM / len(converted) ** 0.5
    return (
        f" holds {stored[feature]:g} in feature {feature}; squared distances would overflow "
        f"float32, expected numbers up to {limit:.2g}"
    )


def _zero_problem(stored: np.ndarray, converted: np.ndarray) -> str:
    return " has norm 0, which has no direction"
