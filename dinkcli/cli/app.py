"""The ``dink`` command and its global options."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from functools import cache
from importlib import import_module
from typing import Any

import typer

from dinkcli import __version__
from dinkcli.cli.console import abandon_stdout, error_boundary, say
from dinkcli.cli.help import SETTINGS, Command, Group
from dinkcli.cli.together import refuse_several

# Each is a function in a module of that name.
COMMANDS = (
    *("train", "assign", "name", "inspect", "report", "evaluate", "sweep"),
    *("dedup", "sample", "info", "plan", "export"),
)
_PLAIN: dict[str, Any] = {
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,  # plain help starts twice as fast
}


@cache
def _load(name: str) -> Any:
    alone = typer.Typer(add_completion=False, context_settings=SETTINGS, **_PLAIN)
    alone.command(cls=Command)(getattr(import_module(f"dinkcli.cli.{name}"), name))
    return typer.main.get_command(alone)


class _Dink(Group):
    """Each command is loaded when it is asked for: all take a tenth of a second."""

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return _load(cmd_name) if cmd_name in COMMANDS else None


app = typer.Typer(name="dink", cls=_Dink, context_settings=SETTINGS, no_args_is_help=True, **_PLAIN)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"dink {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version."
    ),
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
