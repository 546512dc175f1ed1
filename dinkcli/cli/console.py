"""What people read: sentences on standard error, results on standard output as tables or JSON.

Whatever comes from files or paths passes ``printable``. Where a terminal is too narrow for a table,
bars go first, then what it can do without; texts are shortened before that, names and numbers
never.
"""

from __future__ import annotations

import json
import os
import sys
import textwrap
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.table import Table

    from dinkcli.data.dataset import DataSet

_PIPE_COLUMNS = 120  # of what is not a terminal
_LEAST_TEXT = 16


def printable(text: object) -> str:
    """Text from files and paths made safe for a terminal: control codes, changes of the writing
    direction and lone surrogates are escaped."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in str(text)
    )


def say(text: str, whole: bool = False) -> None:
    """A line on standard error; where a terminal ends it goes on at a word, unless it has to stay
    ``whole`` as a command to copy does."""
    encoding = sys.stderr.encoding or "ascii"
    safe = printable(text).encode(encoding, "backslashreplace").decode(encoding)
    lines = safe if whole else wrapped(safe, terminal_columns(sys.stderr))
    try:
        print(lines, file=sys.stderr, flush=True)
    except OSError:
        pass  # nobody is there to read it, which is no reason to stop working


def warn(text: str) -> None:
    say(f"Warning: {text}")


def show_notes(data: DataSet, quiet: bool) -> None:
    """What there is to know about the inputs."""
    for note in () if quiet else data.notes:
        say(f"Note: {note}")


def say_bad_rows(number: int, quiet: bool) -> None:
    if number and not quiet:
        say(f"bad rows left out: {number}")


def wrapped(text: str, columns: int | None, indent: str = "") -> str:
    """The text in lines of at most so many columns, broken between words; None for no limit."""
    if columns is None or len(text) <= columns:
        return text
    return textwrap.fill(
        text,
        columns,
        subsequent_indent=indent,
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )


def terminal_columns(stream: Any) -> int | None:
    """Of the terminal that an output stream is, or None."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (AttributeError, OSError, ValueError):
        return None


def width() -> int:
    """Columns of results: COLUMNS, or those of the terminal, or 120 elsewhere."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    return terminal_columns(sys.stdout) or _PIPE_COLUMNS


def print_json(document: Any) -> None:
    """One line of JSON on standard output."""
    sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")
    sys.stdout.flush()


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
        self._given = [column is not None for column in columns]
        self._fields = [
            Field(column, "right") if isinstance(column, str) else column
            for column in columns
            if column is not None
        ]
        self._headings = headings
        self._rows: list[list[str]] = []

    def add(self, *cells: object) -> None:
        """A row of plain text: what comes from files is neither markup nor control codes."""
        self._rows.append([printable(cell) for cell in compress(cells, self._given)])

    def fitted(self, room: int) -> Table:
        """The columns that fit, with texts shortened before anything is left out."""
        from rich import box
        from rich.cells import cell_len
        from rich.table import Table
        from rich.text import Text

        fields = self._fields
        heads = [field.heading if self._headings else "" for field in fields]
        natural = [max(map(cell_len, cells)) for cells in zip(heads, *self._rows, strict=True)]
        least = [
            min(width, _LEAST_TEXT) if field.text else width
            for width, field in zip(natural, fields, strict=True)
        ]
        kept = list(range(len(fields)))
        while sum(least[i] + 3 for i in kept) - 1 > room:
            last = max(kept, key=lambda i: fields[i].drop)
            if fields[last].drop == 0:
                break
            kept.remove(last)
        table = Table(
            box=box.SIMPLE_HEAD if _unicode() else box.ASCII2,
            show_header=self._headings,
            pad_edge=False,
            # Then columns with a ratio share what is left.
            expand=sum(natural[i] + 3 for i in kept) - 1 > room,
        )
        for i in kept:
            # What is longer than the terminal after all goes on in the next line, uncut.
            more: dict[str, Any] = {"overflow": "fold"}
            if fields[i].text:
                more = {"no_wrap": True, "ratio": natural[i], "min_width": least[i]}
                more["overflow"] = "ellipsis" if _unicode() else "crop"
            table.add_column(fields[i].heading, justify=fields[i].justify, **more)
        for row in self._rows:
            table.add_row(*(Text(row[i]) for i in kept))
        return table


def show(title: str, table: Sheet | None = None, *notes: str, stderr: bool = False) -> None:
    """A table under its title, and notes below it; a title alone is a sentence."""
    from rich.console import Console
    from rich.text import Text

    class PipeConsole(Console):
        def on_broken_pipe(self) -> None:
            raise  # to the command's error boundary, where rich would exit itself

    out = PipeConsole(width=width(), highlight=False, soft_wrap=False, stderr=stderr)
    if table is None:
        out.print(Text(printable(title)))
        return
    out.print(Text(printable(title), style="bold"))
    out.print(table.fitted(out.width))
    for note in filter(None, notes):
        out.print(Text(printable(note)))
    if any(notes):
        out.print()


def shortened(text: str, most: int) -> str:
    """The text in at most ``most`` characters."""
    dots = "…" if _unicode() else "..."
    return text if len(text) <= most else text[: most - len(dots)].rstrip() + dots


def bar(share: float, width: int) -> str:
    """A bar of ``share`` (0 to 1) of ``width`` characters, in eighths where the terminal can."""
    eighths = round(share * width * 8)
    if not _unicode():
        return "#" * max(eighths // 8, int(share > 0))
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _unicode() -> bool:
    return (sys.stdout.encoding or "ascii").lower().startswith("utf")
