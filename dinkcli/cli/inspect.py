"""``dink inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dinkcli.cli.console import error_boundary, printable, say
from dinkcli.cli.help import OUTPUT
from dinkcli.cli.opening import open_for
from dinkcli.cli.options import (
    BadRows,
    Column,
    Device,
    Exemplars,
    IdColumn,
    Ids,
    JsonData,
    ModelPath,
    Quiet,
    TextColumn,
    Texts,
    option,
)
from dinkcli.cli.paths import load_model
from dinkcli.cli.progress import ProgressLines
from dinkcli.cli.tables import (
    UNLIMITED,
    Field,
    add_row,
    bar,
    new_table,
    print_json,
    shortened,
    show,
    sparkline,
    width,
)
from dinkcli.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from dinkcli.data.base import Columns
    from dinkcli.insight.exemplars import Exemplar
    from dinkcli.models.model import Model

_PAIRS = 8
_EXTREMES = 5
_TEXT = 60  # characters of one row
_NUMBERS = 46  # characters beside a sparkline


def inspect(
    model_path: ModelPath,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INPUT]...",
            help="Files or folders, to show what is in each cluster: the rows nearest to its "
            "centre.",
            show_default=False,
        ),
    ] = None,
    id_column: IdColumn = None,
    ids: Ids = None,
    text_column: TextColumn = None,
    texts: Texts = None,
    exemplars: Exemplars = 5,
    clusters: Annotated[
        int,
        option(OUTPUT, "--clusters", help="How many clusters to list, largest first.", min=1),
    ] = 40,
    tree: Annotated[
        bool, option(OUTPUT, "--tree", help="Show which clusters lie together, as a tree.")
    ] = False,
    device: Device = "auto",
    column: Column = None,
    bad_rows: BadRows = "stop",
    as_json: JsonData = False,
    quiet: Quiet = False,
) -> None:
    """Show a model, and with inputs what is in each cluster.

    Examples:
        dink inspect emb.dink.safetensors
        dink inspect emb.dink.safetensors emb.parquet --id-column id
    """
    with error_boundary():
        from dinkcli.insight.overview import spreads

        if not inputs and (id_column or text_column or column or ids or texts):
            raise UsageError(
                "--ids, --texts, --id-column, --text-column and --column are about the "
                "rows of an INPUT: name one"
            )
        model = load_model(model_path, inputs or ())
        spread, sizes, nearest, n_bad = spreads(model), model.cluster_sizes, None, 0
        if inputs:
            from dinkcli.data.base import Columns

            wanted = Columns(
                column,
                id=id_column,
                ids=tuple(ids or ()),
                text=text_column,
                texts=tuple(texts or ()),
            )
            sizes, spread, nearest, n_bad = _look(
                model, inputs, wanted, bad_rows, exemplars, device, quiet or as_json
            )
        if as_json:
            seen: dict[str, Any] = {"bad_rows": n_bad} if inputs else {}
            if tree:
                from dinkcli.insight.tree import ward

                seen["tree"] = ward(model.cluster_centers, sizes)
            print_json(_document(model, sizes, spread, nearest) | seen)
            return
        _show_model(model_path, model)
        _show_training(model)
        _show_sizes(model.names, sizes, spread, nearest, clusters)
        if tree:
            _show_tree(model, sizes)
        _show_extremes(spread, sizes)
        _show_pairs(model)
        if n_bad and not quiet:
            say(f"bad rows left out: {n_bad}")


def _look(
    model: Model,
    inputs: list[str],
    wanted: Columns,
    bad_rows: str,
    number: int,
    device: str,
    quiet: bool,
) -> tuple[np.ndarray, np.ndarray, list[list[Exemplar]], int]:
    """(sizes, spreads, exemplars, number of bad ones) of the inputs' rows."""
    from dinkcli.insight.overview import root_mean

    data = open_for(model, inputs, wanted, bad_rows)

    from dinkcli.insight.exemplars import Exemplars
    from dinkcli.insight.quality import FirstPass
    from dinkcli.insight.survey import survey
    from dinkcli.processes.device import resolve_device

    where = resolve_device(device)
    first = FirstPass(model.n_clusters, model.n_features, where)
    nearest = Exemplars(model.n_clusters, number)
    with ProgressLines(quiet) as progress:
        for view in survey(model, data, where):
            first.add(view)
            nearest.add(view)
            progress.update("inspect", view.end, data.known_rows, "rows")
    sizes = first.sizes.cpu().numpy()
    spread = root_mean(first.inertia.cpu().numpy(), sizes)
    return sizes, spread, nearest.of_clusters(), first.bad_rows


def _document(
    model: Model,
    sizes: np.ndarray,
    spread: np.ndarray | None,
    nearest: list[list[Exemplar]] | None,
) -> dict[str, Any]:
    from dinkcli.insight.overview import nearest_pairs

    clusters: list[dict[str, Any]] = []
    for j in range(model.n_clusters):
        known = spread is not None and spread[j] == spread[j]
        cluster: dict[str, Any] = {
            "cluster": j,
            "name": model.names[j] if model.names else None,
            "terms": model.terms[j] if model.terms else None,
            "size": float(sizes[j]),
            "spread": float(spread[j]) if spread is not None and known else None,
        }
        if nearest is not None:
            cluster["exemplars"] = [
                {"row": near.row, "distance": near.distance}
                | {name: _plain(value) for name, value in near.carried.items()}
                for near in nearest[j]
            ]
        clusters.append(cluster)
    return {
        "n_clusters": model.n_clusters,
        "n_features": model.n_features,
        "metric": model.metric,
        "column": model.column,
        "clusters": clusters,
        "nearest_pairs": [pair._asdict() for pair in nearest_pairs(model, _PAIRS)],
        "training": model.training,
    }


def _plain(value: object) -> object:
    return value if isinstance(value, (bool, int, str, type(None))) else str(value)


def _show_model(path: str, model: Model) -> None:
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


def _show_training(model: Model) -> None:
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


def _show_sizes(
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
    bar_width = 10 if nearest else 40
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
            cells.append(", ".join(map(_name, nearest[j])))
        add_row(table, *cells)
    show("clusters by size", table, note)


def _name(exemplar: Exemplar) -> str:
    values = [printable(value) for value in exemplar.carried.values() if value is not None]
    name = ": ".join(values) if values else f"row {exemplar.row}"
    return name if width() == UNLIMITED else shortened(name, _TEXT)


def _show_tree(model: Model, sizes: np.ndarray) -> None:
    from dinkcli.insight.tree import drawn, ward

    called = model.names or [""] * model.n_clusters
    labels = [f"{j} {printable(name)}".rstrip() for j, name in enumerate(called)]
    table = new_table([Field("", text=True)], headings=False)
    for line in drawn(ward(model.cluster_centers, sizes), labels):
        add_row(table, line)
    show("tree of the clusters (Ward, by rows)", table)


def _show_extremes(spread: np.ndarray | None, sizes: np.ndarray) -> None:
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


def _show_pairs(model: Model) -> None:
    from dinkcli.insight.overview import nearest_pairs

    pairs = nearest_pairs(model, _PAIRS)
    if not pairs:
        return
    table = new_table([("clusters", "left"), ("distance", "right")])
    for pair in pairs:
        add_row(table, f"{pair.first} and {pair.second}", f"{pair.distance:.4g}")
    show("nearest pairs of clusters", table)
