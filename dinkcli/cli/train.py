"""``dink train``."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dinkcli.cli.console import ProgressLines, error_boundary, say, show_notes, warn
from dinkcli.cli.drift import Match, show_drift
from dinkcli.cli.options import (
    BadRows,
    Column,
    Device,
    Dim,
    Inputs,
    Json,
    Memory,
    Metric,
    Quiet,
    SampleWeight,
    Seed,
)
from dinkcli.cli.signals import NOTHING_WRITTEN, Interrupted, interruptible
from dinkcli.cli.summary import Rate, detail, show_summary, summary
from dinkcli.cli.together import leave, refuse_streams, together
from dinkcli.errors import UsageError
from dinkcli.processes.launcher import world

if TYPE_CHECKING:
    from dinkcli.training.checkpoint import Checkpoints
    from dinkcli.training.trainer import Step


def train(
    inputs: Inputs,
    n_clusters: Annotated[
        str,
        typer.Option(
            "-k",
            "--n-clusters",
            metavar="INTEGER|auto",
            help="Number of clusters; auto takes the one that dink sweep recommends.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="Model file; without it <first input's stem>.dink.safetensors here.",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    column: Column = None,
    init: Annotated[
        str,
        typer.Option(
            help="kmeans++, random, xavier, or a file of centres: npy, parquet, a model, a faiss "
            "index, or scikit-learn through skops."
        ),
    ] = "kmeans++",
    metric: Metric = "euclidean",
    temperature: Annotated[
        str,
        typer.Option(
            help="auto cools to 0; a number (a squared distance) stays fixed, 0 being k-means; "
            "inf is the paper's literal objective, which loses clusters on fixed embeddings."
        ),
    ] = "auto",
    dilation: Annotated[
        float | None,
        typer.Option(
            help="Weight of the dilation loss; 0 unless the temperature is inf, where it is 1.",
            show_default=False,
        ),
    ] = None,
    refine: Annotated[
        bool, typer.Option(help="Move whole centres to where they are worth more.")
    ] = True,
    n_init: Annotated[
        int | None,
        typer.Option(
            help="Starts, of which the best is kept; 4 on tiny data, else 1.", show_default=False
        ),
    ] = None,
    sample_weight: SampleWeight = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Most passes over all rows: 30 unless the temperature is inf, where it is 50.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Rows per update; follows rows and clusters.", show_default=False),
    ] = None,
    tol: Annotated[
        float, typer.Option(help="Stop when a pass lowers the inertia by less than this share.")
    ] = 1e-4,
    seed: Seed = 0,
    match_path: Match = None,
    dim: Dim = None,
    bad_rows: BadRows = "stop",
    memory: Memory = None,
    checkpoint_every: Annotated[
        str,
        typer.Option(
            metavar="INTERVAL",
            help="How often to save the training on its way, beside the model: 30s, 5m, 2h, "
            "100steps or 2epochs.",
        ),
    ] = "5m",
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Go on exactly where the run that was to make this model stopped, with the same "
            "inputs and options; auto: if there is a checkpoint of the output.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Resume even if inputs or options have changed.")
    ] = False,
    json_summary: Json = False,
    quiet: Quiet = False,
) -> None:
    """Finds clusters and writes a model file; prints its path.

    dink train emb.npy -k 10
    """
    with error_boundary():
        started = time.monotonic()
        from dinkcli.cli.paths import default_model_path, refuse_overwriting
        from dinkcli.data.atomic import check_target
        from dinkcli.data.base import Columns
        from dinkcli.data.inputs import open_inputs
        from dinkcli.data.memory import parse_size
        from dinkcli.data.spool import repeatable
        from dinkcli.data.weights import read_weights
        from dinkcli.models.matching import check_matchable, match
        from dinkcli.models.model import checkpoint_path, load
        from dinkcli.options import Interval, TrainOptions

        options: dict[str, Any] = {
            "metric": metric,
            "temperature": _number(temperature),
            "dilation": dilation,
            "refine": refine,
            "n_init": n_init,
            "epochs": epochs,
            "batch_size": batch_size,
            "tol": tol,
            "seed": seed,
        }
        target = output or default_model_path(inputs[0])
        with together(device, lambda: _how_to_go_on(checkpoint_path(target))) as group:
            speaks = group.rank == 0
            quiet, json_summary = quiet or not speaks, json_summary and speaks
            k = _clusters(n_clusters)
            checked = TrainOptions(2 if k == "auto" else k, **options)
            every = Interval.parse(checkpoint_every)
            if speaks:
                check_target(target)
            limit = None if memory is None else parse_size(memory)
            if not group.alone:
                refuse_streams(inputs)
            data = open_inputs(inputs, Columns(column, dim=dim), bad_rows)
            for path in (target, checkpoint_path(target)):
                refuse_overwriting(path, data)
            show_notes(data, quiet)
            data = repeatable(data)
            old = None if match_path is None else load(match_path)
            if old is not None:
                check_matchable(old, data.n_features, metric, None if k == "auto" else k)
            if k != "auto":
                checked.check_rows(data.known_rows, data.name)
            weights = None if sample_weight is None else read_weights(sample_weight, data)

            from dinkcli import api
            from dinkcli.training.checkpoint import Checkpoints

            notify = warn if speaks else _say_nothing
            checkpoints = Checkpoints(checkpoint_path(target), every, notify, group)
            if resume == "auto":
                there = group.any(speaks and os.path.exists(checkpoints.path))
                resume = checkpoints.path if there else None
            if checked.literal and group.alone and not quiet:
                warn(
                    "at temperature inf the losses see fixed embeddings only through their "
                    "mean; centres drift apart and clusters decay. Use --temperature auto for "
                    "clusters, inf to reproduce the paper."
                )
            with _stopping(checkpoints), ProgressLines(quiet or json_summary) as progress:
                rate = Rate()

                def show(step: Step) -> None:
                    progress.update(
                        step.phase, step.done, step.total, detail(step, rate(step.rows))
                    )

                model = api.train(
                    data,
                    k,
                    init=init,
                    device=device,
                    sample_weight=weights,
                    memory=limit,
                    on_step=show,
                    checkpoints=checkpoints,
                    resume=resume,
                    force=force,
                    group=group,
                    **options,
                )
        if not speaks:
            return
        matching = None if old is None else match(old, model)
        if matching is not None:
            model = matching.renumber(model)
        model.save(target)
        checkpoints.discard()
        seconds = time.monotonic() - started
        if json_summary:
            found = summary(model, target, seconds)
            say(json.dumps(found | ({"match": matching.as_dict()} if matching else {})))
        elif not quiet:
            show_summary(model, data, seconds)
            if matching is not None and match_path is not None:
                show_drift(matching, match_path)
        typer.echo(os.fsencode(target))


@contextmanager
def _stopping(checkpoints: Checkpoints) -> Iterator[None]:
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
            _say_how_to_resume(stopped.checkpoint)
        raise typer.Exit(code) from None
    except Interrupted as error:
        if not checkpoints.written:
            raise
        _say_how_to_resume(checkpoints.path)
        raise typer.Exit(error.exit_code) from None


def _say_nothing(text: str) -> None:
    """For all processes but the first."""


def _how_to_go_on(checkpoint: str) -> str:
    """What to do after another process of the job was lost."""
    if not os.path.exists(checkpoint):
        return "; there is no checkpoint yet: start again"
    return f"; the last checkpoint is {checkpoint}: go on by the same command and --resume auto"


def _say_how_to_resume(checkpoint: str) -> None:
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
    say("  " + shlex.join([*start, *command, "--resume", checkpoint]))


def _clusters(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"-k {text}: expected a number of clusters, or auto") from None


def _number(text: str) -> float | str:
    """The text as a number where it is one; ``TrainOptions`` judges the rest."""
    try:
        return float(text)
    except ValueError:
        return text
