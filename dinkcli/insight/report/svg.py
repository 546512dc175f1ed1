"""The map for slides, as SVG, as the page draws it where nothing is chosen.

Shapes: P rows on the map.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dinkcli.insight.report.colours import clean, palette

if TYPE_CHECKING:
    from dinkcli.insight.report import Report

_WIDTH, _HEIGHT, _TOP, _SIDE = 1600, 900, 88, 190  # pixels: all, the words above, the legend
_CELL = 8  # pixels of a cell of what is covered
_REACHES = (0, 6, 18, 34, 56, 84)  # pixels from the place of a label to its box
_MOST_COVERED = 0.27  # of the box of a cluster's name, where groups have names
_FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
_INK = "#1c1d1f"
_NAME = 'text-anchor="middle" stroke="#fff" stroke-width="3" stroke-linejoin="round"'


class Label(NamedTuple):
    """A name on the map."""

    number: int  # of its cluster or group
    lines: list[str]
    size: float  # pixels of its letters
    colour: str
    at: list[float]
    is_group: bool


def map_svg(report: Report, sentence: str, labels: list[Label]) -> str:
    """The map with its title and names, as wide as a slide; in the colours of the first column of
    the report, else in those of the clusters. A label that would cover one before it is left out.
    """
    points = report.points.astype(np.float64)
    codes, shades, side = report.labels, palette(report.groups)[0], 0
    column = report.colourings[0] if report.colourings else None
    if column is not None:
        codes, shades, side = column.codes, column.colours, _SIDE
    low, high = points.min(0), points.max(0)
    scale = np.array([_WIDTH - side - 80, _HEIGHT - _TOP - 60]) / (high - low).clip(1e-9)
    scale = np.minimum(scale, scale.min() * report.stretch) * (1, -1)
    shift = np.array([_WIDTH + side, _HEIGHT + _TOP]) / 2 - (low + high) / 2 * scale
    points = points * scale + shift
    places = np.array([label.at for label in labels]) * scale + shift
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" font-family="{_FONT}">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        _text(40, 48, report.title, 'font-size="30" font-weight="700"'),
        _text(40, 76, sentence, 'font-size="16" fill-opacity="0.7"'),
        '<g fill="none" stroke-linecap="round" opacity="0.75" '
        f'stroke-width="{2 * point_radius(len(points)):.1f}">',
    ]
    for code in np.unique(codes).tolist():
        # Lines of no length with round ends are points, in the fewest bytes.
        dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points[codes == code].tolist())
        parts.append(f'<path stroke="{shades[code]}" d="{dots}"/>')
    parts += ["</g>", *_placed(labels, places, points, side)]
    if column is not None:
        y = _HEIGHT - 30 - 22 * len(column.legend)
        parts.append(_text(40, y, column.name, 'font-weight="600"'))
        for code, words in column.legend:
            y += 22
            parts.append(f'<circle cx="47" cy="{y - 5}" r="6" fill="{shades[code]}"/>')
            parts.append(_text(60, y, words))
    return "\n".join([*parts, "</svg>\n"])


def point_radius(n: int) -> float:
    """Pixels of a point among ``n``."""
    return float(np.interp(np.log10(max(n, 1)), [2, 3, 4, 4.7], [5.5, 4, 2.4, 1.5]))


def _placed(
    labels: list[Label], places: np.ndarray, points: np.ndarray, side: int
) -> Iterator[str]:
    """Labels beside their ``places`` (L, 2), where they cover few points and no other label, with
    lines."""
    covered = np.zeros((_HEIGHT // _CELL + 2, _WIDTH // _CELL + 2))
    cells = (points / _CELL).astype(int) + 1
    covered[cells[:, 1], cells[:, 0]] = 1
    sums = covered.cumsum(0).cumsum(1)  # of all cells above and left
    taken = np.zeros((0, 4))
    grouped = any(label.is_group for label in labels)
    reach, angle = (each.ravel() for each in np.meshgrid(_REACHES, np.arange(16) * np.pi / 8))
    for label, (x, y) in zip(labels, places.tolist(), strict=True):
        colour = _INK if side else _darker(label.colour)
        is_small = grouped and not label.is_group
        size = label.size * (0.88 if is_small else 1)
        w, h = max(map(_width, label.lines)) * size + 6, 1.15 * size * len(label.lines) + 2
        cx = x + np.cos(angle) * (reach + (reach > 0) * w / 2)
        cy = y + np.sin(angle) * (reach + (reach > 0) * h / 2)
        box = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1)
        over = (box[:, None, :2] < taken[:, 2:]) & (box[:, None, 2:] > taken[:, :2])
        fits = ~np.all(over, axis=2).any(axis=1)
        fits &= (box[:, :2] > [side + 4, _TOP]).all(1)
        fits &= (box[:, 2:] < [_WIDTH - 4, _HEIGHT - 4]).all(1)
        fits &= label.is_group | (reach > 0)  # beside its cluster
        a, b, c, d = (box * fits[:, None] / _CELL).astype(int).T
        inside = sums[d + 1, c + 1] - sums[b, c + 1] - sums[d + 1, a] + sums[b, a]
        inside /= (d + 1 - b) * (c + 1 - a)
        best = int(np.where(fits, 60 * inside + 0.4 * reach, np.inf).argmin())
        if not fits[best] or (is_small and inside[best] > _MOST_COVERED):
            continue
        left, top, right, bottom = box[best]
        taken = np.vstack([taken, box[best]])
        px, py = np.clip(x, left, right), np.clip(y, top, bottom)
        if np.hypot(px - x, py - y) > 12:
            line = f"M{x:.1f} {y:.1f}L{px:.1f} {py:.1f}"
            yield f'<path d="{line}" stroke="{colour}" opacity="0.7"/>'
        weight = 700 if label.is_group else 600
        style = f'font-size="{size:.1f}" font-weight="{weight}" {_NAME} paint-order="stroke"'
        for i, line in enumerate(label.lines):
            down = round(top + size * (1 + 1.15 * i))
            yield _text(round(cx[best]), down, line, style, colour)


def _text(x: float, y: float, words: str, style: str = "", colour: str = _INK) -> str:
    return f'<text x="{x}" y="{y}" fill="{colour}" {style}>{escape(clean(words))}</text>'


def _width(text: str) -> float:
    """Of a line, in units of its size; a drawing without a browser cannot measure it."""
    return sum(1.0 if unicodedata.east_asian_width(c) in "WF" else 0.57 for c in text)


def _darker(colour: str) -> str:
    """A colour that is read as text on white."""
    return "#" + "".join(f"{round(0.72 * int(colour[i : i + 2], 16)):02x}" for i in (1, 3, 5))
