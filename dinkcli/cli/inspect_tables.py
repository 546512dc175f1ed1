"""The tables of ``dink inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dinkcli.cli.console import printable
from dinkcli.cli.tables import (
    UNLIMITED,
    Field,
    add_row,
    bar,
    new_table,
    shortened,
    show,
    sparkline,
    width,
)

if TYPE_CHECKING:
    import numpy as np

    from dinkcli.insight.exemplars import Exemplar
    from dinkcli.models.model import Model

PAIRS = 8
_EXTREMES = 5
_TEXT = 60  # characters of one row
_NUMBERS = 46  # characters beside a sparkline


def show_model(path: str, model: Model) -> None:
    training = model.training
    data, options = training.get("input", {}), training.get("options", {})
    table = new_table([("", "left"), ("", "left")], headings=False)
    files = ", ".join(data.get("files", [])) or "unknown"
    dtype = ", ".join(data.get("dtype", []))
    add_row(table, "trained on", f"{data.get('rows', 0):,} rows ({dtype}) of {files}")
    for name, value in training.get("metrics", {}).items():
        if isinstance(value, float) and (name == "inertia" or _is_literal(model)):
            add_row(table, name.replace("_", " "), f"{value:.6g}")
    settings = [f"{name} {value}" for name, value in options.items() if value is not None]
    add_row(table, "options", ", ".join(settings))
    versions = training.get("versions", {})
    add_row(table, "made by", ", ".join(f"{name} {value}" for name, value in versions.items()))
    show(f"{path}: {model.n_clusters} clusters of {model.n_features} features", table)


def _is_literal(model: Model) -> bool:
    """Whether the paper's losses are what it was trained by."""
    return bool(model.training.get("options", {}).get("temperature") == "inf")


def show_training(model: Model) -> None:
    from dinkcli.insight.overview import curve

    if not model.training.get("history"):
        return
    table = new_table([Field(""), Field("", drop=1), Field("", "right")], headings=False)
    losses = [("shrink_loss", "shrink loss"), ("dilation_loss", "dilation loss")]
    for name, label in (
        ("inertia", "inertia"),
        *(losses if _is_literal(model) else []),
        ("largest", "largest cluster"),
    ):
        values = curve(model, name)
        sparks = sparkline(values, max(8, min(60, width() - _NUMBERS)))
        add_row(table, label, sparks, f"{values[0]:.4g} to {values[-1]:.4g}")
    show("training, step by step", table)


def show_sizes(
    called: list[str],
    sizes: np.ndarray,
    spread: np.ndarray | None,
    nearest: list[list[Exemplar]] | None,
    most: int,
) -> None:
    order = (-sizes).argsort(kind="stable").tolist()
    hidden = len(order) - most
    note = f" and {hidden} smaller ones (--clusters {len(order)} shows all)" if hidden > 0 else ""
    title = [Field("name", text=True)] if called else []
    columns = [
        Field("cluster", "right"),
        *title,
        Field("rows", "right"),
        Field("share", "right", drop=1),
        Field("spread", "right", drop=2),
        Field("", drop=3),
    ]
    bar_width = 10 if nearest else 20 if called else 40
    last = 4 if called else 0  # where names say what is inside, rows may go
    names = [Field("nearest rows", text=True, drop=last)] if nearest else []
    table = new_table([*columns, *names])
    for j in order[:most]:
        cells = [
            str(j),
            *([printable(called[j]) or "-"] if called else []),
            f"{sizes[j]:g}",
            f"{sizes[j] / sizes.sum():.1%}",
            "-" if spread is None or spread[j] != spread[j] else f"{spread[j]:.3g}",
            bar(sizes[j] / sizes.max(), bar_width),
        ]
        if nearest is not None:
            cells.append(", ".join(map(row_text, nearest[j])))
        add_row(table, *cells)
    show("clusters by size", table, note)


def row_text(exemplar: Exemplar) -> str:
    values = [printable(value) for value in exemplar.carried.values() if value is not None]
    name = ": ".join(values) if values else f"row {exemplar.row}"
    return name if width() == UNLIMITED else shortened(name, _TEXT)


def show_tree(model: Model) -> None:
    from dinkcli.insight.tree import drawn

    called = model.names or [""] * model.n_clusters
    labels = [f"{j} {printable(name)}".rstrip() for j, name in enumerate(called)]
    table = new_table([Field("", text=True)], headings=False)
    for line in drawn(model.tree, labels):
        add_row(table, line)
    show("tree of the clusters (Ward, by rows)", table)


def show_extremes(spread: np.ndarray | None, sizes: np.ndarray) -> None:
    if spread is None or len(sizes) < 2:
        return
    known = [j for j in spread.argsort(kind="stable").tolist() if spread[j] == spread[j]]
    number = min(_EXTREMES, len(known) // 2)
    table = new_table([("", "left"), ("clusters, with their spread", "left")])
    for title, group in (
        ("tightest", known[:number]),
        ("loosest", known[len(known) - number :][::-1]),
    ):
        add_row(table, title, ",  ".join(f"{j} ({spread[j]:.3g})" for j in group))
    show("tightest and loosest (spread: root mean squared distance to the centre)", table)


def show_pairs(model: Model) -> None:
    from dinkcli.insight.overview import nearest_pairs

    pairs = nearest_pairs(model, PAIRS)
    if not pairs:
        return
    named = [Field("names", text=True, drop=1)] if model.names else []
    table = new_table([Field("clusters"), Field("distance", "right"), *named])
    for pair in pairs:
        names = [f"{model.names[pair.first]} / {model.names[pair.second]}"] if named else []
        add_row(table, f"{pair.first} and {pair.second}", f"{pair.distance:.4g}", *names)
    show("nearest pairs of clusters", table)
