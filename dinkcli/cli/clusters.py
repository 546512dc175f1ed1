"""``dink inspect``: all clusters, as tables and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dinkcli.cli.cluster import plain_cluster, plain_row, row_text
from dinkcli.cli.console import printable
from dinkcli.cli.tables import Field, Sheet, bar, show, sparkline, width
from dinkcli.insight.overview import curve, nearest_pairs
from dinkcli.models.tree import drawn

if TYPE_CHECKING:
    from dinkcli.insight.inspect import Exemplar
    from dinkcli.models.model import Model

_PAIRS = 8
_EXTREMES = 5
_NUMBERS = 46  # characters beside a sparkline


def document(
    model: Model, sizes: np.ndarray, spread: np.ndarray, nearest: list[list[Exemplar]] | None
) -> dict[str, Any]:
    clusters = [
        plain_cluster(model, j, sizes, spread, model.terms) for j in range(model.n_clusters)
    ]
    for cluster, rows in zip(clusters, nearest or (), strict=False):
        cluster["exemplars"] = list(map(plain_row, rows))
    return {
        "n_clusters": model.n_clusters,
        "n_features": model.n_features,
        "metric": model.metric,
        "column": model.column,
        "clusters": clusters,
        "nearest_pairs": [pair._asdict() for pair in nearest_pairs(model, _PAIRS)],
        "training": model.training,
    }


def show_model(path: str, model: Model) -> None:
    training = model.training
    data, options = training.get("input", {}), training.get("options", {})
    table = Sheet(Field(), Field(), headings=False)
    files = ", ".join(data.get("files", [])) or "unknown"
    dtype = ", ".join(data.get("dtype", []))
    table.add("trained on", f"{data.get('rows', 0):,} rows ({dtype}) of {files}")
    for name, value in training.get("metrics", {}).items():
        if isinstance(value, float) and (name == "inertia" or _is_literal(model)):
            table.add(name.replace("_", " "), f"{value:.6g}")
    settings = [f"{name} {value}" for name, value in options.items() if value is not None]
    table.add("options", ", ".join(settings))
    versions = training.get("versions", {})
    table.add("made by", ", ".join(f"{name} {value}" for name, value in versions.items()))
    show(f"{path}: {model.n_clusters} clusters of {model.n_features} features", table)


def _is_literal(model: Model) -> bool:
    """Whether the paper's losses are what it was trained by."""
    return bool(model.training.get("options", {}).get("temperature") == "inf")


def show_training(model: Model) -> None:
    if not model.training.get("history"):
        return
    table = Sheet(Field(), Field(drop=1), "", headings=False)
    losses = ("shrink_loss", "dilation_loss") if _is_literal(model) else ()
    for name in ("inertia", *losses, "largest"):
        values = curve(model, name)
        label = "largest cluster" if name == "largest" else name.replace("_", " ")
        sparks = sparkline(values, max(8, min(60, width() - _NUMBERS)))
        table.add(label, sparks, f"{values[0]:.4g} to {values[-1]:.4g}")
    show("training, step by step", table)


def show_sizes(
    model: Model,
    sizes: np.ndarray,
    spread: np.ndarray,
    nearest: list[list[Exemplar]] | None,
    most: int,
) -> None:
    order = (-sizes).argsort(kind="stable").tolist()
    hidden = len(order) - most
    note = f" and {hidden} smaller ones (--clusters {len(order)} shows all)" if hidden > 0 else ""
    named = bool(model.names)
    last = 4 if named else 0  # where names say what is inside, rows may go
    table = Sheet(
        "cluster",
        Field("name", text=True) if named else None,
        "rows",
        Field("share", "right", drop=1),
        Field("spread", "right", drop=2),
        Field(drop=3),
        Field("nearest rows", text=True, drop=last) if nearest else None,
    )
    bar_width = 10 if nearest else 20 if named else 40
    for j in order[:most]:
        table.add(
            j,
            model.all_names[j] or "-",
            f"{sizes[j]:g}",
            f"{sizes[j] / (sizes.sum() or 1):.1%}",
            "-" if np.isnan(spread[j]) else f"{spread[j]:.3g}",
            bar(sizes[j] / (sizes.max() or 1), bar_width),
            ", ".join(map(row_text, nearest[j])) if nearest else "",
        )
    show("clusters by size", table, note)


def show_tree(model: Model) -> None:
    labels = [f"{j} {printable(name)}".rstrip() for j, name in enumerate(model.all_names)]
    table = Sheet(Field(text=True), headings=False)
    for line in drawn(model.tree, labels):
        table.add(line)
    show("tree of the clusters (Ward, by rows)", table)


def show_extremes(spread: np.ndarray) -> None:
    known = [j for j in spread.argsort(kind="stable").tolist() if not np.isnan(spread[j])]
    if not known or len(spread) < 2:
        return
    number = min(_EXTREMES, len(known) // 2)
    table = Sheet(Field(), Field("clusters, with their spread"))
    for title, group in (
        ("tightest", known[:number]),
        ("loosest", known[len(known) - number :][::-1]),
    ):
        table.add(title, ",  ".join(f"{j} ({spread[j]:.3g})" for j in group))
    show("tightest and loosest (spread: root mean squared distance to the centre)", table)


def show_pairs(model: Model) -> None:
    pairs = nearest_pairs(model, _PAIRS)
    if not pairs:
        return
    named = Field("names", text=True, drop=1) if model.names else None
    table = Sheet(Field("clusters"), "distance", named)
    for i, j, distance in pairs:
        names = f"{model.all_names[i]} / {model.all_names[j]}"
        table.add(f"{i} and {j}", f"{distance:.4g}", names)
    show("nearest pairs of clusters", table)
