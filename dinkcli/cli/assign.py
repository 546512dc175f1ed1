"""``dink assign``."""

from __future__ import annotations

import time

from dinkcli.cli import options as shared
from dinkcli.cli.console import show_notes
from dinkcli.cli.options import clusters_option, output_option, run_option
from dinkcli.cli.paths import columns_of, levels_of, load_model
from dinkcli.cli.progress import ProgressLines
from dinkcli.cli.together import one_voice
from dinkcli.cli.train import show_drift
from dinkcli.options import AssignOptions


def assign(
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] = shared.INPUTS,
    output: str | None = shared.TABLE_PATH,
    format: shared.OutputFormat = shared.OUTPUT_FORMAT,
    rows_per_file: int | None = output_option(
        None,
        help="Write a folder of parts, each with this many rows of the input. With --shard, by "
        "default as many parts as shares, or a million rows each.",
    ),
    shard: str | None = run_option(
        None,
        metavar="I/N",
        help="Assign one of N shares of the rows, 1/N to N/N, into a folder that other "
        "processes write the other shares to. Under torchrun this happens by itself.",
    ),
    resume: bool = shared.RESUME,
    soft: bool = clusters_option(
        False, "--soft", help="Also write the probability of every cluster."
    ),
    top: int | None = clusters_option(
        None, metavar="M", help="Also write the M most probable clusters and their probabilities."
    ),
    distance: bool = clusters_option(
        False, "--distance", help="Also write the distance to the nearest centre."
    ),
    temperature: float | None = clusters_option(
        None,
        help="How soft probabilities are: they are the softmax of minus the squared distance "
        "over the temperature, so lower is sharper. By default the model has one.",
        show_default=False,
    ),
    min_prob: float | None = clusters_option(
        None, help="Rows whose cluster is less probable than this get the cluster -1."
    ),
    max_distance: float | None = clusters_option(
        None, help="Rows that are farther than this from every centre get the cluster -1."
    ),
    names: bool = clusters_option(
        False, "--names", help="Also write the name of the cluster (dink name)."
    ),
    levels: str | None = clusters_option(
        None,
        metavar="A,B,...",
        help="Also write the group that the cluster is in where all of them make A, B, ... "
        "groups (dink inspect --tree), in columns such as level_10. A group has the number of "
        "its lowest cluster.",
    ),
    max_size: str | None = clusters_option(
        None,
        metavar="NUMBER|1.2x",
        help="The most rows that a cluster may get in this run, or how many times the mean; "
        "rows for which the nearest has no room go where it costs the least. Labels then "
        "depend on all rows of the run.",
    ),
    ids: list[str] | None = shared.IDS,
    columns: str | None = shared.CARRIED_COLUMNS,
    csv_safe: bool = shared.CSV_SAFE,
    match_path: str | None = shared.MATCH,
    device: str = shared.DEVICE,
    column: str | None = shared.COLUMN,
    dim: int | None = shared.DIM,
    bits: bool = shared.BITS,
    bad_rows: shared.BadRows = shared.BAD_ROWS,
    json_summary: bool = shared.JSON,
    json_file: str | None = shared.JSON_FILE,
    quiet: bool = shared.QUIET,
) -> None:
    """Give every row the cluster of its nearest centre.

    Rows keep their order. What the model needs is in it: neither metric nor column is repeated.

    Examples:
        dink assign emb.dink.safetensors new.npy
        dink assign emb.dink.safetensors new.parquet --ids id --soft -o clusters.parquet
        cat new.npy | dink assign emb.dink.safetensors - | sort -t, -k2 | head
    """
    with one_voice():
        started = time.monotonic()
        options = AssignOptions(
            soft=soft,
            top=top,
            distance=distance,
            temperature=temperature,
            min_prob=min_prob,
            max_distance=max_distance,
            max_size=max_size,
        )
        from dinkcli.assigning.pipeline import run
        from dinkcli.cli import assign_run
        from dinkcli.cli.destination import Destination
        from dinkcli.models.file import load

        destination = Destination(
            output, format, csv_safe, rows_per_file, shard, resume, json_summary, json_file
        )
        quiet = quiet or destination.silent
        wanted = columns_of(column, columns, ids=ids, dim=dim, bits=bits)
        above = levels_of(levels)
        model = load_model(model_path, inputs, warns=not destination.silent)
        old = None if match_path is None else load(match_path)
        options.check_clusters(model.n_clusters)
        data = destination.open_data(model, inputs, wanted, bad_rows)
        show_notes(data, quiet)
        job = assign_run.job_of(model, data, options, model_path, old, names, above)
        target, n_rows = destination.open(data)
        with ProgressLines(quiet or json_summary or destination.output is None) as progress:

            def show(done: int) -> None:
                rate = done / max(1e-9, time.monotonic() - started)
                progress.update("assigning", done, n_rows or 0, "rows", f"{rate:,.0f} rows/s")

            with assign_run.interruption(destination):
                counts, written = run(job, target, device, show)
        seconds = time.monotonic() - started
        summary = assign_run.summary_of(destination, job, counts, written, seconds)
        if not quiet:
            assign_run.warn_of_uncertainty(summary)
        destination.tell(summary, assign_run.sentence_of(summary), quiet, json_summary)
        if job.matching is not None and match_path is not None and not (quiet or json_summary):
            show_drift(job.matching, match_path)
