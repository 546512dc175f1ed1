"""The page: words, and what its script draws.

Whatever comes from files is escaped where it enters: as HTML text, or as JSON in which no ``<``
is left, of which the script makes text. A content security policy with the hash of the script
keeps every other script from running, and every request from being made.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from dinkcli import __version__
from dinkcli.insight.report.colours import clean, palette
from dinkcli.insight.report.svg import Label, map_svg, point_radius
from dinkcli.models.statistics import root_mean
from dinkcli.results import shortened
from dinkcli.training.trainer import PHASES

if TYPE_CHECKING:
    from dinkcli.insight.report import Report

_MOST_LABELS = 2000  # of clusters, for the map; shown are those that do not overlap
_LONGEST_LABEL, _LINE = 40, 17  # characters of a label, and about of one of its two lines
_LONGEST_TEXT = 160  # characters of a row in the list of clusters
_MEASURES = ("inertia", "simplified_silhouette", "davies_bouldin", "calinski_harabasz")


def page(report: Report) -> str:
    """The whole page as HTML text."""
    folder = files("dinkcli.insight.report")
    parts = ("page.html", "page.css", "page.js")
    template, style, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in parts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    named = enumerate(map(escape, report.names))
    links = [f'<a href="#cluster={j}">{name}</a>' for j, name in named]
    return Template(template).substitute(
        policy=f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'",
        style=style,
        title=escape(report.title),
        sentence=_sentence(report, links),
        map_label=f"Scatter plot of {len(report.points):,} rows in {len(links):,} clusters; the "
        "list of clusters has the same content as text",
        data=_json(_document(report)),
        script=script,
        version=escape(__version__),
    )


def picture(report: Report) -> str:
    """The map for slides, as SVG; in the colours of the first column, where there is one."""
    return map_svg(report, _sentence(report, report.names), _labels(report))


def _json(document: Any) -> str:
    """JSON that cannot end the script element around it."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    text = text.encode("utf-8", "replace").decode()  # lone surrogates have no place in a page
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _sentence(report: Report, names: Sequence[str]) -> str:
    """What there is to see, with these names of clusters."""
    q, k = report.quality, len(names)
    bad = f" ({q.bad_rows:,} bad rows left out)" if q.bad_rows else ""
    text = f"{q.rows:,} row{'s' * (q.rows > 1)} in {k:,} cluster{'s' * (k > 1)}{bad}"
    largest = _largest(q.sizes, 3)
    *others, last = (f"{names[j]} ({q.sizes[j] / q.rows:.1%})" for j in largest)
    return f"{text}; the largest are {', '.join(others)} and {last}." if others else f"{text}."


def _largest(sizes: np.ndarray, number: int) -> list[int]:
    return (-sizes).argsort(kind="stable")[:number].tolist()


def _document(report: Report) -> dict[str, Any]:
    """What is drawn, and what is said of the clusters, the tree and the training. Arrays are those
    of JavaScript, as base64."""
    q, model = report.quality, report.model
    whole = report.rows.max() < 2**31
    spreads = root_mean(q.cluster_inertia, q.sizes)
    steps = model.training.get("history", [])
    last = max((step.get("start", 1) for step in steps), default=1)  # of several starts
    return {
        "title": clean(report.title),
        "sentence": clean(_sentence(report, report.names)),
        "x": _base64(report.points[:, 0]),
        "y": _base64(report.points[:, 1]),
        "cluster": _base64(report.labels),
        "distance": _base64(report.distances),
        "row": _base64(report.rows.astype(np.int32 if whole else np.float64)),
        "wholeRows": bool(whole),
        "id": report.ids,
        "text": report.texts,
        "columns": [each._asdict() | {"codes": _base64(each.codes)} for each in report.colourings],
        "colours": palette(report.groups)[0],
        "labels": [label._asdict() for label in _labels(report)],
        "stretch": report.stretch,
        "radius": point_radius(len(report.points)),
        "projection": report.projection,
        "explained": report.explained,
        "rows": q.rows,
        "names": report.names,
        "terms": report.terms or None,
        "sizes": q.sizes.tolist(),
        "spreads": np.nan_to_num(spreads).round(6).tolist(),
        "silhouettes": np.nan_to_num(q.cluster_silhouette).round(3).tolist(),
        "examples": [
            [[shortened(text, _LONGEST_TEXT) for text in row] for row in rows]
            for rows in report.examples
        ],
        "groups": report.groups.tolist(),
        "groupNames": report.group_names,
        "present": model.present.tolist(),
        "merges": report.merges,
        "measures": {name: getattr(q, name) for name in (*_MEASURES, "imbalance", "ambiguous")},
        "file": report.name,
        "column": model.column,
        "features": model.n_features,
        "training": {k: v for k, v in model.training.items() if k != "history"},
        "curve": [
            [PHASES.get(step["phase"], step["phase"]), step["inertia"], step["temperature"]]
            for step in steps
            if step.get("start", 1) == last
        ],
    }


def _base64(array: np.ndarray) -> str:
    little = array.astype(array.dtype.newbyteorder("<"))
    return base64.b64encode(np.ascontiguousarray(little).tobytes()).decode()


def _labels(report: Report) -> list[Label]:
    """The names of the groups, where a group is more than a cluster, and those of the clusters;
    of both the largest first, each at the point of its rows that is nearest to their median."""
    colours, group_colours = palette(report.groups)
    kinds = [(False, report.labels, report.names, colours, 11.5, 4.5)]
    if 1 < len(group_colours) < len(report.model.present):
        groups = report.groups[report.labels]
        kinds.insert(0, (True, groups, report.group_names, group_colours, 17, 7))
    labels = []
    for is_group, of_rows, names, shades, least, more in kinds:
        sizes = np.bincount(of_rows, minlength=len(names))
        parts = np.split(report.points[of_rows.argsort(kind="stable")], sizes.cumsum()[:-1])
        for j in _largest(sizes, _MOST_LABELS):
            if sizes[j]:
                apart = ((parts[j] - np.median(parts[j], axis=0)) ** 2).sum(1)
                size = least + more * float(np.sqrt(sizes[j] / sizes.max()))
                at = parts[j][apart.argmin()].tolist()
                lines = _lines(names[j].removeprefix("cluster "))
                labels.append(Label(j, lines, size, shades[j], at, is_group))
    return labels


def _lines(name: str) -> list[str]:
    """A name for the map in one line or two."""
    name = clean(shortened(name, _LONGEST_LABEL))
    spaces = [i for i, c in enumerate(name) if c == " "]
    if len(name) <= _LINE or not spaces:
        return [name]
    at = min(spaces, key=lambda i: abs(2 * i - len(name)))
    return [name[:at], name[at + 1 :]]
