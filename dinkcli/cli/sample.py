"""``dink sample``."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Literal

from dinkcli.cli import options as shared
from dinkcli.cli.options import clusters_option
from dinkcli.cli.paths import columns_of, levels_of
from dinkcli.cli.together import one_voice


def sample(
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] = shared.INPUTS,
    number: int | None = clusters_option(
        None, "-n", "--number", help="How many rows the sample is to have."
    ),
    output: str | None = shared.TABLE_PATH,
    by: Literal["balanced", "proportional", "prototypes", "diverse"] = clusters_option(
        "balanced",
        help="Equal shares of all clusters, shares in proportion to their sizes, or equal shares "
        "of the rows nearest to their centre, or of rows as unlike each other as they come.",
    ),
    quota: str | None = clusters_option(
        None,
        metavar="FILE",
        help="How many rows of each cluster, in place of -n: csv with the columns cluster and "
        'rows, or JSON such as {"0": 10, "7": 5}.',
    ),
    levels: str | None = clusters_option(
        None,
        metavar="A,B,...",
        help="Share equally among groups of clusters first: 10,100 shares among 10 groups, in "
        "each among its part of 100, and then among clusters.",
    ),
    seed: int = clusters_option(
        0, help="The seed of all random draws: the same seed, the same rows."
    ),
    sample_weight: str | None = shared.SAMPLE_WEIGHT,
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
    """Draw a sample in which all clusters have their share.

    It is the same whatever the order of the rows. Each row comes with the probability with which
    it is in such a sample.

    Examples:
        dink sample emb.dink.safetensors emb.npy -n 1000 -o sample.parquet
        dink sample emb.dink.safetensors emb.parquet -n 500 --by diverse --ids id
    """
    with one_voice():
        started = time.monotonic()
        from dinkcli.assigning.jobs.asked import SampleOptions
        from dinkcli.cli.jobs import JobDestination, memory_limit

        options = SampleOptions(number, by, quota, levels_of(levels), sample_weight, seed)
        run = JobDestination(
            output, format, csv_safe, rows_per_file, shard, resume, json_summary, json_file
        )
        limit = memory_limit(memory)
        quiet = quiet or run.silent
        wanted = columns_of(column, columns, ids=ids, dim=dim, sample_weight=sample_weight)
        model, data = run.open_all(model_path, inputs, wanted, bad_rows, quiet)

        from dinkcli.assigning.jobs.sample import COLUMNS, SampleJob, sampled_rows, wanted_rows
        from dinkcli.assigning.jobs.sample import sample as draw

        job = SampleJob(model, data, options, model_path)
        n_rows = wanted_rows(options, model.n_clusters)
        run.check(job, COLUMNS, n_rows)
        with run.work(job.identity) as work, run.progress(quiet or json_summary) as show:
            found = draw(job, work, run.device(device), limit, show)
            rows_of = partial(sampled_rows, data, found)
            written = run.write(job, COLUMNS, n_rows, n_rows, rows_of)
            work.complete = written.complete is not False
        summary: dict[str, Any] = {
            **run.about_job(job, written),
            "rows": int(found.sizes.sum()),
            "sample": len(found.rows),
            "by": by,
            "clusters_in_sample": int((found.shares > 0).sum()),
            "shares": found.shares.tolist(),
            "seconds": round(time.monotonic() - started, 3),
        }
        taken = found.shares[found.shares > 0]
        each = f"{taken.min()} to {taken.max()}" if taken.min() < taken.max() else taken.min()
        sentence = (
            f"{output}: {summary['sample']} of {summary['rows']} rows, {each} from each of "
            f"{summary['clusters_in_sample']} clusters, in {summary['seconds']:.1f} s"
        )
        run.tell(summary, sentence, quiet, json_summary)
