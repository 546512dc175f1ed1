"""Colours of clusters, and of rows by the values of a column. All are read on white and on black.

Shapes: K clusters, P rows.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

import numpy as np
import pyarrow as pa

Coded = tuple[np.ndarray, list[str], list[tuple[int, str]]]  # codes, colours and legend
_RAMP = ("#5a43c8", "#a83db0", "#dd5479", "#ea8a45", "#d9b02f")  # from low to high
_GREY = "#8b9099"
_NONE = 255  # the code of a null
_MOST_CATEGORIES = 12
_LONGEST = 40  # characters of a value in the legend
# Of OKLab, from its a and b to cones, and from those to linear RGB.
_TO_CONES = np.array(
    [[0.39633778, 0.21580376], [-0.10556135, -0.06385417], [-0.08948418, -1.29148555]]
)
_TO_RGB = np.array(
    [
        [4.07674166, -3.30771159, 0.23096993],
        [-1.26843800, 2.60975740, -0.34131940],
        [-0.00419609, -0.70341861, 1.70761470],
    ]
)


class Colouring(NamedTuple):
    """How a column colours rows."""

    name: str
    codes: np.ndarray  # (P,) uint8, places among the colours
    colours: list[str]  # 256 of #rrggbb, the last of which is that of a null
    legend: list[tuple[int, str]]  # codes and what they stand for; of a scale its ends and middle
    is_scale: bool  # of numbers or dates


def palette(groups: np.ndarray) -> tuple[list[str], list[str]]:
    """(K colours of the clusters, those of their groups): a group has a hue, and its clusters have
    shades around it; ``groups`` (K,) has -1 for a cluster in none."""
    n = int(groups.max()) + 1
    # Groups of neighbouring numbers lie near each other: their hues are far apart.
    step = next((s for s in range(max(1, round(0.38 * n)), n) if math.gcd(s, n) == 1), 1)
    hues = [25 + 360 * (i * step % n) / n for i in range(n)]
    seen: Counter[int] = Counter()
    colours = []
    for group in groups.tolist():
        place, seen[group] = seen[group], seen[group] + 1
        hue = hues[group] + min(14, 120 / n) * (0, 1, -1)[place % 3]
        lightness = (0.62, 0.54, 0.70)[place // 3 % 3]
        colours.append(_GREY if group < 0 else _hex(lightness, 0.15, hue))
    return colours, [_hex(0.58, 0.16, hue) for hue in hues]


def _hex(lightness: float, chroma: float, hue: float) -> str:
    """#rrggbb of a colour of OKLCH (Ottosson 2020), its hue in degrees."""
    around = math.radians(hue)
    cones = lightness + chroma * _TO_CONES @ (math.cos(around), math.sin(around))
    linear = (_TO_RGB @ cones**3).clip(0, 1)
    bent = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return "#" + bytes(np.rint(255 * bent).astype(np.uint8)).hex()


def colouring(name: str, values: pa.ChunkedArray) -> Colouring:
    """Numbers and dates, also such as were written as text, make a scale; else, and of few whole
    numbers, each of the most frequent values has a colour."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    numbers, is_date = _numbers(values)
    is_number = np.isfinite(numbers)
    distinct = np.unique(numbers[is_number])
    is_whole = len(distinct) <= _MOST_CATEGORIES and not is_date and not (distinct % 1).any()
    is_scale = len(distinct) > 0 and not is_whole
    if is_scale:
        codes, colours, legend = _scale(numbers, is_date)
    else:
        texts = ["" if value is None else str(value) for value in values.to_pylist()]
        if len(distinct):
            texts = [text if ok else "" for text, ok in zip(texts, is_number, strict=True)]
        codes, colours, legend = _categories(texts, len(distinct) > 0)
    if (codes == _NONE).any():
        legend.append((_NONE, "none"))
    legend = [(code, clean(words)[:_LONGEST]) for code, words in legend]
    colours += [_GREY] * (256 - len(colours))
    return Colouring(clean(name), codes, colours, legend, is_scale)


def _numbers(values: pa.ChunkedArray) -> tuple[np.ndarray, bool]:
    """(P,) float64, not finite for what is no number, and whether they are seconds since 1970."""
    kinds = () if pa.types.is_boolean(values.type) else (pa.float64(), pa.timestamp("s"))
    for kind in kinds:
        try:
            numbers = values.cast(kind, safe=False)
        except pa.ArrowException:
            continue
        if is_date := pa.types.is_timestamp(kind):
            numbers = numbers.cast(pa.int64()).cast(pa.float64(), safe=False)
        return np.asarray(numbers, np.float64), is_date
    return np.full(len(values), np.nan), False


def _categories(texts: list[str], are_numbers: bool) -> Coded:
    """Codes, colours and legend of texts, "" for none, or of numbers as texts."""
    counts = Counter(filter(None, texts))
    most = _MOST_CATEGORIES - (len(counts) > _MOST_CATEGORIES)
    shown = sorted(counts, key=lambda text: (-counts[text], text))[:most]
    if are_numbers:
        shown.sort(key=float)
    places = {"": _NONE} | {text: i for i, text in enumerate(shown)}
    legend = list(enumerate(shown))
    if len(counts) > most:
        legend.append((most, f"{len(counts) - most:,} others"))
    codes = np.array([places.get(text, most) for text in texts], np.uint8)
    return codes, palette(np.arange(max(1, len(shown))))[0], legend


def _scale(numbers: np.ndarray, is_date: bool) -> Coded:
    """Codes, colours and legend of numbers, or of dates as seconds."""
    known = np.isfinite(numbers)
    low, first, last, high = np.quantile(numbers[known], [0, 0.01, 0.99, 1])
    if high - low > 2 * (last - first) > 0:  # values far off would leave all others alike
        low, high = first, last
    share = (np.where(known, numbers, low) - low) / ((high - low) or 1)
    codes = np.where(known, np.rint(254 * share.clip(0, 1)), _NONE).astype(np.uint8)
    ticks = [low, (low + high) / 2, high]
    if is_date:
        digits = 10 if high - low >= 2 * 86_400 else 16  # of days, or of minutes
        words = [str(np.datetime64(round(t), "s"))[:digits].replace("T", " ") for t in ticks]
    else:
        words = [f"{t:,.0f}" if abs(t) >= 1000 else f"{t:.3g}" for t in ticks]
    ramp = np.array([list(bytes.fromhex(colour[1:])) for colour in _RAMP])
    at = np.linspace(0, len(_RAMP) - 1, _NONE)
    mixed = np.stack([np.interp(at, range(len(_RAMP)), part) for part in ramp.T], axis=1)
    colours = ["#" + bytes(rgb).hex() for rgb in np.rint(mixed).astype(np.uint8)]
    return codes, colours, list(zip((0, 127, 254), words, strict=True))


def clean(text: str) -> str:
    """Without what has no place in XML."""
    text = text.encode("utf-8", "replace").decode()
    return "".join(c for c in text if c >= " " and c not in "\ufffe\uffff")
