"""What dedup and sample do between reading their options and the summary."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from dinkcli.cli.console import say, show_notes
from dinkcli.cli.destination import Destination, about, save_summary, still_missing
from dinkcli.cli.progress import ProgressLines
from dinkcli.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from dinkcli.assigning.jobs.dedup import DedupJob
    from dinkcli.assigning.jobs.sample import SampleJob
    from dinkcli.assigning.jobs.survey import OnStep
    from dinkcli.assigning.jobs.workplace import Workplace
    from dinkcli.assigning.pipeline import Written
    from dinkcli.assigning.writers.base import Layout, Rows
    from dinkcli.data.base import Columns
    from dinkcli.data.dataset import DataSet
    from dinkcli.models.model import Model

    Job = DedupJob | SampleJob

_PHASES = {"assign": "assigning", "sort": "sorting", "compare": "comparing", "write": "writing"}
_PHASES |= {"choose": "choosing", "read ids": "reading ids"}


@dataclass(frozen=True)
class JobRun:
    """Where the result of a job goes, and what it may take."""

    destination: Destination
    memory: int

    @classmethod
    def of(cls, destination: Destination, memory: str | None) -> JobRun:
        """Raises UsageError for a memory that is no size."""
        from dinkcli.data.memory import default_memory, parse_size

        return cls(destination, default_memory() if memory is None else parse_size(memory))

    def open(
        self, model_path: str, inputs: list[str], wanted: Columns, bad_rows: str, quiet: bool
    ) -> tuple[Model, DataSet]:
        """Loads the model and opens the inputs.

        Raises:
            DinkError: they cannot be read, or do not fit each other.
        """
        from dinkcli.data.spool import is_stream

        model = self.destination.load_model(model_path, inputs)
        data = self.destination.open_inputs(model, inputs, wanted, bad_rows, model_path)
        for reader in data.readers:
            if is_stream(reader) and data.carried.names:
                raise UsageError(
                    f"{reader.path}: a stream is read once, and column {data.carried.names[0]!r} "
                    "is wanted after all rows are known; write the stream to a file first"
                )
        show_notes(data, quiet)
        return model, data

    @property
    def silent(self) -> bool:
        """Whether another process speaks for this one."""
        return self.destination.silent

    @contextmanager
    def work(self, run: dict[str, Any]) -> Iterator[Workplace]:
        """The folder for what is done, beside the output; elsewhere for standard output."""
        from dinkcli.assigning.jobs.workplace import Workplace

        output = self.destination.output
        if output is None:
            with (
                tempfile.TemporaryDirectory(prefix="dink-") as folder,
                Workplace(folder, run, False) as work,
            ):
                yield work
            return
        share, resume = self.destination.share, self.destination.resume
        with Workplace(os.path.normpath(output) + ".work", run, resume, share) as work:
            try:
                yield work
            except KeyboardInterrupt as error:
                if not work.holds_work or self.silent:
                    raise
                say(f"Interrupted; what is done stays in {work.folder}, --resume goes on.")
                raise typer.Exit(getattr(error, "exit_code", 130)) from None

    @contextmanager
    def progress(self, quiet: bool) -> Iterator[OnStep]:
        """Shows the steps that the function it yields is called with."""
        with ProgressLines(quiet or self.destination.output is None) as lines:

            def show(phase: str, done: int, total: int) -> None:
                lines.update(_PHASES.get(phase, phase), done, total, "rows", "")

            yield show

    def device(self, name: str) -> torch.device:
        from dinkcli.processes.device import resolve_device

        share = self.destination.share
        return resolve_device(name, 0 if share is None else share.local_rank)

    def _table(self, job: Job, columns: pa.Schema, n_rows: int | None) -> Layout:
        """The layout of the output."""
        from dinkcli.assigning.job import metadata_of
        from dinkcli.assigning.writers.base import Layout

        data = job.data
        metadata = metadata_of(job.model, job.model_name)
        return Layout(n_rows, columns, data.columns.id, data.carried, metadata)

    def check(self, job: Job, columns: pa.Schema, n_rows: int | None = None) -> None:
        """Raises DinkError, before any work, for an output that could not be written after it.

        Args:
            n_rows: of the output, where they are not those of the input.
        """
        import io

        from dinkcli.assigning.pipeline import open_output

        table = self._table(job, columns, None)
        self.destination.encoding.writer(io.BytesIO(), table).close()
        output, _ = self.destination.open(job.data, n_rows)
        open_output(output, table, _identity(job), job.data.n_rows if n_rows is None else n_rows)

    def write(
        self,
        job: Job,
        columns: pa.Schema,
        n_rows: int,
        n_kept: int,
        rows_of: Callable[[int, int | None], Iterator[Rows]],
        on_rows: Callable[[int], None] = lambda done: None,
    ) -> Written:
        """Writes the rows of a table.

        Args:
            n_rows: by whose numbers they go to parts.
            n_kept: of them that are written.
            rows_of, on_rows: see ``write_missing``.
        """
        from dinkcli.assigning.pipeline import write_missing

        whole = n_kept == n_rows or not self.destination.in_parts
        table = self._table(job, columns, n_kept if whole else None)
        output, _ = self.destination.open(job.data, n_rows)
        return write_missing(output, table, _identity(job), n_rows, rows_of, on_rows)

    def about(self, job: Job, written: Written) -> dict[str, Any]:
        """The part of a summary that jobs share."""
        output, format = self.destination.output, self.destination.encoding.format
        found = about(output, format, job.model, job.model_name)
        found["written_rows"] = written.rows
        if written.parts is not None:
            found["parts"] = written.parts
        if self.destination.share is not None:
            found |= {"shard": str(self.destination.share), "complete": written.complete}
        return found

    def tell(self, summary: dict[str, Any], as_json: bool, sentence: str) -> None:
        """Saves the summary, and says it as JSON or as a sentence, which may be empty."""
        if self.destination.json_file is not None:
            save_summary(summary, self.destination.json_file)
        if self.silent:
            return
        if as_json:
            say(json.dumps(summary), whole=True)
        elif sentence:
            say(sentence + still_missing(summary))


def _identity(job: Job) -> dict[str, Any]:
    """What the output depends on, as plain JSON."""
    carried, id_column = job.data.carried.names, job.data.columns.id
    run = job.identity | {"columns": carried, "id_column": id_column}
    return run | job.data.beside_identity()
