"""What ``dink assign`` does between reading its options and the summary, and the summary."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import typer

from dinkcli.assigning.job import Job
from dinkcli.assigning.pipeline import Counts, Written
from dinkcli.cli.console import printable, say, warn
from dinkcli.cli.destination import Destination, bad_rows_in
from dinkcli.cli.signals import exit_code
from dinkcli.data.dataset import DataSet
from dinkcli.errors import UsageError
from dinkcli.models.matching import ids_of, match
from dinkcli.models.model import Model
from dinkcli.models.tree import parents_by_id
from dinkcli.options import AssignOptions

# Of the way from chance to certainty: where the mean probability is below, it says nothing.
_UNCERTAIN = 0.1


def job_of(
    model: Model,
    data: DataSet,
    options: AssignOptions,
    path: str,
    old: Model | None,
    named: bool,
    levels: tuple[int, ...],
) -> Job:
    """A job of the model at ``path``, with the ids of the ``old`` one where there is one."""
    matching = None if old is None else match(old, model)
    names = model.names if matching is None else matching.names(model)
    if named and not names:
        raise UsageError(
            f"--names: the clusters of {printable(path)} have no names; dink name gives them some"
        )
    ids, n_ids = ids_of(matching, model.n_clusters)
    above = parents_by_id(model.tree, levels, ids, n_ids) if levels else {}
    return Job(model, data, options, path, matching, tuple(names) if named else None, above)


@contextmanager
def interruption(destination: Destination) -> Iterator[None]:
    """Ctrl-C says what is kept, which for parts and streams is not nothing."""
    try:
        yield
    except KeyboardInterrupt as error:
        if destination.silent:
            raise
        if destination.in_parts:
            say(f"Interrupted; the complete parts in {destination.output} stay, --resume goes on.")
        elif destination.output is None:
            say("Interrupted; the output is incomplete.")
        else:
            raise
        raise typer.Exit(exit_code(error)) from None


def summary_of(
    destination: Destination, job: Job, counts: Counts, written: Written, seconds: float
) -> dict[str, Any]:
    """The summary as plain JSON."""
    summary = {
        "rows": written.rows,
        **destination.about(job.model, job.model_name),
        "cluster_sizes": counts.sizes.tolist(),
        "outliers": counts.outliers,
        "bad_rows": counts.bad,
        "seconds": round(seconds, 3),
    }
    if counts.judged:
        summary["temperature"] = job.temperature
        summary["mean_probability"] = counts.certainty / counts.judged
    summary |= destination.parts(written, rows_before=written.rows_before)
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
        warn(
            f"the cluster of a row has a probability of {mean:.3g} on average, where "
            f"chance alone gives {chance:.3g}: give a lower --temperature than "
            f"{summary['temperature']:.3g}"
        )


def sentence_of(summary: dict[str, Any]) -> str:
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
