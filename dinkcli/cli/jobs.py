"""What dedup and sample do between reading their options and the summary."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import typer

from dinkcli.assigning.job import metadata_of
from dinkcli.assigning.jobs.workplace import Workplace
from dinkcli.assigning.pipeline import Written, open_output, write_missing
from dinkcli.assigning.writers.base import Layout, Rows
from dinkcli.cli.console import say, show_notes
from dinkcli.cli.destination import Destination
from dinkcli.cli.paths import load_model
from dinkcli.cli.progress import ProgressLines
from dinkcli.cli.signals import exit_code
from dinkcli.data.base import Columns
from dinkcli.data.dataset import DataSet
from dinkcli.data.memory import default_memory, parse_size
from dinkcli.data.spool import is_stream
from dinkcli.errors import UsageError
from dinkcli.models.model import Model

if TYPE_CHECKING:
    import torch

    from dinkcli.assigning.jobs.dedup import DedupJob
    from dinkcli.assigning.jobs.sample import SampleJob
    from dinkcli.assigning.jobs.survey import OnStep

    Job = DedupJob | SampleJob

_PHASES = {"assign": "assigning", "sort": "sorting", "compare": "comparing", "write": "writing"}
_PHASES |= {"choose": "choosing", "read ids": "reading ids"}


def memory_limit(text: str | None) -> int:
    """Bytes that the rows may take."""
    return default_memory() if text is None else parse_size(text)


class JobDestination(Destination):
    """Where the result of a job goes, and, beside it, what is done of the job."""

    keeps_work = True

    def open_all(
        self, model_path: str, inputs: list[str], wanted: Columns, bad_rows: str, quiet: bool
    ) -> tuple[Model, DataSet]:
        """The model, and inputs that fit it."""
        model = load_model(model_path, inputs, warns=not self.silent)
        data = self.open_data(model, inputs, wanted, bad_rows)
        for reader in data.readers:
            if is_stream(reader) and data.carried.names:
                raise UsageError(
                    f"{reader.path}: a stream is read once, and column {data.carried.names[0]!r} "
                    "is wanted after all rows are known; write the stream to a file first"
                )
        show_notes(data, quiet)
        return model, data

    @contextmanager
    def work(self, run: dict[str, Any]) -> Iterator[Workplace]:
        """The folder for what is done, beside the output; elsewhere for standard output."""
        if self.output is None:
            with TemporaryDirectory(prefix="dink-") as home, Workplace(home, run, False) as work:
                yield work
            return
        folder = os.path.normpath(self.output) + ".work"
        with Workplace(folder, run, self.resume, self.share) as work:
            try:
                yield work
            except KeyboardInterrupt as error:
                if not work.holds_work or self.silent:
                    raise
                say(f"Interrupted; what is done stays in {work.folder}, --resume goes on.")
                raise typer.Exit(exit_code(error)) from None

    @contextmanager
    def progress(self, quiet: bool) -> Iterator[OnStep]:
        """Shows the steps that the function it yields is called with."""
        with ProgressLines(quiet or self.output is None) as lines:
            yield lambda phase, *done: lines.update(_PHASES.get(phase, phase), *done, "rows")

    def device(self, name: str) -> torch.device:
        from dinkcli.processes.device import resolve_device

        return resolve_device(name, 0 if self.share is None else self.share.local_rank)

    def check(self, job: Job, columns: pa.Schema, n_rows: int | None = None) -> None:
        """Raises DinkError, before any work, for an output that could not be written after it;
        ``n_rows`` are its rows, where they are not those of the input."""
        table = _table(job, columns, None)
        self.encoding.writer(io.BytesIO(), table).close()
        output, _ = self.open(job.data, n_rows)
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
        whole = n_kept == n_rows or not self.in_parts
        table = _table(job, columns, n_kept if whole else None)
        output, _ = self.open(job.data, n_rows)
        return write_missing(output, table, _identity(job), n_rows, rows_of, on_rows)

    def about_job(self, job: Job, written: Written) -> dict[str, Any]:
        """The part of a summary that jobs share."""
        found = self.about(job.model, job.model_name) | {"written_rows": written.rows}
        return found | self.parts(written)


def _table(job: Job, columns: pa.Schema, n_rows: int | None) -> Layout:
    """The layout of the output."""
    metadata = metadata_of(job.model, job.model_name)
    return Layout(n_rows, columns, job.data.columns.id, job.data.carried, metadata)


def _identity(job: Job) -> dict[str, Any]:
    """What the output depends on, as plain JSON."""
    carried, id_column = job.data.carried.names, job.data.columns.id
    run = job.identity | {"columns": carried, "id_column": id_column}
    return run | job.data.beside_identity()
