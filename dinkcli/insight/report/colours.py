"""Colours of clusters, and of rows by the values of a column. All are read on white and on black.

Shapes: K clusters, P rows.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

_RAMP = ("#5a43c8", "#a83db0", "#dd5479", "#ea8a45", "#d9b02f")  # from low to high
_GREY = "#8b9099"
_NONE = 255  # the code of a null
_MOST_CATEGORIES = 12
_LONGEST = 40  # characters of a value in the legend


@dataclass(frozen=True)
class Colouring:
    """How a column colours rows.

    Their codes (P,) uint8 are places among 256 colours #rrggbb, the last of which is that of a
    null. The legend has codes and what they stand for: of a scale of numbers or dates its ends and
    its middle.
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
    to_cones = [[0.3963377774, 0.2158037573], [-0.1055613458, -0.0638541728]]
    cones = lightness + np.array([*to_cones, [-0.0894841775, -1.2914855480]]) @ (a, b)
    to_rgb = [[4.0767416621, -3.3077115913, 0.2309699292]]
    to_rgb += [[-1.2684380046, 2.6097574011, -0.3413193965]]
    to_rgb += [[-0.0041960863, -0.7034186147, 1.7076147010]]
    linear = (np.array(to_rgb) @ cones**3).clip(0, 1)
    bent = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return "#" + bytes(np.rint(255 * bent).astype(np.uint8)).hex()


def colouring(name: str, values: pa.ChunkedArray) -> Colouring:
    """Numbers and dates, also such as were written as text, make a scale; else, and of few whole
    numbers, each of the most frequent values has a colour."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    numbers, is_date = _numbers(values)
    known = np.isfinite(numbers)
    distinct = np.unique(numbers[known])
    whole = len(distinct) <= _MOST_CATEGORIES and not is_date and not (distinct % 1).any()
    if len(distinct) and not whole:
        return _scale(name, numbers, is_date)
    texts = ["" if value is None else str(value) for value in values.to_pylist()]
    if len(distinct):
        texts = [text if ok else "" for text, ok in zip(texts, known.tolist(), strict=True)]
    counts = Counter(filter(None, texts))
    most = _MOST_CATEGORIES - (len(counts) > _MOST_CATEGORIES)
    shown = sorted(counts, key=lambda text: (-counts[text], text))[:most]
    if len(distinct):
        shown.sort(key=float)
    places = {"": _NONE} | {text: i for i, text in enumerate(shown)}
    codes = np.array([places.get(text, most) for text in texts], np.uint8)
    legend = list(enumerate(shown))
    if len(counts) > most:
        legend.append((most, f"{len(counts) - most:,} others"))
    return _colouring(name, codes, palette(np.arange(max(1, len(shown))))[0], legend, False)


def _numbers(values: pa.ChunkedArray) -> tuple[np.ndarray, bool]:
    """(P,) float64, NaN for what is no number, and whether they are seconds since 1970."""
    if not pa.types.is_boolean(values.type):
        for kind in (pa.float64(), pa.timestamp("s")):
            try:
                found = values.cast(kind, safe=False)
            except pa.ArrowException:
                continue
            is_date = pa.types.is_timestamp(kind)
            found = found.cast(pa.int64()).cast(pa.float64(), safe=False) if is_date else found
            return np.asarray(found, np.float64), is_date
    return np.full(len(values), np.nan), False


def _scale(name: str, numbers: np.ndarray, is_date: bool) -> Colouring:
    known = np.isfinite(numbers)
    ends = np.quantile(numbers[known], [0, 0.01, 0.99, 1])
    low, high = ends[[0, 3]]
    if high - low > 2 * (ends[2] - ends[1]) > 0:  # values far off would leave all others alike
        low, high = ends[1:3]
    share = (np.where(known, numbers, low) - low) / ((high - low) or 1)
    codes = np.where(known, np.rint(254 * share.clip(0, 1)), _NONE).astype(np.uint8)
    ticks = [low, (low + high) / 2, high]
    if is_date:
        digits = 10 if high - low >= 2 * 86_400 else 16  # of days, or of minutes
        words = [str(np.datetime64(round(t), "s"))[:digits].replace("T", " ") for t in ticks]
    else:
        words = [f"{t:,.0f}" if abs(t) >= 1000 else f"{t:.3g}" for t in ticks]
    ramp = np.array([[int(each[i : i + 2], 16) for i in (1, 3, 5)] for each in _RAMP])
    at = np.linspace(0, len(_RAMP) - 1, _NONE)
    mixed = np.stack([np.interp(at, range(len(_RAMP)), part) for part in ramp.T], axis=1)
    colours = ["#" + bytes(rgb).hex() for rgb in np.rint(mixed).astype(np.uint8)]
    return _colouring(name, codes, colours, list(zip((0, 127, 254), words, strict=True)), True)


def _colouring(
    name: str, codes: np.ndarray, colours: list[str], legend: list[tuple[int, str]], is_scale: bool
) -> Colouring:
    if (codes == _NONE).any():
        legend.append((_NONE, "none"))
    legend = [(code, clean(words)[:_LONGEST]) for code, words in legend]
    colours += [_GREY] * (256 - len(colours))
    return Colouring(clean(name), codes, colours, legend, is_scale)


def clean(text: str) -> str:
    """Without what has no place in XML."""
    text = text.encode("utf-8", "replace").decode()
    return "".join(c for c in text if c >= " " and c not in "\ufffe\uffff")
