"""Results on standard output: tables, bars and sparklines that fit the terminal, or JSON.

Where a terminal is too narrow, bars go first, then what a table can do without; texts are
shortened before that, names and numbers never. What is not a terminal gets everything, unless
COLUMNS says how wide it is.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any, Literal

from dinkcli.cli.console import printable, terminal_columns

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
    return terminal_columns(sys.stdout) or UNLIMITED


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
        justify: of its cells.
        drop: 0 for a column that always stays; of the others those with the highest number go
            first where a terminal is narrow.
        text: its cells may be shortened.
    """

    heading: str = ""
    justify: Literal["left", "right"] = "left"
    drop: int = 0
    text: bool = False


class Sheet:
    """A table before it is known how wide it may be.

    Args:
        columns: a heading alone is one of numbers; None is left out, with its cells.
        headings: whether they are shown.
    """

    def __init__(self, *columns: Field | str | None, headings: bool = True):
        self._shown = [column is not None for column in columns]
        self._columns = [
            Field(column, "right") if isinstance(column, str) else column
            for column in columns
            if column is not None
        ]
        self._headings = headings
        self._rows: list[list[str]] = []

    def add(self, *cells: object) -> None:
        """A row of plain text: what comes from files is neither markup nor control codes."""
        self._rows.append([printable(cell) for cell in compress(cells, self._shown)])

    def fitted(self, room: int) -> Table:
        """The columns that fit, with texts shortened before anything is left out."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        needs, kept = self._needs(), list(range(len(self._columns)))
        while (spare := room - _frame(len(kept)) - sum(needs[i] for i in kept)) < 0:
            last = max(kept, key=lambda i: self._columns[i].drop)
            if self._columns[last].drop == 0:
                break
            kept.remove(last)
        table = Table(
            box=box.SIMPLE_HEAD if _unicode() else box.ASCII2,
            show_header=self._headings,
            pad_edge=False,
        )
        limits = {}
        for i in kept:
            column = self._columns[i]
            # Longer than the terminal after all: on to the next line with it, uncut.
            table.add_column(column.heading, justify=column.justify, overflow="fold")
            if column.text:
                more = min(max(0, spare), self._widths()[i] - needs[i])
                limits[i], spare = needs[i] + more, spare - more
        for row in self._rows:
            table.add_row(*(Text(shortened(row[i], limits.get(i, UNLIMITED))) for i in kept))
        return table

    def least(self) -> int:
        """Columns of a terminal that it needs at the least, with all of its own."""
        return sum(self._needs()) + _frame(len(self._columns))

    def _needs(self) -> list[int]:
        """Width of each column, texts as short as they may be."""
        least = [_LEAST_TEXT if column.text else UNLIMITED for column in self._columns]
        return list(map(min, least, self._widths()))

    def _widths(self) -> list[int]:
        from rich.cells import cell_len

        heads = [column.heading if self._headings else "" for column in self._columns]
        return [max(map(cell_len, cells)) for cells in zip(heads, *self._rows, strict=True)]


def _frame(n_columns: int) -> int:
    return 3 * n_columns - 1  # edges, and a space on either side of each gap


def show(title: str, table: Sheet, *notes: str) -> None:
    """A table on standard output under its title, and notes below it."""
    from rich.text import Text

    out = console()
    out.print(Text(printable(title), style="bold"))
    out.print(table.fitted(out.width))
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
