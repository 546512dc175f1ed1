"""How a command ends: signals, failures as one line, and exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from dinkcli.cli.console import printable, say
from dinkcli.errors import FULL_DEVICE, DinkError, TextsError

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
_NUMBERS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
NOTHING_WRITTEN = "Interrupted; nothing was written."
_NO_MEMORY = ("not enough memory", "can't allocate memory", *FULL_DEVICE)
# What the loader of libraries says where `ulimit -v` leaves no room for them.
_NO_ROOM = ("failed to map segment", "cannot allocate memory", "Cannot allocate memory")


class Interrupted(KeyboardInterrupt):
    """A signal that ends the command at once.

    Attributes:
        exit_code: 128 and the number of the signal, as shells report it.
    """

    def __init__(self, number: int):
        self.exit_code = 128 + number
        super().__init__(number)


def exit_code(error: BaseException) -> int:
    """That of a command which ``error`` has interrupted; 130, as for Ctrl-C, unless it says."""
    return getattr(error, "exit_code", 130)


def ignore_signals() -> None:
    """From here on nothing interrupts the end of the command."""
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def interruptible(ask: Callable[[], bool] | None = None) -> Iterator[list[int]]:
    """Signals raise ``Interrupted`` inside the block.

    Args:
        ask: called first; when it returns True the block will end by itself, soon.

    Yields:
        The numbers of the signals that arrived.
    """
    received: list[int] = []

    def handle(number: int, _: object) -> None:
        received.append(number)
        if _torch_is_loading():
            os.write(2, f"{NOTHING_WRITTEN}\n".encode())
            os._exit(128 + number)
        if ask is None or not ask():
            raise Interrupted(number)

    # A signal that is ignored (SIGHUP under nohup) stays so. Only the main thread may ask for it.
    before = {n: signal.getsignal(n) for n in _NUMBERS if signal.getsignal(n) is not signal.SIG_IGN}
    if threading.current_thread() is not threading.main_thread():
        before = {}
    for number in before:
        signal.signal(number, handle)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _torch_is_loading() -> bool:
    """Then nothing has been written, and an exception could meet C++ that aborts on it."""
    spec = getattr(sys.modules.get("torch"), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


@contextmanager
def error_boundary(context: Any = None, as_json: bool = False) -> Iterator[None]:
    """Turns every failure into one clear line and the right exit code.

    2 for usage, 1 for a failed run, and as shells report it 130 for Ctrl-C, 143 for SIGTERM, 141
    for a closed pipe.
    DINK_DEBUG=1 in the environment lets exceptions through with their traceback.

    Args:
        context: of the command, which has the names of its options, and whether ``--json`` is on.
        as_json: it is on, though the options are not parsed yet.
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
        known = isinstance(error, DinkError)
        text = with_options(str(error), context) if known else _unexpected(error)
        code = error.exit_code if isinstance(error, DinkError) else 1
        if as_json or _wants_json(context):
            document = {"error": printable(text), "exit_code": code}
            say(json.dumps(document, ensure_ascii=False), whole=True)
        else:
            say(f"Error: {text}")
            for line in _embedding(error) if isinstance(error, TextsError) else ():
                say(line, whole=True)
        if not known:
            abandon_stdout()
        raise typer.Exit(code) from None


def _embedding(error: TextsError) -> Iterator[str]:
    """How texts become vectors."""
    yield "These are texts: embed them first, for instance by sentence-transformers in Python"
    texts = f"list(open({error.path!r}))"
    if error.column is not None:
        read = "csv" if ".csv" in error.path else "json" if ".json" in error.path else "parquet"
        lines = ", lines=True" if ".jsonl" in error.path else ""
        texts = f"pandas.read_{read}({error.path!r}{lines})[{error.column!r}].to_list()"
    yield "  import numpy, pandas, sentence_transformers"
    yield "  model = sentence_transformers.SentenceTransformer('all-MiniLM-L6-v2')"
    yield f"  numpy.save('emb.npy', model.encode({texts}))"


def _wants_json(context: Any) -> bool:
    return context is not None and any(
        context.params.get(parameter.name)
        for parameter in context.command.params
        if "--json" in parameter.opts
    )


def with_options(text: str, context: Any) -> str:
    """A message of the core, with options in the place of the parameters that it names.

    The core writes ``parameters`` in backticks, as Python callers know them.
    """
    own = {} if context is None else {p.name: p.opts for p in context.command.params}

    def option(match: re.Match[str]) -> str:
        names = own.get(match[1]) or [f"--{match[1]}".replace("_", "-")]
        return min(names, key=len) if match[1] in _SHORT else max(names, key=len)

    return re.sub(r"`([a-z]\w*)`", option, text)


_SHORT = ("n_clusters", "number", "output")


def abandon_stdout() -> None:
    """Points standard output at nothing: Python would complain once more when it flushes it."""
    try:
        number = sys.stdout.fileno()
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    except (AttributeError, OSError, ValueError):
        pass  # closed from the start, or not a file


def _unexpected(error: Exception) -> str:
    text = str(error)
    if isinstance(error, ImportError) and any(sign in text for sign in _NO_ROOM):
        return (
            f"no memory to load a library ({text.partition(':')[0]}): the limit of address space "
            "(ulimit -v) is too small; torch needs about 1 GB"
        )
    if isinstance(error, MemoryError) or any(sign in text for sign in _NO_MEMORY):
        return "out of memory; use fewer clusters, --device cpu, or a machine with more"
    if isinstance(error, OSError) and error.strerror:
        # Only a stream that was open from the start has no name.
        return f"{error.filename or 'standard output'}: {error.strerror}"
    return (
        f"{type(error).__name__}: {text} (this should not happen; DINK_DEBUG=1 shows where it did)"
    )
