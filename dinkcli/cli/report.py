"""``dink report``."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from dinkcli.cli.console import error_boundary, say
from dinkcli.cli.opening import open_for
from dinkcli.cli.options import (
    BadRows,
    Column,
    Device,
    Exemplars,
    IdColumn,
    Inputs,
    ModelPath,
    Quiet,
    TextColumn,
)
from dinkcli.cli.paths import load_model, refuse_overwriting, refuse_stream
from dinkcli.cli.progress import ProgressLines


def report(
    model_path: ModelPath,
    inputs: Inputs,
    output: Annotated[
        str, typer.Option("-o", "--output", help="The page to write.", show_default=False)
    ],
    id_column: IdColumn = None,
    text_column: TextColumn = None,
    points: Annotated[int, typer.Option(help="Most rows on the map.", min=1)] = 50_000,
    exemplars: Exemplars = 6,
    projection: Annotated[
        str, typer.Option("--map", help="pca; or umap, which needs umap-learn.")
    ] = "pca",
    title: Annotated[str | None, typer.Option(help="Of the page.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="Of the rows drawn for the map.")] = 0,
    device: Device = "auto",
    column: Column = None,
    bad_rows: BadRows = "stop",
    quiet: Quiet = False,
) -> None:
    """Writes a page to look at the clusters: one HTML file that works offline.

    dink report emb.dink.safetensors emb.parquet --id-column id -o report.html
    """
    with error_boundary():
        started = time.monotonic()
        from dinkcli.data.atomic import check_target
        from dinkcli.data.base import Columns
        from dinkcli.data.extras import check_installed
        from dinkcli.data.suffix import by_suffix

        refuse_stream(output, "a page")
        check_installed("bokeh", "report", "a report")
        if projection == "umap":
            check_installed("umap", "umap", "--map umap")
        by_suffix(output, {"html": "html"})
        check_target(output)
        model = load_model(model_path, inputs)
        wanted = Columns(column, model.column, id_column, text=text_column)
        data = open_for(model, inputs, wanted, bad_rows)
        refuse_overwriting(output, data, model_path)

        from dinkcli.data.atomic import atomic_path
        from dinkcli.insight.report import gather, page
        from dinkcli.processes.device import resolve_device

        with ProgressLines(quiet) as progress:
            material = gather(
                model,
                data,
                resolve_device(device),
                id_column=id_column,
                text_column=text_column,
                n_points=points,
                n_exemplars=exemplars,
                projection=projection,
                seed=seed,
                on_rows=lambda phase, done: progress.update(phase, done, data.known_rows, "rows"),
            )
        text = page(model, material, title)
        with (
            atomic_path(output) as temporary,
            open(temporary, "w", encoding="utf-8", newline="") as file,
        ):
            file.write(text)
        if not quiet:
            seconds = time.monotonic() - started
            size = len(text.encode()) / 1e6
            left_out = material.quality.bad_rows
            bad = f", {left_out} bad rows left out" if left_out else ""
            say(f"{output}: {data.known_rows} rows{bad}, {size:.1f} MB, {seconds:.1f} s")
