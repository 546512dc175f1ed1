"""``dink assign``."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated

import typer

from dinkcli.assigning.shards import launched
from dinkcli.cli.console import error_boundary, say
from dinkcli.cli.drift import show_drift
from dinkcli.cli.options import (
    BadRows,
    Column,
    Device,
    Dim,
    IdColumn,
    Inputs,
    Json,
    Match,
    ModelPath,
    Quiet,
)
from dinkcli.cli.progress import ProgressLines
from dinkcli.cli.shares import is_silent, one_voice, share_of

if TYPE_CHECKING:
    pass


def assign(
    model_path: ModelPath,
    inputs: Inputs,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="Where to write: .parquet, .npy, .csv, .jsonl, .arrow or .arrows (.csv.gz and "
            "the like are compressed); a folder with --rows-per-file. Without it, standard "
            "output.",
            show_default=False,
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="csv, jsonl, npy, parquet, arrow (a file) or arrows (a stream); without it, by "
            "the output's suffix, csv on standard output, parquet for parts.",
            show_default=False,
        ),
    ] = None,
    compression: Annotated[
        str | None,
        typer.Option(
            help="none; gzip or zstd for csv and jsonl; lz4 or zstd for arrow; zstd (the default), "
            "snappy, gzip, lz4 or brotli for parquet.",
            show_default=False,
        ),
    ] = None,
    rows_per_file: Annotated[
        int | None,
        typer.Option(
            help="Write a folder of parts with this many rows of the input each; with --shard "
            "by default as many parts as shares, or a million rows.",
            show_default=False,
        ),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            help="Assign one of n shares of the rows, 1/n to n/n, into a folder that other "
            "processes write the other shares to. torchrun's processes do so by themselves.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the parts that are missing, if any.")
    ] = False,
    soft: Annotated[
        bool, typer.Option("--soft", help="Also write the probability of every cluster.")
    ] = False,
    top: Annotated[
        int | None,
        typer.Option(
            help="Also write the most probable clusters, this many, and their probabilities.",
            show_default=False,
        ),
    ] = None,
    distance: Annotated[
        bool, typer.Option("--distance", help="Also write the distance to the nearest centre.")
    ] = False,
    temperature: Annotated[
        float,
        typer.Option(
            help="Of the probabilities, softmax of minus distance / temperature; lower is sharper."
        ),
    ] = 1.0,
    dtype: Annotated[
        str, typer.Option(help="Of the probabilities: float32 or float16.")
    ] = "float32",
    min_prob: Annotated[
        float | None,
        typer.Option(
            help="Rows whose cluster is less probable get cluster -1.", show_default=False
        ),
    ] = None,
    max_distance: Annotated[
        float | None,
        typer.Option(help="Rows farther from every centre get cluster -1.", show_default=False),
    ] = None,
    id_column: IdColumn = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Columns of the input to write as well, separated by commas.", show_default=False
        ),
    ] = None,
    csv_safe: Annotated[
        bool,
        typer.Option(
            "--csv-safe",
            help="In csv, put an apostrophe before texts that a spreadsheet would run as a formula "
            "(they begin with =, +, -, @, a tab or a line break).",
        ),
    ] = False,
    match_path: Match = None,
    device: Device = "auto",
    column: Column = None,
    dim: Dim = None,
    bad_rows: BadRows = "stop",
    json_summary: Json = False,
    json_file: Annotated[
        str | None,
        typer.Option(help="The summary as JSON in this file.", show_default=False),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Gives every row of the inputs the cluster of its nearest centre, in order.

    dink assign emb.dink.safetensors new.npy -o clusters.parquet
    """
    with error_boundary(), one_voice(launched()):
        started = time.monotonic()
        from dinkcli.cli import assign_run
        from dinkcli.data.base import Columns
        from dinkcli.options import AssignOptions

        share = share_of(shard, launched())
        silent = is_silent(share)
        quiet = quiet or silent
        options = AssignOptions(soft, top, distance, temperature, dtype, min_prob, max_distance)
        destination = assign_run.Destination.of(
            output, format, compression, csv_safe, rows_per_file, share, resume, json_file
        )
        others = tuple(name.strip() for name in columns.split(",")) if columns else ()
        wanted = Columns(column, id=id_column, others=others, dim=dim)
        job = assign_run.open_job(
            model_path, inputs, wanted, bad_rows, options, destination, match_path, quiet
        )
        target, n_rows = destination.open(job.data)

        from dinkcli.assigning.pipeline import run

        with ProgressLines(quiet or json_summary or destination.output is None) as progress:

            def show(done: int) -> None:
                rate = done / max(1e-9, time.monotonic() - started)
                progress.update("assigning", done, n_rows or 0, "rows", f"{rate:,.0f} rows/s")

            with assign_run.interruption(target):
                counts = run(job, target, device, show)
        summary = assign_run.summary_of(job, target, counts, time.monotonic() - started)
        if destination.json_file is not None:
            assign_run.save_summary(summary, destination.json_file)
        if silent:
            return
        if json_summary:
            say(json.dumps(summary))
        elif not quiet:
            assign_run.show_summary(summary)
            if job.matching is not None and match_path is not None:
                show_drift(job.matching, match_path)
