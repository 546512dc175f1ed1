"""Commands that show what a model or data are like, and change neither."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Any, Literal

from dinkcli.cli import console
from dinkcli.cli import options as shared
from dinkcli.cli.options import main_option, output_option, run_option
from dinkcli.cli.paths import load_model
from dinkcli.options import TrainOptions


def inspect(
    *,
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] | None = shared.OPTIONAL_INPUTS,
    cluster: str | None = main_option(None, "--cluster NUMBER|NAME"),
    tree: bool = main_option(False, "--tree"),
    history: bool = main_option(False, "--history"),
    ids: list[str] | None = shared.IDS,
    texts: list[str] | None = shared.TEXTS,
    rows: shared.ModelRows,
    exemplars: int = shared.exemplars_option(5),
    clusters: int = output_option(40, "--clusters", min=1),
    shown: shared.Shown,
) -> None:
    """Show a model, and with inputs what is in each cluster.

    Args:
        cluster: Look into one cluster: its terms and neighbours, and with inputs its nearest and
            farthest rows and its near-duplicates.
        tree: Show which clusters lie together, as a tree.
        history: Show what was done to the model since its training, and when.
        clusters: How many clusters to list, largest first.

    Examples:
        dink inspect emb.dink.safetensors
        dink inspect emb.dink.safetensors emb.parquet --ids id
        dink inspect emb.dink.safetensors emb.npy --texts texts.txt --cluster 17
    """
    from dinkcli.insight.inspect import inspect as core

    model = load_model(model_path, inputs or ())
    options: dict[str, Any] = {"cluster": cluster, "tree": tree, "history": history}
    if inputs:
        data = rows.open(model, inputs, ids=ids, texts=texts)
        with console.rows_shown(data, shown.silent) as progress:
            options |= {"exemplars": exemplars, "device": rows.device}
            result = core(model, data, on_rows=partial(progress, "inspect"), **options)
    else:
        result = core(model, **options, ids=ids, texts=texts, column=rows.column)
    said = console.bad_rows(result.seen.bad_rows)
    console.show_result(result, shown, said, name=model_path, clusters=clusters)


def evaluate(
    *,
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] = shared.INPUTS,
    labels: list[str] | None = shared.LABELS,
    rows: shared.ModelRows,
    shown: shared.Shown,
) -> None:
    """Measure the clusters, alone or against known classes.

    The inputs are read twice.

    Examples:
        dink evaluate emb.dink.safetensors emb.npy
        dink evaluate emb.dink.safetensors emb.parquet --labels topic
        dink evaluate emb.dink.safetensors emb.npy --labels topics.txt
    """
    model = load_model(model_path, inputs)
    data = rows.open(model, inputs, labels=labels)

    from dinkcli.insight.evaluate import evaluate as core

    with console.rows_shown(data, shown.silent) as on_rows:
        result = core(model, data, device=rows.device, on_rows=on_rows)
    said = f"{result.unlabelled} rows without a label are left out of the agreement"
    bad = console.bad_rows(result.quality.bad_rows)
    console.show_result(result, shown, bad, said if result.unlabelled else "")


def report(
    *,
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] = shared.INPUTS,
    output: str = shared.file_option(),
    ids: list[str] | None = shared.IDS,
    texts: list[str] | None = shared.TEXTS,
    labels: list[str] | None = shared.LABELS,
    columns: str | None = output_option(None, "A,B,..."),
    points: int = output_option(50_000, min=1),
    exemplars: int = shared.exemplars_option(6),
    projection: Literal["neighbours", "pca", "umap"] = output_option("neighbours", "--map"),
    title: str | None = output_option(None),
    seed: int = output_option(0),
    rows: shared.ModelRows,
    quiet: bool = shared.QUIET,
) -> None:
    """Write a page to look at the clusters, which works offline.

    Args:
        output: The page to write (.html), or the map alone (.svg).
        columns: Columns of the input by which the map may be coloured, separated by commas:
            classes, numbers or dates.
        points: How many rows the map shows at most.
        projection: How to draw the map: neighbours near each other, the two main axes (pca), or by
            the package umap-learn, which takes minutes.
        title: The title of the page.
        seed: The seed by which rows are drawn for the map.

    Examples:
        dink report emb.dink.safetensors emb.npy -o report.html
        dink report emb.dink.safetensors emb.parquet --texts text -o report.html
        dink report emb.dink.safetensors emb.parquet --texts text --columns day -o map.svg
    """
    started = time.monotonic()
    from dinkcli.data.atomic import by_suffix, check_target
    from dinkcli.data.machine import check_installed

    if projection == "umap":
        check_installed("umap", "umap", "--map umap")
    by_suffix(output, {"html": "page", "svg": "map"}, advice="")
    check_target(output)
    model = load_model(model_path, inputs)
    others = shared.names_in(columns)
    data = rows.open(model, inputs, ids=ids, texts=texts, labels=labels, others=others)

    from dinkcli.insight.report import report as core

    with console.ProgressLines(quiet) as lines:
        result = core(
            model,
            data,
            points=points,
            exemplars=exemplars,
            projection=projection,
            title=title,
            seed=seed,
            device=rows.device,
            on_rows=partial(lines.update, total=data.known_rows, unit="rows"),
            on_map=partial(lines.update, "map", unit="steps"),
        )
    result.save(output)
    if not quiet:
        seconds, size = time.monotonic() - started, os.path.getsize(output) / 1e6
        left_out = result.quality.bad_rows
        bad = f", {left_out} bad rows left out" if left_out else ""
        console.say(f"{output}: {data.known_rows} rows{bad}, {size:.1f} MB, {seconds:.1f} s")


def sweep(
    *,
    inputs: list[str] = shared.INPUTS,
    numbers: str = main_option("2:100", "-k --n-clusters RANGE"),
    metric: shared.Metric = shared.METRIC,
    sample_weight: str | None = shared.SAMPLE_WEIGHT,
    seed: int = shared.SEED,
    device: str = shared.DEVICE,
    vectors: shared.Vectors,
    shown: shared.Shown,
) -> None:
    """Try many numbers of clusters, and recommend one.

    If none stands out, the one that works best is suggested. Nothing is written.

    Args:
        numbers: The numbers to try: 5:100 (some of them, larger ones while these are best, then
            those around the best), 5:100:5 (every fifth), or a list such as 5,10,20.

    Examples:
        dink sweep emb.npy
        dink sweep emb.parquet -k 10:400 --metric cosine
    """
    from dinkcli.insight.recommend import parse_numbers

    tried, _ = parse_numbers(numbers)  # a wrong range is told before files are opened
    data = vectors.open(inputs, sample_weight=sample_weight).repeatable()
    most = data.known_rows // 2
    if tried[-1] > most and not shown.silent:
        console.say(f"Note: -k {numbers}: tries at most {most}, with two rows for each cluster")

    from dinkcli import api

    with console.ProgressLines(shown.silent) as lines:

        def on_step(_: str, done: int, total: int) -> None:
            lines.update("trying numbers of clusters", done, total, "tried")

        result = api.sweep(data, numbers, metric=metric, seed=seed, device=device, on_step=on_step)
    console.show_result(result, shown, console.bad_rows(result.bad_rows), name=data.name)


def info(
    *,
    inputs: list[str] = shared.INPUTS,
    column: str | None = shared.COLUMN,
    dim: int | None = shared.DIM,
    bits: bool = shared.BITS,
    memory: str | None = shared.MEMORY,
    as_json: bool = shared.JSON,
) -> None:
    """Show what the inputs are and how training would read them.

    Of a model, what it is and which columns it reads.

    Examples:
        dink info emb.parquet
        dink info emb.dink.safetensors
        dink info hf://datasets/NAME/embeddings.parquet
    """
    from dinkcli.data.machine import parse_size
    from dinkcli.insight.info import info as core
    from dinkcli.models.file import is_model

    limit = parse_size(memory)
    data: Any = inputs
    if len(inputs) > 1 or not is_model(inputs[0]):
        data = shared.Vectors(column, dim, bits, "stop").open(inputs)
        console.show_notes(data, as_json)
    console.show_result(core(data, memory=limit), shared.Shown(as_json, quiet=False))


def plan(
    *,
    inputs: list[str] = shared.INPUTS,
    n_clusters: int = main_option(..., "-k --n-clusters K", show_default=False),
    device: str = shared.DEVICE,
    processes: int = run_option(1),
    memory: str | None = shared.MEMORY,
    vectors: shared.Vectors,
    effort: shared.Effort,
    as_json: bool = shared.JSON,
) -> None:
    """Show what training would take: time, memory, passes.

    Parts of it are run on the first rows and scaled up, which takes a few seconds. How many rounds
    and passes the data need shows only in training: you see a usual number, and a range.

    Args:
        n_clusters: How many clusters.
        processes: How many processes share the rows, each with the power and memory of this
            machine.

    Examples:
        dink plan emb.npy -k 1000
        dink plan embeddings/ -k 10000 --processes 8 --memory 16GB
    """
    begun = time.process_time(), time.monotonic()
    from dinkcli.data.machine import parse_size

    options = TrainOptions(n_clusters, **vars(effort))
    limit = parse_size(memory)
    data = vectors.open(inputs)
    console.show_notes(data, as_json)

    from dinkcli.planning import plan as core

    # What it takes to come here is what it takes a training.
    startup = begun[0] + time.monotonic() - begun[1]
    result = core(data, options, device=device, memory=limit, processes=processes, startup=startup)
    console.show_result(result, shared.Shown(as_json, quiet=False))
    for warning in () if as_json else result.warnings:
        console.warn(warning)
