"""The ``dink`` command: its list of commands, and help as people read it. Options come in groups,
examples at the end, without rich, which would take twice as long to start."""

from __future__ import annotations

import atexit
import gc
import inspect
import os
import re
import sys
import threading
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from dinkcli import __version__
from dinkcli.cli.console import say, source_of, warn
from dinkcli.cli.options import GROUPS, with_bundles
from dinkcli.cli.paths import refuse_overwriting
from dinkcli.cli.signals import abandon_stdout, error_boundary, ignore_signals, one_voice
from dinkcli.errors import UsageError
from dinkcli.processes.group import world

COMMANDS = (
    *("train", "assign", "name", "inspect", "report", "evaluate", "sweep"),
    *("update", "edit", "dedup", "sample", "info", "plan", "export"),
)
_SEVERAL = ("train", "assign")  # that several processes share
# Each is a function in one of these modules, or in one of its own name.
_MODULES = {
    **dict.fromkeys(("inspect", "report", "evaluate", "sweep", "info", "plan"), "views"),
    **dict.fromkeys(("name", "update", "edit", "export"), "changes"),
    **dict.fromkeys(("dedup", "sample"), "assign"),
}
_AGAIN = "the command without it: it starts anew, and takes minutes for a million rows"
_DIVIDE = "one process for each cluster or group of them, as in docs/recipes.md"
_CLUSTERS = "dink train --texts with the number that it finds, which names the clusters"
_ONE_FILE = "-o for one file, and another tool to divide it"
# Options of earlier versions: those that have another name now, and the old one until 1.1,
_RENAMED = {
    "--id-column": "--ids",
    "--text-column": "--texts",
    "--label-column": "--labels",
    "--distance": "--max-distance",
    "--names": "--with-names",
}
# and those that are gone, of all commands or of one, with what there is instead.
_REMOVED = {
    "--balance": "--max-size 1x",
    "--compression": "the suffix, as in rows.csv.gz (parquet is compressed by itself)",
    "--dtype": 'probability_type="float16" of dinkcli.assign in Python',
    "--tol": "tol of dinkcli.train in Python",
    "dedup --threshold": "--max-distance, which is sqrt(2 - 2 x similarity)",
    **dict.fromkeys(("sweep --texts", "sweep --text-column"), _CLUSTERS),
    **dict.fromkeys(("dedup --resume", "sample --resume"), _AGAIN),
    **dict.fromkeys(("dedup --shard", "sample --shard"), _DIVIDE),
    **dict.fromkeys(("dedup --rows-per-file", "sample --rows-per-file"), _ONE_FILE),
}
_SETTINGS: dict[str, Any] = {
    "context_settings": {"help_option_names": ["-h", "--help"], "max_content_width": 110},
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,  # plain help starts twice as fast
}
# Columns of the options, with their help beside them, in a wide terminal and in a narrow one.
_COLUMN, _NARROW_COLUMN, _WIDE = 26, 18, 76
_TYPES = {"<str>": "TEXT", "<int>": "NUMBER", "<float>": "NUMBER", "<list[str]>": "TEXT"}


class _Readable:
    """Usage in the order in which people write it; the examples of a docstring come last."""

    help: str | None
    get_params: Any

    def format_usage(self, context: Any, formatter: Any) -> None:
        parts = []
        for each in self.get_params(context):
            is_argument = each.param_type_name == "argument"
            if is_argument or each.required:
                name = (each.metavar or each.name or "").partition("|")[0]
                parts.append(name if is_argument else f"{each.opts[0]} {name}")
        parts = parts or ["COMMAND"]
        formatter.write_usage(context.command_path, " ".join([*parts, "[OPTIONS]"]))

    def format_help(self, context: Any, formatter: Any) -> None:
        text, _, examples = inspect.cleandoc(self.help or "").partition("\nExamples:\n")
        self.format_usage(context, formatter)
        formatter.write_paragraph()
        formatter.write_text(text.partition("\nArgs:\n")[0].strip())
        self.format_options(context, formatter)
        with formatter.section("Examples"):
            for line in examples.splitlines():
                formatter.write(f"  {line.strip()}\n")

    def format_options(self, context: Any, formatter: Any) -> None:
        width = _COLUMN if formatter.width >= _WIDE else _NARROW_COLUMN
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Arguments", *GROUPS)}
        # Those of Main in the order of their importance: -k, -o, then the rest.
        order = {"-k": 0, "-n": 0, "-o": 1}
        for each in sorted(self.get_params(context), key=lambda each: order.get(each.opts[0], 2)):
            names, text = each.get_help_record(context)
            is_argument = each.param_type_name == "argument"
            for kind, word in _TYPES.items():
                names = names.replace(kind, "" if is_argument else word)
            names = names.rstrip()
            choices = re.search(r"<([^>]*\|[^>]*)>", names)
            if choices and len(names) + 2 > formatter.width:  # a narrow terminal
                names = names.replace(choices[0], "CHOICE")
                text = f"One of {choices[1].replace('|', ', ')}. {text}"
            group = "Arguments" if is_argument else each.rich_help_panel or GROUPS[-1]
            groups[group].append((names.ljust(width), text))
        filled = {name: rows for name, rows in groups.items() if rows}
        for name, rows in filled.items():
            with formatter.section(name if len(filled) > 1 else "Options"):
                formatter.write_dl(rows, col_max=width)


