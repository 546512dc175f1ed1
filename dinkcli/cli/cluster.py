"""``dink inspect --cluster``: one cluster, as tables and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dinkcli.cli.console import printable, say_bad_rows
from dinkcli.cli.tables import (
    UNLIMITED,
    Field,
    Sheet,
    print_json,
    say_result,
    shortened,
    show,
    width,
)
from dinkcli.insight.overview import neighbours, spreads

if TYPE_CHECKING:
    from dinkcli.insight.inspect import Exemplar, Inside, Seen
    from dinkcli.models.model import Model

_NEIGHBOURS = 8
_GROUPS = 10
_MEMBERS = 20  # of a group in a table
_TEXT = 60  # characters of one row in a list


def show_cluster(model: Model, cluster: int, seen: Seen | None, as_json: bool, quiet: bool) -> None:
    """Shows a cluster, where rows were seen with the nearest and farthest of them."""
    document = _document(model, cluster, seen)
    if as_json:
        print_json(document)
        return
    _show_facts(document)
    _show_neighbours(document)
    if seen is None or seen.inside is None:
        return
    _show_rows("nearest rows", seen.nearest[cluster])
    _show_rows("farthest rows", seen.inside.farthest)
    _show_groups(seen.inside, int(seen.sizes[cluster]))
    say_bad_rows(seen.bad_rows, quiet)


def _document(model: Model, cluster: int, seen: Seen | None) -> dict[str, Any]:
    sizes, spread, terms = model.cluster_sizes, spreads(model), model.terms
    if seen is not None:
        sizes, spread, terms = seen.sizes, seen.spread, terms or seen.terms
    share = float(sizes[cluster] / (sizes.sum() or 1))
    found = plain_cluster(model, cluster, sizes, spread, terms, share=share)
    found["neighbours"] = [
        {
            "cluster": j,
            "name": model.names[j] if model.names else None,
            "size": float(sizes[j]),
            "distance": distance,
        }
        for j, distance in neighbours(model, cluster, _NEIGHBOURS)
    ]
    if seen is None or (inside := seen.inside) is None:
        return found
    return found | {
        "nearest": list(map(plain_row, seen.nearest[cluster])),
        "farthest": list(map(plain_row, inside.farthest)),
        "near_duplicates": {
            "distance": inside.near,
            "compared": inside.compared,
            "groups": [list(map(plain_row, group)) for group in inside.groups],
        },
        "bad_rows": seen.bad_rows,
    }


def plain_cluster(
    model: Model,
    cluster: int,
    sizes: np.ndarray,
    spread: np.ndarray,
    terms: list[list[str]],
    **more: Any,
) -> dict[str, Any]:
    """A cluster as plain JSON."""
    return {
        "cluster": cluster,
        "name": model.names[cluster] if model.names else None,
        "terms": terms[cluster] if terms else None,
        "size": float(sizes[cluster]),
        **more,
        "spread": None if np.isnan(spread[cluster]) else float(spread[cluster]),
    }


def plain_row(row: Exemplar) -> dict[str, Any]:
    """A row as plain JSON."""
    carried = {
        name: value if isinstance(value, (bool, int, str, type(None))) else str(value)
        for name, value in row.carried.items()
    }
    return {"row": row.row, "distance": row.distance} | carried


def _show_facts(found: dict[str, Any]) -> None:
    table = Sheet(Field(), Field(), headings=False)
    table.add("rows", f"{found['size']:g}, {found['share']:.1%} of all")
    if found["spread"] is not None:
        table.add("spread", f"{found['spread']:.3g} (root mean squared distance)")
    if found["terms"]:
        table.add("terms", ", ".join(found["terms"]))
    name = f": {found['name']}" if found["name"] else ""
    show(f"cluster {found['cluster']}{name}", table)


def _show_neighbours(found: dict[str, Any]) -> None:
    if not found["neighbours"]:
        return
    named = Field("name", text=True) if found["name"] is not None else None
    table = Sheet("cluster", named, "rows", "distance")
    for other in found["neighbours"]:
        name = other["name"] or "-"
        table.add(other["cluster"], name, f"{other['size']:g}", f"{other['distance']:.4g}")
    show("nearest clusters, by their centres", table)


def _show_rows(title: str, rows: list[Exemplar]) -> None:
    if not rows:
        return
    texts = Field(text=True) if rows[0].carried else None
    table = Sheet("row", "distance", texts)
    for row in rows:
        table.add(row.row, f"{row.distance:.4g}", whole_text(row))
    show(title, table)


def _show_groups(inside: Inside, size: int) -> None:
    all_of_them = inside.compared == size
    of = "" if all_of_them else f" of the first {inside.compared}"
    title = f"near-duplicates: rows within {inside.near:.3g} of another one"
    if not inside.groups:
        say_result(f"{title}: none{of}")
        return
    table = Sheet("rows", Field("which", text=True))
    for group in inside.groups[:_GROUPS]:
        table.add(len(group), ", ".join(map(row_text, group[:_MEMBERS])))
    hidden = len(inside.groups) - _GROUPS
    more = f"{hidden} more in --json. " if hidden > 0 else ""
    members = sum(map(len, inside.groups))
    groups = "1 group" if len(inside.groups) == 1 else f"{len(inside.groups)} groups"
    show(
        title,
        table,
        f"{more}{members} rows{of} in {groups}; dink dedup finds those across clusters too.",
    )


def whole_text(row: Exemplar) -> str:
    """What a row is called, as long as it is: tables shorten it."""
    return ": ".join(printable(value) for value in row.carried.values() if value is not None)


def row_text(row: Exemplar) -> str:
    """What a row is called, or its number, short enough for a list of rows."""
    text = whole_text(row) or f"row {row.row}"
    return text if width() == UNLIMITED else shortened(text, _TEXT)
