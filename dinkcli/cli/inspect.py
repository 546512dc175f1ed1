"""``dink inspect``: a model, all of its clusters or one, as tables and as JSON."""

from __future__ import annotations

from functools import partial
from math import isnan
from typing import TYPE_CHECKING, Any

from dinkcli.cli import options as shared
from dinkcli.cli.console import (
    Field,
    Sheet,
    bar,
    print_json,
    printable,
    rows_shown,
    say_bad_rows,
    shortened,
    show,
)
from dinkcli.cli.options import main_option, output_option
from dinkcli.cli.paths import load_model
from dinkcli.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from dinkcli.insight.inspect import Exemplar, Inside, Seen
    from dinkcli.models.model import Model

_PAIRS = 8
_NEIGHBOURS = 8
_GROUPS = 10
_MEMBERS = 20  # of a group in a table
_TEXT = 60  # characters of one row in a list
_WHOLE_TEXT = 10_000  # of one in a table, which shortens it


def inspect(
    *,
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] | None = shared.OPTIONAL_INPUTS,
    cluster: str | None = main_option(
        None,
        "--cluster",
        metavar="NUMBER|NAME",
        help="Look into one cluster: its terms and neighbours, and with inputs its nearest and "
        "farthest rows and its near-duplicates.",
    ),
    tree: bool = main_option(False, "--tree", help="Show which clusters lie together, as a tree."),
    history: bool = main_option(
        False, "--history", help="Show what was done to the model since its training, and when."
    ),
    ids: list[str] | None = shared.IDS,
    texts: list[str] | None = shared.TEXTS,
    rows: shared.ModelRows,
    exemplars: int = shared.exemplars_option(5),
    clusters: int = output_option(
        40, "--clusters", help="How many clusters to list, largest first.", min=1
    ),
    shown: shared.Shown,
) -> None:
    """Show a model, and with inputs what is in each cluster.

    Examples:
        dink inspect emb.dink.safetensors
        dink inspect emb.dink.safetensors emb.parquet --ids id
        dink inspect emb.dink.safetensors emb.npy --texts texts.txt --cluster 17
    """
    from dinkcli.insight.overview import cluster_of

    if not inputs and (rows.column or ids or texts):
        raise UsageError("--ids, --texts and --column are about the rows of an INPUT: name one")
    if cluster is not None and tree:
        raise UsageError("--cluster shows one cluster and --tree all of them: give one of them")
    model = load_model(model_path, inputs or ())
    # A wrong one is told before the rows are read.
    number = None if cluster is None else cluster_of(model, cluster)
    seen = None
    if inputs:
        from dinkcli.insight.inspect import look

        data = rows.open(model, inputs, ids=ids, texts=texts)
        with rows_shown(data, shown.silent) as progress:
            seen = look(
                model,
                data,
                exemplars,
                rows.device,
                number,
                with_terms=number is not None,
                on_rows=partial(progress, "inspect"),
            )
    if number is not None:
        _show_cluster(model, number, seen, shown)
        return
    sizes, spread, nearest, n_bad = model.cluster_sizes, model.spreads, None, 0
    if seen is not None:
        sizes, spread, nearest, n_bad = seen.sizes, seen.spread, seen.nearest, seen.bad_rows
    if shown.as_json:
        more: dict[str, Any] = {} if seen is None else {"bad_rows": n_bad}
        more |= {"tree": model.tree} if tree else {}
        more |= {"history": model.history} if history else {}
        print_json(_document(model, sizes, spread, nearest) | more)
        return
    _show_model(model_path, model)
    if history:
        _show_history(model)
        return
    _show_sizes(model, sizes, spread, nearest, clusters)
    if tree:
        _show_tree(model)
    _show_pairs(model)
    say_bad_rows(n_bad, shown.quiet)


