"""The ``dink`` command and its global options."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dinkcli import __version__
from dinkcli.cli.assign import assign
from dinkcli.cli.console import abandon_stdout, error_boundary, say
from dinkcli.cli.evaluate import evaluate
from dinkcli.cli.export import export
from dinkcli.cli.info import info
from dinkcli.cli.inspect import inspect
from dinkcli.cli.plan import plan
from dinkcli.cli.report import report
from dinkcli.cli.sweep import sweep
from dinkcli.cli.together import refuse_several
from dinkcli.cli.train import train

app = typer.Typer(
    name="dink",
    help="Clusters embedding files: train once, assign new batches for years.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help starts twice as fast
)
app.command()(train)
app.command()(assign)
app.command()(export)
app.command()(info)
app.command()(plan)
app.command()(inspect)
app.command()(evaluate)
app.command()(report)
app.command()(sweep)


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
    """Clusters embedding files: train once, assign new batches for years."""
    with error_boundary():
        refuse_several(context.invoked_subcommand)


def main() -> None:
    try:
        app(prog_name="dink")
    except OSError as error:  # help has no reader; commands see to their own output
        abandon_stdout()
        say(f"Error: standard output: {error.strerror}")
        sys.exit(1)
