"""How far a command is: a live line on a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dinkcli.cli.console import say

if TYPE_CHECKING:
    from rich.progress import Progress

    from dinkcli.data.dataset import DataSet

_LINE_SECONDS = 1.0  # between two plain lines, at least
_LINE_SHARE = 0.02  # of the time so far: a run of a day prints some hundred lines
_GUESS_SECONDS = 2.0  # before that, how long still is anyone's guess
_STEADY = 1.5  # two guesses of the end, of which the earlier was made at half of the share now
_BAR_WIDTH, _BAR_FROM = 20, 90  # columns of the bar, and of a terminal that has room for it


class ProgressLines:
    """Shows how far something is. A context manager; the live line is gone when it ends, so that
    the summary stands alone."""

    def __init__(self, quiet: bool):
        self._quiet = quiet
        self._bar: Progress | None = None
        self._task: Any = None
        self._phase, self._started = "", time.monotonic()
        self._begun = self._started
        self._guesses: list[tuple[float, float]] = []  # (share, seconds of the whole) in a phase
        self._next = 0.0  # when a plain line is due
        self._room = 0  # columns for the text

    def __enter__(self) -> ProgressLines:
        if not self._quiet and sys.stderr.isatty():
            from rich import progress
            from rich.console import Console
            from rich.table import Column

            console = Console(stderr=True)
            text = progress.TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis"),
            )
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
        """``done`` of ``total`` things are behind us in ``phase``; 0 for a total nobody knows.

        Args:
            bound: the total is a bound that is rarely reached.
        """
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._started, self._guesses = phase, now, []
        share = done / total if total else 0.0
        whole = f" of {'at most ' * bound}{total:,}" if total else ""
        left = "" if bound else self._time_left(share, now - self._started)
        parts = [f"{phase}: {done:,}{whole} {unit}", *filter(None, (left, *more))]
        if self._bar is not None:
            # What comes last goes first, whole: half a number is worse than none.
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
        """``about 12 s left``, once the guess has been steady since half of the share; nothing
        before."""
        if seconds < _GUESS_SECONDS or not 0.01 < share < 1:
            return ""
        whole = seconds / share
        self._guesses.append((share, whole))
        earlier = [guess for at, guess in self._guesses if at <= share / 2]
        if not earlier or not 1 / _STEADY < earlier[-1] / whole < _STEADY:
            return ""
        return f"about {duration(max(1, round(whole - seconds)))} left"


@contextmanager
def rows_shown(data: DataSet, quiet: bool) -> Iterator[Callable[[str, int], None]]:
    """Shows how many of the rows are behind us, by phase, as the function it yields is told."""
    with ProgressLines(quiet) as lines:
        yield lambda phase, done: lines.update(phase, done, data.known_rows, "rows")


def duration(seconds: float) -> str:
    """``0.5 s``, ``12 s``, ``3.2 min`` or ``2.5 h``."""
    if seconds < 99.5:
        return f"{seconds:.2g} s"
    if seconds < 5970:
        return f"{seconds / 60:.2g} min"
    return f"{seconds / 3600:.3g} h"
