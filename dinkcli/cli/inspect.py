"""``dink inspect``: a model, all of its clusters or one, as tables and as JSON."""

from __future__ import annotations

from functools import partial
from typing import Any

from dinkcli.cli import options as shared
from dinkcli.cli.console import rows_shown, say_bad_rows, show_result
from dinkcli.cli.options import main_option, output_option
from dinkcli.cli.paths import load_model
from dinkcli.errors import UsageError


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
    if not inputs and (rows.column or ids or texts):
        raise UsageError("`ids`, `texts` and `column` are about the rows of an INPUT: name one")
    from dinkcli.insight.inspect import inspect as core

    model = load_model(model_path, inputs or ())
    options: dict[str, Any] = {"cluster": cluster, "tree": tree, "history": history}
    if inputs:
        data = rows.open(model, inputs, ids=ids, texts=texts)
        with rows_shown(data, shown.silent) as progress:
            options |= {"exemplars": exemplars, "device": rows.device}
            result = core(model, data, on_rows=partial(progress, "inspect"), **options)
    else:
        result = core(model, **options)
    show_result(result, shown.as_json, name=model_path, clusters=clusters)
    if not shown.as_json:
        say_bad_rows(result.seen.bad_rows, shown.quiet)
