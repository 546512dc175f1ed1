"""What dedup and sample do between reading their options and the summary."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import typer

from dinkcli.cli.assign_run import Destination, save_summary
from dinkcli.cli.console import printable, say, show_notes
from dinkcli.cli.paths import load_model, refuse_overwriting, warn_if_unfinished
from dinkcli.cli.progress import ProgressLines
from dinkcli.cli.shares import is_silent
from dinkcli.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import torch

    from dinkcli.assigning.shards import Shard
    from dinkcli.data.base import Columns
    from dinkcli.data.dataset import DataSet
    from dinkcli.jobs.survey import OnStep
    from dinkcli.jobs.table import Table, Written
    from dinkcli.jobs.workplace import Workplace
    from dinkcli.models.model import Model

_PHASES = {"assign": "assigning", "sort": "sorting", "compare": "comparing", "write": "writing"}
_PHASES |= {"choose": "choosing", "read ids": "reading ids"}


@dataclass(frozen=True)
class Opened:
    """A model and the rows that it is put to."""

    model: Model
    data: DataSet
    name: str


@dataclass(frozen=True)
class JobRun:
    """Where the result of a job goes, and what it may take."""

    destination: Destination
    memory: int

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
        memory: str | None,
    ) -> JobRun:
        """Checks the options of the output.

        Raises:
            DinkError: what is wrong with them.
        """
        from dinkcli.data.memory import default_memory, parse_size

        found = Destination.of(
            output, format, compression, csv_safe, rows_per_file, share, False, json_file
        )
        if resume and found.output is None:
            raise UsageError("--resume goes on with an output that is named with -o")
        limit = default_memory() if memory is None else parse_size(memory)
        return cls(replace(found, resume=resume), limit)

    @staticmethod
    def columns(
        column: str | None,
        id_column: str | None,
        ids: list[str] | None,
        others: str | None,
        dim: int | None,
    ) -> Columns:
        from dinkcli.data.base import Columns

        names = tuple(name.strip() for name in others.split(",")) if others else ()
        return Columns(column, id=id_column, ids=tuple(ids or ()), others=names, dim=dim)

    def open(
        self, model_path: str, inputs: list[str], columns: Columns, bad_rows: str, quiet: bool
    ) -> Opened:
        """Loads the model and opens the inputs.

        Raises:
            DinkError: they cannot be read, or do not fit each other.
        """
        from dinkcli.data.inputs import open_inputs
        from dinkcli.data.spool import is_stream

        model = load_model(model_path, inputs)
        if not self.silent:
            warn_if_unfinished(model, model_path)
        data = open_inputs(inputs, model.as_trained(columns), bad_rows)
        model.check_features(data.n_features, data.name)
        for path in self.destination.files:
            refuse_overwriting(path, data, model_path)
        for reader in data.readers:
            if is_stream(reader) and data.carried.names:
                raise UsageError(
                    f"{reader.path}: a stream is read once, and column {data.carried.names[0]!r} "
                    "is wanted after all rows are known; write the stream to a file first"
                )
        self._check_share(data)
        show_notes(data, quiet)
        return Opened(model, data, model_path)

    def open_old(
        self, paths: list[str], opened: Opened, column: str | None, dim: int | None
    ) -> DataSet:
        """The rows of ``--against``."""
        from dinkcli.data.base import Columns
        from dinkcli.data.inputs import open_inputs

        wanted = opened.model.as_trained(Columns(column, dim=dim))
        data = open_inputs(paths, wanted, opened.data.bad_rows)
        opened.model.check_features(data.n_features, data.name)
        for path in self.destination.files:
            refuse_overwriting(path, data)
        self._check_share(data)
        return data

    @property
    def silent(self) -> bool:
        """Whether another process speaks for this one."""
        return is_silent(self.destination.share)

    def _check_share(self, data: DataSet) -> None:
        if self.destination.share is not None:
            self.destination.share.check(data)

    @contextmanager
    def work(self, run: dict[str, Any]) -> Iterator[Workplace]:
        """The folder for what is done, beside the output; elsewhere for standard output."""
        from dinkcli.jobs.workplace import Workplace

        output = self.destination.output
        if output is None:
            with (
                tempfile.TemporaryDirectory(prefix="dink-") as folder,
                Workplace(folder, run, False) as work,
            ):
                yield work
            return
        share, resume = self.destination.share, self.destination.resume
        own = None if share is None else (share.number - 1, share.count)
        with Workplace(os.path.normpath(output) + ".work", run, resume, own) as work:
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

    def table(self, opened: Opened, columns: pa.Schema, n_rows: int | None) -> Table:
        """The layout of the output."""
        from dinkcli.jobs.table import Table

        metadata = {
            "dink.model": os.fsencode(os.path.basename(opened.name)).decode("utf-8", "replace"),
            "dink.fingerprint": opened.model.fingerprint,
        }
        data = opened.data
        return Table(
            n_rows,
            opened.model.n_clusters,
            id_name=data.columns.id,
            carried=data.carried,
            metadata=metadata,
            found=columns,
        )

    def check(
        self, opened: Opened, columns: pa.Schema, run: dict[str, Any], n_rows: int | None = None
    ) -> None:
        """Raises DinkError, before any work, for an output that could not be written after it.

        Args:
            n_rows: of the output, where they are not those of the input.
        """
        import io

        from dinkcli.assigning.pipeline import open_output

        table = self.table(opened, columns, None)
        self.destination.encoding.writer(io.BytesIO(), table).close()
        output, _ = self.destination.open(opened.data, n_rows)
        known = opened.data.n_rows if n_rows is None else n_rows
        open_output(output, table, self.identity(opened, run), known)

    def write(
        self,
        opened: Opened,
        columns: pa.Schema,
        run: dict[str, Any],
        values: dict[str, np.ndarray],
        keep: np.ndarray,
        on_step: OnStep,
    ) -> Written:
        """Writes a row for each row of the inputs of the mask ``keep``; skipped ones are left
        out."""
        from dinkcli.data.dataset import SKIP
        from dinkcli.jobs.table import write_table

        if opened.data.bad_rows == SKIP:
            keep = keep & (values["cluster"] >= 0)
        whole = keep.all() or not self.destination.in_parts
        table = self.table(opened, columns, int(keep.sum()) if whole else None)
        output, _ = self.destination.open(opened.data)
        run = self.identity(opened, run)
        return write_table(output, table, run, opened.data, values, keep, on_step)

    @staticmethod
    def identity(opened: Opened, run: dict[str, Any]) -> dict[str, Any]:
        """What the output depends on, as plain JSON."""
        carried, id_column = opened.data.carried.names, opened.data.columns.id
        run = run | {"columns": carried, "id_column": id_column}
        return run | opened.data.beside_identity()

    def about(self, opened: Opened, written: Written) -> dict[str, Any]:
        """The part of a summary that jobs share."""
        output = self.destination.output
        found = {
            "output": None if output is None else printable(output),
            "format": self.destination.encoding.format,
            "model": printable(opened.name),
            "fingerprint": opened.model.fingerprint,
            "n_clusters": opened.model.n_clusters,
            "written_rows": written.rows,
        }
        if written.parts is not None:
            found["parts"] = written.parts
        if self.destination.share is not None:
            found |= {"shard": str(self.destination.share), "complete": written.complete}
        return found

    def ending(self, written: Written) -> str:
        """The end of the line for people, about parts that are missing yet."""
        return "; parts of other shares are missing yet" if written.complete is False else ""

    def save(self, summary: dict[str, Any]) -> None:
        if self.destination.json_file is not None:
            save_summary(summary, self.destination.json_file)
