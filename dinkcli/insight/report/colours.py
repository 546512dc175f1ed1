"""Colours of clusters, and of rows by the values of a column. All are read on white and on black.

Shapes: K clusters, P rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_RAMP = ("#5a43c8", "#a83db0", "#dd5479", "#ea8a45", "#d9b02f")  # from low to high
_GREY = "#8b9099"
_NONE = 255  # the code of a null
_MOST_CATEGORIES = 12


@dataclass(frozen=True)
class Colouring:
    """How a column colours rows.

    Attributes:
        name: of the column.
        codes: (P,) uint8, places in ``colours``.
        colours: 256 of the form #rrggbb; the last is that of a null.
        legend: codes and what they stand for; of a scale its beginning, middle and end.
        is_scale: numbers or dates, in their order.
    """

    name: str
    codes: np.ndarray
    colours: list[str]
    legend: list[tuple[int, str]]
    is_scale: bool


def palette(groups: np.ndarray) -> tuple[list[str], list[str]]:
    """(K colours of the clusters, those of their groups): a group has a hue, and its clusters have
    shades around it.

    Args:
        groups: (K,) the group of each cluster, -1 for none.
    """
    n = int(groups.max()) + 1
    # Groups of neighbouring numbers lie near each other: their hues are far apart.
    step = next((s for s in range(max(1, round(0.38 * n)), n) if math.gcd(s, n) == 1), 1)
    hues = [25 + 360 * (i * step % n) / n for i in range(n)]
    seen = [0] * n
    colours = []
    for group in groups.tolist():
        if group < 0:
            colours.append(_GREY)
            continue
        place = seen[group]
        seen[group] += 1
        hue = hues[group] + min(14, 120 / n) * ((0, 1, -1)[place % 3])
        colours.append(_hex((0.62, 0.54, 0.70)[place // 3 % 3], 0.15, hue))
    return colours, [_hex(0.58, 0.16, hue) for hue in hues]


def _hex(lightness: float, chroma: float, hue: float) -> str:
    """#rrggbb of a colour of OKLCH (Ottosson 2020), its hue in degrees."""
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    cones = (
        lightness + 0.3963377774 * a + 0.2158037573 * b,
        lightness - 0.1055613458 * a - 0.0638541728 * b,
        lightness - 0.0894841775 * a - 1.2914855480 * b,
    )
    to_rgb = (
        (4.0767416621, -3.3077115913, 0.2309699292),
        (-1.2684380046, 2.6097574011, -0.3413193965),
        (-0.0041960863, -0.7034186147, 1.7076147010),
    )
    linear = [sum(w * cone**3 for w, cone in zip(row, cones, strict=True)) for row in to_rgb]
    bent = [12.92 * v if v < 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055 for v in linear]
    return "#" + "".join(f"{round(255 * min(1, max(0, v))):02x}" for v in bent)


def colouring(name: str, values: pa.ChunkedArray) -> Colouring:
    """Numbers and dates, also such as were written as text, make a scale; else each of the most
    frequent values has a colour."""
    values = _typed(values)
    counts = pc.value_counts(values.drop_null()).to_pylist()
    counts.sort(key=lambda count: (-count["counts"], str(count["values"])))
    numeric = pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
    if counts and (
        pa.types.is_temporal(values.type)
        or pa.types.is_floating(values.type)
        or (numeric and len(counts) > _MOST_CATEGORIES)
    ):
        return _scale(name, values)
    fits = len(counts) <= _MOST_CATEGORIES
    shown = [count["values"] for count in counts[: _MOST_CATEGORIES - (not fits)]]
    if numeric or pa.types.is_boolean(values.type):
        shown.sort()
    found = pc.fill_null(pc.index_in(values, pa.array(shown, values.type)), len(shown))
    codes = np.where(pc.is_null(values), _NONE, found).astype(np.uint8)
    colours = palette(np.arange(max(1, len(shown))))[0]
    legend = list(enumerate(map(str, shown)))
    if not fits:
        legend.append((len(shown), f"{len(counts) - len(shown):,} others"))
    return Colouring(name, codes, _padded(colours), _with_none(legend, codes), False)


def _typed(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(values.type):
        values = pc.cast(values, values.type.value_type)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        for kind in (pa.int64(), pa.float64(), pa.timestamp("s"), pa.timestamp("us")):
            try:
                return pc.cast(values, kind)
            except pa.ArrowInvalid:
                continue
        return values
    if pa.types.is_nested(values.type) or pa.types.is_binary(values.type):
        return pa.chunked_array([[None if v is None else str(v) for v in values.to_pylist()]])
    return values


def _scale(name: str, values: pa.ChunkedArray) -> Colouring:
    is_date = pa.types.is_temporal(values.type) and not pa.types.is_duration(values.type)
    if is_date:
        kind = pa.int32() if pa.types.is_date32(values.type) else pa.int64()
        unit = values.type
        numbers = np.asarray(pc.cast(values, kind).cast(pa.float64(), safe=False), np.float64)
    else:
        numbers = np.asarray(values.cast(pa.float64(), safe=False), np.float64)
    known = np.isfinite(numbers)
    ends = np.quantile(numbers[known], [0, 0.01, 0.99, 1]) if known.any() else np.zeros(4)
    low, high = ends[[0, 3]]
    if high - low > 2 * (ends[2] - ends[1]) > 0:  # values far off would leave all others alike
        low, high = ends[1:3]
    share = (np.where(known, numbers, low) - low) / ((high - low) or 1)
    codes = np.where(known, np.rint(254 * share.clip(0, 1)), _NONE).astype(np.uint8)

    def words(value: float) -> str:
        if not is_date:
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        date = pa.scalar(round(value), kind).cast(unit).as_py()
        return f"{date:%Y-%m-%d}" if hasattr(date, "year") else str(date)

    ramp = np.array([[int(each[i : i + 2], 16) for i in (1, 3, 5)] for each in _RAMP])
    at = np.linspace(0, len(_RAMP) - 1, 255)
    parts = [np.interp(at, range(len(_RAMP)), ramp[:, i]) for i in range(3)]
    colours = [
        f"#{round(r):02x}{round(g):02x}{round(b):02x}" for r, g, b in zip(*parts, strict=True)
    ]
    legend = [(0, words(low)), (127, words((low + high) / 2)), (254, words(high))]
    return Colouring(name, codes, _padded(colours), _with_none(legend, codes), True)


def _padded(colours: list[str]) -> list[str]:
    return colours + [_GREY] * (256 - len(colours))


def _with_none(legend: list[tuple[int, str]], codes: np.ndarray) -> list[tuple[int, str]]:
    return [*legend, (_NONE, "none")] if (codes == _NONE).any() else legend
