"""The page: words, and what its script draws.

Whatever comes from files is escaped where it enters: as HTML text, or as JSON in which no ``<``
is left, of which the script makes text. A content security policy with the hash of the script
keeps every other script from running, and every request from being made.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from dinkcli import __version__
from dinkcli.insight.names import names_of
from dinkcli.insight.overview import history
from dinkcli.insight.report.colours import clean, palette
from dinkcli.insight.report.gather import Material, middles
from dinkcli.insight.report.svg import Label, map_svg, point_radius
from dinkcli.models.model import Model
from dinkcli.models.tree import members, squared_distances
from dinkcli.training.trainer import PHASES

_MOST_LABELS = 2000  # of clusters, for the map; shown are those that do not overlap
_LONGEST_LABEL, _LINE = 40, 17  # characters of a label, and about of one of its two lines
_MOST_IN_HEAT_MAP = 200
_LONGEST_TEXT = 160  # characters of a row in the list of clusters


def page(model: Model, material: Material, title: str | None = None) -> str:
    """The whole page as HTML text."""
    folder = files("dinkcli.insight.report")
    parts = ("page.html", "page.css", "page.js")
    template, style, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in parts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    names = cluster_names(model, material)
    k, n = model.n_clusters, len(material.points)
    return Template(template).substitute(
        policy=f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'",
        style=style,
        title=escape(_title(material, title)),
        sentence=_sentence(
            material, names, lambda j: f'<a href="#cluster={j}">{escape(names[j])}</a>'
        ),
        map_label=f"Scatter plot of {n:,} rows in {k:,} clusters; the list of clusters has the "
        "same content as text",
        data=_json(
            {
                "title": clean(_title(material, title)),
                "sentence": clean(_sentence(material, names)),
                **_map(model, material, names),
                **_words(model, material, names),
            }
        ),
        script=script,
        version=escape(__version__),
    )


def picture(model: Model, material: Material, title: str | None = None) -> str:
    """The map for slides, as SVG; in the colours of the first column, where there is one."""
    names = cluster_names(model, material)
    return map_svg(
        material,
        _title(material, title),
        _sentence(material, names),
        palette(material.groups)[0],
        _labels(material, names),
        material.colourings[0] if material.colourings else None,
    )


def cluster_names(model: Model, material: Material) -> list[str]:
    """A cluster is called by its name, else by what its terms say, else by its number."""
    of_terms = names_of(material.terms) if material.terms else [""] * model.n_clusters
    pairs = zip(model.all_names, of_terms, strict=True)
    return [name or words or f"cluster {j}" for j, (name, words) in enumerate(pairs)]


def _title(material: Material, title: str | None) -> str:
    return title or f"Clusters of {os.path.basename(material.name)}"


def _json(document: Any) -> str:
    """JSON that cannot end the script element around it."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    text = text.encode("utf-8", "replace").decode()  # lone surrogates have no place in a page
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _sentence(
    material: Material, names: list[str], named: Callable[[int], str] | None = None
) -> str:
    """What there is to see; ``named`` says what a cluster is called there."""
    q, k = material.quality, len(names)
    bad = f" ({q.bad_rows:,} bad rows left out)" if q.bad_rows else ""
    text = f"{q.rows:,} row{'s' * (q.rows > 1)} in {k:,} cluster{'s' * (k > 1)}{bad}"
    *others, last = (
        f"{named(j) if named else names[j]} ({q.sizes[j] / q.rows:.1%})"
        for j in _by_size(material)[:3]
    )
    return f"{text}; the largest are {', '.join(others)} and {last}." if others else f"{text}."


def _by_size(material: Material) -> list[int]:
    return (-material.quality.sizes).argsort(kind="stable").tolist()


def _map(model: Model, material: Material, names: list[str]) -> dict[str, Any]:
    """What is drawn. Arrays are those of JavaScript, as base64."""
    whole = material.rows.max() < 2**31
    return {
        "x": _base64(material.points[:, 0]),
        "y": _base64(material.points[:, 1]),
        "cluster": _base64(material.labels),
        "distance": _base64(material.distances),
        "row": _base64(material.rows.astype(np.int32 if whole else np.float64)),
        "wholeRows": bool(whole),
        "id": material.names,
        "text": material.texts,
        "columns": [asdict(each) | {"codes": _base64(each.codes)} for each in material.colourings],
        "colours": palette(material.groups)[0],
        "labels": [asdict(label) for label in _labels(material, names)],
        "stretch": material.stretch,
        "radius": point_radius(len(material.points)),
        "projection": material.projection,
        "explained": material.explained,
        "heat": _distances(model, material),
    }


