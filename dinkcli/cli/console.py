"""What reaches the terminal: summaries, warnings and errors, all on standard error."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from dinkcli.cli.signals import NOTHING_WRITTEN, exit_code, interruptible
from dinkcli.errors import FULL_DEVICE, DinkError

if TYPE_CHECKING:
    from dinkcli.data.dataset import DataSet

_NO_MEMORY = ("not enough memory", "can't allocate memory", *FULL_DEVICE)


def printable(text: object) -> str:
    """Text from files and paths made safe for a terminal: control codes, changes of the writing
    direction and lone surrogates are escaped."""
    return "".join(map(_shown, str(text)))


def _shown(character: str) -> str:
    code = ord(character)
    if character.isprintable():
        return character
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
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


def warn(text: str) -> None:
    say(f"Warning: {text}")


def show_notes(data: DataSet, quiet: bool) -> None:
    """What there is to know about the inputs."""
    for note in () if quiet else data.notes:
        say(f"Note: {note}")


def say_bad_rows(number: int, quiet: bool) -> None:
    if number and not quiet:
        say(f"bad rows left out: {number}")


@contextmanager
def error_boundary() -> Iterator[None]:
    """Turns every failure into one clear line and the right exit code.

    2 for usage, 1 for a failed run, and as shells report it 130 for Ctrl-C, 143 for SIGTERM, 141
    for a closed pipe.
    DINK_DEBUG=1 in the environment lets exceptions through with their traceback.
    """
    try:
        with interruptible():
            yield
            if sys.stdout is not None:
                sys.stdout.flush()
    except (typer.Exit, typer.Abort, typer.BadParameter):
        raise
    except BrokenPipeError:
        abandon_stdout()  # its reader (head, say) has all that it wanted
        raise typer.Exit(141) from None
    except KeyboardInterrupt as error:
        say(NOTHING_WRITTEN)
        raise typer.Exit(exit_code(error)) from None
    except Exception as error:
        if os.environ.get("DINK_DEBUG"):
            raise
        if isinstance(error, DinkError):
            say(f"Error: {error}")
            raise typer.Exit(error.exit_code) from None
        say(f"Error: {_unexpected(error)}")
        abandon_stdout()
        raise typer.Exit(1) from None


def abandon_stdout() -> None:
    """Points standard output at nothing: Python would complain once more when it flushes it."""
    try:
        number = sys.stdout.fileno()
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    except (AttributeError, OSError, ValueError):
        pass  # closed from the start, or not a file


def _unexpected(error: Exception) -> str:
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY):
        return "out of memory; use fewer clusters, --device cpu, or a machine with more"
    if isinstance(error, OSError) and error.strerror:
        # Only a stream that was open from the start has no name.
        return f"{error.filename or 'standard output'}: {error.strerror}"
    return (
        f"{type(error).__name__}: {error} (this should not happen; DINK_DEBUG=1 shows where it did)"
    )
