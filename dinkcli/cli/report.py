"""``dink report``."""

from __future__ import annotations

import os
import time
from typing import Literal

from dinkcli.cli import options as shared
from dinkcli.cli.console import ProgressLines, say
from dinkcli.cli.options import file_option, output_option
from dinkcli.cli.paths import load_model, refuse_stream


def report(
    *,
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] = shared.INPUTS,
    output: str = file_option(help="The page to write (.html), or the map alone (.svg)."),
    ids: list[str] | None = shared.IDS,
    texts: list[str] | None = shared.TEXTS,
    labels: list[str] | None = shared.LABELS,
    columns: str | None = output_option(
        None,
        metavar="A,B,...",
        help="Columns of the input by which the map may be coloured, separated by commas: classes, "
        "numbers or dates.",
    ),
    points: int = output_option(50_000, help="How many rows the map shows at most.", min=1),
    exemplars: int = shared.exemplars_option(6),
    projection: Literal["neighbours", "pca", "umap"] = output_option(
        "neighbours",
        "--map",
        help="How to draw the map: neighbours near each other, the two main axes (pca), or by "
        "the package umap-learn, which takes minutes.",
    ),
    title: str | None = output_option(None, help="The title of the page."),
    seed: int = output_option(0, help="The seed by which rows are drawn for the map."),
    rows: shared.ModelRows,
    quiet: bool = shared.QUIET,
) -> None:
    """Write a page to look at the clusters, which works offline.

    Examples:
        dink report emb.dink.safetensors emb.npy -o report.html
        dink report emb.dink.safetensors emb.parquet --texts text -o report.html
        dink report emb.dink.safetensors emb.parquet --texts text --columns day -o map.svg
    """
    started = time.monotonic()
    from dinkcli.data.atomic import by_suffix, check_target
    from dinkcli.data.machine import check_installed

    refuse_stream(output, "a page")
    if projection == "umap":
        check_installed("umap", "umap", "--map umap")
    by_suffix(output, {"html": "page", "svg": "map"})
    check_target(output)
    model = load_model(model_path, inputs)
    others = tuple(name.strip() for name in columns.split(",")) if columns else ()
    data = rows.open(model, inputs, ids=ids, texts=texts, labels=labels, others=others)

    from dinkcli.insight.report import report as core

    with ProgressLines(quiet) as progress:
        result = core(
            model,
            data,
            points=points,
            exemplars=exemplars,
            projection=projection,
            title=title,
            seed=seed,
            device=rows.device,
            on_rows=lambda phase, done: progress.update(phase, done, data.known_rows, "rows"),
            on_map=lambda done, total: progress.update("map", done, total, "steps"),
        )
    result.save(output)
    if not quiet:
        seconds, size = time.monotonic() - started, os.path.getsize(output) / 1e6
        left_out = result.quality.bad_rows
        bad = f", {left_out} bad rows left out" if left_out else ""
        say(f"{output}: {data.known_rows} rows{bad}, {size:.1f} MB, {seconds:.1f} s")
