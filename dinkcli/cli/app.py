"""The ``dink`` command and its global options."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from typing import Annotated

import typer

from dinkcli import __version__
from dinkcli.cli.assign import assign
from dinkcli.cli.console import abandon_stdout, error_boundary, say
from dinkcli.cli.dedup import dedup
from dinkcli.cli.evaluate import evaluate
from dinkcli.cli.export import export
from dinkcli.cli.help import SETTINGS, Command, Group
from dinkcli.cli.info import info
from dinkcli.cli.inspect import inspect
from dinkcli.cli.name import name
from dinkcli.cli.plan import plan
from dinkcli.cli.report import report
from dinkcli.cli.sample import sample
from dinkcli.cli.sweep import sweep
from dinkcli.cli.together import refuse_several
from dinkcli.cli.train import train

app = typer.Typer(
    name="dink",
    cls=Group,
    context_settings=SETTINGS,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help starts twice as fast
)
COMMANDS = (
    *(train, assign, name, inspect, report, evaluate, sweep),
    *(dedup, sample, info, plan, export),
)
for command in COMMANDS:
    app.command(cls=Command)(command)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"dink {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Cluster embedding files: train once, assign new batches for years.

    Examples:
        dink train emb.npy -k 10
        dink assign emb.dink.safetensors new.npy -o clusters.parquet
        dink inspect emb.dink.safetensors
    """
    with error_boundary():
        refuse_several(context.invoked_subcommand)


def main() -> None:
    # Loading torch makes objects by the million that stay: to look through them at the usual pace
    # would take a tenth of a second.
    gc.set_threshold(100_000, 50, 100)
    try:
        app(prog_name="dink")
    except OSError as error:  # help has no reader; commands see to their own output
        abandon_stdout()
        say(f"Error: standard output: {error.strerror}")
        sys.exit(1)
    except SystemExit as end:
        _end_at_once(end.code)
        raise


def _end_at_once(code: object) -> None:
    """Where torch is loaded: to take it apart takes Python half a second, and the system none."""
    alone = threading.active_count() == 1
    if "torch" not in sys.modules or not alone or not isinstance(code, int | None):
        return
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):
        return  # Python has its own words for that
    os._exit(code or 0)
