"""How a command ends: signals, failures as one line, and exit codes; alone or as one of several
processes that a launcher has started."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import typer

from dinkcli.cli.console import printable, say, with_options
from dinkcli.errors import FULL_DEVICE, DinkError, LostError, TextsError, UsageError
from dinkcli.processes.group import ALONE, SINGLE, Group, launched, world

_NUMBERS = [signal.Signals[n] for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]
NOTHING_WRITTEN = "Interrupted; nothing was written. Start the same command again."
_NO_MEMORY = ("not enough memory", "can't allocate memory", *FULL_DEVICE)
# What the loader of libraries says where `ulimit -v` leaves no room for them.
_NO_ROOM = ("failed to map segment", "cannot allocate memory", "Cannot allocate memory")
# For the process that speaks, before the others end; busy machines took more than one.
_GRACE_SECONDS = 3.0
_AGAIN_SECONDS = 0.01  # after which a signal that was lost comes once more


class Interrupted(KeyboardInterrupt):
    """A signal that ends the command at once, with the ``exit_code`` that shells report for it."""

    def __init__(self, number: int):
        self.exit_code = 128 + number
        super().__init__(number)


def exit_code(error: BaseException) -> int:
    """That of a command which ``error`` has interrupted; 130, as for Ctrl-C, by default."""
    return getattr(error, "exit_code", 130)


def ignore_signals() -> None:
    """From here on nothing interrupts the end of the command."""
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def interruptible(ask: Callable[[], bool] | None = None) -> Iterator[list[int]]:
    """Signals raise ``Interrupted`` inside the block, unless ``ask`` says that it will end by
    itself, soon. Yields the numbers of those that arrived."""
    received: list[int] = []

    def handle(number: int, _: object) -> None:
        received.append(number)
        spec = getattr(sys.modules.get("torch"), "__spec__", None)
        if getattr(spec, "_initializing", False):
            # Torch is loading: an exception could meet C++ that aborts on it.
            os.write(2, f"{NOTHING_WRITTEN}\n".encode())
            os._exit(128 + number)
        if ask is None or not ask():
            raise Interrupted(number)

    def unraisable(lost: Any) -> None:
        """A callback, such as those at the end of imports, lets nothing out that is raised in it:
        then the signal comes once more."""
        if isinstance(lost.exc_value, Interrupted):
            send = partial(os.kill, os.getpid()) if os.name == "posix" else signal.raise_signal
            threading.Timer(_AGAIN_SECONDS, send, [received[-1]]).start()
        else:
            hook(lost)

    # A signal that is ignored (SIGHUP under nohup) stays so. Only the main thread may ask for it.
    before = {n: signal.getsignal(n) for n in _NUMBERS if signal.getsignal(n) is not signal.SIG_IGN}
    if threading.current_thread() is not threading.main_thread():
        before = {}
    for number in before:
        signal.signal(number, handle)
    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    try:
        yield received
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def end(code: int, as_json: bool, *lines: str) -> NoReturn:
    """Ends the command with these lines on standard error, or with one of JSON."""
    if as_json:
        document = {"error": printable(" ".join(map(str.strip, lines))), "exit_code": code}
        lines = (json.dumps(document, ensure_ascii=False),)
    for number, line in enumerate(lines):
        say(line, whole=as_json or number > 0)  # after the first one come commands to copy
    raise typer.Exit(code) from None


@contextmanager
def error_boundary(context: Any = None, as_json: bool = False) -> Iterator[None]:
    """Turns every failure into one clear line and the exit code: 2 for usage, 1 for a failed run,
    130 for Ctrl-C, 143 for SIGTERM, 141 for a closed pipe. DINK_DEBUG=1 lets exceptions through.
    The ``context`` knows whether ``--json`` is on as soon as it has parsed the options."""
    as_json = as_json or bool(context and context.params.get("as_json"))
    try:
        with interruptible():
            yield
            if sys.stdout is not None:
                sys.stdout.flush()
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError:
        abandon_stdout()  # its reader (head, say) has all that it wanted
        raise typer.Exit(141) from None
    except KeyboardInterrupt as error:
        end(exit_code(error), as_json, NOTHING_WRITTEN)
    except Exception as error:
        of_parser = getattr(error, "format_message", None)  # it shows its errors with the usage
        if os.environ.get("DINK_DEBUG") or (of_parser and not as_json):
            raise
        if of_parser:
            text, code = of_parser(), UsageError.exit_code
        elif isinstance(error, DinkError):
            text, code = with_options(str(error), context), error.exit_code
        else:
            abandon_stdout()
            text, code = _unexpected(error), 1
        advice = _embedding(error) if isinstance(error, TextsError) and not as_json else ()
        end(code, as_json, text if as_json else f"Error: {text}", *advice)


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


def abandon_stdout() -> None:
    """Points standard output at nothing: Python would complain once more when it flushes it."""
    with suppress(AttributeError, OSError, ValueError):  # closed from the start, or not a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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


@contextmanager
def together(device: str, advice: Callable[[], str]) -> Iterator[Group]:
    """The group of this process. When one of them fails, it alone says why, with ``advice`` on how
    to go on after a process was lost, and all end."""

    def lost(sentence: str | None) -> NoReturn:
        """Runs on the thread that watches, while the command waits for what will never come."""
        if sentence is not None:
            say(f"Error: {sentence}{advice()}")
        os._exit(1)

    if world().size == 1:
        yield SINGLE
        return
    from dinkcli.processes.collective import join  # with torch, which one process may not need yet

    try:
        group = join(device, lost)
    except Exception:
        if world().local_rank > 0:  # one of each machine tells it: nobody knows of the others yet
            leave(1)
        raise
    try:
        yield group
        group.close()
    except typer.Exit:
        raise
    except (Exception, KeyboardInterrupt) as error:
        # Whoever started the processes ends all of them by a signal as soon as one has failed.
        ignore_signals()
        if isinstance(error, LostError) or exit_code(error) == 128 + signal.SIGTERM:
            sentence = group.explain()
            if sentence is not None:
                error = LostError(sentence + advice())
        if not group.claim():
            leave(1)
        raise error from None


def is_silent() -> bool:
    """Whether another process of a launcher speaks for this one, which has a share of the rows."""
    return (launched() or ALONE).rank > 0


@contextmanager
def one_voice() -> Iterator[None]:
    """What is wrong in all processes of a launcher, the first one says alone. The others give it
    the time to do so: a launcher ends all as soon as one has failed. One that is still there after
    that is alone with its trouble, and says it."""
    if not is_silent():
        yield
        return
    try:
        try:
            yield
        except DinkError:
            time.sleep(_GRACE_SECONDS)
            raise
    except KeyboardInterrupt as error:
        raise typer.Exit(exit_code(error)) from None


def leave(code: int) -> NoReturn:
    """Ends this process in silence, a moment after the one that speaks."""
    ignore_signals()
    time.sleep(_GRACE_SECONDS)
    sys.stderr.flush()
    os._exit(code)


def refuse_streams(inputs: list[str]) -> None:
    """Raises UsageError for an input that only one process can read."""
    for path in inputs:
        if path == "-" or Path(path).is_fifo():
            raise UsageError(
                f"{path}: a stream, which several processes cannot share; write it to a file first"
            )
