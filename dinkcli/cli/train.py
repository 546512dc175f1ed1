"""``dink train``."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import typer

from dinkcli.cli import options as shared
from dinkcli.cli.console import (
    ProgressLines,
    print_json,
    printable,
    say,
    say_bad_rows,
    show,
    show_notes,
    warn,
)
from dinkcli.cli.options import clusters_option, expert_option, main_option, run_option
from dinkcli.cli.paths import check_model_path, default_model_path, keep_other_models
from dinkcli.cli.signals import (
    NOTHING_WRITTEN,
    Interrupted,
    interruptible,
    leave,
    refuse_streams,
    together,
    with_options,
)
from dinkcli.errors import StoppedError, UsageError
from dinkcli.processes.group import world
from dinkcli.results import Field, Sheet

if TYPE_CHECKING:
    from dinkcli.data.dataset import DataSet
    from dinkcli.models.matching import Matching
    from dinkcli.models.model import Model
    from dinkcli.options import TrainOptions
    from dinkcli.processes.group import Group
    from dinkcli.training.checkpoint import Checkpoints
    from dinkcli.training.trainer import Step

_MOST_LINES = 20  # of clusters that moved
_UNITS = {"anneal": "steps", "refine": "rounds"}


@dataclass(frozen=True)
class Algorithm(shared.Effort):
    """What else the centres depend on."""

    init: str = expert_option(
        "kmeans++",
        help="Where centres start: kmeans++, random or xavier, or a file of centres: npy, "
        "parquet, a model, a faiss index, or scikit-learn through skops.",
        choices="kmeans++ random xavier",
    )
    temperature: str = expert_option(
        "auto",
        metavar="NUMBER|auto|inf",
        help="How softly rows belong to clusters while training. auto cools down to 0; a "
        "number (a squared distance) stays fixed, and 0 is k-means; inf is the paper's "
        "literal objective, which loses clusters on fixed embeddings.",
        choices="auto inf 0",
    )
    dilation: float | None = expert_option(
        None, help="The weight of the dilation loss. By default 0, or 1 at temperature inf."
    )
    max_size: str | None = clusters_option(
        None,
        metavar="NUMBER|1.2x",
        help="The most rows that a cluster may have, or how many times the mean; 1x makes all "
        "equal. The summary reports the increase in inertia. Give assign --max-size as well.",
    )
    seed: int = shared.SEED

    def options(self, n_clusters: int | str, **more: Any) -> TrainOptions:
        from dinkcli.options import SEEDINGS

        own = {"temperature": _number_or_text(self.temperature)}
        own["init"] = self.init if self.init in SEEDINGS else SEEDINGS[0]  # until a file is read
        return super().options(n_clusters, **own, **more)


def train(
    *,
    inputs: list[str] = shared.INPUTS,
    n_clusters: str = main_option(
        ...,
        "-k",
        "--n-clusters",
        metavar="K|RANGE|auto|clear",
        help="How many clusters. auto chooses, from 2 to 100 and beyond; a range such as 5:300 "
        "says where to begin; clear chooses only if the data speak for one number (dink sweep "
        "shows what each is like).",
        choices="auto clear",
        show_default=False,
    ),
    output: str | None = main_option(
        None,
        "-o",
        "--output",
        metavar="FILE",
        help="The model to write. By default it has the name of the first input, and ends in "
        ".dink.safetensors.",
    ),
    vectors: shared.Vectors,
    texts: list[str] | None = shared.TEXTS,
    sample_weight: str | None = shared.SAMPLE_WEIGHT,
    algorithm: Algorithm,
    match_path: str | None = shared.MATCH,
    shown: shared.Shown,
    verbose: bool = run_option(
        False,
        "--verbose",
        help="Also show every step with its losses and temperature; with --json, the history.",
    ),
    device: str = shared.DEVICE,
    memory: str | None = shared.MEMORY,
    checkpoint_every: str = run_option(
        "5m",
        metavar="INTERVAL",
        help="How often to save the unfinished training, beside the model: 30s, 5m, 2h, "
        "100steps or 2epochs.",
    ),
    resume: bool = shared.RESUME,
    force: bool = run_option(
        False, "--force", help="Resume even if inputs or options have changed."
    ),
) -> None:
    """Find clusters, write a model file, and print its path.

    Progress and summary go to standard error.

    Examples:
        dink train emb.npy -k 10
        dink train embeddings/*.parquet --column embedding -k auto -o topics.safetensors
        dink assign "$(dink train emb.npy -k 10)" new.npy
    """
    started = time.monotonic()
    from dinkcli.data.memory import parse_size
    from dinkcli.models.file import load
    from dinkcli.models.model import checkpoint_path
    from dinkcli.options import Interval

    target = output or default_model_path(inputs[0])
    checkpoint = checkpoint_path(target)
    with together(device, partial(_how_to_go_on, checkpoint)) as group:
        speaks = group.rank == 0
        quiet, silent = shown.quiet or not speaks, shown.silent or not speaks
        options = algorithm.options(_number_of_clusters(n_clusters))
        every = Interval.parse(checkpoint_every)
        limit = None if memory is None else parse_size(memory)
        data = _open(
            group, target, inputs, vectors, quiet, texts=texts, sample_weight=sample_weight
        )
        if speaks and output is None:
            keep_other_models(target, data, silent)
        old = None if match_path is None else load(match_path)
        _check_fit(options, data, old)

        from dinkcli import api
        from dinkcli.training.checkpoint import Checkpoints

        tell = (lambda text: warn(with_options(text, None))) if speaks else (lambda text: None)
        checkpoints = Checkpoints(checkpoint, every, tell, group)
        if group.alone and not quiet and options.literal:
            warn(
                "at temperature inf the losses see fixed embeddings only through their mean; "
                "centres drift apart and clusters decay. Use --temperature auto for clusters, inf "
                "to reproduce the paper."
            )
        with _stopping(checkpoints), ProgressLines(silent) as lines:
            model = api.train(
                data,
                options,
                init=algorithm.init,
                device=device,
                memory=limit,
                on_try=lambda _, done, total: lines.update("choosing K", done, total, "tried"),
                on_chosen=lambda result: None if silent else say(result.answer),
                on_step=_Progress(lines, verbose),
                checkpoints=checkpoints,
                resume=_checkpoint_of(checkpoints, silent) if resume else None,
                force=force,
                group=group,
            )
    if not speaks:
        return
    model, matching = _save(model, data, old, target, device, silent)
    checkpoints.discard()
    seconds = time.monotonic() - started
    if shown.as_json:
        matched = {"match": matching.as_dict()} if matching else {}
        print_json(_summary(model, target, seconds, verbose) | matched)
        return
    if not quiet:
        _show_summary(model, data, seconds, verbose)
        if matching is not None and match_path is not None:
            show_drift(matching, match_path)
    typer.echo(os.fsencode(target))


def _open(
    group: Group,
    target: str,
    inputs: list[str],
    vectors: shared.Vectors,
    quiet: bool,
    **references: Any,
) -> DataSet:
    """The rows to train on, after a look at where the model is to be written."""
    from dinkcli.data.spool import repeatable

    if group.rank == 0:
        check_model_path(target)
    if not group.alone:
        refuse_streams([*inputs, *(references["texts"] or ())])
    data = vectors.open(inputs, **references)
    show_notes(data, quiet)
    return repeatable(data)


def _check_fit(options: TrainOptions, data: DataSet, old: Model | None) -> None:
    """Raises DinkError for too many clusters, or an older model whose ids they cannot take."""
    from dinkcli.models.matching import check_matchable

    known = options.n_clusters if isinstance(options.n_clusters, int) else None
    if old is not None:
        check_matchable(old, data.n_features, known)
    if known is not None:
        options.check_rows(data.known_rows, data.name)


def _save(
    model: Model, data: DataSet, old: Model | None, target: str, device: str, quiet: bool
) -> tuple[Model, Matching | None]:
    """Writes the model, with names where there are texts and with the ids of the older one if
    there is one; returns both."""
    from dinkcli.assigning.assigner import match_on
    from dinkcli.cli.name import name_by_texts

    if data.columns.text is not None:
        named = name_by_texts(model, data, device, quiet)
        model.names, model.terms = named.names, named.terms
    matching = None if old is None else match_on(data, old, model, device)
    if matching is not None:
        model = matching.renumber(model)
    model.save(target)
    return model, matching


def _number_of_clusters(text: str) -> int | str:
    if text in ("auto", "clear") or ":" in text:
        return text
    try:
        return int(text)
    except ValueError:
        raise UsageError(
            f"-k {text}: expected a number of clusters, auto, clear, or a range such as 5:300"
        ) from None


def _number_or_text(text: str) -> float | str:
    """The text as a number where it is one; ``TrainOptions`` judges the rest."""
    try:
        return float(text)
    except ValueError:
        return text


def _checkpoint_of(checkpoints: Checkpoints, quiet: bool) -> str | None:
    """The checkpoint to go on from, if there is one."""
    exists = checkpoints.group.rank == 0 and os.path.exists(checkpoints.path)
    if checkpoints.group.any(exists):
        return checkpoints.path
    if not quiet:
        say(f"Note: there is no {checkpoints.path} to resume from; this run starts anew")
    return None


@contextmanager
def _stopping(checkpoints: Checkpoints) -> Iterator[None]:
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


def _how_to_go_on(checkpoint: str) -> str:
    """What to do after another process of the training was lost."""
    if not os.path.exists(checkpoint):
        return "; there is no checkpoint yet: start again"
    return f"; the last checkpoint is {checkpoint}: go on by the same command and --resume"


def say_how_to_resume(checkpoint: str) -> None:
    """The command that goes on, as the shell takes it."""
    command = [part for part in sys.argv[1:] if part != "--resume"]
    say(f"Interrupted; the training so far is in {checkpoint}. Go on with")
    launcher = world()
    start = ["dink"]
    if launcher.size > 1:
        several = ["--nproc-per-node", str(launcher.local_size)]
        start = ["torchrun", *several, "-m", "dinkcli"]
    say("  " + shlex.join([*start, *command, "--resume"]), whole=True)


class _Progress:
    """Shows the steps that it is called with; all figures of each where it is ``verbose``."""

    def __init__(self, lines: ProgressLines, verbose: bool):
        self._lines, self._verbose = lines, verbose
        self._rows, self._started = 0, time.monotonic()

    def __call__(self, step: Step) -> None:
        from dinkcli.training.trainer import PHASES

        if self._verbose:
            self._lines.details(self._details(step))
        several = step.starts > 1 and step.phase in _UNITS
        what = f"start {step.start}/{step.starts}, " if several else ""
        what += PHASES[step.phase]
        self._lines.update(
            what,
            step.done,
            step.total,
            _UNITS.get(step.phase, "passes"),
            bound=step.phase != "anneal" and step.temperature != float("inf"),
        )

    def _details(self, step: Step) -> str:
        self._rows += step.rows
        rate = self._rows / max(1e-9, time.monotonic() - self._started)
        return (
            f"{step.phase} {step.done}/{step.total}  inertia {step.inertia:.6g}  "
            f"T {step.temperature:.3g}  dilation {step.dilation_loss:.4g}  "
            f"shrink {step.shrink_loss:.4g}  clusters {step.smallest:.2%}..{step.largest:.2%}  "
            f"{rate:,.0f} rows/s"
        )


def _summary(model: Model, target: str, seconds: float, verbose: bool) -> dict[str, Any]:
    """The summary as plain JSON; the history, which can be long, only when ``verbose``."""
    facts = {
        "model": printable(target),
        "n_clusters": model.n_clusters,
        "n_features": model.n_features,
        "rows": model.training["input"]["rows"],
        "bad_rows": model.training["input"]["bad_rows"],
        **model.training["metrics"],
        "explained_variance": _explained_variance(model),
        "cluster_sizes": model.cluster_sizes.tolist(),
        "seconds": round(seconds, 3),
    }
    return facts | ({"history": model.training["history"]} if verbose else {})


def _explained_variance(model: Model) -> float | None:
    """The share of the variance of the rows that lies between clusters and not inside of them.

    None where centres are not the means of their rows: with the cosine metric, whose centres have
    norm 1, and at a temperature above 0.
    """
    options, sizes = model.training["options"], model.cluster_sizes
    if options["metric"] != "euclidean" or options["temperature"] not in ("auto", 0):
        return None
    centers = model.cluster_centers.astype(float)
    mean = sizes @ centers / sizes.sum()
    between = float(sizes @ ((centers - mean) ** 2).sum(1))
    whole = between + model.training["metrics"]["inertia"]
    return between / whole if whole > 0 else None


def _show_summary(model: Model, data: DataSet, seconds: float, verbose: bool) -> None:
    metrics, options = model.training["metrics"], model.training["options"]
    sizes = sorted(model.cluster_sizes.tolist())
    dtypes = ", ".join(model.training["input"]["dtype"])
    say(f"{data.name}: {data.n_rows} rows x {data.n_features} features ({dtypes})")
    say_bad_rows(model.training["input"]["bad_rows"], False)
    explained = _explained_variance(model)
    more = "" if explained is None else f"; they explain {explained:.1%} of the variance"
    say(
        f"{model.n_clusters} clusters in {seconds:.1f} s, inertia {metrics['inertia']:.6g} "
        f"({metrics['inertia'] / sum(sizes):.4g} per row){more}"
    )
    middle = sizes[len(sizes) // 2]
    say(f"cluster sizes: smallest {sizes[0]:g}, median {middle:g}, largest {sizes[-1]:g}")
    if "free_inertia" in metrics:
        free = metrics["free_inertia"]
        more = f"{metrics['inertia'] / free - 1:.2%} more than" if free > 0 else "as without:"
        say(
            f"no cluster has more rows than --max-size {options['max_size']} allows; the inertia "
            f"is {more} the {free:.6g} of nearest centres before"
        )
    reseeded = sum(step["reseeded"] for step in model.training["history"])
    if reseeded:
        say(f"empty clusters given new centres: {reseeded}")
    if verbose or options["temperature"] == "inf":
        say(
            f"paper losses: dilation {metrics['dilation_loss']:.6g} (Eq. 5), "
            f"shrink {metrics['shrink_loss']:.6g} (Eq. 6)"
        )


def show_drift(matching: Matching, old_path: str) -> None:
    """Says how many ids were kept, split, vanished and are new, and lists what moved most."""
    moved = [d.moved for d in matching.drift if d.fate in ("kept", "split") and d.moved is not None]
    line = ", ".join(f"{count} {fate}" for fate, count in matching.counts().items())
    if moved:
        line += f"; moved {median(moved):.3g} in the median, {max(moved):.3g} at most"
    say(f"ids of {old_path}: {line}")
    news = sorted((d for d in matching.drift if d.fate != "kept"), key=lambda d: (d.fate, d.id))
    kept = [d for d in matching.drift if d.fate == "kept" and d.moved]
    kept.sort(key=lambda d: -(d.relative or 0))
    listed = [*news, *kept]
    if not listed:
        return
    hidden = len(listed) - _MOST_LINES
    table = Sheet(
        *("id", Field("fate"), "moved", "of gap", Field("continued by")),
        title="what changed most",
        notes=[f"and {hidden} more; --json lists all" if hidden > 0 else ""],
    )
    for drift in listed[:_MOST_LINES]:
        table.add(
            drift.id,
            drift.fate,
            "-" if drift.moved is None else f"{drift.moved:.3g}",
            "-" if drift.relative is None else f"{drift.relative:.0%}",
            ", ".join(map(str, drift.parts)) or "-",
        )
    show(table, stderr=True)
