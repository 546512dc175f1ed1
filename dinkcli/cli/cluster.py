"""``dink inspect --cluster``: one cluster, as tables and as JSON."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from dinkcli.cli.console import printable, say_bad_rows
from dinkcli.cli.progress import rows_shown
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
from dinkcli.insight.overview import neighbours, root_mean, spreads

if TYPE_CHECKING:
    from dinkcli.data.dataset import DataSet
    from dinkcli.insight.exemplars import Exemplar
    from dinkcli.insight.inside import Inside
    from dinkcli.models.model import Model

_NEIGHBOURS = 8
_GROUPS = 10
_MEMBERS = 20  # of a group in a table
_TEXT = 60  # characters of one row in a list


def show_cluster(
    model: Model,
    cluster: int,
    data: DataSet | None,
    number: int,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Shows a cluster, where there are data with ``number`` of its nearest and farthest rows."""
    inside = None
    if data is not None:
        from dinkcli.insight.inside import look_inside

        with rows_shown(data, quiet or as_json) as shown:
            on_rows = partial(shown, "inspect")
            inside = look_inside(model, data, cluster, number, device, on_rows)
    document = _document(model, cluster, inside)
    if as_json:
        print_json(document)
        return
    _show_facts(document)
    _show_neighbours(document)
    if inside is None:
        return
    for title, rows in (("nearest rows", inside.nearest), ("farthest rows", inside.farthest)):
        _show_rows(title, rows)
    _show_groups(inside)
    say_bad_rows(inside.bad_rows, quiet)


def _document(model: Model, cluster: int, inside: Inside | None) -> dict[str, Any]:
    sizes, spread, terms = model.cluster_sizes, spreads(model), model.terms
    if inside is not None:
        sizes, spread = inside.sizes, root_mean(inside.inertia, inside.sizes)
        terms = terms or inside.terms
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
    if inside is None:
        return found
    return found | {
        "nearest": list(map(plain_row, inside.nearest)),
        "farthest": list(map(plain_row, inside.farthest)),
        "near_duplicates": {
            "distance": inside.near,
            "compared": inside.compared,
            "groups": [list(map(plain_row, group)) for group in inside.groups],
        },
        "bad_rows": inside.bad_rows,
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


def _show_groups(inside: Inside) -> None:
    all_of_them = inside.compared == inside.sizes[inside.cluster]
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
