"""What people read: sentences and progress on standard error, results on standard output as tables
or JSON. Whatever comes from files or paths passes ``printable``. Where a terminal is too narrow for
a table, bars go first, then columns it can do without, then texts are shortened."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from dinkcli.results import Field, Result, Sheet, duration

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

    from dinkcli.cli.options import Shown
    from dinkcli.data.dataset import DataSet
    from dinkcli.models.matching import Matching

_PIPE_COLUMNS = 120  # of what is not a terminal
_LEAST_TEXT = 16
_SHORT = ("n_clusters", "number", "output")  # parameters that are known by their short option
_LINE_SECONDS = 1.0  # between two plain lines of progress, at least
_LINE_SHARE = 0.02  # of the time so far: a run of a day prints some hundred lines
_GUESS_SECONDS = 2.0  # before that, no time left can be estimated
_STEADY = 1.5  # ratio of the pace in the last tenth and in all, for an estimate to be shown
_BAR_WIDTH, _BAR_FROM = 20, 90  # columns of the bar, and of a terminal that has room for it


def printable(text: object) -> str:
    """Text safe for a terminal: control codes, changes of direction and the like are escaped."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in str(text)
    )


def say(text: str, whole: bool = False) -> None:
    """A line on standard error, wrapped at words unless it is ``whole``, as a command to copy."""
    encoding = sys.stderr.encoding or "ascii"
    safe = printable(text).encode(encoding, "backslashreplace").decode(encoding)
    columns = None
    with suppress(AttributeError, OSError, ValueError):  # no terminal
        columns = None if whole else os.get_terminal_size(sys.stderr.fileno()).columns or None
    with suppress(OSError):  # nobody reads it, which is no reason to stop working
        print(wrapped(safe, columns), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    say(f"Warning: {with_options(text)}")


def with_options(text: str, context: Any = None) -> str:
    """A message of the core, with options in the place of the ``parameters`` that it names in
    backticks; a word where the command of the ``context`` has no such option."""
    parameters = [] if context is None else context.command.params
    own = {name.strip("-").replace("-", "_"): p for p in parameters for name in (p.name, *p.opts)}

    def option(match: re.Match[str]) -> str:
        parameter = own.get(match[1])
        if parameter is None:
            return match[1] if own else f"--{match[1]}".replace("_", "-")
        if parameter.param_type_name == "argument":
            return parameter.metavar.strip("[].")
        name = (min if match[1] in _SHORT else max)(parameter.opts, key=len)
        return name + source_of(parameter, context)

    return re.sub(r"`([a-z]\w*)`", option, text)


def source_of(parameter: Any, context: Any) -> str:
    """`` (DINK_SEED)`` or `` (pyproject.toml)`` for a value that is not of the command line."""
    source = getattr(context.get_parameter_source(parameter.name), "name", "")
    where = {"ENVIRONMENT": parameter.envvar, "DEFAULT_MAP": "pyproject.toml"}.get(source)
    return f" ({where})" if where else ""


def show_notes(data: DataSet, quiet: bool) -> None:
    for note in () if quiet else data.notes:
        say(f"Note: {with_options(note)}")


def bad_rows(number: int) -> str:
    return f"bad rows left out: {number}" if number else ""


def wrapped(text: str, columns: int | None, indent: str = "") -> str:
    """The text in lines of at most ``columns``, broken between words; None for no limit."""
    if columns is None or len(text) <= columns:
        return text
    keep = dict.fromkeys(("replace_whitespace", "break_long_words", "break_on_hyphens"), False)
    return textwrap.fill(text, columns, subsequent_indent=indent, **keep)  # type: ignore[arg-type]


def width() -> int:
    """Columns of results: COLUMNS, or those of the terminal, or 120 elsewhere."""
    return shutil.get_terminal_size((_PIPE_COLUMNS, 0)).columns or _PIPE_COLUMNS


def show_result(result: Result | dict[str, Any], shown: Shown, *notes: str, **more: Any) -> None:
    """What a command ends with: one line of JSON; or the tables of a result, of which its
    ``sheets`` may want to know ``more``, and those of the ``notes`` that are not empty."""
    if shown.as_json:
        document = result if isinstance(result, dict) else result.to_dict()
        typer.echo(json.dumps(document, allow_nan=False))
        return
    if isinstance(result, Result):
        for name, value in result.lines():
            line = printable(with_options(f"{name:{result.indent}}{value}").rstrip())
            typer.echo(wrapped(line, width(), " " * result.indent))
        for sheet in () if result.indent else result.sheets(**more):
            show(sheet)
    for note in () if shown.quiet else filter(None, notes):
        say(note)


def show(sheet: Sheet, stderr: bool = False) -> None:
    """A table under its title, and notes below it; a title alone is a sentence."""
    from rich.console import Console
    from rich.text import Text

    class PipeConsole(Console):
        def on_broken_pipe(self) -> None:
            raise  # to the command's error boundary, where rich would exit itself

    out = PipeConsole(width=width(), highlight=False, soft_wrap=False, stderr=stderr)
    out.print(Text(printable(sheet.title), style="bold" if sheet.fields else ""))
    if sheet.rows:
        out.print(fitted(sheet, out.width))
    for note in sheet.notes:
        out.print(Text(printable(note)))
    if sheet.notes:
        out.print()


def fitted(sheet: Sheet, room: int) -> Table:
    """The columns that fit into ``room``; nothing from files is markup or control codes."""
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    unicode = (sys.stdout.encoding or "ascii").lower().startswith("utf")

    def shown(field: Field, value: Any) -> str:
        if field.bar:
            return bar(value, field.bar, unicode)
        return printable(value) if unicode else printable(value).replace("…", "...")

    kept = []
    for field, cells in sheet.columns():
        texts = [shown(field, cell) for cell in cells]
        kept.append((field, texts, max(map(cell_len, [field.heading, *texts]))))

    def fits() -> bool:
        least = [min(w, _LEAST_TEXT) if field.text else w for field, _, w in kept]
        return sum(least) + 3 * len(least) - 1 <= room

    while not fits() and (last := max(kept, key=lambda each: each[0].drop))[0].drop:
        kept.remove(last)
    style = box.SIMPLE_HEAD if unicode else box.ASCII2
    headed = any(field.heading for field in sheet.fields)
    table = Table(box=style, show_header=headed, pad_edge=False)
    for field, _, _ in kept:
        # Text gives way to numbers; what is too long all the same goes on in the next line.
        stays = fits() and not field.text
        table.add_column(field.heading, justify=field.justify, no_wrap=stays, overflow="fold")
    short: dict[str, Any] = {"no_wrap": True, "overflow": "ellipsis" if unicode else "crop"}
    styles = [short if field.text else {} for field, _, _ in kept]
    for row in zip(*(texts for _, texts, _ in kept), strict=True):
        table.add_row(*(Text(text, **style) for text, style in zip(row, styles, strict=True)))
    return table


def bar(share: float, width: int, unicode: bool) -> str:
    """A bar of ``share`` (0 to 1) of ``width`` characters, in eighths where the terminal can."""
    eighths = round(share * width * 8)
    if not unicode:
        return "#" * max(eighths // 8, int(share > 0))
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


class ProgressLines:
    """Shows how far a command is: a live line on a terminal, elsewhere plain lines, or nothing."""

    def __init__(self, quiet: bool):
        self._quiet = quiet
        self._bar: Progress | None = None
        self._phase, self._started = "", time.monotonic()
        self._begun = self._started
        self._marks: deque[tuple[float, float]] = deque()  # (share, seconds) in a phase
        self._next = 0.0  # when a plain line is due
        self._room = 0  # columns for the text

    def __enter__(self) -> ProgressLines:
        if not self._quiet and sys.stderr.isatty():
            from rich import progress
            from rich.console import Console
            from rich.table import Column

            console = Console(stderr=True)
            cell = Column(no_wrap=True, overflow="ellipsis")
            text = progress.TextColumn("{task.description}", markup=False, table_column=cell)
            wide = console.width >= _BAR_FROM
            bars = [progress.BarColumn(bar_width=_BAR_WIDTH)] if wide else []
            self._room = console.width - (_BAR_WIDTH + 1 if wide else 0) - 1
            self._bar = progress.Progress(*bars, text, console=console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=1.0)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(
        self, phase: str, done: int, total: int, unit: str, *more: str, bound: bool = False
    ) -> None:
        """``done`` of ``total`` things are done in ``phase``; 0 for an unknown total, which may be
        a ``bound`` that is rarely reached."""
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._started = phase, now
            self._marks.clear()
        share = done / total if total else 0.0
        whole = f" of {'at most ' * bound}{total:,}" if total else ""
        left = "" if bound else self._time_left(share, now - self._started)
        parts = [f"{phase}: {done:,}{whole} {unit}", *filter(None, (left, *more))]
        if self._bar is not None:
            # The last parts are left out whole: half a number is worse than none.
            while len(parts) > 1 and len(", ".join(parts)) > self._room:
                parts.pop()
            self._bar.update(self._task, completed=share, description=", ".join(parts))
        elif not self._quiet and now >= self._next:
            self._next = now + max(_LINE_SECONDS, _LINE_SHARE * (now - self._begun))
            say(", ".join(parts))

    def details(self, line: str) -> None:
        """A line that stays, above the live one."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        elif not self._quiet:
            say(line)

    def _time_left(self, share: float, seconds: float) -> str:
        """``about 12 s left``, or nothing where the last tenth went at another pace."""
        self._marks.append((share, seconds))
        while len(self._marks) > 1 and self._marks[1][0] <= 0.9 * share:
            self._marks.popleft()
        at, then = self._marks[0]
        if seconds < _GUESS_SECONDS or not 0.01 < share < 1 or at > 0.9 * share:
            return ""
        pace, recent = seconds / share, (seconds - then) / (share - at)
        if not 1 / _STEADY < recent / pace < _STEADY:
            return ""
        return f"about {duration(max(1, round(pace * (1 - share))))} left"


@contextmanager
def rows_shown(data: DataSet, quiet: bool) -> Iterator[Callable[[str, int], None]]:
    """Yields a function that shows, by phase, how many of the rows are done."""
    with ProgressLines(quiet) as lines:
        yield partial(lines.update, total=data.known_rows, unit="rows")


def show_drift(matching: Matching, old_path: str) -> None:
    """What became of the ids of the model at ``old_path``."""
    say(f"ids of {old_path}: {matching.sentence()}")
    for sheet in matching.sheets():
        show(sheet, stderr=True)
