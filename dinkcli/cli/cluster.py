"""``dink inspect --cluster``: one cluster, as tables and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dinkcli.cli.console import printable, say
from dinkcli.cli.inspect_tables import row_text
from dinkcli.cli.progress import ProgressLines
from dinkcli.cli.tables import Field, add_row, new_table, print_json, say_result, show
from dinkcli.insight.overview import cluster_of, neighbours, root_mean, spreads

if TYPE_CHECKING:
    from dinkcli.data.dataset import DataSet
    from dinkcli.insight.exemplars import Exemplar
    from dinkcli.insight.inside import Inside
    from dinkcli.models.model import Model

_NEIGHBOURS = 8
_GROUPS = 10
_MEMBERS = 20  # of a group in a table


def show_cluster(
    model: Model,
    wanted: str,
    data: DataSet | None,
    number: int,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Shows the cluster of a number or name, with its rows where there are data.

    Raises:
        UsageError: no such cluster.
    """
    cluster = cluster_of(model, wanted)
    inside = None
    if data is not None:
        from dinkcli.insight.inside import look_inside

        with ProgressLines(quiet or as_json) as progress:
            inside = look_inside(
                model,
                data,
                cluster,
                number,
                device,
                lambda done: progress.update("inspect", done, data.known_rows, "rows"),
            )
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
    if inside.bad_rows and not quiet:
        say(f"bad rows left out: {inside.bad_rows}")


def _document(model: Model, cluster: int, inside: Inside | None) -> dict[str, Any]:
    spread, sizes, terms = spreads(model), model.cluster_sizes, model.terms
    if inside is not None:
        sizes, spread = inside.sizes, root_mean(inside.inertia, inside.sizes)
        terms = terms or inside.terms
    known = spread is not None and spread[cluster] == spread[cluster]
    found = {
        "cluster": cluster,
        "name": model.names[cluster] if model.names else None,
        "terms": terms[cluster] if terms else None,
        "size": float(sizes[cluster]),
        "share": float(sizes[cluster] / sizes.sum()),
        "spread": float(spread[cluster]) if spread is not None and known else None,
        "neighbours": [
            {
                "cluster": j,
                "name": model.names[j] if model.names else None,
                "size": float(sizes[j]),
                "distance": distance,
            }
            for j, distance in neighbours(model, cluster, _NEIGHBOURS)
        ],
    }
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


def plain_row(row: Exemplar) -> dict[str, Any]:
    """A row as plain JSON."""
    carried = {
        name: value if isinstance(value, (bool, int, str, type(None))) else str(value)
        for name, value in row.carried.items()
    }
    return {"row": row.row, "distance": row.distance} | carried


def _show_facts(found: dict[str, Any]) -> None:
    table = new_table([Field(""), Field("")], headings=False)
    add_row(table, "rows", f"{found['size']:g}, {found['share']:.1%} of all")
    if found["spread"] is not None:
        add_row(table, "spread", f"{found['spread']:.3g} (root mean squared distance)")
    if found["terms"]:
        add_row(table, "terms", ", ".join(found["terms"]))
    name = f": {found['name']}" if found["name"] else ""
    show(f"cluster {found['cluster']}{name}", table)


def _show_neighbours(found: dict[str, Any]) -> None:
    if not found["neighbours"]:
        return
    named = found["name"] is not None
    title = [Field("name", text=True)] if named else []
    table = new_table(
        [Field("cluster", "right"), *title, Field("rows", "right"), Field("distance", "right")]
    )
    for other in found["neighbours"]:
        cells = [other["cluster"], *([printable(other["name"]) or "-"] if named else [])]
        add_row(table, *cells, f"{other['size']:g}", f"{other['distance']:.4g}")
    show("nearest clusters, by their centres", table)


def _show_rows(title: str, rows: list[Exemplar]) -> None:
    if not rows:
        return
    texts = [Field("", text=True)] if rows[0].carried else []
    table = new_table([Field("row", "right"), Field("distance", "right"), *texts])
    for row in rows:
        cells = [whole_text(row)] if texts else []
        add_row(table, row.row, f"{row.distance:.4g}", *cells)
    show(title, table)


def _show_groups(inside: Inside) -> None:
    all_of_them = inside.compared == inside.sizes[inside.cluster]
    of = "" if all_of_them else f" of the first {inside.compared}"
    title = f"near-duplicates: rows within {inside.near:.3g} of another one"
    if not inside.groups:
        say_result(f"{title}: none{of}")
        return
    table = new_table([Field("rows", "right"), Field("which", text=True)])
    for group in inside.groups[:_GROUPS]:
        add_row(table, len(group), ", ".join(map(row_text, group[:_MEMBERS])))
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
