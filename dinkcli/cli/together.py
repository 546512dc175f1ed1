"""A command in one of several processes that a launcher has started: who speaks, how it ends."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from dinkcli.assigning.shards import Shard, launched
from dinkcli.cli.console import say
from dinkcli.cli.signals import exit_code, ignore_signals
from dinkcli.errors import DinkError, LostError, UsageError
from dinkcli.processes.group import SINGLE, Group, world

_SEVERAL = ("train", "assign")
# For the one that speaks, before the others end; busy machines took more than one.
_GRACE_SECONDS = 3.0


def refuse_several(command: str | None) -> None:
    """Raises UsageError for a command that works in one process only, under a launcher."""
    here = world()
    if here.size == 1 or command is None or command in _SEVERAL:
        return
    if here.rank > 0:
        leave(UsageError.exit_code)
    raise UsageError(
        f"dink {command}: runs in one process, and a launcher has started {here.size}; "
        "start it without one"
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


def is_silent(share: Shard | None) -> bool:
    """Whether another process of a launcher speaks for the one that has this share."""
    return share is not None and share.launched and share.number > 1


@contextmanager
def one_voice() -> Iterator[None]:
    """What is wrong in all processes of a launcher, the first one says alone.

    The others give it the time to do so: a launcher ends all as soon as one has failed. One that
    is still there after that is alone with its trouble, and says it.
    """
    if not is_silent(launched()):
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
        if path == "-" or (os.path.exists(path) and stat.S_ISFIFO(os.stat(path).st_mode)):
            raise UsageError(
                f"{path}: a stream, which several processes cannot share; write it to a file first"
            )