def _document(
    model: Model, sizes: np.ndarray, spread: np.ndarray, nearest: list[list[Exemplar]] | None
) -> dict[str, Any]:
    from dinkcli.insight.overview import nearest_pairs

    clusters = [
        _plain_cluster(model, j, sizes, spread, model.terms) for j in model.present.tolist()
    ]
    for cluster, rows in zip(clusters, nearest or (), strict=False):
        cluster["exemplars"] = list(map(_plain_row, rows))
    return {
        "n_clusters": model.n_clusters,
        "n_features": model.n_features,
        "metric": model.metric,
        "column": model.column,
        "clusters": clusters,
        "nearest_pairs": [pair._asdict() for pair in nearest_pairs(model, _PAIRS)],
        "training": model.training,
    }


def _plain_cluster(
    model: Model,
    cluster: int,
    sizes: np.ndarray,
    spread: np.ndarray,
    terms: list[list[str]],
    **more: Any,
) -> dict[str, Any]:
    return {
        "cluster": cluster,
        "name": model.names[cluster] if model.names else None,
        "terms": terms[cluster] if terms else None,
        "size": float(sizes[cluster]),
        **more,
        "spread": None if isnan(spread[cluster]) else float(spread[cluster]),
    }


def _plain_row(row: Exemplar) -> dict[str, Any]:
    carried = {
        name: value if isinstance(value, (bool, int, str, type(None))) else str(value)
        for name, value in row.carried.items()
    }
    return {"row": row.row, "distance": row.distance} | carried


def _show_model(path: str, model: Model) -> None:
    training = model.training
    data, options = training.get("input", {}), training.get("options", {})
    table = Sheet(Field(), Field(), headings=False)
    files = ", ".join(data.get("files", [])) or "unknown"
    dtype = ", ".join(data.get("dtype", []))
    table.add("trained on", f"{data.get('rows', 0):,} rows ({dtype}) of {files}")
    inertia = training.get("metrics", {}).get("inertia")
    if inertia is not None:
        table.add("inertia", f"{inertia:.6g}")
    settings = [f"{name} {value}" for name, value in options.items() if value is not None]
    table.add("options", ", ".join(settings))
    versions = training.get("versions", {})
    table.add("made by", ", ".join(f"{name} {value}" for name, value in versions.items()))
    show(f"{path}: {model.n_clusters} clusters of {model.n_features} features", table)


def _show_sizes(
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
            f"{sizes[j] / sizes.sum():.1%}",
            "-" if isnan(spread[j]) else f"{spread[j]:.3g}",
            bar(sizes[j] / sizes.max(), bar_width),
            ", ".join(map(_row_text, nearest[j])) if nearest else "",
        )
    meaning = "spread: the root of the mean squared distance to the centre"
    show("clusters by size", table, note, meaning)


def _show_history(model: Model) -> None:
    from dinkcli.cli.update import described

    table = Sheet("when", Field("what", text=True))
    for entry in model.history:
        table.add(entry["when"], described(entry))
    show("since the training" if model.history else "as it was trained", table)


def _show_tree(model: Model) -> None:
    from dinkcli.models.tree import drawn

    labels = [f"{j} {printable(model.all_names[j])}".rstrip() for j in model.present.tolist()]
    table = Sheet(Field(text=True), headings=False)
    for line in drawn(model.tree, labels):
        table.add(line)
    show("tree of the clusters (Ward, by rows)", table)


def _show_pairs(model: Model) -> None:
    from dinkcli.insight.overview import nearest_pairs

    pairs = nearest_pairs(model, _PAIRS)
    if not pairs:
        return
    named = Field("names", text=True, drop=1) if model.names else None
    table = Sheet(Field("clusters"), "distance", named)
    for i, j, distance in pairs:
        names = f"{model.all_names[i]} / {model.all_names[j]}"
        table.add(f"{i} and {j}", f"{distance:.4g}", names)
    show("nearest pairs of clusters", table)


