"""What ``dink assign`` does between reading its options and the summary, and the summary."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from dinkcli.cli.console import printable, say, show_notes
from dinkcli.cli.paths import load_model, refuse_overwriting, refuse_stream, warn_if_unfinished
from dinkcli.cli.shares import check_folder_name, is_silent
from dinkcli.errors import OutputError, UsageError

# Of the way from chance to certainty: where the mean probability is below, it says nothing.
_UNCERTAIN = 0.1

if TYPE_CHECKING:
    import numpy as np

    from dinkcli.assigning.pipeline import Counts, Job, Output, Written
    from dinkcli.assigning.shards import Shard
    from dinkcli.assigning.writers import Encoding
    from dinkcli.data.base import Columns
    from dinkcli.data.dataset import DataSet
    from dinkcli.models.model import Model
    from dinkcli.options import AssignOptions


@dataclass(frozen=True)
class Destination:
    """Where the clusters are to go, as it was asked for.

    Attributes:
        output: a file, a folder for parts, or None for standard output.
        encoding: how they are written.
        rows_per_file: of the parts.
        share: of the rows, when other processes write the others.
        resume: go on with the parts that are missing.
        json_file: where the summary goes.
    """

    output: str | None
    encoding: Encoding
    rows_per_file: int | None
    share: Shard | None
    resume: bool
    json_file: str | None

    @classmethod
    def of(
        cls,
        output: str | None,
        format: str | None,
        compression: str | None,
        csv_safe: bool,
        rows_per_file: int | None,
        share: Shard | None,
        resume: bool,
        json_file: str | None,
        keeps_work: bool = False,
    ) -> Destination:
        """Checks the options of the output against each other and against the file system.

        Args:
            keeps_work: beside the output, so that not only a folder of parts can be gone on with.

        Raises:
            DinkError: what is wrong with them.
        """
        from dinkcli.assigning.writers import encoding_of
        from dinkcli.data.atomic import check_target

        output = None if output == "-" else output
        if json_file is not None:
            refuse_stream(json_file, "the summary of --json-file")
        if share is not None:
            check_folder_name(output, share, rows_per_file)
        parts = rows_per_file is not None or share is not None
        if parts and output is None:
            raise UsageError("--rows-per-file writes a folder of parts: name it with -o")
        if resume and keeps_work and output is None:
            raise UsageError("--resume goes on with an output that is named with -o")
        if resume and not (keeps_work or parts):
            raise UsageError("--resume goes on with a folder of parts: give its --rows-per-file")
        encoding = encoding_of(output, format, compression, csv_safe=csv_safe, parts=parts)
        json_file = None if is_silent(share) else json_file
        found = cls(output, encoding, rows_per_file, share, resume, json_file)
        for path in found.files:
            check_target(path)
        return found

    @property
    def in_parts(self) -> bool:
        return self.rows_per_file is not None or self.share is not None

    @property
    def files(self) -> list[str]:
        output = None if self.in_parts else self.output
        return [path for path in (output, self.json_file) if path]

    @property
    def silent(self) -> bool:
        """Whether another process speaks for this one."""
        return is_silent(self.share)

    def load_model(self, path: str, inputs: list[str]) -> Model:
        """The model, with a warning where it is a checkpoint.

        Raises:
            DinkError: it cannot be read.
        """
        model = load_model(path, inputs)
        if not self.silent:
            warn_if_unfinished(model, path)
        return model

    def open_inputs(
        self, model: Model, inputs: list[str], wanted: Columns, bad_rows: str, *others: str | None
    ) -> DataSet:
        """Inputs that fit the model and this output.

        Args:
            others: more files that must not be overwritten.

        Raises:
            DinkError: they cannot be read, or do not fit.
        """
        from dinkcli.data.inputs import open_inputs

        data = open_inputs(inputs, model.as_trained(wanted), bad_rows)
        model.check_features(data.n_features, data.name)
        for path in self.files:
            refuse_overwriting(path, data, *filter(None, others))
        if self.share is not None:
            self.share.check(data)
        return data

    def open(self, data: DataSet, known_rows: int | None = None) -> tuple[Output, int | None]:
        """The output, and how many rows will go there if that is known.

        Args:
            known_rows: of the output, where they are not those of the input.

        Raises:
            OutputError: standard output is closed.
        """
        from dinkcli.assigning.pipeline import Output
        from dinkcli.assigning.shards import usual_part_rows

        rows_per_file, n_rows = self.rows_per_file, data.n_rows
        if self.share is not None:
            known_rows = data.known_rows if known_rows is None else known_rows
            rows_per_file = rows_per_file or usual_part_rows(known_rows, self.share.count)
            n_rows = self.share.rows_of(known_rows, rows_per_file)
        if self.output is None and sys.stdout is None:
            raise OutputError("standard output is closed; write to a file with -o")
        stream = sys.stdout.buffer if self.output is None else None
        name = self.output or "standard output"
        return Output(name, self.encoding, rows_per_file, self.resume, self.share, stream), n_rows


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

    from dinkcli.assigning.pipeline import Job
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
    summary = {
        "rows": written.rows,
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


def save_summary(summary: dict[str, Any], path: str) -> None:
    from dinkcli.data.atomic import atomic_path

    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(json.dumps(summary) + "\n")


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
            f"in {summary['seconds']:.1f} s"
            + ("" if summary.get("complete", True) else "; parts of other shares are missing yet")
        )
