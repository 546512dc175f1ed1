"""``dink dedup``."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from dinkcli.cli import options as shared
from dinkcli.cli.options import clusters_option, output_option
from dinkcli.cli.paths import columns_of
from dinkcli.cli.together import one_voice


def dedup(
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] = shared.INPUTS,
    output: str | None = shared.TABLE_PATH,
    threshold: float | None = clusters_option(
        None,
        help="The least cosine similarity of near-duplicates. By default 0.95, unless there "
        "is a --distance.",
    ),
    distance: float | None = clusters_option(
        None,
        help="In place of the similarity, the largest Euclidean distance; between rows of norm "
        "1 where the metric of the model is cosine.",
    ),
    keep: str = clusters_option(
        "nearest",
        help="Which row of a group stays: the one nearest to its centre, the farthest, the "
        "first, or the one with the largest number in a column of that name.",
        choices="nearest farthest first",
    ),
    keep_only: bool = output_option(False, "--keep-only", help="Write only the rows that stay."),
    against: list[str] | None = shared.AGAINST,
    format: shared.OutputFormat = shared.OUTPUT_FORMAT,
    rows_per_file: int | None = shared.ROWS_PER_FILE,
    shard: str | None = shared.JOB_SHARD,
    resume: bool = shared.RESUME,
    ids: list[str] | None = shared.IDS,
    columns: str | None = shared.CARRIED_COLUMNS,
    csv_safe: bool = shared.CSV_SAFE,
    memory: str | None = shared.JOB_MEMORY,
    device: str = shared.DEVICE,
    column: str | None = shared.COLUMN,
    dim: int | None = shared.DIM,
    bad_rows: shared.BadRows = shared.BAD_ROWS,
    json_summary: bool = shared.JSON,
    json_file: str | None = shared.JSON_FILE,
    quiet: bool = shared.QUIET,
) -> None:
    """Find near-duplicates, and choose which rows stay.

    No pair is missed, also across the borders of clusters: each row is compared with all rows that
    can be near enough.

    Examples:
        dink dedup emb.dink.safetensors emb.npy -o groups.parquet
        dink dedup emb.dink.safetensors emb.parquet --threshold 0.9 --keep-only -o unique.parquet
        dink dedup emb.dink.safetensors new.npy --against emb.npy -o new.csv
    """
    with one_voice():
        started = time.monotonic()
        from dinkcli.assigning.jobs.asked import DedupOptions
        from dinkcli.cli.destination import bad_rows_in
        from dinkcli.cli.jobs import JobDestination, memory_limit

        if threshold is None and distance is None:
            threshold = 0.95
        options = DedupOptions(threshold, distance, keep, keep_only)
        run = JobDestination(
            output, format, csv_safe, rows_per_file, shard, resume, json_summary, json_file
        )
        limit = memory_limit(memory)
        quiet = quiet or run.silent
        wanted = columns_of(column, columns, ids=ids, dim=dim)
        model, data = run.open_all(model_path, inputs, wanted, bad_rows, quiet)
        old = None
        if against is not None:
            wanted = columns_of(column, dim=dim)
            old = run.open_data(model, against, wanted, bad_rows)

        import numpy as np

        from dinkcli.assigning.jobs.dedup import DedupJob, schema_of
        from dinkcli.assigning.jobs.dedup import dedup as find
        from dinkcli.assigning.jobs.table import kept_rows

        job = DedupJob(model, data, options, old, model_path)
        shown = schema_of(options, old is not None)
        run.check(job, shown)
        with run.work(job.identity) as work, run.progress(quiet or json_summary) as show:
            found = find(job, work, run.device(device), limit, show)
            likeness = "similarity" if threshold is not None else "distance"
            values = {
                "cluster": found.labels,
                "group": found.groups,
                "kept": found.kept,
                likeness: found.likeness,
                "old_row": found.old,
            }
            bad = found.labels < 0
            seen = ~bad if bad_rows == "skip" else np.ones(len(bad), bool)
            stay = found.kept & seen
            rows = stay if keep_only else seen
            written = run.write(
                job,
                shown,
                len(rows),
                int(rows.sum()),
                partial(kept_rows, data, values, rows),
                lambda done: show("write", done, len(rows)),
            )
            work.complete = written.complete is not False
        summary: dict[str, Any] = {
            **run.about_job(job, written),
            "rows": int(seen.sum()),
            "kept": int(stay.sum()),
            "removed": int((~found.kept).sum()),
            "groups": found.n_groups,
            "exact_repeats": found.n_exact,
            "old_rows": 0 if old is None else old.n_rows,
            "recall": 1.0,
            "compared_pairs": found.compared,
            "border_visits": found.visits,
            "bad_rows": int(bad.sum()),
            "seconds": round(time.monotonic() - started, 3),
        }
        sentence = (
            f"{output}: {summary['kept']} of {summary['rows']} rows stay, "
            f"{summary['removed']} near-duplicates go, from {summary['groups']} groups "
            f"({summary['exact_repeats']} exact repeats){bad_rows_in(summary)} "
            f"in {summary['seconds']:.1f} s"
        )
        run.tell(summary, sentence, quiet, json_summary)