def _words(model: Model, material: Material, names: list[str]) -> dict[str, Any]:
    """What is said of the clusters, the tree, and the training."""
    q, columns = material.quality, material.columns
    shown = [name for name in (columns.id, columns.text) if name]
    examples = [
        [
            [_short(str(value)) for name in shown if (value := near.carried.get(name)) is not None]
            or [f"row {near.row:,}"]
            for near in nearest
        ]
        for nearest in material.exemplars
    ]
    measures = ("inertia", "simplified_silhouette", "davies_bouldin", "calinski_harabasz")
    return {
        "rows": q.rows,
        "names": names,
        "terms": material.terms or model.terms or None,
        "sizes": q.sizes.tolist(),
        "spreads": np.nan_to_num(material.spread).round(6).tolist(),
        "silhouettes": np.nan_to_num(q.cluster_silhouette).round(3).tolist(),
        "examples": examples,
        "groups": material.groups.tolist(),
        "groupNames": _group_names(material, names),
        "present": model.present.tolist(),
        "merges": material.merges,
        "measures": {name: getattr(q, name) for name in (*measures, "imbalance", "ambiguous")},
        "file": material.name,
        "column": model.column,
        "features": model.n_features,
        "training": {k: v for k, v in model.training.items() if k != "history"},
        "curve": [
            [PHASES.get(step["phase"], step["phase"]), step["inertia"], step["temperature"]]
            for step in history(model)
        ],
    }


def _short(text: str, most: int = _LONGEST_TEXT) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _base64(array: np.ndarray) -> str:
    little = array.astype(array.dtype.newbyteorder("<"))
    return base64.b64encode(np.ascontiguousarray(little).tobytes()).decode()


def _group_names(material: Material, names: list[str]) -> list[str]:
    """Of each group: its terms, else the first words of its largest clusters."""
    inside: list[list[str]] = [[] for _ in range(int(material.groups.max()) + 1)]
    for j in _by_size(material):
        if material.groups[j] >= 0:
            inside[material.groups[j]].append(names[j].split(", ")[0])
    terms = material.group_terms or [[] for _ in inside]
    return [
        ", ".join(own[:2]) or "; ".join(largest[:2])
        for own, largest in zip(terms, inside, strict=True)
    ]


def _labels(material: Material, names: list[str]) -> list[Label]:
    """The names of the groups, where a group is more than a cluster, and those of the clusters;
    of both the largest first."""
    colours, group_colours = palette(material.groups)
    kinds = [(False, names, material.quality.sizes, material.anchors, colours, 11.5, 4.5)]
    n = len(group_colours)
    if 1 < n < len(material.merges) + 1:
        rows = material.groups[material.labels]
        anchors, sizes = middles(material.points, rows, n), np.bincount(rows, minlength=n)
        groups = _group_names(material, names)
        kinds.insert(0, (True, groups, sizes, anchors, group_colours, 17, 7))
    return [
        Label(
            j,
            _lines(words[j].removeprefix("cluster ")),
            least + more * float(np.sqrt(sizes[j] / sizes.max())),
            shades[j],
            tuple(anchors[j].tolist()),
            is_group,
        )
        for is_group, words, sizes, anchors, shades, least, more in kinds
        for j in (-sizes).argsort(kind="stable").tolist()[:_MOST_LABELS]
        if not np.isnan(anchors[j]).any()
    ]


def _lines(name: str) -> list[str]:
    """A name for the map in one line or two."""
    name = clean(_short(name, _LONGEST_LABEL))
    spaces = [i for i, c in enumerate(name) if c == " "]
    if len(name) <= _LINE or not spaces:
        return [name]
    at = min(spaces, key=lambda i: abs(2 * i - len(name)))
    return [name[:at], name[at + 1 :]]


def _distances(model: Model, material: Material) -> dict[str, Any]:
    """Distances between centres in the order of the tree: 0 for the least, 255 for the most."""
    largest = set(_by_size(material)[:_MOST_IN_HEAT_MAP])
    order = members(material.merges)[-1] if material.merges else range(len(model.present))
    numbers = np.array([j for j in model.present[list(order)].tolist() if j in largest])
    centers = model.cluster_centers[numbers].astype(np.float64)
    distances = np.sqrt(squared_distances(centers, centers))
    apart = distances[~np.eye(len(numbers), dtype=bool)]
    low, high = (float(apart.min()), float(apart.max())) if len(apart) else (0.0, 1.0)
    shades = np.rint(255 * ((distances - low) / ((high - low) or 1)).clip(0, 1)).astype(np.uint8)
    return {"numbers": numbers.tolist(), "shades": _base64(shades), "low": low, "high": high}
