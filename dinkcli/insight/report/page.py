"""The page around the drawings.

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
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from dinkcli import __version__
from dinkcli.data.extras import require
from dinkcli.insight.names import names_of
from dinkcli.insight.overview import curve, nearest_pairs
from dinkcli.insight.report.gather import Material
from dinkcli.models.model import Model
from dinkcli.models.tree import children, members, ward

_MOST_LABELS = 200  # on the map, where they do not overlap
_LABEL = 34  # characters of one
_MOST_IN_TREE = 1000  # clusters; a list of more is no overview
_NAMED_IN_GROUP = 3  # clusters that a group is called by


def page(model: Model, material: Material, title: str | None = None) -> str:
    """The whole page as HTML text.

    Raises:
        ExtraError: Bokeh is not installed.
    """
    resources = require("bokeh.resources", "report", "a report")
    from dinkcli.insight.report import plots

    drawings = {
        "map": plots.row_map(material),
        "heat": plots.heat_map(model, material) if model.n_clusters > 1 else None,
        "curve": plots.training_curve(model),
    }
    colours = plots.palette(model.n_clusters)
    order = (-material.quality.sizes).argsort(kind="stable").tolist()
    headings = _headings(model, material)
    labels = [
        [j, *material.anchors[j].tolist(), _short(headings[j].removeprefix("cluster "), _LABEL)]
        for j in order[:_MOST_LABELS]
        if not np.isnan(material.anchors[j]).any()
    ]
    document = {"drawings": drawings, "labels": labels}
    library = "\n".join(resources.Resources(mode="inline", components=["bokeh", "bokeh-gl"]).js_raw)
    library = library.replace("</script", "<\\/script")
    folder = files("dinkcli.insight.report")
    names = ("page.html", "page.css", "page.js")
    template, style, own = (folder.joinpath(name).read_text(encoding="utf-8") for name in names)
    return Template(template).substitute(
        policy=_policy([library, own]),
        style=style,
        title=escape(title or f"Clusters of {os.path.basename(material.name)}"),
        summary=_summary(model, material),
        map_note=escape(_map_note(material)),
        map_label=escape(
            f"Scatter plot of {len(material.points):,} rows in {model.n_clusters} clusters; "
            "the list of clusters below has the same content as text"
        ),
        cards="\n".join(_card(j, model, material, colours[j], headings[j]) for j in order),
        tree=_tree(model, material.quality.sizes, headings),
        heat=_heat(model),
        curve=_curve(drawings["curve"] is not None, model),
        metrics=_rows(_metrics(material)),
        making=_rows(_making(model, material)),
        data=_json(document),
        library=library,
        script=own,
        version=escape(__version__),
    )


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


def _summary(model: Model, material: Material) -> str:
    q = material.quality
    facts = [
        (f"{q.rows:,}", "rows"),
        (f"{model.n_clusters:,}", "clusters"),
        (f"{model.n_features:,}", "features"),
        (_number(q.simplified_silhouette), "silhouette"),
        ("-" if q.ambiguous is None else f"{q.ambiguous:.1%}", "ambiguous rows"),
    ]
    if q.bad_rows:
        facts.insert(1, (f"{q.bad_rows:,}", "bad rows left out"))
    return "".join(f"<li><b>{escape(value)}</b> {escape(name)}</li>" for value, name in facts)


def _map_note(material: Material) -> str:
    shown, rows = len(material.points), material.quality.rows
    which = f"{shown:,} of {rows:,} rows, taken evenly" if shown < rows else f"All {rows:,} rows"
    if material.explained is None:
        how = (
            "by UMAP" if material.projection == "umap" else "laid out so that neighbours stay near"
        )
        return f"{which}, {how}: nearby points are similar, large distances say little."
    return (
        f"{which}, on the two main axes (PCA), which show {material.explained:.0%} of the variance."
    )


def _headings(model: Model, material: Material) -> list[str]:
    """What each cluster is called: its name, else what its terms say, else its number."""
    found = names_of(material.terms) if material.terms else [""] * model.n_clusters
    pairs = zip(model.all_names, found, strict=True)
    return [name or words or f"cluster {j}" for j, (name, words) in enumerate(pairs)]


def _card(j: int, model: Model, material: Material, colour: str, heading: str) -> str:
    size, q = int(material.quality.sizes[j]), material.quality
    share = size / q.rows
    filled = size / max(1, q.sizes.max())
    spread = "-" if material.spread[j] != material.spread[j] else f"{material.spread[j]:.3g}"
    terms = material.terms[j] if material.terms else model.terms[j] if model.terms else []
    tags = "".join(f"<li>{escape(term)}</li>" for term in terms)
    rows = "".join(
        f"<li>{_exemplar(near.row, near.carried)}</li>" for near in material.exemplars[j]
    )
    return (
        f'<article class="card" data-cluster="{j}" data-size="{size}" '
        f'data-spread="{0 if spread == "-" else material.spread[j]:.6g}" '
        f'style="--colour:{colour}">'
        f'<h3><button type="button" aria-pressed="false"><span class="dot"></span>'
        f'<span class="number">{j}</span> {escape(heading)}</button></h3>'
        f'<div class="meter" aria-hidden="true"><i style="width:{filled:.1%}"></i></div>'
        f'<p class="facts">{size:,} rows, {share:.1%} · spread {spread} · '
        f"silhouette {q.cluster_silhouette[j]:.2f}</p><details open>"
        "<summary>what is inside</summary>"
        + (f'<ul class="terms" aria-label="Distinctive terms">{tags}</ul>' if tags else "")
        + f'<ol class="rows" aria-label="Rows nearest to the centre">{rows}</ol>'
        "</details></article>"
    )


def _exemplar(row: int, carried: dict[str, object]) -> str:
    values = [str(value) for value in carried.values() if value is not None]
    if not values:
        return f"row {row:,}"
    first = f"<b>{escape(_short(values[0]))}</b>"
    return first + "".join(f" <span>{escape(_short(value))}</span>" for value in values[1:])


def _short(text: str, most: int = 160) -> str:
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= most else text[: most - 1] + "…"


def _tree(model: Model, sizes: np.ndarray, headings: list[str]) -> str:
    """The tree of the clusters as nested lists whose groups open and close."""
    numbers = model.present
    k, sizes, headings = len(numbers), sizes[numbers], [headings[j] for j in numbers]
    if not 2 < k <= _MOST_IN_TREE:
        return "<p>A tree needs three to a thousand clusters.</p>"
    merges = ward(model.cluster_centers[numbers], sizes)
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
                f'<span class="number">{numbers[item]}</span> {escape(headings[item])} '
                f"<small>{int(sizes[item]):,}</small></button></li>"
            )
        else:
            inside = sorted(groups[item], key=lambda j: -sizes[j])
            names = "; ".join(headings[j] for j in inside[:_NAMED_IN_GROUP])
            more = "; …" if len(inside) > _NAMED_IN_GROUP else ""
            rows = int(sizes[inside].sum())
            parts.append(
                f"<li><details><summary>{escape(names)}{more} "
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
        '<div id="heat" class="plot" role="img" aria-label="Heat map of the distances between '
        f'centres"></div><p class="note">Nearest pairs: {escape(text)}.</p>'
    )


def _curve(known: bool, model: Model) -> str:
    if not known:
        return "<p>The model has no history.</p>"
    values = curve(model, "inertia")
    label = f"Inertia by step of training: from {values[0]:.6g} to {values[-1]:.6g}"
    return (
        f'<div id="curve" class="plot" role="img" aria-label="{escape(label)}"></div>'
        f'<p class="note">{escape(label)}. While it looks for clusters, inertia is an estimate '
        "from the rows of late, so the curve may step where a phase ends.</p>"
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
