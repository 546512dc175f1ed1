"""What the ways with torch and without it share; it loads neither.

Shapes: K clusters, D features.
"""

from __future__ import annotations

from typing import Any

# Norms up to this have squares, and sums of millions of squares, that float32 can hold.
LARGEST_NORM = 1e18
# How much rounding may move an exponent: a probability then moves by a quarter of it at most.
TOLERANCE = 2e-4
# Centres other than the row's own stay below it by at least this, or rounding would make a tie of
# them: two units in the last place of a probability.
BELOW = {"float32": 2.0**-22, "float16": 2.0**-9}
LEAST_TEMPERATURE = 1e-30

_CHUNK_ROWS = 2048
CHUNK_SCORES = 1 << 21
_MOST_SCORES = 1 << 24  # for the sake of aligned rows
# Where chunks of 2048 rows are small, what is done for each chunk costs more than they do.
_CACHED_NUMBERS = 3 << 18
# Products of a multiple of this many rows are a quarter faster.
_ALIGNED_ROWS = 64


def chunk_rows(n_clusters: int, n_features: int) -> int:
    """Rows (of D features) whose scores against K centres are computed at once."""
    cached = _CACHED_NUMBERS // max(n_clusters, n_features)
    rows = min(max(_CHUNK_ROWS, cached), CHUNK_SCORES // n_clusters)
    if rows < _ALIGNED_ROWS:
        return max(1, min(_ALIGNED_ROWS, _MOST_SCORES // n_clusters))
    return rows // _ALIGNED_ROWS * _ALIGNED_ROWS


def squares_between(a: Any, b: Any) -> Any:
    """||a_i - b_i||^2 (M,) of the rows of two arrays, or of two tensors, (M, D).

    Both give the same bits: what is added to what does not depend on the library.
    """
    values = a - b
    values = values * values
    while values.shape[1] > 1:
        half = values.shape[1] // 2
        folded = values[:, :half] + values[:, half : 2 * half]
        if values.shape[1] % 2:
            folded[:, 0] += values[:, -1]
        values = folded
    return values[:, 0]