def _show_cluster(model: Model, cluster: int, seen: Seen | None, shown: shared.Shown) -> None:
    """Shows a cluster, where rows were seen with the nearest and farthest of them."""
    document = _cluster_document(model, cluster, seen)
    if shown.as_json:
        print_json(document)
        return
    _show_facts(document)
    if document["neighbours"]:
        _show_neighbours(document)
    if seen is None or seen.inside is None:
        return
    rows = {"nearest rows": seen.nearest[cluster], "farthest rows": seen.inside.farthest}
    for title, few in rows.items():
        if few:
            _show_rows(title, few)
    _show_groups(seen.inside, int(seen.sizes[cluster]))
    say_bad_rows(seen.bad_rows, shown.quiet)


def _cluster_document(model: Model, cluster: int, seen: Seen | None) -> dict[str, Any]:
    from dinkcli.insight.overview import neighbours

    sizes, spread, terms = model.cluster_sizes, model.spreads, model.terms
    if seen is not None:
        sizes, spread, terms = seen.sizes, seen.spread, terms or seen.terms
    share = float(sizes[cluster] / (sizes.sum() or 1))
    document = _plain_cluster(model, cluster, sizes, spread, terms, share=share)
    document["neighbours"] = [
        {
            "cluster": j,
            "name": model.names[j] if model.names else None,
            "size": float(sizes[j]),
            "distance": distance,
        }
        for j, distance in neighbours(model, cluster, _NEIGHBOURS)
    ]
    if seen is None or (inside := seen.inside) is None:
        return document
    return document | {
        "nearest": list(map(_plain_row, seen.nearest[cluster])),
        "farthest": list(map(_plain_row, inside.farthest)),
        "near_duplicates": {
            "distance": inside.near,
            "compared": inside.compared,
            "groups": [list(map(_plain_row, group)) for group in inside.groups],
        },
        "bad_rows": seen.bad_rows,
    }


def _show_facts(facts: dict[str, Any]) -> None:
    table = Sheet(Field(), Field(), headings=False)
    table.add("rows", f"{facts['size']:g}, {facts['share']:.1%} of all")
    if facts["spread"] is not None:
        table.add("spread", f"{facts['spread']:.3g} (root mean squared distance)")
    if facts["terms"]:
        table.add("terms", ", ".join(facts["terms"]))
    name = f": {facts['name']}" if facts["name"] else ""
    show(f"cluster {facts['cluster']}{name}", table)


def _show_neighbours(facts: dict[str, Any]) -> None:
    named = Field("name", text=True) if facts["name"] is not None else None
    table = Sheet("cluster", named, "rows", "distance")
    for other in facts["neighbours"]:
        name = other["name"] or "-"
        table.add(other["cluster"], name, f"{other['size']:g}", f"{other['distance']:.4g}")
    show("nearest clusters, by their centres", table)


def _show_rows(title: str, rows: list[Exemplar]) -> None:
    table = Sheet("row", "distance", Field(text=True) if rows[0].carried else None)
    for row in rows:
        table.add(row.row, f"{row.distance:.4g}", _row_text(row, _WHOLE_TEXT))
    show(title, table)


def _show_groups(inside: Inside, size: int) -> None:
    of = "" if inside.compared == size else f" of the first {inside.compared}"
    title = f"near-duplicates: rows within {inside.near:.3g} of another one"
    if not inside.groups:
        show(f"{title}: none{of}")
        return
    table = Sheet("rows", Field("which", text=True))
    for group in inside.groups[:_GROUPS]:
        table.add(len(group), ", ".join(map(_row_text, group[:_MEMBERS])))
    hidden = len(inside.groups) - _GROUPS
    more = f"{hidden} more in --json. " if hidden > 0 else ""
    members = sum(map(len, inside.groups))
    groups = "1 group" if len(inside.groups) == 1 else f"{len(inside.groups)} groups"
    show(
        title,
        table,
        f"{more}{members} rows{of} in {groups}; dink dedup finds those across clusters too.",
    )


def _row_text(row: Exemplar, most: int = _TEXT) -> str:
    """What a row is called, or its number, in at most so many characters."""
    texts = [printable(value) for value in row.carried.values() if value is not None]
    return shortened(": ".join(texts) or f"row {row.row}", most)
