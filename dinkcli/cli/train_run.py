"""What ``dink train`` does between reading its options and showing the model, and how a training
that stops early is gone on with."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import typer

from dinkcli.cli.console import say, show_notes, warn
from dinkcli.cli.name import find
from dinkcli.cli.paths import check_model_path, keep_other_models
from dinkcli.cli.signals import NOTHING_WRITTEN, Interrupted, interruptible
from dinkcli.cli.together import leave, refuse_streams
from dinkcli.data.atomic import check_target
from dinkcli.data.base import Columns
from dinkcli.data.dataset import DataSet
from dinkcli.data.inputs import open_data
from dinkcli.data.spool import repeatable
from dinkcli.errors import StoppedError, UsageError
from dinkcli.models.file import load
from dinkcli.models.matching import Matching, check_matchable, match
from dinkcli.models.model import Model
from dinkcli.options import TrainOptions
from dinkcli.processes.launcher import world

if TYPE_CHECKING:
    from dinkcli.processes.group import Group
    from dinkcli.training.checkpoint import Checkpoints


Number = int | Literal["auto", "clear"]


def training_data(
    group: Group,
    target: str,
    named: bool,
    inputs: list[str],
    wanted: Columns,
    bad_rows: str,
    quiet: bool,
    as_json: bool,
) -> DataSet:
    """The rows to train on, and whether the model can be written to ``target`` after it.

    Args:
        named: whether the target was named, or follows from the inputs.
    """
    if group.rank == 0:
        check_model_path(target)
        check_target(target)
    if not group.alone:
        refuse_streams([*inputs, *(path for paths in wanted.files.values() for path in paths)])
    data = open_data(inputs, wanted, bad_rows)
    if group.rank == 0 and not named:
        keep_other_models(target, data, quiet or as_json)
    show_notes(data, quiet)
    return repeatable(data)


def fitting(path: str | None, data: DataSet, options: TrainOptions, k: Number) -> Model | None:
    """The older model at ``path``, whose ids the clusters of a training can take."""
    known = k if isinstance(k, int) else None
    old = None if path is None else load(path)
    if old is not None:
        check_matchable(old, data.n_features, options.metric, known, data.feature_names)
    if known is not None:
        options.check_rows(data.known_rows, data.name)
    return old


def save(
    model: Model, data: DataSet, old: Model | None, target: str, device: str, quiet: bool
) -> tuple[Model, Matching | None]:
    """Writes the model, with names where there is a column of texts and with the ids of the older
    one if there is one; returns both."""
    if data.columns.text is not None:
        found = find(model, data, device, quiet)
        model.names, model.terms = found.names, found.terms
    matching = None if old is None else match(old, model)
    if matching is not None:
        model = matching.renumber(model)
    model.save(target)
    return model, matching


def number_of_clusters(text: str) -> Number:
    """K of ``-k``."""
    if text == "auto":
        return "auto"
    if text == "clear":
        return "clear"
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"-k {text}: expected a number of clusters, auto or clear") from None


def number_or_text(text: str) -> float | str:
    """The text as a number where it is one; ``TrainOptions`` judges the rest."""
    try:
        return float(text)
    except ValueError:
        return text


def checkpoint_of(checkpoints: Checkpoints, quiet: bool) -> str | None:
    """The checkpoint to go on from, if there is one."""
    exists = checkpoints.group.rank == 0 and os.path.exists(checkpoints.path)
    if checkpoints.group.any(exists):
        return checkpoints.path
    if not quiet:
        say(f"Note: there is no {checkpoints.path} to resume from; this run starts anew")
    return None


def warn_of_literal(options: TrainOptions) -> None:
    if options.literal:
        warn(
            "at temperature inf the losses see fixed embeddings only through their mean; "
            "centres drift apart and clusters decay. Use --temperature auto for clusters, inf "
            "to reproduce the paper."
        )


@contextmanager
def stopping(checkpoints: Checkpoints) -> Iterator[None]:
    """The first signal ends the training with a checkpoint, a second one at once."""
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


def how_to_go_on(checkpoint: str) -> str:
    """What to do after another process of the training was lost."""
    if not os.path.exists(checkpoint):
        return "; there is no checkpoint yet: start again"
    return f"; the last checkpoint is {checkpoint}: go on by the same command and --resume"


def say_how_to_resume(checkpoint: str) -> None:
    """The command that goes on, as the shell takes it."""
    command = [part for part in sys.argv[1:] if part != "--resume"]
    say(f"Interrupted; the training so far is in {checkpoint}. Go on with")
    here = world()
    start = ["dink"]
    if here.size > 1:
        several = ["--nproc-per-node", str(here.local_size)]
        start = ["torchrun", *several, "-m", "dinkcli"]
    say("  " + shlex.join([*start, *command, "--resume"]), whole=True)
