"""Where the rows that assign, dedup and sample write are to go, and their summary."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import typer

from dinkcli.assigning.layout import Layout, Rows
from dinkcli.assigning.parts import open_output
from dinkcli.assigning.pipeline import Written
from dinkcli.assigning.shards import Shard, launched, parse_shard, usual_part_rows
from dinkcli.assigning.writers import Output, encoding_of, names_a_file
from dinkcli.cli.console import printable, say
from dinkcli.cli.options import TableOutput
from dinkcli.cli.paths import refuse_stream
from dinkcli.cli.together import is_silent
from dinkcli.data.atomic import atomic_path, check_target
from dinkcli.data.dataset import DataSet
from dinkcli.errors import OutputError, UsageError
from dinkcli.models.model import Model


class Destination:
    """Where the rows are to go, the options for it checked against each other and the file system.

    Attributes:
        output: a file, a folder for parts, or None for standard output.
        encoding: how they are written.
        share: of the rows, when other processes write the others.
        in_parts: whether the output is a folder.
        silent: another process speaks for this one.
        quiet: that, or --quiet.
    """

    def __init__(
        self,
        output: str | None,
        shown: TableOutput,
        rows_per_file: int | None = None,
        shard: str | None = None,
        resume: bool = False,
        by_cluster: bool = False,
    ):
        share = _share_of(shard)
        output = None if output == "-" else output
        if shown.json_file is not None:
            refuse_stream(shown.json_file, "the summary of --json-file")
        if shown.as_json and output is None:
            raise UsageError(
                "--json writes to standard output, and so do the rows: name a file with -o, or "
                "write the summary to one by --json-file"
            )
        if share is not None:
            _check_folder_name(output, share, rows_per_file)
        parts = rows_per_file is not None or share is not None
        if parts and output is None:
            raise UsageError("--rows-per-file writes a folder of parts: name it with -o")
        if resume and not parts:
            raise UsageError("--resume goes on with a folder of parts: give its --rows-per-file")
        format = shown.format
        if by_cluster and (output is None or parts or format not in (None, "parquet")):
            raise UsageError(
                "--partition-by-cluster writes a folder of parquet: name it with -o, and leave out "
                "--rows-per-file, --shard and other formats"
            )
        self.by_cluster = by_cluster
        self.encoding = encoding_of(
            output, format, csv_safe=shown.csv_safe, parts=parts or by_cluster
        )
        self.output, self.in_parts, self.rows_per_file = output, parts, rows_per_file
        self.share, self.resume = share, resume
        self.silent = is_silent(share)
        self.quiet = shown.quiet or self.silent
        self._json_file = None if self.silent else shown.json_file
        self._as_json = shown.as_json
        for path in (None if parts or by_cluster else output, self._json_file):
            if path is not None:
                check_target(path)

    @property
    def shows_progress(self) -> bool:
        """Whether lines on standard error are in nobody's way."""
        return not (self.quiet or self._as_json or self.output is None)

    def open(self, data: DataSet | None = None) -> Output:
        """The output, for a share one of all rows of ``data``."""
        rows_per_file = self.rows_per_file
        if self.share is not None and data is not None:
            self.share.check(data)
            rows_per_file = rows_per_file or usual_part_rows(data.known_rows, self.share.count)
        if self.output is None and sys.stdout is None:
            raise OutputError("standard output is closed; write to a file with -o")
        stream = sys.stdout.buffer if self.output is None else None
        name = self.output or "standard output"
        where = (rows_per_file, self.resume, self.share, stream, self.by_cluster)
        return Output(name, self.encoding, *where)

    def write(self, layout: Layout, n_rows: int, rows: Iterable[Rows]) -> None:
        """Writes ``n_rows`` rows to one file or to standard output."""
        with open_output(self.open(), replace(layout, n_rows=n_rows)) as writer:
            for some in rows:
                writer.write(some)

    def about(self, model: Model, name: str) -> dict[str, Any]:
        """What a summary says of the output, None for standard output, and of the model."""
        return {
            "output": None if self.output is None else printable(self.output),
            "format": self.encoding.format,
            "model": printable(name),
            "fingerprint": model.fingerprint,
            "n_clusters": model.n_clusters,
        }

    def parts(self, written: Written, **more: int) -> dict[str, Any]:
        """What a summary says of parts, and ``more`` of them, and of the share."""
        parts = {} if written.parts is None else {"parts": written.parts, **more}
        if self.share is None:
            return parts
        return {**parts, "shard": str(self.share), "complete": written.complete}

    def tell(self, summary: dict[str, Any], sentence: str) -> None:
        """Saves the summary, and says it as JSON or, of a file or a folder, as a sentence."""
        text = json.dumps(summary)
        if self._json_file is not None:
            with atomic_path(self._json_file) as path, open(path, "w", encoding="utf-8") as file:
                file.write(text + "\n")
        if self._as_json and not self.silent:
            typer.echo(text)
        elif self.shows_progress:
            whole = summary.get("complete", True)
            say(sentence + ("" if whole else "; parts of other shares are missing yet"))


def bad_rows_in(summary: dict[str, Any]) -> str:
    """How many they are, as the end of a sentence; an empty text where there are none."""
    number = summary["bad_rows"]
    return f", {number} bad row{'s' * (number > 1)}" if number else ""


def _share_of(text: str | None) -> Shard | None:
    """The share that --shard names, or that of this process of a launcher."""
    here = launched()
    if text is None:
        return here
    if here is not None:
        raise UsageError(
            f"--shard {text}: a launcher has started {here.count} processes (WORLD_SIZE), which "
            "take a share each by themselves; leave --shard out, or the launcher"
        )
    return parse_shard(text)


def _check_folder_name(output: str | None, share: Shard, rows_per_file: int | None) -> None:
    """Raises UsageError where the shares would have no folder to go to."""
    who = f"{share.count} processes write" if share.launched else f"--shard {share} writes"
    if output is None:
        raise UsageError(f"{who} into a folder of parts: name it with -o")
    if rows_per_file is None and names_a_file(output):
        raise UsageError(
            f"-o {output}: {who} into a folder of parts, not into one file; name a folder"
        )
