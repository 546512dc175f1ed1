"""Results on standard output: tables, bars and sparklines by rich, or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from dinkcli.cli.console import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_PLAIN_WIDTH = 100
_SPARKS, _ASCII_SPARKS = "▁▂▃▄▅▆▇█", "_.-=+*%#"


def print_json(document: Any) -> None:
    """One line of JSON on standard output."""
    sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")
    sys.stdout.flush()


def console() -> Console:
    """Standard output by rich: the terminal's width, 100 columns elsewhere, no colour there."""
    from rich.console import Console

    class PipeConsole(Console):
        def on_broken_pipe(self) -> None:
            raise  # to the command's error boundary, where rich would exit itself

    width = None if sys.stdout.isatty() else _PLAIN_WIDTH
    return PipeConsole(width=width, highlight=False, soft_wrap=False)


def new_table(columns: Iterable[tuple[str, str]], headings: bool = True) -> Table:
    """An open table; ``columns`` are (heading, "left" or "right")."""
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD if _unicode() else box.ASCII2,
        show_header=headings,
        pad_edge=False,
    )
    for heading, justify in columns:
        table.add_column(heading, justify=justify, no_wrap=True, overflow="ellipsis")  # type: ignore[arg-type]
    return table


def show(title: str, table: Table, note: str = "") -> None:
    """A table on standard output under its title."""
    from rich.text import Text

    out = console()
    out.print(Text(printable(title), style="bold"))
    out.print(table)
    if note:
        out.print(Text(note))
        out.print()


def add_row(table: Table, *cells: object) -> None:
    """A row of plain text: what comes from files is neither markup nor control codes."""
    from rich.text import Text

    table.add_row(*(Text(printable(cell)) for cell in cells))


def bar(share: float, width: int) -> str:
    """A bar of ``share`` (0 to 1) of ``width`` characters, in eighths where the terminal can."""
    eighths = round(share * width * 8)
    if not _unicode():
        return "#" * max(eighths // 8, int(share > 0))
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """One character for each value, or for each of ``width`` evenly spaced ones."""
    if len(values) > width:
        values = [values[round(i * (len(values) - 1) / (width - 1))] for i in range(width)]
    sparks = _SPARKS if _unicode() else _ASCII_SPARKS
    low, high = min(values), max(values)
    scale = (len(sparks) - 1) / (high - low) if high > low else 0.0
    return "".join(sparks[round((value - low) * scale)] for value in values)


def _unicode() -> bool:
    return (sys.stdout.encoding or "ascii").lower().startswith("utf")
