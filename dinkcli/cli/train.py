"""``dink train``."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Any

import typer

from dinkcli.cli import options as shared
from dinkcli.cli.console import warn
from dinkcli.cli.options import clusters_option, expert_option, output_option, run_option
from dinkcli.cli.paths import columns_of, default_model_path
from dinkcli.cli.progress import ProgressLines
from dinkcli.cli.summary import TrainProgress, show_drift, show_summary, summary
from dinkcli.cli.tables import print_json
from dinkcli.cli.together import together
from dinkcli.options import Interval, TrainOptions


def train(
    inputs: list[str] = shared.INPUTS,
    n_clusters: str = clusters_option(
        ...,
        "-k",
        "--n-clusters",
        metavar="INTEGER|auto|clear",
        help="How many clusters. auto tries 2 to 100 and takes the best; clear does so only "
        "if the data speak for one number (dink sweep shows what each is like).",
        choices="auto clear",
        show_default=False,
    ),
    output: str | None = output_option(
        None,
        "-o",
        "--output",
        metavar="FILE",
        help="The model to write. By default it has the name of the first input, and ends in "
        ".dink.safetensors.",
    ),
    device: str = shared.DEVICE,
    column: str | None = shared.COLUMN,
    init: str = expert_option(
        "kmeans++",
        help="Where centres start: kmeans++, random or xavier, or a file of centres: npy, "
        "parquet, a model, a faiss index, or scikit-learn through skops.",
        choices="kmeans++ random xavier",
    ),
    metric: shared.Metric = shared.METRIC,
    temperature: str = expert_option(
        "auto",
        metavar="NUMBER|auto|inf",
        help="How softly rows belong to clusters while training. auto cools down to 0; a "
        "number (a squared distance) stays fixed, and 0 is k-means; inf is the paper's "
        "literal objective, which loses clusters on fixed embeddings.",
        choices="auto inf 0",
    ),
    dilation: float | None = expert_option(
        None, help="The weight of the dilation loss. By default 0, or 1 at temperature inf."
    ),
    refine: bool = shared.REFINE,
    n_init: int | None = shared.STARTS,
    sample_weight: str | None = shared.SAMPLE_WEIGHT,
    epochs: int | None = shared.EPOCHS,
    batch_size: int | None = shared.BATCH_SIZE,
    seed: int = shared.SEED,
    max_size: str | None = clusters_option(
        None,
        metavar="NUMBER|1.2x",
        help="The most rows that a cluster may have, or how many times the mean; 1x makes all "
        "equal. The summary reports the increase in inertia. Give assign --max-size as well.",
    ),
    match_path: str | None = shared.MATCH,
    texts: list[str] | None = shared.TEXTS,
    dim: int | None = shared.DIM,
    bits: bool = shared.BITS,
    bad_rows: shared.BadRows = shared.BAD_ROWS,
    memory: str | None = shared.MEMORY,
    checkpoint_every: str = run_option(
        "5m",
        metavar="INTERVAL",
        help="How often to save the training on its way, beside the model: 30s, 5m, 2h, "
        "100steps or 2epochs.",
    ),
    resume: bool = shared.RESUME,
    force: bool = run_option(
        False, "--force", help="Resume even if inputs or options have changed."
    ),
    json_summary: bool = shared.JSON,
    verbose: bool = run_option(
        False,
        "--verbose",
        help="Also show every step with its losses and temperature; with --json, the history.",
    ),
    quiet: bool = shared.QUIET,
) -> None:
    """Find clusters, write a model file, and print its path.

    Progress and summary go to standard error.

    Examples:
        dink train emb.npy -k 10
        dink train embeddings/*.parquet --column embedding -k auto -o topics.safetensors
        dink assign "$(dink train emb.npy -k 10)" new.npy
    """
    started = time.monotonic()
    from dinkcli.cli import train_run as run
    from dinkcli.data.memory import parse_size
    from dinkcli.models.model import checkpoint_path

    options: dict[str, Any] = {
        "metric": metric,
        "temperature": run.number_or_text(temperature),
        "dilation": dilation,
        "refine": refine,
        "n_init": n_init,
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
        "max_size": max_size,
    }
    wanted = columns_of(column, dim=dim, bits=bits, sample_weight=sample_weight, texts=texts)
    target = output or default_model_path(inputs[0])
    checkpoint = checkpoint_path(target)
    with together(device, partial(run.how_to_go_on, checkpoint)) as group:
        speaks = group.rank == 0
        quiet = quiet or not speaks
        silent = quiet or json_summary
        k = run.number_of_clusters(n_clusters)
        checked = TrainOptions(k if isinstance(k, int) else 2, **options)
        every = Interval.parse(checkpoint_every)
        limit = None if memory is None else parse_size(memory)
        named = output is not None
        data = run.training_data(
            group, target, named, inputs, wanted, bad_rows, quiet, json_summary
        )
        old = run.fitting(match_path, data, checked, k)

        from dinkcli import api
        from dinkcli.training.checkpoint import Checkpoints

        checkpoints = Checkpoints(checkpoint, every, warn if speaks else (lambda text: None), group)
        if group.alone and not quiet:
            run.warn_of_literal(checked)
        with run.stopping(checkpoints), ProgressLines(silent) as lines:
            model = api.train(
                data,
                k,
                init=init,
                device=device,
                memory=limit,
                on_try=lambda _, done, total: lines.update("choosing K", done, total, "tried"),
                on_step=TrainProgress(lines, data.known_rows, verbose),
                checkpoints=checkpoints,
                resume=run.checkpoint_of(checkpoints, silent) if resume else None,
                force=force,
                group=group,
                **options,
            )
    if not speaks:
        return
    model, matching = run.save(model, data, old, target, device, silent)
    checkpoints.discard()
    seconds = time.monotonic() - started
    if json_summary:
        matched = {"match": matching.as_dict()} if matching else {}
        print_json(summary(model, target, seconds, verbose) | matched)
        return
    if not quiet:
        show_summary(model, data, seconds, verbose)
        if matching is not None and match_path is not None:
            show_drift(matching, match_path)
    typer.echo(os.fsencode(target))
