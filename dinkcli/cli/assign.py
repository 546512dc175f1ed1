"""``dink assign``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dinkcli.cli import options as shared
from dinkcli.cli import signals
from dinkcli.cli.console import ProgressLines, printable, show_notes, warn
from dinkcli.cli.options import clusters_option, output_option, run_option
from dinkcli.cli.paths import Destination, bad_rows_in, levels_of, load_model
from dinkcli.cli.train import show_drift
from dinkcli.errors import UsageError
from dinkcli.options import AssignOptions

if TYPE_CHECKING:
    import numpy as np

    from dinkcli.assigning.pipeline import Counts, Job
    from dinkcli.data.dataset import DataSet
    from dinkcli.models.model import Model

# Of the way from chance to certainty: where the mean probability is below, it says nothing.
_UNCERTAIN = 0.1


@dataclass(frozen=True)
class Labels:
    """What is computed of each row, as in ``AssignOptions``.

    Attributes:
        soft: Also write the probability of every cluster.
        top: Also write the M most probable clusters and their probabilities.
        distance: Also write the distance to the nearest centre; --json then has the mean, and the
            share of rows beyond the 99 % distance of their cluster.
        temperature: How soft probabilities are: they are the softmax of minus the squared distance
            over the temperature, so lower is sharper. By default the model's own.
        min_prob: Label rows -1 whose cluster is less probable than this.
        max_distance: Label rows -1 that are farther than this from every centre.
        max_size: The most rows of a cluster in this run, or a multiple of the mean; rows that do
            not fit into the nearest go where it costs least. Labels then depend on all rows of the
            run.
    """

    soft: bool = clusters_option(False, "--soft")
    top: int | None = clusters_option(None, "--top M")
    distance: bool = clusters_option(False, "--distance")
    temperature: float | None = clusters_option(None)
    min_prob: float | None = clusters_option(None)
    max_distance: float | None = clusters_option(None)
    max_size: str | None = clusters_option(None, "--max-size NUMBER|1.2x")

    def options(self) -> AssignOptions:
        return AssignOptions(**vars(self))


@signals.one_voice()
def assign(
    *,
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] = shared.INPUTS,
    output: str | None = shared.TABLE_PATH,
    rows_per_file: int | None = output_option(None),
    partition_by_cluster: bool = output_option(False, "--partition-by-cluster"),
    shard: str | None = run_option(None, "--shard I/N"),
    resume: bool = shared.RESUME,
    labels: Labels,
    with_names: bool = clusters_option(False, "--with-names"),
    levels: str | None = clusters_option(None, "--levels A,B,..."),
    match_path: str | None = shared.MATCH,
    rows: shared.WrittenRows,
    shown: shared.TableOutput,
) -> None:
    """Assign every row to the cluster of its nearest centre.

    Rows keep their order. The model remembers its metric and column.

    Args:
        rows_per_file: Write a folder of parts with this many rows of the input each. With --shard,
            by default one part per share, or a million rows each.
        partition_by_cluster: Write a folder of parquet per cluster (cluster=7), so that DuckDB,
            Spark and others read only the clusters of a query.
        shard: Assign one of N shares of the rows, 1/N to N/N, into a folder that other processes
            share. Under torchrun this happens by itself.
        with_names: Also write the name of the cluster (dink name), and of its groups on --levels.
        levels: Also write the group of the cluster when the tree (dink inspect --tree) is cut into
            A, B, ... groups, in columns such as level_10. A group has the number of its lowest
            cluster.

    Examples:
        dink assign emb.dink.safetensors new.npy
        dink assign emb.dink.safetensors new.parquet --ids id --soft -o clusters.parquet
        cat new.npy | dink assign emb.dink.safetensors - | sort -t, -k2 | head
    """
    started = time.monotonic()
    options = labels.options()
    from dinkcli.assigning.pipeline import run
    from dinkcli.models.file import load

    destination = Destination(output, shown, rows_per_file, shard, resume, partition_by_cluster)
    above = levels_of(levels)
    model = load_model(model_path, inputs, warns=not destination.silent)
    old = None if match_path is None else load(match_path)
    options.check_clusters(model.n_clusters)
    data = rows.open(model, inputs, once=True)
    show_notes(data, destination.quiet)
    if old is not None and old.metric != model.metric:
        data = data.repeatable()  # rows are read before they are assigned
    job = _job_of(model, data, options, model_path, old, with_names, above)
    target, n_rows = destination.open(data), data.n_rows
    if target.shard is not None:
        n_rows = target.shard.rows_of(data.known_rows, target.rows_per_file or 1)
    with ProgressLines(not destination.shows_progress) as progress:

        def show(done: int) -> None:
            rate = done / max(1e-9, time.monotonic() - started)
            progress.update("assigning", done, n_rows or 0, "rows", f"{rate:,.0f} rows/s")

        with _interruption(destination, shown.as_json):
            counts = run(job, target, rows.device, show)
    seconds = time.monotonic() - started
    summary = _summary_of(destination, job, counts, seconds)
    if not destination.quiet:
        _warn_of_uncertainty(summary)
    destination.tell(summary, _sentence_of(summary))
    if job.matching is not None and not (destination.quiet or shown.as_json):
        show_drift(job.matching, match_path or "")


def _job_of(
    model: Model,
    data: DataSet,
    options: AssignOptions,
    path: str,
    old: Model | None,
    named: bool,
    levels: tuple[int, ...],
) -> Job:
    """A job of the model at ``path``, with the ids of the ``old`` one where there is one."""
    import numpy as np

    from dinkcli.assigning.assigner import match_on
    from dinkcli.assigning.pipeline import Job
    from dinkcli.insight.names import group_names
    from dinkcli.models.matching import ids_of
    from dinkcli.models.tree import parents

    matching = None if old is None else match_on(data, old, model)
    names = model.names if matching is None else matching.names(model)
    if named and not names:
        raise UsageError(
            f"--with-names: the clusters of {printable(path)} have no names; dink name gives them "
            "some"
        )
    ids, n_ids = ids_of(matching, model.n_clusters)
    by_cluster: dict[str, np.ndarray] = {"name": np.array(names, np.str_)} if named else {}
    tree = model.tree if levels else []
    for level in levels:
        inside = np.full(model.n_clusters, -1, np.int32)
        inside[model.present] = parents(tree, level, ids[model.present])
        by_cluster[f"level_{level}"] = groups = np.full(n_ids, -1, np.int32)
        groups[ids] = inside
        if named:
            known = group_names(model, inside)
            texts = [known.get(group, "") for group in groups.tolist()]
            by_cluster[f"level_{level}_name"] = np.array(texts, np.str_)
    return Job(model, data, options, path, matching, by_cluster)


@contextmanager
def _interruption(destination: Destination, as_json: bool) -> Iterator[None]:
    """Ctrl-C says what is kept, which for parts and streams is not nothing."""
    try:
        yield
    except KeyboardInterrupt as error:
        kept = "Interrupted; the output is incomplete. Start the same command again."
        if destination.in_parts:
            kept = (
                f"Interrupted; the complete parts in {destination.output} stay. Go on with the "
                "same command and --resume."
            )
        if destination.silent or (destination.output is not None and not destination.in_parts):
            raise
        signals.end(signals.exit_code(error), as_json, kept)


def _summary_of(
    destination: Destination, job: Job, counts: Counts, seconds: float
) -> dict[str, Any]:
    """The summary as plain JSON."""
    summary = {
        "rows": counts.rows,
        **destination.about(job.model, job.model_name),
        "cluster_sizes": counts.sizes.tolist(),
        "outliers": counts.outliers,
        "bad_rows": counts.bad,
        "seconds": round(seconds, 3),
    }
    if counts.judged:
        summary["temperature"] = job.temperature
        summary["mean_probability"] = counts.certainty / counts.judged
    if counts.measured:
        summary["mean_distance"] = counts.distance / counts.measured
        if counts.reach is not None:
            summary["far"] = counts.far / counts.measured
    summary |= destination.parts(counts, rows_before=counts.rows_before)
    levels = {name: each for name, each in job.by_cluster.items() if each.dtype.kind == "i"}
    if levels:
        sizes = counts.sizes
        summary["levels"] = {
            name: {str(g): int(sizes[groups == g].sum()) for g in sorted({*groups.tolist()} - {-1})}
            for name, groups in levels.items()
        }
    if job.matching is not None:
        summary["match"] = job.matching.as_dict()
    return summary


def _warn_of_uncertainty(summary: dict[str, Any]) -> None:
    """One line where probabilities say next to nothing."""
    mean, chance = summary.get("mean_probability", 1.0), 1 / summary["n_clusters"]
    if mean < chance + _UNCERTAIN * (1 - chance):
        warn(
            f"the cluster of a row has a probability of {mean:.3g} on average, where "
            f"chance alone gives {chance:.3g}: give a lower --temperature than "
            f"{summary['temperature']:.3g}"
        )


def _sentence_of(summary: dict[str, Any]) -> str:
    """The summary for people."""
    before = summary.get("rows_before")
    more = f" after {before} by an earlier run" if before else ""
    if "parts" in summary:
        more += f", {summary['parts']} part" + "s" * (summary["parts"] != 1)
    more += f" of share {summary['shard']}" if "shard" in summary else ""
    outliers = f", {summary['outliers']} of them outliers" if summary["outliers"] else ""
    return (
        f"{summary['output']}: {summary['rows']} rows assigned{more}{outliers}"
        f"{bad_rows_in(summary)} in {summary['seconds']:.1f} s"
    )
