"""``dink train``."""

from __future__ import annotations

import json
import os
import time
from typing import Annotated, Any

import typer

from dinkcli.cli.console import error_boundary, say
from dinkcli.cli.drift import show_drift
from dinkcli.cli.options import (
    BadRows,
    BatchSize,
    Column,
    Device,
    Dim,
    Epochs,
    Inputs,
    Json,
    Match,
    Memory,
    Metric,
    Quiet,
    Refine,
    SampleWeight,
    Seed,
    Starts,
    Verbose,
)
from dinkcli.cli.progress import ProgressLines
from dinkcli.cli.resuming import stopping
from dinkcli.cli.summary import TrainProgress, show_summary, summary
from dinkcli.cli.together import together


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
    refine: Refine = True,
    n_init: Starts = None,
    sample_weight: SampleWeight = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
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
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Finds clusters and writes a model file; prints its path.

    dink train emb.npy -k 10
    """
    with error_boundary():
        started = time.monotonic()
        from dinkcli.cli.paths import default_model_path
        from dinkcli.cli.train_run import TrainRun, number_or_text
        from dinkcli.data.base import Columns

        options: dict[str, Any] = {
            "metric": metric,
            "temperature": number_or_text(temperature),
            "dilation": dilation,
            "refine": refine,
            "n_init": n_init,
            "epochs": epochs,
            "batch_size": batch_size,
            "tol": tol,
            "seed": seed,
        }
        run = TrainRun(
            inputs=inputs,
            target=output or default_model_path(inputs[0]),
            named=output is not None,
            n_clusters=n_clusters,
            options=options,
            columns=Columns(column, dim=dim),
            init=init,
            device=device,
            sample_weight=sample_weight,
            bad_rows=bad_rows,
            memory=memory,
            checkpoint_every=checkpoint_every,
            resume=resume,
            force=force,
            match=match_path,
        )
        with together(device, run.advice) as group:
            speaks = group.rank == 0
            prepared = run.prepare(group, quiet or not speaks, json_summary)
            silent = quiet or json_summary or not speaks
            with stopping(prepared.checkpoints), ProgressLines(silent) as lines:
                k = prepared.number(
                    lambda _, done, total: lines.update("choosing K", done, total, "tried")
                )
                model = prepared.train(k, TrainProgress(lines, prepared.data.known_rows, verbose))
        if not speaks:
            return
        model, matching = prepared.save(model)
        seconds = time.monotonic() - started
        if json_summary:
            found = summary(model, run.target, seconds, verbose)
            say(json.dumps(found | ({"match": matching.as_dict()} if matching else {})))
        elif not quiet:
            show_summary(model, prepared.data, seconds, verbose)
            if matching is not None and match_path is not None:
                show_drift(matching, match_path)
        typer.echo(os.fsencode(run.target))
