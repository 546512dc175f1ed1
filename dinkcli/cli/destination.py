"""Where the rows that assign, dedup and sample write are to go, and their summary."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dinkcli.cli.console import printable
from dinkcli.cli.paths import load_model, refuse_overwriting, refuse_stream, warn_if_unfinished
from dinkcli.cli.shares import check_folder_name, is_silent
from dinkcli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from dinkcli.assigning.shards import Shard
    from dinkcli.assigning.writers.formats import Encoding, Output
    from dinkcli.data.base import Columns
    from dinkcli.data.dataset import DataSet
    from dinkcli.models.model import Model


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
        from dinkcli.assigning.writers.formats import encoding_of
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
        from dinkcli.assigning.shards import usual_part_rows
        from dinkcli.assigning.writers.formats import Output

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


def about(output: str | None, format: str, model: Model, name: str) -> dict[str, Any]:
    """What each summary says of the output, None for standard output, and of the model."""
    return {
        "output": None if output is None else printable(output),
        "format": format,
        "model": printable(name),
        "fingerprint": model.fingerprint,
        "n_clusters": model.n_clusters,
    }


def still_missing(summary: dict[str, Any]) -> str:
    """What a sentence about the output ends with."""
    return "" if summary.get("complete", True) else "; parts of other shares are missing yet"


def save_summary(summary: dict[str, Any], path: str) -> None:
    from dinkcli.data.atomic import atomic_path

    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(json.dumps(summary) + "\n")
