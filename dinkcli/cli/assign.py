"""Commands that write something of each row: ``dink assign``, ``dedup`` and ``sample``."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dinkcli.cli import console, signals
from dinkcli.cli import options as shared
from dinkcli.cli.options import clusters_option, input_option, output_option, run_option
from dinkcli.cli.paths import levels_of, load_model, refuse_stream
from dinkcli.errors import OutputError, UsageError
from dinkcli.options import AssignOptions, DedupOptions
from dinkcli.processes.group import World, launched, parse_shard

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from dinkcli.assigning.dedup import Duplicates
    from dinkcli.assigning.layout import Rows
    from dinkcli.assigning.pipeline import Counts, Job
    from dinkcli.assigning.sample import Sample
    from dinkcli.assigning.writers import Output
    from dinkcli.data.dataset import DataSet
    from dinkcli.models.model import Model

# Of the way from chance to certainty: where the mean probability is below, it says nothing.
_UNCERTAIN = 0.1
_MEMORY = run_option(
    None,
    "--memory SIZE",
    help="How much memory rows may take, such as 2GB; a quarter of the machine by default. "
    "They are sorted by cluster into a temporary file.",
)


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
    options = AssignOptions(**vars(labels))
    from dinkcli.assigning.parts import rows_of_parts
    from dinkcli.assigning.pipeline import run
    from dinkcli.models.file import load

    share = launched() if shard is None else parse_shard(shard)
    speaks = not signals.is_silent()
    if not speaks:
        shown = replace(shown, quiet=True, as_json=False, json_file=None)
    target = _output_of(output, shown, rows_per_file, share, resume, partition_by_cluster)
    above = levels_of(levels)
    model = load_model(model_path, inputs, warns=speaks)
    old = None if match_path is None else load(match_path)
    options.check_clusters(model.n_clusters)
    data = rows.open(model, inputs, once=True)
    console.show_notes(data, shown.quiet)
    if share is not None:
        target = replace(target, rows_per_file=rows_of_parts(data, share, rows_per_file))
    if old is not None and old.metric != model.metric:
        data = data.repeatable()  # rows are read before they are assigned
    job = _job_of(model, data, options, model_path, old, with_names, above)
    with console.ProgressLines(shown.silent or target.stream is not None) as progress:

        def show(done: int, total: int) -> None:
            rate = done / max(1e-9, time.monotonic() - started)
            progress.update("assigning", done, total, "rows", f"{rate:,.0f} rows/s")

        try:
            counts = run(job, target, rows.device, show)
        except KeyboardInterrupt as error:
            kept = "the output is incomplete. Start the same command again."
            if target.rows_per_file is not None:
                kept = f"the complete parts in {target.path} stay. Go on with the same command and "
                kept += "--resume."
            # A file appears whole or not at all.
            if speaks and (target.rows_per_file is not None or target.stream is not None):
                signals.end(signals.exit_code(error), shown.as_json, f"Interrupted; {kept}")
            raise
    summary = _summary_of(target, job, counts, time.monotonic() - started)
    # Probabilities that say next to nothing.
    mean, chance = summary.get("mean_probability", 1.0), 1 / model.n_clusters
    if mean < chance + _UNCERTAIN * (1 - chance) and not shown.quiet:
        console.warn(
            f"the cluster of a row has a probability of {mean:.3g} on average, where chance alone "
            f"gives {chance:.3g}: give a lower `temperature` than {job.temperature:.3g}"
        )
    _tell(summary, _sentence_of(summary), shown)
    if job.matching is not None and not shown.silent:
        console.show_drift(job.matching, match_path or "")


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
            f"--with-names: the clusters of {path} have no names; dink name gives them some"
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


def _summary_of(output: Output, job: Job, counts: Counts, seconds: float) -> dict[str, Any]:
    """The summary as plain JSON."""
    sizes = counts.sizes
    summary = {
        "rows": counts.rows,
        **_about(output, job.model, job.model_name),
        "cluster_sizes": sizes.tolist(),
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
    if counts.parts is not None:
        summary |= {"parts": counts.parts, "rows_before": counts.rows_before}
    if output.shard is not None:
        summary |= {"shard": str(output.shard), "complete": counts.complete}
    levels = {
        name: {str(g): int(sizes[groups == g].sum()) for g in sorted({*groups.tolist()} - {-1})}
        for name, groups in job.by_cluster.items()
        if groups.dtype.kind == "i"
    }
    summary |= {"levels": levels} if levels else {}
    return summary | ({"match": job.matching.to_dict()} if job.matching else {})


def _sentence_of(summary: dict[str, Any]) -> str:
    """The summary for people."""
    before = summary.get("rows_before")
    more = f" after {before} by an earlier run" if before else ""
    if "parts" in summary:
        more += f", {summary['parts']} part" + "s" * (summary["parts"] != 1)
    more += f" of share {summary['shard']}" if "shard" in summary else ""
    outliers = f", {summary['outliers']} of them outliers" if summary["outliers"] else ""
    number = summary["bad_rows"]
    bad = f", {number} bad row" + "s" * (number > 1) if number else ""
    missing = "" if summary.get("complete", True) else "; parts of other shares are missing yet"
    return (
        f"{summary['output']}: {summary['rows']} rows assigned{more}{outliers}"
        f"{bad} in {summary['seconds']:.1f} s{missing}"
    )


def dedup(
    *,
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] = shared.INPUTS,
    output: str | None = shared.TABLE_FILE,
    max_distance: float | None = clusters_option(None, show_default=False),
    keep: str = clusters_option("nearest", choices="nearest farthest first"),
    keep_only: bool = output_option(False, "--keep-only"),
    against: list[str] | None = input_option(None, "OLD"),
    memory: str | None = _MEMORY,
    rows: shared.WrittenRows,
    shown: shared.TableOutput,
) -> None:
    """Find near-duplicates, and choose which rows stay.

    No pair is missed, also across the borders of clusters: each row is compared with all rows that
    can be near enough.

    Args:
        max_distance: The largest Euclidean distance of near-duplicates; between rows of norm 1
            where the metric of the model is cosine. There, cosine similarities of 0.99, 0.95 and
            0.9 are distances of 0.141, 0.316 (the default) and 0.447: sqrt(2 - 2 x similarity).
        keep: Which row of a group stays: the one nearest to its centre, the farthest, the first, or
            the one with the largest number in a column or a file.
        keep_only: Write only the rows that stay.
        against: Files of rows that are there already: rows that repeat one of them do not stay. May
            be given more than once.

    Examples:
        dink dedup emb.dink.safetensors emb.npy -o groups.parquet
        dink dedup emb.dink.safetensors emb.parquet --max-distance 0.4 --keep-only -o unique.parquet
        dink dedup emb.dink.safetensors new.npy --against emb.npy -o new.csv
    """
    column = DedupOptions(max_distance, keep).column
    subset = _Subset(model_path, inputs, output, rows, shown, memory, keep=column)
    old = None
    if against is not None:
        old = replace(rows, ids=None, columns=None).open(subset.model, against)

    from dinkcli.assigning.dedup import dedup as core
    from dinkcli.assigning.dedup import schema_of

    options = {"max_distance": max_distance, "keep": keep, "against": old}
    result = subset.choose(schema_of(old is not None), core, **options)
    written = int((result.stay if keep_only else result.seen).sum())
    subset.write(result, written, result.written(keep_only))


def sample(
    *,
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] = shared.INPUTS,
    number: int | None = clusters_option(None, "-n --number"),
    output: str | None = shared.TABLE_FILE,
    by: Literal["balanced", "proportional", "prototypes", "diverse"] = clusters_option("balanced"),
    quota: str | None = clusters_option(None, "FILE"),
    levels: str | None = clusters_option(None, "A,B,..."),
    seed: int = clusters_option(0),
    sample_weight: str | None = shared.SAMPLE_WEIGHT,
    memory: str | None = _MEMORY,
    rows: shared.WrittenRows,
    shown: shared.TableOutput,
) -> None:
    """Draw a sample in which all clusters have their share.

    It is the same whatever the order of the rows. Each row comes with the probability with which
    it is in such a sample.

    Args:
        number: How many rows the sample is to have.
        by: Equal shares of all clusters, shares in proportion to their sizes, or equal shares of
            the rows nearest to their centre, or of rows as unlike each other as possible.
        quota: How many rows of each cluster, in place of -n: csv with the columns cluster and rows,
            or JSON such as {"0": 10, "7": 5}.
        levels: Share equally among groups of clusters first: 10,100 shares among 10 groups, in each
            among its part of 100, and then among clusters.
        seed: The seed of all random draws: the same seed, the same rows.

    Examples:
        dink sample emb.dink.safetensors emb.npy -n 1000 -o sample.parquet
        dink sample emb.dink.safetensors emb.parquet -n 500 --by diverse --ids id
    """
    groups = levels_of(levels)
    subset = _Subset(model_path, inputs, output, rows, shown, memory, sample_weight=sample_weight)
    from dinkcli.assigning.sample import COLUMNS
    from dinkcli.assigning.sample import sample as core

    options = {"number": number, "by": by, "quota": quota, "levels": groups, "seed": seed}
    result = subset.choose(COLUMNS, core, **options)
    subset.write(result, len(result.rows), result.written())


def _output_of(
    path: str | None,
    shown: shared.TableOutput,
    rows_per_file: int | None = None,
    share: World | None = None,
    resume: bool = False,
    by_cluster: bool = False,
) -> Output:
    """Where the rows are to go, all options for it checked; None and - are standard output."""
    from dinkcli.assigning.writers import Output, encoding_of, names_a_file
    from dinkcli.data.atomic import check_target

    path = None if path == "-" else path
    parts = rows_per_file is not None or share is not None
    who = "--rows-per-file writes"
    if share is not None:
        who = f"{share.size} processes write" if launched() else f"--shard {share} writes"
    if shown.json_file is not None:
        refuse_stream(shown.json_file, "the summary of --json-file")
    if shown.as_json and path is None:
        raise UsageError(
            "--json writes to standard output, and so do the rows: name a file with -o, or "
            "write the summary to one by --json-file"
        )
    if parts and path is None:
        raise UsageError(f"{who} into a folder of parts: name it with -o")
    if parts and rows_per_file is None and names_a_file(path or ""):
        raise UsageError(
            f"-o {path}: {who} into a folder of parts, not into one file; name a folder"
        )
    if resume and not parts:
        raise UsageError("--resume goes on with a folder of parts: give its --rows-per-file")
    if by_cluster and (path is None or parts or shown.format not in (None, "parquet")):
        raise UsageError(
            "--partition-by-cluster writes a folder of parquet: name it with -o, and leave out "
            "--rows-per-file, --shard and other formats"
        )
    folder = parts or by_cluster
    encoding = encoding_of(path, shown.format, csv_safe=shown.csv_safe, parts=folder)
    for file in (None if folder else path, shown.json_file):
        if file is not None:
            check_target(file)
    if path is None and sys.stdout is None:
        raise OutputError("standard output is closed; write to a file with -o")
    stream = sys.stdout.buffer if path is None else None
    where = (rows_per_file, resume, share, stream, by_cluster)
    return Output(path or "standard output", encoding, *where)


def _about(output: Output, model: Model, name: str) -> dict[str, Any]:
    """What a summary says of the output, None for standard output, and of the model."""
    return {
        "output": None if output.stream is not None else console.printable(output.path),
        "format": output.encoding.format,
        "model": console.printable(name),
        "fingerprint": model.fingerprint,
        "n_clusters": model.n_clusters,
    }


def _tell(summary: dict[str, Any], sentence: str, shown: shared.TableOutput) -> None:
    """Saves the summary, and shows it as JSON or, of a file or a folder, as a sentence."""
    from dinkcli.data.atomic import atomic_path

    if shown.json_file is not None:
        with atomic_path(shown.json_file) as path:
            Path(path).write_text(json.dumps(summary) + "\n", encoding="utf-8")
    console.show_result(summary, shown, sentence if summary["output"] else "")


class _Subset:
    """What dedup and sample choose from, and where they write it."""

    def __init__(
        self,
        model_path: str,
        inputs: list[str],
        output: str | None,
        rows: shared.WrittenRows,
        shown: shared.TableOutput,
        memory: str | None,
        **references: Any,
    ):
        from dinkcli.data.machine import parse_size

        self._started, self._name, self._shown = time.monotonic(), model_path, shown
        self._output = _output_of(output, shown)
        self._how = {"device": rows.device, "memory": parse_size(memory)}
        self.model = load_model(model_path, inputs, warns=True)
        self.data = rows.open(self.model, inputs, **references)
        console.show_notes(self.data, shown.quiet)

    def choose(self, columns: pa.Schema, core: Callable[..., Any], **options: Any) -> Any:
        """What the core says of the rows; DinkError before that where they could not be written."""
        from dinkcli.assigning.layout import Layout
        from dinkcli.assigning.pipeline import metadata_of
        from dinkcli.assigning.writers import stream_writer

        metadata = metadata_of(self.model, self._name)
        self._layout = Layout(None, columns, self.data.columns.id, self.data.carried, metadata)
        with stream_writer(io.BytesIO(), self._layout, self._output.encoding):
            pass
        with console.ProgressLines(self._shown.silent or self._output.stream is not None) as lines:
            on_step = partial(lines.update, unit="rows")
            return core(self.model, self.data, on_step=on_step, **self._how, **options)

    def write(self, result: Duplicates | Sample, n_rows: int, rows: Iterable[Rows]) -> None:
        """Writes the rows, and tells the summary of the result."""
        from dinkcli.assigning.parts import open_output

        with open_output(self._output, replace(self._layout, n_rows=n_rows)) as writer:
            for some in rows:
                writer.write(some)
        seconds = time.monotonic() - self._started
        about = _about(self._output, self.model, self._name)
        summary = {**about, "written_rows": n_rows, **result.to_dict()}
        summary["seconds"] = round(seconds, 3)
        sentence = f"{self._output.path}: {result.sentence()}, in {seconds:.1f} s"
        _tell(summary, sentence, self._shown)
