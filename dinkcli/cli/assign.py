"""``dink assign``."""

from __future__ import annotations

import json
import sys
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from dinkcli.cli.console import ProgressLines, error_boundary, printable, say
from dinkcli.cli.options import Column, Device, Inputs, Json, ModelPath, Quiet
from dinkcli.cli.paths import warn_if_unfinished
from dinkcli.errors import OutputError

if TYPE_CHECKING:
    from dinkcli.writers import Layout, Writer


def assign(
    model_path: ModelPath,
    inputs: Inputs,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="Where to write: .parquet, .npy or .csv. Without it, CSV on standard output.",
            show_default=False,
        ),
    ] = None,
    soft: Annotated[
        bool, typer.Option("--soft", help="Also write the probability of every cluster.")
    ] = False,
    id_column: Annotated[
        str | None,
        typer.Option(help="Parquet column to name rows by.", show_default=False),
    ] = None,
    device: Device = "auto",
    column: Column = None,
    json_summary: Json = False,
    quiet: Quiet = False,
) -> None:
    """Gives every row of the inputs the cluster of its nearest centre, in order.

    dink assign emb.dink.safetensors new.npy -o clusters.parquet
    """
    with error_boundary():
        started = time.monotonic()
        from dinkcli.cli.paths import refuse_overwriting
        from dinkcli.model import load
        from dinkcli.readers import open_inputs
        from dinkcli.readers.base import Columns
        from dinkcli.writers import Layout, format_of

        if output is not None:
            format_of(output)
        model = load(model_path)
        warn_if_unfinished(model, model_path)
        data = open_inputs(inputs, Columns(column, model.column, id_column))
        model.check_features(data.n_features, data.name)
        if output is not None:
            refuse_overwriting(output, data, model_path)

        from dinkcli.assigner import assign as assign_blocks
        from dinkcli.device import resolve_device

        layout = Layout(data.n_rows, model.n_clusters if soft else 0, id_column, data.carried)
        blocks = assign_blocks(model, data, resolve_device(device), soft)
        with (
            ProgressLines(quiet or json_summary or output is None) as progress,
            _writer(output, layout) as writer,
        ):
            for block in blocks:
                writer.write(block)
                done = block.start + len(block)
                rate = done / max(1e-9, time.monotonic() - started)
                progress.update("assign", done, data.n_rows, f"{rate:,.0f} rows/s")
        seconds = time.monotonic() - started
        if json_summary:
            summary = {"rows": data.n_rows, "seconds": round(seconds, 3)}
            say(json.dumps({**summary, "output": printable(output) if output else None}))
        elif output is not None and not quiet:
            say(f"{output}: {data.n_rows} rows assigned in {seconds:.1f} s")


def _writer(output: str | None, layout: Layout) -> AbstractContextManager[Writer]:
    from dinkcli.writers import open_writer, stream_writer

    if output is None:
        if sys.stdout is None:
            raise OutputError("standard output is closed; write to a file with -o")
        return stream_writer(sys.stdout.buffer, layout)
    return open_writer(output, layout)
