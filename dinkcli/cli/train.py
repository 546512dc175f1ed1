"""``dink train``."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from dinkcli.cli import console, signals
from dinkcli.cli import options as shared
from dinkcli.cli.options import clusters_option, expert_option, main_option, run_option
from dinkcli.cli.paths import check_model_path, default_model_path, keep_other_models
from dinkcli.errors import StoppedError
from dinkcli.options import SEEDINGS, TrainOptions, parse_seconds
from dinkcli.processes.group import world

if TYPE_CHECKING:
    from dinkcli.data.dataset import DataSet
    from dinkcli.insight.recommend import Sweep
    from dinkcli.models.matching import Matching
    from dinkcli.models.model import Model
    from dinkcli.training.checkpoint import Checkpoints
    from dinkcli.training.trainer import Step

_UNITS = {"anneal": "steps", "refine": "rounds"}


@dataclass(frozen=True)
class Algorithm(shared.Effort):
    """What else the centres depend on.

    Attributes:
        init: The initial centres: kmeans++, random or xavier, or a file of centres (npy, parquet, a
            model, a faiss index, or scikit-learn through skops).
        temperature: How softly rows belong to clusters in training. auto cools down to 0; a number
            (a squared distance) stays fixed, and 0 is k-means; inf is the paper's literal
            objective, which loses clusters on fixed embeddings.
        dilation: The weight of the dilation loss. By default 0, or 1 at temperature inf.
        max_size: The most rows of a cluster, or a multiple of the mean; 1x makes all equal. The
            summary reports the increase in inertia. Give --max-size to assign as well.
    """

    init: str = expert_option("kmeans++", choices="kmeans++ random xavier")
    temperature: str = expert_option("auto", "--temperature NUMBER|auto|inf", choices="auto inf 0")
    dilation: float | None = expert_option(None)
    max_size: str | None = clusters_option(None, "--max-size NUMBER|1.2x")
    seed: int = shared.SEED

    def options(self, n_clusters: str) -> TrainOptions:
        values = vars(self) | {"temperature": _number(float, self.temperature)}
        values["init"] = self.init if self.init in SEEDINGS else SEEDINGS[0]  # until a file is read
        return TrainOptions(_number(int, n_clusters), **values)


def _number(kind: type, text: str) -> Any:
    """What a text says as a number, or the text, which ``TrainOptions`` judges."""
    try:
        return kind(text)
    except ValueError:
        return text


def train(
    *,
    inputs: list[str] = shared.INPUTS,
    n_clusters: str = main_option(..., "-k --n-clusters K|RANGE|auto|clear", choices="auto clear"),
    output: str | None = main_option(None, "-o --output FILE"),
    vectors: shared.Vectors,
    texts: list[str] | None = shared.TEXTS,
    sample_weight: str | None = shared.SAMPLE_WEIGHT,
    algorithm: Algorithm,
    match_path: str | None = shared.MATCH,
    shown: shared.Shown,
    verbose: bool = run_option(False, "--verbose"),
    device: str = shared.DEVICE,
    memory: str | None = shared.MEMORY,
    checkpoint_every: str = run_option("5m", "--checkpoint-every INTERVAL"),
    resume: bool = shared.RESUME,
    force: bool = run_option(False, "--force"),
) -> None:
    """Find clusters, write a model file, and print its path.

    Progress and summary go to standard error.

    Args:
        n_clusters: How many clusters. auto recommends a number from 2 to 100 and beyond, and trains
            with it; a range such as 5:300 says where to begin; clear trains only if one number
            stands out (dink sweep compares them).
        output: The model to write. By default the name of the first input, ending in
            .dink.safetensors.
        verbose: Also show every step with its losses and temperature; with --json, the history.
        checkpoint_every: How often to save the unfinished training, beside the model, such as 30s,
            5m or 2h.
        force: Resume even if inputs or options have changed.

    Examples:
        dink train emb.npy -k 10
        dink train embeddings/*.parquet --column embedding -k auto -o topics.safetensors
        dink assign "$(dink train emb.npy -k 10)" new.npy
    """
    started = time.monotonic()
    from dinkcli.data.machine import parse_size
    from dinkcli.models.file import load
    from dinkcli.models.matching import check_matchable
    from dinkcli.models.model import checkpoint_path

    target = output or default_model_path(inputs[0])
    checkpoint = checkpoint_path(target)
    with signals.together(device, partial(_how_to_go_on, checkpoint)) as group:
        speaks = group.rank == 0
        shown = replace(shown, quiet=shown.quiet or not speaks)
        options = algorithm.options(n_clusters)
        every = parse_seconds(checkpoint_every)
        limit = parse_size(memory)
        if speaks:
            check_model_path(target)
        if not group.alone:
            signals.refuse_streams([*inputs, *(texts or ())])
        data = vectors.open(inputs, texts=texts, sample_weight=sample_weight)
        console.show_notes(data, shown.quiet)
        data = data.repeatable()
        if speaks and output is None:
            keep_other_models(target, data, shown.silent)
        old = None if match_path is None else load(match_path)
        if old is not None:
            known = options.n_clusters if isinstance(options.n_clusters, int) else None
            check_matchable(old, data.n_features, known)

        from dinkcli import api
        from dinkcli.training.checkpoint import Checkpoints

        tell = console.warn if speaks else (lambda text: None)
        checkpoints = Checkpoints(checkpoint, every, tell, group)
        if group.alone and not shown.quiet and options.literal:
            console.warn(
                "at temperature inf the losses see fixed embeddings only through their mean; "
                "centres drift apart and clusters decay. Use --temperature auto for clusters, inf "
                "to reproduce the paper."
            )
        if resume and not group.any(speaks and os.path.exists(checkpoint)):
            resume = False
            if not shown.silent:
                console.say(f"Note: there is no {checkpoint} to resume from; this run starts anew")
        more: dict[str, Any] = {}  # of the summary
        with _stopping(checkpoints, shown.as_json), console.ProgressLines(shown.silent) as lines:

            def chosen(result: Sweep) -> None:
                more["recommendation"] = result.answer
                lines.details(result.answer)

            model = api.train(
                data,
                options,
                init=algorithm.init,
                device=device,
                memory=limit,
                on_try=lambda _, done, total: lines.update("choosing K", done, total, "tried"),
                on_chosen=chosen,
                on_step=_show_steps(lines, verbose),
                checkpoints=checkpoints,
                resume=checkpoint if resume else None,
                force=force,
                group=group,
            )
    if not speaks:
        return
    try:
        model, matching = _finished(model, data, old, device, shown.silent)
    except KeyboardInterrupt as error:
        model.save(target)
        checkpoints.discard()
        missing = ["names (dink name gives them)"] if texts and not model.names else []
        missing += ["ids of --match (dink assign --match)"] if old is not None else []
        without = f", without {' or '.join(missing)}" if missing else ""
        said = f"Interrupted; {target} is trained and written{without}."
        signals.end(signals.exit_code(error), shown.as_json, said)
    model.save(target)
    checkpoints.discard()
    facts = _summary(model, target, time.monotonic() - started)
    history = {"history": model.training["history"]} if verbose else {}
    more = history | more | ({"match": matching.to_dict()} if matching else {})
    console.show_result(facts | more, shown, *_sentences(facts, model, data, verbose))
    if matching is not None and not shown.silent:
        console.show_drift(matching, match_path or "")
    if not shown.as_json:
        typer.echo(os.fsencode(target))


def _finished(
    model: Model, data: DataSet, old: Model | None, device: str, silent: bool
) -> tuple[Model, Matching | None]:
    """The model with names where there are texts, and with the ids of an older one; and these."""
    from dinkcli.assigning.assigner import match_on

    if data.columns.text is not None:
        from dinkcli.insight.naming import name

        with console.rows_shown(data, silent) as on_rows:
            named = name(model, data, device=device, on_rows=partial(on_rows, "naming")).model
        model.names, model.terms = named.names, named.terms
    if old is None:
        return model, None
    matching = match_on(data, old, model, device)
    return matching.renumber(model), matching


@contextmanager
def _stopping(checkpoints: Checkpoints, as_json: bool) -> Iterator[None]:
    """The first signal ends the training with a checkpoint, a second one at once."""
    try:
        with signals.interruptible(checkpoints.ask_to_stop) as received:
            yield
    except StoppedError as stopped:
        code = 128 + (received[0] if received else signal.SIGTERM)
        if checkpoints.group.rank > 0:
            signals.leave(code)
        checkpoint = stopped.checkpoint
        lines = [signals.NOTHING_WRITTEN] if checkpoint is None else how_to_resume(checkpoint)
        signals.end(code, as_json, *lines)
    except signals.Interrupted as error:
        if checkpoints.written:
            signals.end(error.exit_code, as_json, *how_to_resume(checkpoints.path))
        raise


def _how_to_go_on(checkpoint: str) -> str:
    """What to do after another process of the training was lost."""
    if not os.path.exists(checkpoint):
        return "; there is no checkpoint yet: start again"
    return f"; the last checkpoint is {checkpoint}: go on by the same command and --resume"


def how_to_resume(checkpoint: str) -> tuple[str, str]:
    """The command that goes on, as the shell takes it, after a line that says so."""
    command = [part for part in sys.argv[1:] if part != "--resume"]
    launcher, start = world(), ["dink"]
    if launcher.size > 1:
        start = ["torchrun", "--nproc-per-node", str(launcher.local_size), "-m", "dinkcli"]
    said = f"Interrupted; the training so far is in {checkpoint}. Go on with"
    return said, "  " + shlex.join([*start, *command, "--resume"])


def _show_steps(lines: console.ProgressLines, verbose: bool) -> Callable[[Step], None]:
    """A function that shows a step; all of its figures where it is ``verbose``."""
    rows, started = 0, time.monotonic()

    def show_step(step: Step) -> None:
        from dinkcli.training.trainer import PHASES

        nonlocal rows
        rows += step.rows
        if verbose:
            rate = rows / max(1e-9, time.monotonic() - started)
            lines.details(
                f"{step.phase} {step.done}/{step.total}  inertia {step.inertia:.6g}  "
                f"T {step.temperature:.3g}  dilation {step.dilation_loss:.4g}  "
                f"shrink {step.shrink_loss:.4g}  clusters {step.smallest:.2%}..{step.largest:.2%}  "
                f"{rate:,.0f} rows/s"
            )
        unit, phase = _UNITS.get(step.phase, "passes"), PHASES[step.phase]
        if step.starts > 1 and step.phase in _UNITS:
            phase = f"start {step.start}/{step.starts}, {phase}"
        bound = step.phase != "anneal" and step.temperature != float("inf")
        lines.update(phase, step.done, step.total, unit, bound=bound)

    return show_step


def _summary(model: Model, target: str, seconds: float) -> dict[str, Any]:
    """The summary as plain JSON."""
    training = model.training
    return {
        "model": console.printable(target),
        "n_clusters": model.n_clusters,
        "n_features": model.n_features,
        "rows": training["input"]["rows"],
        "bad_rows": training["input"]["bad_rows"],
        **training["metrics"],
        "explained_variance": _explained_variance(model),
        "cluster_sizes": model.cluster_sizes.tolist(),
        "seconds": round(seconds, 3),
    }


def _explained_variance(model: Model) -> float | None:
    """The share of the variance of the rows, under their map if there is one, between clusters.

    None where centres are not the means of their rows: with the cosine metric, whose centres have
    norm 1, and at a temperature above 0.
    """
    options, sizes = model.training["options"], model.cluster_sizes
    if options["metric"] == "cosine" or options["temperature"] not in ("auto", 0):
        return None
    centers = model.cluster_centers.astype(float)
    mean = sizes @ centers / sizes.sum()
    between = float(sizes @ ((centers - mean) ** 2).sum(1))
    whole = between + model.training["metrics"]["inertia"]
    return between / whole if whole > 0 else None


def _sentences(facts: dict[str, Any], model: Model, data: DataSet, verbose: bool) -> Iterator[str]:
    """The summary for people."""
    sizes, options = sorted(facts["cluster_sizes"]), model.training["options"]
    inertia, explained = facts["inertia"], facts["explained_variance"]
    dtypes = ", ".join(model.training["input"]["dtype"])
    yield f"{data.name}: {data.n_rows} rows x {data.n_features} features ({dtypes})"
    yield console.bad_rows(facts["bad_rows"])
    more = "" if explained is None else f"; they explain {explained:.1%} of the variance"
    more += " under the learned map" * bool(explained and model.maps)
    yield (
        f"{model.n_clusters} clusters in {facts['seconds']:.1f} s, inertia {inertia:.6g} "
        f"({inertia / sum(sizes):.4g} per row){more}"
    )
    middle = sizes[len(sizes) // 2]
    yield f"cluster sizes: smallest {sizes[0]:g}, median {middle:g}, largest {sizes[-1]:g}"
    if (free := facts.get("free_inertia")) is not None:
        change = f"{inertia / free - 1:.2%} above" if free > 0 else "the same as"
        yield (
            f"no cluster has more rows than --max-size {options['max_size']} allows; the inertia "
            f"is {change} the {free:.6g} without it"
        )
    reseeded = sum(step["reseeded"] for step in model.training["history"])
    if reseeded:
        yield f"empty clusters given new centres: {reseeded}"
    if verbose or options["temperature"] == "inf":
        yield (
            f"paper losses: dilation {facts['dilation_loss']:.6g} (Eq. 5), "
            f"shrink {facts['shrink_loss']:.6g} (Eq. 6)"
        )
