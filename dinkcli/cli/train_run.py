"""What ``dink train`` does between reading its options and showing the model, and how a training
that stops early is gone on with."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import typer

from dinkcli.cli.console import say, show_notes, warn
from dinkcli.cli.name import find
from dinkcli.cli.paths import check_model_path, keep_other_models, refuse_overwriting
from dinkcli.cli.signals import NOTHING_WRITTEN, Interrupted, interruptible
from dinkcli.cli.together import leave, refuse_streams
from dinkcli.data.atomic import check_target
from dinkcli.data.base import Columns
from dinkcli.data.inputs import open_inputs
from dinkcli.data.memory import parse_size
from dinkcli.data.spool import repeatable
from dinkcli.data.weights import read_weights
from dinkcli.errors import StoppedError, UsageError
from dinkcli.models.file import load
from dinkcli.models.matching import Matching, check_matchable, match
from dinkcli.models.model import Model, checkpoint_path
from dinkcli.options import Interval, TrainOptions
from dinkcli.processes.launcher import world

if TYPE_CHECKING:
    from dinkcli.processes.group import Group
    from dinkcli.training.checkpoint import Checkpoints
    from dinkcli.training.step import Step


@dataclass
class Training:
    """One training as it was asked for on the command line.

    Attributes:
        target: the model file to write.
        named: whether the target was named, or follows from the inputs.
        n_clusters: K, "auto" or "clear", as text.
        options: the fields of ``TrainOptions`` but K and init.
        init: a way of seeding, or a file of centres.
        checkpoint_every: an ``Interval`` as text.
        resume: a checkpoint to go on from, "auto" for that of the target if there is one.
        match: an older model whose ids the clusters take.
        memory: bytes for the rows, as text.
    """

    inputs: list[str]
    target: str
    named: bool
    n_clusters: str
    options: dict[str, Any]
    columns: Columns
    init: str
    device: str
    sample_weight: str | None
    bad_rows: str
    memory: str | None
    checkpoint_every: str
    resume: str | None
    force: bool
    match: str | None

    def prepare(self, group: Group, quiet: bool, as_json: bool) -> None:
        """Checks what can be checked before torch is loaded, and opens the inputs."""
        self.group, self.k = group, number_of_clusters(self.n_clusters)
        known = self.k if isinstance(self.k, int) else None
        checked = TrainOptions(known or 2, **self.options)
        every = Interval.parse(self.checkpoint_every)
        if group.rank == 0:
            check_model_path(self.target)
            check_target(self.target)
        self.limit = None if self.memory is None else parse_size(self.memory)
        if not group.alone:
            refuse_streams([*self.inputs, *self.columns.texts])
        data = open_inputs(self.inputs, self.columns, self.bad_rows)
        checkpoint = checkpoint_path(self.target)
        for path in (self.target, checkpoint):
            refuse_overwriting(path, data)
        if group.rank == 0 and not self.named:
            keep_other_models(self.target, data, quiet or as_json)
        show_notes(data, quiet)
        self.data = data = repeatable(data)
        self.old = None if self.match is None else load(self.match)
        if self.old is not None:
            check_matchable(self.old, data.n_features, checked.metric, known)
        if known is not None:
            checked.check_rows(data.known_rows, data.name)
        weight = self.sample_weight
        self.weights = None if weight is None else read_weights(weight, data)

        from dinkcli.training.checkpoint import Checkpoints

        notify = warn if group.rank == 0 else _say_nothing
        self.checkpoints = Checkpoints(checkpoint, every, notify, group)
        if checked.literal and group.alone and not quiet:
            warn(
                "at temperature inf the losses see fixed embeddings only through their mean; "
                "centres drift apart and clusters decay. Use --temperature auto for clusters, inf "
                "to reproduce the paper."
            )

    def train(
        self, on_try: Callable[[str, int, int], None], on_step: Callable[[Step], None]
    ) -> Model:
        """Trains, and shows how far it is by these functions of ``api.train``."""
        from dinkcli import api

        resume = self.resume
        if resume == "auto":
            here = self.group.rank == 0 and os.path.exists(self.checkpoints.path)
            resume = self.checkpoints.path if self.group.any(here) else None
        return api.train(
            self.data,
            self.k,
            init=self.init,
            device=self.device,
            sample_weight=self.weights,
            memory=self.limit,
            on_try=on_try,
            on_step=on_step,
            checkpoints=self.checkpoints,
            resume=resume,
            force=self.force,
            group=self.group,
            **self.options,
        )

    def save(self, model: Model, quiet: bool) -> tuple[Model, Matching | None]:
        """Writes the model, with names where there is a column of texts and with the ids of the
        older one if there is one; returns both."""
        if self.data.columns.text is not None:
            found = find(model, self.data, self.device, quiet)
            model.names, model.terms = found.names, found.terms
        matching = None if self.old is None else match(self.old, model)
        if matching is not None:
            model = matching.renumber(model)
        model.save(self.target)
        self.checkpoints.discard()
        return model, matching


def number_of_clusters(text: str) -> int | Literal["auto", "clear"]:
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


def _say_nothing(text: str) -> None:
    """For all processes but the first."""


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


def how_to_go_on(target: str) -> str:
    """What to do after another process of the training of a model was lost."""
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
