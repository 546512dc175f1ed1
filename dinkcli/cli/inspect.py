"""``dink inspect``."""

from __future__ import annotations

from functools import partial

import typer

from dinkcli.cli import options as shared
from dinkcli.cli.console import say_bad_rows
from dinkcli.cli.options import output_option
from dinkcli.cli.paths import columns_of, load_model, open_for
from dinkcli.cli.progress import rows_shown
from dinkcli.cli.tables import print_json
from dinkcli.errors import UsageError

_INPUTS = typer.Argument(
    None,
    metavar="[INPUT]...",
    help="Files or folders, to show what is in each cluster: the rows nearest to its centre.",
    show_default=False,
)


def inspect(
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] | None = _INPUTS,
    ids: list[str] | None = shared.IDS,
    texts: list[str] | None = shared.TEXTS,
    exemplars: int = shared.exemplars_option(5),
    clusters: int = output_option(
        40, "--clusters", help="How many clusters to list, largest first.", min=1
    ),
    cluster: str | None = output_option(
        None,
        "--cluster",
        metavar="NUMBER|NAME",
        help="Look into one cluster: its terms and neighbours, and with inputs its nearest and "
        "farthest rows and its near-duplicates.",
    ),
    tree: bool = output_option(
        False, "--tree", help="Show which clusters lie together, as a tree."
    ),
    device: str = shared.DEVICE,
    column: str | None = shared.COLUMN,
    bad_rows: shared.BadRows = shared.BAD_ROWS,
    as_json: bool = shared.JSON,
    quiet: bool = shared.QUIET,
) -> None:
    """Show a model, and with inputs what is in each cluster.

    Examples:
        dink inspect emb.dink.safetensors
        dink inspect emb.dink.safetensors emb.parquet --ids id
        dink inspect emb.dink.safetensors emb.npy --texts texts.txt --cluster 17
    """
    from dinkcli.cli import clusters as view
    from dinkcli.cli.cluster import show_cluster
    from dinkcli.insight.overview import cluster_of, spreads

    if not inputs and (column or ids or texts):
        raise UsageError("--ids, --texts and --column are about the rows of an INPUT: name one")
    if cluster is not None and tree:
        raise UsageError("--cluster shows one cluster and --tree all of them: give one of them")
    model = load_model(model_path, inputs or ())
    # A wrong one is told before the rows are read.
    number = None if cluster is None else cluster_of(model, cluster)
    seen = None
    if inputs:
        wanted = columns_of(column, ids=ids, texts=texts)
        data = open_for(model, inputs, wanted, bad_rows)
        from dinkcli.insight.inspect import look

        with rows_shown(data, quiet or as_json) as shown:
            seen = look(
                model,
                data,
                exemplars,
                device,
                number,
                with_terms=number is not None,
                on_rows=partial(shown, "inspect"),
            )
    if number is not None:
        show_cluster(model, number, seen, as_json, quiet)
        return
    sizes, spread, nearest, n_bad = model.cluster_sizes, spreads(model), None, 0
    if seen is not None:
        sizes, spread, nearest, n_bad = seen.sizes, seen.spread, seen.nearest, seen.bad_rows
    if as_json:
        more = {} if seen is None else {"bad_rows": n_bad}
        more |= {"tree": model.tree} if tree else {}
        print_json(view.document(model, sizes, spread, nearest) | more)
        return
    view.show_model(model_path, model)
    view.show_training(model)
    view.show_sizes(model, sizes, spread, nearest, clusters)
    if tree:
        view.show_tree(model)
    view.show_extremes(spread)
    view.show_pairs(model)
    say_bad_rows(n_bad, quiet)
