"""``dink sample``."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any, Literal

from dinkcli.assigning.shards import launched
from dinkcli.cli import options as shared
from dinkcli.cli.console import error_boundary, say
from dinkcli.cli.help import CLUSTERS
from dinkcli.cli.options import option
from dinkcli.cli.shares import one_voice, share_of


def sample(
    model_path: shared.ModelPath,
    inputs: shared.Inputs,
    number: Annotated[
        int | None,
        option(CLUSTERS, "-n", "--number", help="How many rows the sample is to have."),
    ] = None,
    output: shared.TablePath = None,
    by: Annotated[
        Literal["balanced", "proportional", "prototypes", "diverse"],
        option(
            CLUSTERS,
            help="Equal shares of all clusters, shares in proportion to their sizes, or equal "
            "shares of the rows nearest to their centre, or of rows as unlike each other as they "
            "come.",
        ),
    ] = "balanced",
    quota: Annotated[
        str | None,
        option(
            CLUSTERS,
            metavar="FILE",
            help="How many rows of each cluster, in place of -n: csv with the columns cluster and "
            'rows, or JSON such as {"0": 10, "7": 5}.',
        ),
    ] = None,
    levels: Annotated[
        str | None,
        option(
            CLUSTERS,
            metavar="A,B,...",
            help="Share equally among groups of clusters first: 10,100 shares among 10 groups, in "
            "each among its part of 100, and then among clusters.",
        ),
    ] = None,
    seed: Annotated[
        int, option(CLUSTERS, help="The seed of all random draws: the same seed, the same rows.")
    ] = 0,
    sample_weight: shared.SampleWeight = None,
    format: shared.OutputFormat = None,
    compression: shared.Compression = None,
    rows_per_file: shared.RowsPerFile = None,
    shard: shared.JobShard = None,
    resume: shared.WorkResume = False,
    id_column: shared.IdColumn = None,
    ids: shared.Ids = None,
    columns: shared.CarriedColumns = None,
    csv_safe: shared.CsvSafe = False,
    memory: shared.JobMemory = None,
    device: shared.Device = "auto",
    column: shared.Column = None,
    dim: shared.Dim = None,
    bad_rows: shared.BadRows = "stop",
    json_summary: shared.Json = False,
    json_file: shared.JsonFile = None,
    quiet: shared.Quiet = False,
) -> None:
    """Draw a sample in which all clusters have their share.

    It is the same whatever the order of the rows. Each row comes with the probability with which
    it is in such a sample.

    Examples:
        dink sample emb.dink.safetensors emb.npy -n 1000 -o sample.parquet
        dink sample emb.dink.safetensors emb.parquet -n 500 --by diverse --id-column id
    """
    with error_boundary(), one_voice(launched()):
        started = time.monotonic()
        from dinkcli.cli.assign_run import levels_of
        from dinkcli.cli.jobs import JobRun
        from dinkcli.jobs.asked import SampleOptions

        options = SampleOptions(number, by, quota, levels_of(levels), sample_weight, seed)
        share = share_of(shard, launched())
        run = JobRun.of(
            output, format, compression, csv_safe, rows_per_file, share, resume, json_file, memory
        )
        quiet = quiet or run.silent
        opened = run.open(
            model_path, inputs, run.columns(column, id_column, ids, columns, dim), bad_rows, quiet
        )

        from dinkcli.jobs.sample import COLUMNS, SampleJob, wanted_rows, write_sample
        from dinkcli.jobs.sample import sample as draw

        job = SampleJob(opened.model, opened.data, options, model_path)
        n_rows = wanted_rows(options, opened.model.n_clusters)
        run.check(opened, COLUMNS, job.identity, n_rows)
        with run.work(job.identity) as work, run.progress(quiet or json_summary) as show:
            found = draw(job, work, run.device(device), run.memory, show)
            target, _ = run.destination.open(opened.data, n_rows)
            table = run.table(opened, COLUMNS, len(found.rows))
            written = write_sample(
                target, table, run.identity(opened, job.identity), opened.data, found
            )
            work.complete = written.complete is not False
        summary: dict[str, Any] = {
            **run.about(opened, written),
            "rows": int(found.sizes.sum()),
            "sample": len(found.rows),
            "by": by,
            "clusters_in_sample": int((found.shares > 0).sum()),
            "shares": found.shares.tolist(),
            "seconds": round(time.monotonic() - started, 3),
        }
        run.save(summary)
        if run.silent:
            return
        if json_summary:
            say(json.dumps(summary))
        elif not quiet and output is not None:
            taken = found.shares[found.shares > 0]
            each = f"{taken.min()} to {taken.max()}" if taken.min() < taken.max() else taken.min()
            say(
                f"{output}: {summary['sample']} of {summary['rows']} rows, {each} from each of "
                f"{summary['clusters_in_sample']} clusters, in {summary['seconds']:.1f} s"
                + run.ending(written)
            )
