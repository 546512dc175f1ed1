"""Results on standard output: tables, bars and sparklines that fit the terminal, or JSON.

Where a terminal is too narrow, bars go first, then what a table can do without; texts are
shortened before that, names and numbers never. What is not a terminal gets everything, unless
COLUMNS says how wide it is.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dinkcli.cli.console import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

UNLIMITED = 1_000_000  # columns of what is not a terminal
_LEAST_TEXT = 16
_SPARKS, _ASCII_SPARKS = "▁▂▃▄▅▆▇█", "_.-=+*%#"


def print_json(document: Any) -> None:
    """One line of JSON on standard output."""
    sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")
    sys.stdout.flush()


def width() -> int:
    """Columns to write to: COLUMNS, or those of the terminal, or no limit elsewhere."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or UNLIMITED
    except (AttributeError, OSError, ValueError):
        return UNLIMITED


def console() -> Console:
    """Standard output by rich, as wide as ``width``; no colour where it is not a terminal."""
    from rich.console import Console

    class PipeConsole(Console):
        def on_broken_pipe(self) -> None:
            raise  # to the command's error boundary, where rich would exit itself

    return PipeConsole(width=width(), highlight=False, soft_wrap=False)


@dataclass(frozen=True)
class Field:
    """A column of a table.

    Attributes:
        heading: above it, or an empty text.
        justify: "left" or "right".
        drop: 0 for a column that always stays; of the others those with the highest number go
            first where a terminal is narrow.
        text: its cells may be shortened.
    """

    heading: str
    justify: str = "left"
    drop: int = 0
    text: bool = False


@dataclass
class Sheet:
    """A table before it is known how wide it may be."""

    columns: list[Field]
    headings: bool = True
    rows: list[list[str]] = field(default_factory=list)

    def fitted(self, room: int) -> Sheet:
        """The columns that fit, with texts shortened before anything is left out."""
        columns, needs = list(enumerate(self.columns)), self._needs()
        while sum(needs[i] for i, _ in columns) + _frame(len(columns)) > room:
            last = max(columns, key=lambda each: each[1].drop)
            if last[1].drop == 0:
                break
            columns.remove(last)
        kept = [i for i, _ in columns]
        spare = room - _frame(len(kept)) - sum(needs[i] for i in kept)
        limits = {}
        for i, column in columns:
            if column.text:
                more = min(max(0, spare), self._widths()[i] - needs[i])
                limits[i], spare = needs[i] + more, spare - more
        rows = [[shortened(row[i], limits.get(i, UNLIMITED)) for i in kept] for row in self.rows]
        return Sheet([column for _, column in columns], self.headings, rows)

    def least(self) -> int:
        """Columns of a terminal that it needs at the least, with all of its own."""
        return sum(self._needs().values()) + _frame(len(self.columns))

    def _needs(self) -> dict[int, int]:
        """Width of each column, texts as short as they may be."""
        least = [_LEAST_TEXT if column.text else UNLIMITED for column in self.columns]
        return {i: min(width, least[i]) for i, width in self._widths().items()}

    def _widths(self) -> dict[int, int]:
        from rich.cells import cell_len

        heads = [column.heading if self.headings else "" for column in self.columns]
        return {
            i: max(map(cell_len, (head, *(row[i] for row in self.rows))))
            for i, head in enumerate(heads)
        }

    def table(self) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(
            box=box.SIMPLE_HEAD if _unicode() else box.ASCII2,
            show_header=self.headings,
            pad_edge=False,
        )
        for column in self.columns:
            # Longer than the terminal after all: on to the next line with it, uncut.
            table.add_column(column.heading, justify=column.justify, overflow="fold")  # type: ignore[arg-type]
        for row in self.rows:
            table.add_row(*map(Text, row))
        return table


def _frame(n_columns: int) -> int:
    return 3 * n_columns - 1  # edges, and a space on either side of each gap


def new_table(columns: Iterable[Field | tuple[str, str]], headings: bool = True) -> Sheet:
    """An open table; a column may be given as (heading, "left" or "right")."""
    return Sheet([c if isinstance(c, Field) else Field(*c) for c in columns], headings)


def add_row(table: Sheet, *cells: object) -> None:
    """A row of plain text: what comes from files is neither markup nor control codes."""
    table.rows.append([printable(cell) for cell in cells])


def show(title: str, table: Sheet, *notes: str) -> None:
    """A table on standard output under its title, and notes below it."""
    from rich.text import Text

    out = console()
    out.print(Text(printable(title), style="bold"))
    out.print(table.fitted(out.width).table())
    for note in filter(None, notes):
        out.print(Text(printable(note)))
    if any(notes):
        out.print()


def say_result(text: str) -> None:
    """A sentence on standard output, broken at words where a terminal ends."""
    from rich.text import Text

    console().print(Text(printable(text)))


def shortened(text: str, most: int) -> str:
    """The text in at most ``most`` columns."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= most:
        return text
    dots = "…" if _unicode() else "..."
    return set_cell_size(text, max(0, most - len(dots))).rstrip() + dots


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
