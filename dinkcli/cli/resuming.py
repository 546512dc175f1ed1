"""How a training that stops early is gone on with, and how people are told."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from dinkcli.cli.console import say
from dinkcli.cli.signals import NOTHING_WRITTEN, Interrupted, interruptible
from dinkcli.cli.together import leave
from dinkcli.processes.launcher import world

if TYPE_CHECKING:
    from dinkcli.training.checkpoint import Checkpoints


@contextmanager
def stopping(checkpoints: Checkpoints) -> Iterator[None]:
    """The first signal ends the training with a checkpoint, a second one at once."""
    from dinkcli.errors import StoppedError

    try:
        with interruptible(checkpoints.ask_to_stop) as signals:
            yield
    except StoppedError as stopped:
        code = 128 + (signals[0] if signals else signal.SIGTERM)
        if checkpoints.group.rank > 0:
            leave(code)
        if stopped.checkpoint is None:
            say(NOTHING_WRITTEN)
        else:
            say_how_to_resume(stopped.checkpoint)
        raise typer.Exit(code) from None
    except Interrupted as error:
        if not checkpoints.written:
            raise
        say_how_to_resume(checkpoints.path)
        raise typer.Exit(error.exit_code) from None


def how_to_go_on(target: str) -> str:
    """What to do after another process of the training of a model was lost."""
    from dinkcli.models.model import checkpoint_path

    checkpoint = checkpoint_path(target)
    if not os.path.exists(checkpoint):
        return "; there is no checkpoint yet: start again"
    return f"; the last checkpoint is {checkpoint}: go on by the same command and --resume auto"


def say_how_to_resume(checkpoint: str) -> None:
    """The command that goes on, as the shell takes it."""
    command = sys.argv[1:]
    if "--resume" in command:
        where = command.index("--resume")
        del command[where : where + 2]
    command = [part for part in command if not part.startswith("--resume=")]
    say(f"Interrupted; the training so far is in {checkpoint}. Go on with")
    here = world()
    start = ["dink"]
    if here.size > 1:
        several = ["--nproc-per-node", str(here.local_size)]
        start = ["torchrun", *several, "-m", "dinkcli"]
    say("  " + shlex.join([*start, *command, "--resume", checkpoint]), whole=True)
