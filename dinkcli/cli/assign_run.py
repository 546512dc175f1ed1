"""What ``dink assign`` does between reading its options and the summary, and the summary."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from dinkcli.cli.console import printable, say, show_notes
from dinkcli.cli.destination import Destination, about, still_missing
from dinkcli.cli.shares import is_silent
from dinkcli.errors import UsageError

# Of the way from chance to certainty: where the mean probability is below, it says nothing.
_UNCERTAIN = 0.1

if TYPE_CHECKING:
    import numpy as np

    from dinkcli.assigning.job import Job
    from dinkcli.assigning.pipeline import Counts, Written
    from dinkcli.assigning.writers.formats import Output
    from dinkcli.data.base import Columns
    from dinkcli.options import AssignOptions


def open_job(
    model_path: str,
    inputs: list[str],
    columns: Columns,
    bad_rows: str,
    options: AssignOptions,
    destination: Destination,
    match_path: str | None,
    quiet: bool,
    named: bool = False,
    levels: tuple[int, ...] = (),
) -> Job:
    """Loads the models and opens the inputs; torch waits until all is in order.

    Raises:
        DinkError: they cannot be read, or do not fit each other.
    """
    from dinkcli.models.file import load

    model = destination.load_model(model_path, inputs)
    old = None if match_path is None else load(match_path)
    options.check_clusters(model.n_clusters)
    data = destination.open_inputs(model, inputs, columns, bad_rows, model_path, match_path)
    show_notes(data, quiet)

    from dinkcli.assigning.job import Job
    from dinkcli.models.matching import ids_of, match
    from dinkcli.models.tree import parents_by_id

    matching = None if old is None else match(old, model)
    names = model.names if matching is None else matching.names(model)
    if named and not names:
        path = printable(model_path)
        raise UsageError(
            f"--names: the clusters of {path} have no names; dink name gives them some"
        )
    ids, n_ids = ids_of(matching, model.n_clusters)
    above = parents_by_id(model.tree, levels, ids, n_ids) if levels else {}
    return Job(model, data, options, model_path, matching, tuple(names) if named else None, above)


def levels_of(text: str | None) -> tuple[int, ...]:
    """The numbers of ``--levels``.

    Raises:
        UsageError: something else.
    """
    try:
        found = tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise UsageError(f"--levels {text}: expected numbers such as 10,100") from None
    if len(set(found)) < len(found):
        raise UsageError(f"--levels {text}: one of them is given twice")
    return found


@contextmanager
def interruption(target: Output) -> Iterator[None]:
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


def summary_of(
    job: Job, target: Output, counts: Counts, written: Written, seconds: float
) -> dict[str, Any]:
    """The summary as plain JSON."""
    output, format = None if target.stream else target.path, target.encoding.format
    summary = {
        "rows": written.rows,
        **about(output, format, job.model, job.model_name),
        "cluster_sizes": counts.sizes.tolist(),
        "outliers": counts.outliers,
        "bad_rows": counts.bad,
        "seconds": round(seconds, 3),
    }
    if counts.judged:
        summary["temperature"] = job.temperature
        summary["mean_probability"] = counts.certainty / counts.judged
    if written.parts is not None:
        summary |= {"parts": written.parts, "rows_before": written.rows_before}
    if target.shard is not None:
        summary |= {"shard": str(target.shard), "complete": written.complete}
    if job.parents:
        summary["levels"] = {name: _rows_of(above, counts) for name, above in job.parents.items()}
    if job.matching is not None:
        summary["match"] = job.matching.as_dict()
    return summary


def _rows_of(parents: np.ndarray, counts: Counts) -> dict[str, int]:
    """Rows of each group of a level."""
    groups = sorted(set(parents[parents >= 0].tolist()))
    return {str(group): int(counts.sizes[parents == group].sum()) for group in groups}


def warn_of_uncertainty(summary: dict[str, Any]) -> None:
    """One line where probabilities say next to nothing."""
    mean, chance = summary.get("mean_probability", 1.0), 1 / summary["n_clusters"]
    if mean < chance + _UNCERTAIN * (1 - chance):
        say(
            f"Warning: the cluster of a row has a probability of {mean:.3g} on average, where "
            f"chance alone gives {chance:.3g}: give a lower --temperature than "
            f"{summary['temperature']:.3g}"
        )


def show_summary(summary: dict[str, Any]) -> None:
    """One line for people, when the output is a file or a folder."""
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
            f"in {summary['seconds']:.1f} s{still_missing(summary)}"
        )
