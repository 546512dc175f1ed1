"""The page and what its script draws.

Whatever comes from files is escaped where it enters: as HTML text, or as JSON in which no ``<``
is left. A content security policy with the hashes of the page's own scripts keeps every other
script from running, and every request from being made.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from dinkcli import __version__
from dinkcli.insight.inspect import Exemplar
from dinkcli.insight.names import names_of
from dinkcli.insight.overview import nearest_pairs
from dinkcli.insight.report.colours import palette
from dinkcli.insight.report.gather import Material, middles
from dinkcli.insight.report.svg import Label, clean, map_svg, point_radius, training_curve
from dinkcli.models.model import Model
from dinkcli.models.tree import children, members, squared_distances

_MOST_LABELS = 200  # on the map, where they do not overlap
_LONGEST_LABEL, _LINE = 40, 17  # characters of a label, and about of one of its two lines
_MOST_IN_TREE = 1000  # clusters; a list of more is no overview
_MOST_IN_HEAT_MAP = 200
_NAMED_IN_GROUP = 3  # clusters that a group is called by


@dataclass(frozen=True)
class _Names:
    """What the page calls everything, and its colours, of K clusters and G groups."""

    title: str
    clusters: list[str]
    groups: list[str]
    colours: list[str]
    group_colours: list[str]


def page(model: Model, material: Material, title: str | None = None) -> str:
    """The whole page as HTML text."""
    names, q = _names(model, material, title), material.quality
    order = (-q.sizes).argsort(kind="stable").tolist()
    folder = files("dinkcli.insight.report")
    parts = ("page.html", "page.css", "page.js")
    template, style, script = (folder.joinpath(name).read_text(encoding="utf-8") for name in parts)
    sentence = _sentence(material, names)
    return Template(template).substitute(
        policy=_policy([script]),
        style=style,
        title=escape(names.title),
        sentence=_linked(sentence),
        map_note=escape(_map_note(material)),
        map_label=escape(
            f"Scatter plot of {len(material.points):,} rows in {model.n_clusters} clusters; "
            "the list of clusters below has the same content as text"
        ),
        cards="\n".join(_card(j, model, material, names) for j in order),
        tree=_tree(model, material, names.clusters),
        heat=_heat(model),
        curve=training_curve(model) or "<p>The model has no history.</p>",
        metrics=_rows(_metrics(material)),
        making=_rows(_making(model, material)),
        clusters="".join(_figures(j, material, names) for j in order),
        data=_json(_document(model, material, names, "".join(text for text, _ in sentence))),
        script=script,
        version=escape(__version__),
    )


def picture(model: Model, material: Material, title: str | None = None) -> str:
    """The map for slides, as SVG; in the colours of the first column, where there is one."""
    names = _names(model, material, title)
    sentence = "".join(text for text, _ in _sentence(material, names))
    colouring = material.colourings[0] if material.colourings else None
    labels = _labels(material, names)
    return map_svg(material, names.title, sentence, names.colours, labels, colouring)


def _names(model: Model, material: Material, title: str | None) -> _Names:
    """A cluster is called by its name, else by what its terms say, else by its number."""
    of_terms = names_of(material.terms) if material.terms else [""] * model.n_clusters
    pairs = zip(model.all_names, of_terms, strict=True)
    clusters = [name or words or f"cluster {j}" for j, (name, words) in enumerate(pairs)]
    colours, group_colours = palette(material.groups)
    sizes, groups = material.quality.sizes, []
    for group, terms in enumerate(material.group_terms or [[]] * len(group_colours)):
        inside = np.flatnonzero(material.groups == group)
        groups.append(", ".join(terms[:2]) or _leading(clusters, inside, sizes, 2))
    title = title or f"Clusters of {os.path.basename(material.name)}"
    return _Names(clean(title), clusters, groups, colours, group_colours)


def _leading(clusters: list[str], inside: Iterable[int], sizes: np.ndarray, most: int) -> str:
    """What some clusters are called together: the first words of the largest."""
    largest = sorted(inside, key=lambda j: -sizes[j])
    return "; ".join(clusters[j].split(", ")[0] for j in largest[:most])


def _sentence(material: Material, names: _Names) -> list[tuple[str, int | None]]:
    """What there is to see, in words; those that name a cluster with its number."""
    q = material.quality
    sizes, k = q.sizes, len(q.sizes)
    text = f"{q.rows:,} rows in {k:,} cluster{'s' * (k > 1)}"
    if 1 < len(names.groups) < k:
        text += f" in {len(names.groups)} groups"
    if q.bad_rows:
        text += f" ({q.bad_rows:,} bad rows left out)"
    parts: list[tuple[str, int | None]] = [(text, None)]
    largest = (-sizes).argsort(kind="stable")[: min(3, k)].tolist() if k > 1 else []
    joints = ["; the largest are ", *[", "] * (len(largest) - 2), " and "]
    for joint, j in zip(joints, largest, strict=False):
        parts += [(joint, None), (names.clusters[j], j), (f" ({sizes[j] / q.rows:.1%})", None)]
    return [*parts, (".", None)]


def _linked(sentence: list[tuple[str, int | None]]) -> str:
    return "".join(
        escape(text) if j is None else f'<a href="#cluster={j}">{escape(text)}</a>'
        for text, j in sentence
    )


def _document(model: Model, material: Material, names: _Names, sentence: str) -> dict[str, Any]:
    """What the script draws. Arrays are those of JavaScript, as base64."""
    points = material.points
    whole = material.rows.max() < 2**31
    columns = [
        {
            "name": clean(each.name),
            "codes": _base64(each.codes),
            "colours": each.colours,
            "legend": [[code, clean(_short(words, 40))] for code, words in each.legend],
            "scale": each.is_scale,
        }
        for each in material.colourings
    ]
    labels = _labels(material, names)
    groups = _group_labels(material, names)
    return {
        "x": _base64(points[:, 0]),
        "y": _base64(points[:, 1]),
        "cluster": _base64(material.labels),
        "distance": _base64(material.distances),
        "row": _base64(material.rows.astype(np.int32 if whole else np.float64)),
        "wholeRows": bool(whole),
        "id": material.names,
        "text": material.texts,
        "names": names.clusters,
        "terms": material.terms or model.terms or None,
        "sizes": material.quality.sizes.tolist(),
        "colours": names.colours,
        "groups": material.groups.tolist(),
        "groupNames": names.groups,
        "labels": [asdict(label) for label in labels],
        "groupLabels": [asdict(label) for label in groups],
        "columns": columns,
        "stretch": material.stretch,
        "radius": point_radius(len(points)),
        "heat": _distances(model, material) if model.n_clusters > 1 else None,
        "title": names.title,
        "sentence": sentence,
    }


def _base64(array: np.ndarray) -> str:
    little = array.astype(array.dtype.newbyteorder("<"))
    return base64.b64encode(np.ascontiguousarray(little).tobytes()).decode()


def _labels(material: Material, names: _Names) -> list[Label]:
    """The clusters' names, the largest first."""
    sizes = material.quality.sizes
    return [
        Label(
            j,
            _lines(names.clusters[j].removeprefix("cluster ")),
            11.5 + 4.5 * float(np.sqrt(sizes[j] / sizes.max())),
            names.colours[j],
            (float(material.anchors[j][0]), float(material.anchors[j][1])),
        )
        for j in (-sizes).argsort(kind="stable").tolist()[:_MOST_LABELS]
        if not np.isnan(material.anchors[j]).any()
    ]


