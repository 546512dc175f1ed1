"""``dink assign``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dinkcli.assigning.shards import launched, usual_part_rows
from dinkcli.cli.console import ProgressLines, error_boundary, printable, say, show_notes
from dinkcli.cli.drift import Match, show_drift
from dinkcli.cli.options import (
    BadRows,
    Column,
    Device,
    Dim,
    IdColumn,
    Inputs,
    Json,
    ModelPath,
    Quiet,
)
from dinkcli.cli.paths import warn_if_unfinished
from dinkcli.cli.shares import check_folder_name, is_silent, one_voice, share_of

if TYPE_CHECKING:
    from dinkcli.assigning.pipeline import Counts, Job, Output


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
        from dinkcli.assigning.writers import encoding_of
        from dinkcli.cli.paths import refuse_overwriting
        from dinkcli.data.atomic import check_target
        from dinkcli.data.base import Columns
        from dinkcli.data.inputs import open_inputs
        from dinkcli.errors import OutputError, UsageError
        from dinkcli.models.model import load
        from dinkcli.options import AssignOptions

        share = share_of(shard, launched())
        if share is not None:
            check_folder_name(output, share, rows_per_file)
        quiet = quiet or is_silent(share)
        parts = rows_per_file is not None or share is not None
        if parts and output is None:
            raise UsageError("--rows-per-file writes a folder of parts: name it with -o")
        if resume and not parts:
            raise UsageError("--resume goes on with a folder of parts: give its --rows-per-file")
        json_file = None if is_silent(share) else json_file
        options = AssignOptions(soft, top, distance, temperature, dtype, min_prob, max_distance)
        encoding = encoding_of(output, format, compression, csv_safe=csv_safe, parts=parts)
        files = [path for path in (None if parts else output, json_file) if path is not None]
        for path in files:
            check_target(path)
        model = load(model_path)
        if not is_silent(share):
            warn_if_unfinished(model, model_path)
        old = None if match_path is None else load(match_path)
        options.check_clusters(model.n_clusters)
        others = tuple(name.strip() for name in columns.split(",")) if columns else ()
        wanted = Columns(column, model.column, id_column, others, dim=dim)
        data = open_inputs(inputs, wanted, bad_rows)
        model.check_features(data.n_features, data.name)
        for path in files:
            refuse_overwriting(path, data, *filter(None, (model_path, match_path)))
        show_notes(data, quiet)
        n_rows = data.n_rows
        if share is not None:
            share.check(data)
            rows_per_file = rows_per_file or usual_part_rows(data.known_rows, share.count)
            n_rows = share.rows_of(data.known_rows, rows_per_file)

        from dinkcli.assigning.pipeline import Job, Output, run
        from dinkcli.models.matching import match

        matching = None if old is None else match(old, model)
        job = Job(model, data, options, model_path, matching)
        if output is None and sys.stdout is None:
            raise OutputError("standard output is closed; write to a file with -o")
        stream = sys.stdout.buffer if output is None else None
        name = output or "standard output"
        target = Output(name, encoding, rows_per_file, resume, share, stream)
        with ProgressLines(quiet or json_summary or output is None) as progress:

            def show(done: int) -> None:
                rate = done / max(1e-9, time.monotonic() - started)
                progress.update("assign", done, n_rows or done, f"{rate:,.0f} rows/s")

            with _interruption(target):
                counts = run(job, target, device, show)
        summary = _summary(job, target, counts, time.monotonic() - started)
        if json_file is not None:
            _save(summary, json_file)
        if is_silent(share):
            pass
        elif json_summary:
            say(json.dumps(summary))
        elif not quiet:
            _show_summary(summary)
            if matching is not None and match_path is not None:
                show_drift(matching, match_path)


@contextmanager
def _interruption(target: Output) -> Iterator[None]:
    """Ctrl-C says what is kept, which for parts and streams is not nothing."""
    try:
        yield
    except KeyboardInterrupt:
        if is_silent(target.shard):
            raise
        if target.rows_per_file is not None:
            say(f"Interrupted; the complete parts in {target.path} stay, --resume goes on.")
        elif target.stream is not None:
            say("Interrupted; the output is incomplete.")
        else:
            raise
        raise typer.Exit(130) from None


def _summary(job: Job, target: Output, counts: Counts, seconds: float) -> dict[str, Any]:
    summary = {
        "rows": counts.rows,
        "output": None if target.stream else printable(target.path),
        "format": target.encoding.format,
        "model": printable(job.model_name),
        "fingerprint": job.model.fingerprint,
        "n_clusters": job.model.n_clusters,
        "cluster_sizes": counts.sizes.tolist(),
        "outliers": counts.outliers,
        "bad_rows": counts.bad,
        "seconds": round(seconds, 3),
    }
    if counts.parts is not None:
        summary |= {"parts": counts.parts, "rows_before": counts.rows_before}
    if target.shard is not None:
        summary |= {"shard": str(target.shard), "complete": counts.complete}
    if job.matching is not None:
        summary["match"] = job.matching.as_dict()
    return summary


def _save(summary: dict[str, Any], path: str) -> None:
    from dinkcli.data.atomic import atomic_path

    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(json.dumps(summary) + "\n")


def _show_summary(summary: dict[str, Any]) -> None:
    if summary["output"] is not None:
        before = summary.get("rows_before")
        more = f" after {before} by an earlier run" if before else ""
        if "parts" in summary:
            more += f", {summary['parts']} part" + "s" * (summary["parts"] != 1)
        more += f" of share {summary['shard']}" if "shard" in summary else ""
        outliers = f", {summary['outliers']} of them outliers" if summary["outliers"] else ""
        bad = f", {summary['bad_rows']} bad rows" if summary["bad_rows"] else ""
        say(
            f"{summary['output']}: {summary['rows']} rows assigned{more}{outliers}{bad} "
            f"in {summary['seconds']:.1f} s"
            + ("" if summary.get("complete", True) else "; parts of other shares are missing yet")
        )
