"""``dink inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dinkcli.cli import options as shared
from dinkcli.cli.console import error_boundary, say
from dinkcli.cli.help import OUTPUT
from dinkcli.cli.inspect_tables import (
    PAIRS,
    show_extremes,
    show_model,
    show_pairs,
    show_sizes,
    show_training,
    show_tree,
)
from dinkcli.cli.opening import columns_of, open_for
from dinkcli.cli.options import option
from dinkcli.cli.paths import load_model
from dinkcli.cli.progress import ProgressLines
from dinkcli.cli.tables import print_json
from dinkcli.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from dinkcli.data.dataset import DataSet
    from dinkcli.insight.exemplars import Exemplar
    from dinkcli.models.model import Model


def inspect(
    model_path: shared.ModelPath,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INPUT]...",
            help="Files or folders, to show what is in each cluster: the rows nearest to its "
            "centre.",
            show_default=False,
        ),
    ] = None,
    id_column: shared.IdColumn = None,
    ids: shared.Ids = None,
    text_column: shared.TextColumn = None,
    texts: shared.Texts = None,
    exemplars: shared.Exemplars = 5,
    clusters: Annotated[
        int, option(OUTPUT, "--clusters", help="How many clusters to list, largest first.", min=1)
    ] = 40,
    cluster: Annotated[
        str | None,
        option(
            OUTPUT,
            "--cluster",
            metavar="NUMBER|NAME",
            help="Look into one cluster: its terms and neighbours, and with inputs its nearest and "
            "farthest rows and its near-duplicates.",
        ),
    ] = None,
    tree: Annotated[
        bool, option(OUTPUT, "--tree", help="Show which clusters lie together, as a tree.")
    ] = False,
    device: shared.Device = "auto",
    column: shared.Column = None,
    bad_rows: shared.BadRows = "stop",
    as_json: shared.JsonData = False,
    quiet: shared.Quiet = False,
) -> None:
    """Show a model, and with inputs what is in each cluster.

    Examples:
        dink inspect emb.dink.safetensors
        dink inspect emb.dink.safetensors emb.parquet --id-column id
        dink inspect emb.dink.safetensors emb.npy --texts texts.txt --cluster 17
    """
    with error_boundary():
        from dinkcli.cli.cluster import show_cluster
        from dinkcli.insight.overview import cluster_of, spreads

        if not inputs and (id_column or text_column or column or ids or texts):
            raise UsageError(
                "--ids, --texts, --id-column, --text-column and --column are about the "
                "rows of an INPUT: name one"
            )
        if cluster is not None and tree:
            raise UsageError("--cluster shows one cluster and --tree all of them: give one of them")
        model = load_model(model_path, inputs or ())
        spread, sizes, nearest, n_bad = spreads(model), model.cluster_sizes, None, 0
        data = None
        if inputs:
            wanted = columns_of(column, id=id_column, ids=ids, text=text_column, texts=texts)
            if cluster is not None:
                cluster_of(model, cluster)  # a wrong one is told before the rows are read
            data = open_for(model, inputs, wanted, bad_rows)
        if cluster is not None:
            show_cluster(model, cluster, data, exemplars, device, as_json, quiet)
            return
        if data is not None:
            sizes, spread, nearest, n_bad = _look(model, data, exemplars, device, quiet or as_json)
        if as_json:
            seen: dict[str, Any] = {"bad_rows": n_bad} if inputs else {}
            if tree:
                seen["tree"] = model.tree
            print_json(_document(model, sizes, spread, nearest) | seen)
            return
        show_model(model_path, model)
        show_training(model)
        show_sizes(model.names, sizes, spread, nearest, clusters)
        if tree:
            show_tree(model)
        show_extremes(spread, sizes)
        show_pairs(model)
        if n_bad and not quiet:
            say(f"bad rows left out: {n_bad}")


def _look(
    model: Model, data: DataSet, number: int, device: str, quiet: bool
) -> tuple[np.ndarray, np.ndarray, list[list[Exemplar]], int]:
    """(sizes, spreads, exemplars, number of bad ones) of the inputs' rows."""
    from dinkcli.insight.exemplars import Exemplars
    from dinkcli.insight.overview import root_mean
    from dinkcli.insight.quality import FirstPass
    from dinkcli.insight.survey import survey

    first = FirstPass(model.n_clusters, model.n_features)
    nearest = Exemplars(model.n_clusters, number)
    with ProgressLines(quiet) as progress:
        for view in survey(model, data, device):
            first.add(view)
            nearest.add(view)
            progress.update("inspect", view.end, data.known_rows, "rows")
    spread = root_mean(first.inertia, first.sizes)
    return first.sizes, spread, nearest.of_clusters(), first.bad_rows


def _document(
    model: Model, sizes: np.ndarray, spread: np.ndarray | None, nearest: list[list[Exemplar]] | None
) -> dict[str, Any]:
    from dinkcli.cli.cluster import plain_row
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
            cluster["exemplars"] = [plain_row(near) for near in nearest[j]]
        clusters.append(cluster)
    return {
        "n_clusters": model.n_clusters,
        "n_features": model.n_features,
        "metric": model.metric,
        "column": model.column,
        "clusters": clusters,
        "nearest_pairs": [pair._asdict() for pair in nearest_pairs(model, PAIRS)],
        "training": model.training,
    }
