"""Help as people read it: options in groups, examples at the end, as wide as the terminal.

Without rich, which would take twice as long to start.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import typer
from typer import completion
from typer.core import TyperCommand, TyperGroup

from dinkcli.cli.console import error_boundary
from dinkcli.cli.paths import refuse_overwriting
from dinkcli.cli.together import one_voice
from dinkcli.errors import UsageError

# The groups, in their order; an option without one stands in the last.
INPUT, CLUSTERS, OUTPUT, EXPERT, RUN = "Input", "Clusters", "Output", "Expert", "Run"
SETTINGS: dict[Any, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
_EXAMPLES = "\nExamples:\n"
# Columns of the options, with their help beside them, in a wide terminal and in a narrow one.
_COLUMN, _NARROW_COLUMN, _WIDE = 26, 18, 76
_COMPLETION = {
    "--show-completion": completion.show_callback,
    "--install-completion": completion.install_callback,
}


_COMPLETION_HELP = {
    "install_completion": "Install TAB completion for this shell, or for one that is named.",
    "show_completion": "Show the script for TAB completion: of this shell, or of one that is named "
    "(bash, zsh, fish, powershell).",
}
_TYPES = {"<str>": "TEXT", "<int>": "NUMBER", "<float>": "NUMBER", "<list[str]>": "TEXT"}


# Options of earlier versions, and what there is instead.
_REPLACED = {
    "--id-column": "--ids COLUMN",
    "--text-column": "--texts COLUMN",
    "--label-column": "--labels COLUMN",
    "--balance": "--max-size 1x",
    "--compression": "the suffix, as in rows.csv.gz (parquet is compressed by itself)",
    "--dtype": 'probability_type="float16" of dinkcli.assign in Python',
    "--tol": "tol of dinkcli.train in Python",
    "dedup --threshold": "--max-distance",
    "dedup --distance": "--max-distance",
    "assign --names": "--with-names",
}


class _Readable:
    """Usage in the order in which people write it; the examples of a docstring come last."""

    help: str | None
    get_params: Any

    def format_usage(self, context: Any, formatter: Any) -> None:
        parameters = self.get_params(context)
        names = [p.metavar or p.name for p in parameters if p.param_type_name == "argument"]
        if not names:
            names = ["COMMAND"]
        formatter.write_usage(context.command_path, " ".join([*names, "[OPTIONS]"]))

    def format_help_text(self, context: Any, formatter: Any) -> None:
        formatter.write_paragraph()
        formatter.write_text(_split(self.help)[0])

    def format_options(self, context: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        groups |= {name: [] for name in (INPUT, CLUSTERS, OUTPUT, EXPERT, RUN)}
        for parameter in self.get_params(context):
            names, text = parameter.get_help_record(context) or ("", "")
            is_argument = parameter.param_type_name == "argument"
            for kind, word in _TYPES.items():
                names = names.replace(kind, "" if is_argument else word)
            group = "Arguments" if is_argument else parameter.rich_help_panel or RUN
            if names:
                groups[group].append((names.rstrip(), text))
        width = _COLUMN if formatter.width >= _WIDE else _NARROW_COLUMN
        filled = {name: records for name, records in groups.items() if records}
        for name, records in filled.items():
            with formatter.section(name if len(filled) > 1 else "Options"):
                rows = [_row(*record, width, formatter.width) for record in records]
                formatter.write_dl(rows, col_max=width)

    def format_epilog(self, context: Any, formatter: Any) -> None:
        examples = _split(self.help)[1]
        if examples:
            with formatter.section("Examples"):
                for line in examples.splitlines():
                    formatter.write(f"  {line.strip()}\n")


class Command(_Readable, TyperCommand):
    """A command whose help groups its options, and whose failures are one clear line."""

    def invoke(self, ctx: Any) -> Any:
        with error_boundary():
            with one_voice():
                refuse_overwriting(ctx.command.name, ctx.params)
            return super().invoke(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        for name in (arg.partition("=")[0] for arg in args):
            new = _REPLACED.get(f"{self.name} {name}") or _REPLACED.get(name)
            if new is not None and name not in known:
                with error_boundary():
                    raise UsageError(f"{name}: there is no such option any more; use {new}")
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            error.message = error.message.replace("Value error, ", "")
            raise


class Group(_Readable, TyperGroup):
    """The group of all commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        parameters = super().get_params(ctx)
        for parameter in parameters:
            if parameter.name in _COMPLETION_HELP:
                parameter.help = _COMPLETION_HELP[parameter.name]
        return parameters

    def format_options(self, context: Any, formatter: Any) -> None:
        self.format_commands(context, formatter)
        super().format_options(context, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        # Typer asks the system for the shell; who names one gets that one.
        if len(args) == 2 and args[0] in _COMPLETION:
            _COMPLETION[args[0]](ctx, None, args[1])  # type: ignore[arg-type]
        return super().parse_args(ctx, args)


def _row(names: str, text: str, column: int, most: int) -> tuple[str, str]:
    """An option and its help; choices too many for a narrow terminal move into the help."""
    if len(names) + 2 > most and (found := re.search(r"<([^>]*\|[^>]*)>", names)):
        names = names.replace(found[0], "CHOICE")
        text = f"One of {found[1].replace('|', ', ')}. {text}"
    return names.ljust(column), text


def _split(text: str | None) -> tuple[str, str]:
    """(what a docstring says, its examples)."""
    before, _, examples = inspect.cleandoc(text or "").partition(_EXAMPLES)
    return before.strip(), examples
