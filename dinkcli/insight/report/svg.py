"""Drawings as SVG: the map for slides, and the curve of the training.

Shapes: P rows on the map.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from itertools import groupby

import numpy as np

from dinkcli.insight.overview import history
from dinkcli.insight.report.colours import Colouring
from dinkcli.insight.report.gather import Material
from dinkcli.models.model import Model
from dinkcli.training.trainer import PHASES

_WIDTH, _HEIGHT, _TOP = 1600, 900, 88  # pixels of the map and of the words above it
_CELL = 8  # pixels of a cell of what is covered
_REACHES = (6, 18, 34, 56, 84)  # pixels from the place of a label to its box
_ANGLES = np.arange(16) * np.pi / 8
_FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
_INK = "#1c1d1f"


@dataclass(frozen=True)
class Label:
    """A name on the map: its number, its lines, pixels of its letters, its colour, its place."""

    number: int
    lines: list[str]
    size: float
    colour: str
    at: tuple[float, float]


def map_svg(
    material: Material,
    title: str,
    sentence: str,
    colours: list[str],
    labels: list[Label],
    colouring: Colouring | None = None,
) -> str:
    """The map with its title and names, as wide as a slide.

    Args:
        colours: of the clusters.
        labels: the most important first; one that would cover another is left out.
        colouring: takes the place of the clusters' colours.
    """
    points = material.points.astype(np.float64)
    low, high = points.min(0), points.max(0)
    scale = np.array([_WIDTH - 80, _HEIGHT - _TOP - 60]) / (high - low).clip(1e-9)
    scale = np.minimum(scale, scale.min() * material.stretch)
    middle = np.array([_WIDTH / 2, (_HEIGHT + _TOP) / 2])

    def placed(places: np.ndarray) -> np.ndarray:
        return middle + (places - (low + high) / 2) * scale * (1, -1)

    at = placed(points)
    codes = material.labels if colouring is None else colouring.codes
    shades = colours if colouring is None else colouring.colours
    radius = point_radius(len(at))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" font-family="{_FONT}">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="40" y="48" font-size="30" font-weight="700" fill="{_INK}">{_xml(title)}</text>',
        f'<text x="40" y="76" font-size="16" fill="#5a5e66">{_xml(sentence)}</text>',
        f'<g fill="none" stroke-linecap="round" stroke-width="{2 * radius:.1f}" opacity="0.75">',
    ]
    order = codes.argsort(kind="stable")
    for code, rows in groupby(order.tolist(), key=lambda i: int(codes[i])):
        # Lines of no length with round ends are points, in the fewest bytes.
        dots = "".join(f"M{at[i, 0]:.1f} {at[i, 1]:.1f}h0" for i in rows)
        parts.append(f'<path stroke="{shades[code]}" d="{dots}"/>')
    parts.append("</g>")
    parts += _placed(labels, placed(np.array([label.at for label in labels]).reshape(-1, 2)), at)
    if colouring is not None:
        parts += _legend(colouring)
    return "\n".join([*parts, "</svg>\n"])


def point_radius(n: int) -> float:
    """Pixels of a point among ``n``."""
    return float(np.interp(np.log10(max(n, 1)), [2, 3, 4, 4.7], [5.5, 4, 2.4, 1.5]))


def _placed(labels: list[Label], anchors: np.ndarray, points: np.ndarray) -> Iterable[str]:
    """Labels beside their places, where they cover few points and no other label, with lines."""
    covered = np.zeros((_HEIGHT // _CELL + 2, _WIDTH // _CELL + 2))
    cells = (points / _CELL).astype(int) + 1
    covered[cells[:, 1], cells[:, 0]] = 1
    sums = covered.cumsum(0).cumsum(1)  # of all cells above and left
    taken = np.zeros((0, 4))
    for label, (x, y) in zip(labels, anchors, strict=True):
        w = max(map(_width, label.lines)) * label.size + 6
        h = 1.15 * label.size * len(label.lines) + 2
        reach, angle = (each.ravel() for each in np.meshgrid(_REACHES, _ANGLES))
        cx, cy = x + np.cos(angle) * (reach + w / 2), y + np.sin(angle) * (reach + h / 2)
        box = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1)
        fits = (box[:, 0] > 4) & (box[:, 1] > _TOP) & (box[:, 2] < _WIDTH - 4)
        fits &= box[:, 3] < _HEIGHT - 4
        over = (box[:, None, :2] < taken[:, 2:]) & (box[:, None, 2:] > taken[:, :2])
        fits &= ~over.all(2).any(1)
        if not fits.any():
            continue
        a, b, c, d = (box[fits] / _CELL).astype(int).T
        inside = sums[d + 1, c + 1] - sums[b, c + 1] - sums[d + 1, a] + sums[b, a]
        cost = 60 * inside / ((d + 1 - b) * (c + 1 - a)) + 0.4 * reach[fits]
        left, top, right, bottom = best = box[fits][cost.argmin()]
        taken = np.concatenate([taken, best[None]])
        px, py = np.clip(x, left, right), np.clip(y, top, bottom)
        colour = darker(label.colour)
        if np.hypot(px - x, py - y) > 12:
            yield (
                f'<path d="M{x:.1f} {y:.1f}L{px:.1f} {py:.1f}" stroke="{colour}" '
                'stroke-width="1" opacity="0.7"/>'
            )
        lines = "".join(
            f'<tspan x="{(left + right) / 2:.1f}" dy="{1.15 * label.size * (i > 0):.1f}">'
            f"{_xml(line)}</tspan>"
            for i, line in enumerate(label.lines)
        )
        yield (
            f'<text y="{top + label.size:.1f}" font-size="{label.size:.1f}" font-weight="600" '
            f'text-anchor="middle" fill="{colour}" stroke="#fff" stroke-width="3" '
            f'stroke-linejoin="round" paint-order="stroke">{lines}</text>'
        )


def _legend(colouring: Colouring) -> Iterable[str]:
    y = _HEIGHT - 30 - 22 * len(colouring.legend)
    yield f'<text x="40" y="{y}" font-weight="600" fill="{_INK}">{_xml(colouring.name)}</text>'
    for code, words in colouring.legend:
        y += 22
        yield f'<circle cx="47" cy="{y - 5}" r="6" fill="{colouring.colours[code]}"/>'
        yield f'<text x="60" y="{y}" fill="{_INK}">{_xml(words)}</text>'


def _width(text: str) -> float:
    """Of a line, in units of its size; a drawing without a browser cannot measure it."""
    return sum(1.0 if unicodedata.east_asian_width(c) in "WF" else 0.57 for c in text)


def darker(colour: str) -> str:
    """A colour that is read as text on white."""
    return "#" + "".join(f"{round(0.72 * int(colour[i : i + 2], 16)):02x}" for i in (1, 3, 5))


def _xml(text: str) -> str:
    return escape(clean(text))


def clean(text: str) -> str:
    """Without what has no place in XML."""
    text = text.encode("utf-8", "replace").decode()
    return "".join(c for c in text if c >= " " and c not in "\ufffe\uffff")


def training_curve(model: Model) -> str | None:
    """Inertia by step, for each phase on a scale of its own: where a phase ends the inertia is
    counted anew, and a jump there is no loss. None for a model without history."""
    panels = []
    for phase, steps in groupby(history(model), key=lambda step: step["phase"]):
        values = [float(step["inertia"]) for step in steps]
        low, high = min(values), max(values)
        across = np.linspace(6, 274, len(values)) if len(values) > 1 else [140.0]
        up = [104 - 92 * (v - low) / ((high - low) or 1) for v in values]
        dots = list(zip(across, up, strict=True))
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
        name = PHASES.get(phase, phase)
        label = f"{name}: inertia from {values[0]:.6g} to {values[-1]:.6g}"
        circles = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in dots)
        how = "estimated from a sample" if phase == "anneal" else "of all rows"
        panels.append(
            f"<figure><figcaption><b>{name}</b><br>{values[0]:.6g} → {values[-1]:.6g}, {how}"
            f'</figcaption><svg viewBox="0 0 280 110" role="img" aria-label="{escape(label)}">'
            f'<polyline points="{path}"/>{circles}</svg></figure>'
        )
    return '<div class="curve">' + "".join(panels) + "</div>" if panels else None