class _Command(_Readable, TyperCommand):
    """A command whose help groups its options, and whose failures are one clear line."""

    owns_process = False  # nothing else uses what is loaded

    def invoke(self, ctx: Any) -> Any:
        with error_boundary(ctx):
            with one_voice():
                if world().size > 1 and self.name not in _SEVERAL:
                    raise UsageError(
                        f"dink {self.name}: runs in one process, and a launcher has started "
                        f"{world().size}; start it without one"
                    )
                refuse_overwriting(ctx.command.name, ctx.params)
            if self.owns_process:
                _HiddenPandas.from_arrow()
            return super().invoke(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with error_boundary(ctx, "--json" in args):
            known = {name for parameter in self.params for name in parameter.opts}
            renamed: dict[str, str] = {}
            for place, arg in enumerate(args):
                name = arg.partition("=")[0]
                new = _RENAMED.get(name, "")
                instead = _REMOVED.get(f"{self.name} {name}") or _REMOVED.get(name)
                if name not in known and instead is not None:
                    raise UsageError(f"{name}: there is no such option any more; use {instead}")
                if name not in known and new in known:
                    args[place] = new + arg.removeprefix(name)
                    renamed[name] = new
            if not {"-h", "--help"} & set(args):
                ctx.default_map = _defaults(self)
            try:
                rest = super().parse_args(ctx, args)
            except typer.BadParameter as error:
                error.message = error.message.replace("Value error, ", "")  # words of pydantic
                error.message += source_of(error.param, ctx) if error.param else ""
                raise
            for name, new in {} if ctx.params.get("quiet") else renamed.items():
                warn(f"{name} is called {new} now; the old name works until dink 1.1")
            return rest


class _Group(_Readable, TyperGroup):
    """All commands, each of which is loaded when it is wanted: all take a tenth of a second."""

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.commands = dict.fromkeys(COMMANDS)  # type: ignore[assignment]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return _load(cmd_name) if cmd_name in COMMANDS else None

    def format_options(self, context: Any, formatter: Any) -> None:
        self.format_commands(context, formatter)
        super().format_options(context, formatter)


@cache
def _load(name: str) -> Any:
    alone = typer.Typer(add_completion=False, **_SETTINGS)
    module = import_module(f"dinkcli.cli.{_MODULES.get(name, name)}")
    alone.command(cls=_Command)(with_bundles(getattr(module, name)))
    command: Any = typer.main.get_command(alone)
    for parameter in command.params:
        if parameter.param_type_name == "option":
            long = max(parameter.opts, key=len)
            parameter.envvar = "DINK_" + long.strip("-").replace("-", "_").upper()
    return command


def _defaults(command: Any) -> dict[str, Any]:
    """What [tool.dink] and [tool.dink.COMMAND] of ./pyproject.toml say, by parameter."""
    text = ""
    with suppress(OSError, UnicodeDecodeError):
        text = Path("pyproject.toml").read_text(encoding="utf-8")
    if "tool.dink" not in text:
        return {}
    try:
        table = import_module("tomllib").loads(text).get("tool", {}).get("dink", {})
    except ImportError:
        raise UsageError("pyproject.toml: [tool.dink] needs Python 3.11 or later") from None
    except ValueError as error:
        raise UsageError(f"pyproject.toml: {error}") from None
    tables = {name: each for name, each in table.items() if isinstance(each, dict)}
    for name in tables.keys() - {*COMMANDS}:
        raise UsageError(f"pyproject.toml: [tool.dink.{name}]: dink has no such command")
    own, known, values = tables.get(command.name, {}), _options(command), {}
    general = {name: value for name, value in table.items() if name not in tables}
    for name, value in {**general, **own}.items():
        option = name.replace("_", "-")
        if option in known:
            listed = known[option].multiple and not isinstance(value, list)
            values[known[option].name] = [value] if listed else value
        elif name in own or not any(option in _options(_load(other)) for other in COMMANDS):
            where = f"dink {command.name}" if name in own else "dink"
            raise UsageError(f"pyproject.toml: [tool.dink] {name}: {where} has no such option")
    return values


def _options(command: Any) -> dict[str, Any]:
    """The options of a command by their names without dashes."""
    options = [each for each in command.params if each.param_type_name == "option"]
    return {name.lstrip("-"): each for each in options for name in each.opts}


app = typer.Typer(name="dink", cls=_Group, no_args_is_help=True, **_SETTINGS)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"dink {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", "-V", callback=_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """Cluster embedding files: train once, assign new batches for years.

    Options have defaults from variables such as DINK_DEVICE, and from [tool.dink] in the
    pyproject.toml of the current folder.

    Examples:
        dink train emb.npy -k 10
        dink assign emb.dink.safetensors new.npy -o clusters.parquet
        dink inspect emb.dink.safetensors
    """


class _HiddenPandas:
    """Arrow loads pandas to see whether values are of it, which takes longer than many commands;
    no value of a command is."""

    @classmethod
    def from_arrow(cls) -> None:
        import pyarrow as pa

        sys.meta_path.insert(0, finder := cls())
        pa.array([True]).to_numpy(zero_copy_only=False)  # looks for it once in Python, once in C++
        sys.meta_path.remove(finder)

    def find_spec(self, name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("hidden", name=name)


def main() -> None:
    _Command.owns_process = True
    # Loading torch makes objects by the million that stay: to look through them at the usual pace
    # would take a tenth of a second.
    gc.set_threshold(1_000_000, 50, 100)
    try:
        app(prog_name="dink")
    except OSError as error:  # help has no reader; commands see to their own output
        abandon_stdout()
        say(f"Error: standard output: {error.strerror}")
        sys.exit(1)
    except SystemExit as end:
        ignore_signals()  # all is done and said; Python would only show where it is
        alone = threading.active_count() == 1
        if "torch" in sys.modules and alone and isinstance(end.code, int | None):
            # To take torch apart takes Python half a second, and the system none.
            atexit._run_exitfuncs()
            with suppress(AttributeError, OSError, ValueError):  # Python has its own words for that
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(end.code or 0)
        raise
