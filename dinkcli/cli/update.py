"""``dink update``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import typer

from dinkcli.cli import options as shared
from dinkcli.cli.console import Field, Sheet, print_json, printable, say, say_bad_rows, show
from dinkcli.cli.options import clusters_option, main_option, output_option
from dinkcli.cli.paths import check_model_path, load_model
from dinkcli.cli.progress import rows_shown
from dinkcli.errors import UsageError

if TYPE_CHECKING:
    from dinkcli.assigning.update import Update
    from dinkcli.data.dataset import DataSet
    from dinkcli.models.model import Model

_MOST_SHOWN = 20
_ALARM = 3  # the exit code, for cron


def update(
    *,
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] = shared.INPUTS,
    output: str | None = main_option(
        None,
        "-o",
        "--output",
        metavar="FILE",
        help="The model to write; MODEL itself, if that is meant. Not with --dry-run.",
    ),
    dry_run: bool = output_option(
        False,
        "--dry-run",
        help="Write nothing and show how the rows differ from those before: the drift report.",
    ),
    freeze: bool = clusters_option(
        False, "--freeze", help="Move no centre and make no cluster; count what comes."
    ),
    birth_price: float = clusters_option(
        5.0,
        help="How much a new cluster must lower the inertia, in mean squared distances of a row; "
        "inf for no new clusters.",
    ),
    min_size: int = clusters_option(5, help="How many rows a new cluster has at least."),
    half_life: float | None = clusters_option(
        None,
        help="After how many updates what was there counts half. A cluster to which nothing comes "
        "any more retires. By default nothing fades.",
    ),
    max_size: str | None = clusters_option(
        None,
        metavar="NUMBER|1.2x",
        help="The most of the new rows that a cluster may take, or how many times the mean.",
    ),
    alarm: float | None = output_option(
        None,
        metavar="SHARE",
        help="End with exit code 3 where more than this share of the rows lies beyond the 99 % "
        "distance of its cluster.",
    ),
    sample_weight: str | None = shared.SAMPLE_WEIGHT,
    texts: list[str] | None = shared.TEXTS,
    rows: shared.ModelRows,
    shown: shared.Shown,
) -> None:
    """Take new rows into a model, without the old ones.

    Centres stay the means of all rows that were ever assigned to them, clusters keep their numbers
    and names, and sets of rows that are far from all of them become new clusters. The same rows
    twice change nothing. A model in the place of the rows is joined.

    Examples:
        dink update topics.dink.safetensors week27.parquet -o topics.dink.safetensors
        dink update topics.dink.safetensors week27.parquet --dry-run --alarm 0.05
        dink update north.dink.safetensors south.dink.safetensors -o both.dink.safetensors
    """
    if dry_run == (output is not None):
        raise UsageError("give -o MODEL for the new model, or --dry-run to write none")
    if output is not None:
        check_model_path(output)
    from dinkcli.assigning.update import UpdateOptions, join
    from dinkcli.assigning.update import update as take_in
    from dinkcli.data.atomic import check_target
    from dinkcli.models.file import is_model, load

    if output is not None:
        check_target(output)
    if any(map(is_model, inputs)):
        model = load_model(model_path)
        for path in inputs:
            model = join(model, load(path))
        _finish_join(model, inputs, output, shown)
        return
    model = load_model(model_path, inputs)
    price = float("inf") if freeze else birth_price
    options = UpdateOptions(freeze, price, min_size, half_life, max_size)
    data = rows.open(model, inputs, sample_weight=sample_weight, texts=texts)
    with rows_shown(data, shown.silent) as progress:
        result = take_in(model, data, options, rows.device, partial(progress, "assigning"))
    if texts and result.born:
        _name_new(result, model, rows.open(result.model, inputs, texts=texts), rows.device, shown)
    if output is not None:
        result.model.save(output)
    if shown.as_json:
        print_json(result.as_dict() | ({} if output is None else {"model": output}))
    else:
        _show(result, output, shown.quiet)
    if alarm is not None and (result.far or 0.0) > alarm:
        raise typer.Exit(_ALARM)


def _name_new(result: Update, old: Model, data: DataSet, device: str, shown: shared.Shown) -> None:
    """Names of new clusters by the texts of their rows."""
    from dinkcli.cli.name import name_by_texts

    if not old.names:
        return
    seen = name_by_texts(result.model, data, device, shown.silent)
    names = list(result.model.all_names)
    for cluster in result.born:
        names[cluster] = seen.names[cluster]
    result.model.names = names


def _finish_join(model: Model, inputs: list[str], output: str | None, shown: shared.Shown) -> None:
    if output is None:
        raise UsageError("--dry-run reports on rows; models are joined with -o MODEL")
    model.save(output)
    born = [number for entry in model.history[-len(inputs) :] for number in entry.get("born", [])]
    if shown.as_json:
        print_json({"model": output, "n_clusters": model.n_clusters, "born": born})
    elif not shown.quiet:
        say(f"{printable(output)}: {model.n_clusters} clusters, {len(born)} of them new")


def _show(result: Update, output: str | None, quiet: bool) -> None:
    if quiet:
        return
    names, counts = result.model.all_names, result.counts
    if result.repeated:
        say("These rows were taken in before: the model stays as it is.")
    far = "" if result.far is None else f"; {result.far:.1%} beyond the 99 % distance"
    say(f"{result.rows:,} rows in {int((counts > 0).sum())} clusters{far}")
    say_bad_rows(result.bad_rows, quiet)
    for what, numbers in (("new", result.born), ("retired", result.retired)):
        if numbers:
            listed = ", ".join(f"{j} {printable(names[j])}".strip() for j in numbers[:_MOST_SHOWN])
            say(f"{what} clusters: {listed}")
    if output is not None:
        say(f"{printable(output)}: {len(result.model.present)} clusters")
        return
    named = Field("name", text=True) if result.model.names else None
    table = Sheet("cluster", named, "rows", "spread", "before", "moved")
    for j in (-counts).argsort(kind="stable")[:_MOST_SHOWN].tolist():
        figures = result.spreads[j], result.old_spreads[j], result.moved[j]
        table.add(j, names[j] or "-", f"{counts[j]:g}", *map("{:.3g}".format, figures))
    show("clusters by new rows (spread: root mean squared distance to the centre)", table)