def _group_labels(material: Material, names: _Names) -> list[Label]:
    """The groups' names, the largest first; none where each is one cluster."""
    n = len(names.groups)
    if n in (1, len(names.clusters)):
        return []
    rows = material.groups[material.labels]
    anchors = middles(material.points, rows, n)
    sizes = np.bincount(rows, minlength=n)
    return [
        Label(
            i,
            _lines(names.groups[i]),
            17 + 7 * float(np.sqrt(sizes[i] / sizes.max())),
            names.group_colours[i],
            (float(anchors[i][0]), float(anchors[i][1])),
        )
        for i in (-sizes).argsort(kind="stable").tolist()
        if sizes[i]
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
    largest = set((-material.quality.sizes).argsort(kind="stable")[:_MOST_IN_HEAT_MAP].tolist())
    order = members(material.merges)[-1] if material.merges else range(len(model.present))
    numbers = np.array([j for j in model.present[list(order)].tolist() if j in largest])
    centers = model.cluster_centers[numbers].astype(np.float64)
    distances = np.sqrt(squared_distances(centers, centers))
    apart = distances[~np.eye(len(numbers), dtype=bool)]
    low, high = (float(apart.min()), float(apart.max())) if len(apart) else (0.0, 1.0)
    shades = np.rint(255 * ((distances - low) / ((high - low) or 1)).clip(0, 1)).astype(np.uint8)
    return {"numbers": numbers.tolist(), "shades": _base64(shades), "low": low, "high": high}


def _policy(scripts: Iterable[str]) -> str:
    hashes = (
        base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode()
        for script in scripts
    )
    sources = " ".join(f"'sha256-{value}'" for value in hashes)
    return (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _json(document: Any) -> str:
    """JSON that cannot end the script element around it."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _map_note(material: Material) -> str:
    shown, rows = len(material.points), material.quality.rows
    which = f"{shown:,} of {rows:,} rows, taken evenly" if shown < rows else f"All {rows:,} rows"
    if material.explained is not None:
        return (
            f"{which}, on the two main axes, which show {material.explained:.0%} of the variance."
        )
    how = ", by UMAP" if material.projection == "umap" else ""
    return f"{which}{how}: what is near is alike, large distances say little."


def _card(j: int, model: Model, material: Material, names: _Names) -> str:
    size, q, heading = int(material.quality.sizes[j]), material.quality, names.clusters[j]
    terms = material.terms[j] if material.terms else model.terms[j] if model.terms else []
    new = [term for term in terms if term not in heading]  # the name says the others
    tags = "".join(f"<li>{escape(term)}</li>" for term in new)
    shown = [name for name in (material.columns.id, material.columns.text) if name]
    rows = "".join(f"<li>{_exemplar(near, shown)}</li>" for near in material.exemplars[j])
    spread = 0.0 if np.isnan(material.spread[j]) else material.spread[j]
    filled = size / max(1, q.sizes.max())
    number = "" if heading == f"cluster {j}" else f'<span class="number">{j}</span>'
    return (
        f'<article class="card" data-cluster="{j}" data-size="{size}" '
        f'data-spread="{spread:.6g}" style="--colour:{names.colours[j]}">'
        f'<h3><button type="button" aria-pressed="false"><span class="dot"></span>'
        f"<span>{escape(heading)}</span>{number}</button></h3>"
        f'<div class="meter" aria-hidden="true"><i style="width:{filled:.1%}"></i></div>'
        f'<p class="facts">{size:,} rows, {size / q.rows:.1%}</p><details open>'
        f'<summary>what is inside</summary><ol class="rows" aria-label="Rows nearest to the '
        f'centre">{rows}</ol>'
        + (f'<ul class="terms" aria-label="More words">{tags}</ul>' if tags else "")
        + "</details></article>"
    )


def _figures(j: int, material: Material, names: _Names) -> str:
    q, spread = material.quality, material.spread[j]
    cells = (
        f"{q.sizes[j]:,}",
        "-" if np.isnan(spread) else f"{spread:.3g}",
        f"{q.cluster_silhouette[j]:.2f}",
    )
    name = f'{j} <a href="#cluster={j}">{escape(names.clusters[j])}</a>'
    return f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _exemplar(near: Exemplar, shown: list[str]) -> str:
    values = [str(near.carried[name]) for name in shown if near.carried.get(name) is not None]
    if not values:
        return f"row {near.row:,}"
    first = f"<b>{escape(_short(values[0]))}</b>"
    return first + "".join(f" <span>{escape(_short(value))}</span>" for value in values[1:])


def _short(text: str, most: int = 160) -> str:
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= most else text[: most - 1] + "…"


def _tree(model: Model, material: Material, headings: list[str]) -> str:
    """The tree of the clusters as nested lists whose groups open and close."""
    numbers, merges = model.present, material.merges
    sizes, headings = material.quality.sizes[numbers], [headings[j] for j in numbers]
    k = len(numbers)
    if not 2 < k <= _MOST_IN_TREE:
        return "<p>A tree needs three to a thousand clusters.</p>"
    groups = members(merges)
    parts: list[str] = []
    # Not by recursion: a tree of a thousand clusters may be as deep.
    todo: list[int | str] = ["</ul>", *reversed(children(merges, 2 * k - 2))]
    while todo:
        item = todo.pop()
        if isinstance(item, str):
            parts.append(item)
        elif item < k:
            parts.append(
                f'<li><button type="button" class="leaf" data-cluster="{numbers[item]}">'
                f"<span>{escape(headings[item])}</span> <small>{int(sizes[item]):,} rows</small>"
                "</button></li>"
            )
        else:
            inside = groups[item]
            called = escape(_leading(headings, inside, sizes, _NAMED_IN_GROUP))
            more = "; …" if len(inside) > _NAMED_IN_GROUP else ""
            rows = int(sizes[inside].sum())
            parts.append(
                f"<li><details><summary><span>{called}{more}</span> "
                f"<small>{len(inside)} clusters, {rows:,} rows</small></summary><ul>"
            )
            todo += ["</ul></details></li>", *reversed(children(merges, item))]
    return '<ul class="tree">' + "".join(parts)


def _heat(model: Model) -> str:
    if model.n_clusters < 2:
        return "<p>One cluster has no neighbours.</p>"
    pairs = nearest_pairs(model, 5)
    text = "; ".join(f"{p.first} and {p.second} ({p.distance:.3g})" for p in pairs)
    return (
        '<canvas id="heat" role="img" aria-label="Heat map of the distances between centres">'
        '</canvas><p id="heat-note" class="note" aria-live="polite"></p>'
        f'<p class="note">Nearest pairs: {escape(text)}.</p>'
    )


def _metrics(material: Material) -> list[tuple[str, str]]:
    q = material.quality
    return [
        ("inertia", f"{q.inertia:.6g} ({q.inertia / q.rows:.4g} per row)"),
        ("simplified silhouette (0 to 1, higher is better)", _number(q.simplified_silhouette)),
        ("Davies-Bouldin (lower is better)", _number(q.davies_bouldin)),
        ("Calinski-Harabasz (higher is better)", _number(q.calinski_harabasz)),
        ("imbalance (1 is equal sizes)", _number(q.imbalance)),
        (
            "rows whose second centre is within 5 % of the first",
            "-" if q.ambiguous is None else f"{q.ambiguous:.2%}",
        ),
        ("smallest and largest cluster", f"{q.sizes.min():,} and {q.sizes.max():,} rows"),
    ]


def _making(model: Model, material: Material) -> list[tuple[str, str]]:
    training = model.training
    facts = [("rows of", material.name)]
    if model.column:
        facts.append(("column", model.column))
    trained = training.get("input", {})
    files = ", ".join(trained.get("files", []))
    facts.append(("trained on", f"{trained.get('rows', 0):,} rows of {files}"))
    options = training.get("options", {})
    facts += [(name.replace("_", " "), str(v)) for name, v in options.items() if v is not None]
    facts += [(f"{name} version", str(v)) for name, v in training.get("versions", {}).items()]
    return facts


def _rows(facts: Iterable[tuple[str, str]]) -> str:
    return "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in facts
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
