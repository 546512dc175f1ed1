"""``dink update`` and ``dink edit``: a model changed by new rows, or by hand."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import typer

from dinkcli.cli import options as shared
from dinkcli.cli.console import print_json, printable, rows_shown, say, say_bad_rows, show_result
from dinkcli.cli.options import clusters_option, main_option, output_option
from dinkcli.cli.paths import check_model_path, load_model
from dinkcli.errors import UsageError

if TYPE_CHECKING:
    from dinkcli.assigning.update import Update

_MOST_SHOWN = 20
_ALARM = 3  # the exit code, for cron
_TARGET = "The model to write; to change MODEL itself, name it again."


def update(
    *,
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] = shared.INPUTS,
    output: str | None = main_option(
        None, "-o --output FILE", help=f"{_TARGET} Not with --dry-run."
    ),
    dry_run: bool = output_option(
        False,
        "--dry-run",
        help="Write nothing and show how the rows differ from those before: the drift report.",
    ),
    freeze: bool = clusters_option(
        False, "--freeze", help="Move no centre and make no cluster; only count the rows."
    ),
    birth_price: float = clusters_option(
        5.0,
        help="How much a new cluster must lower the inertia, in mean squared distances of a row; "
        "inf for no new clusters.",
    ),
    min_size: int = clusters_option(5, help="The fewest rows of a new cluster."),
    half_life: float | None = clusters_option(
        None,
        help="After how many updates earlier rows count half. A cluster that gets no more rows "
        "retires. By default nothing fades.",
    ),
    max_size: str | None = clusters_option(
        None,
        "--max-size NUMBER|1.2x",
        help="The most new rows that a cluster may take, or how many times the mean.",
    ),
    alarm: float | None = output_option(
        None,
        "--alarm SHARE",
        help="End with exit code 3 where more than this share of the rows lies beyond the 99 % "
        "distance of its cluster.",
    ),
    sample_weight: str | None = shared.SAMPLE_WEIGHT,
    texts: list[str] | None = shared.TEXTS,
    rows: shared.ModelRows,
    shown: shared.Shown,
) -> None:
    """Update a model by new rows, without the old ones.

    Centres stay the means of all rows that were ever assigned to them, clusters keep their numbers
    and names, and sets of rows that are far from all of them become new clusters. The same rows
    twice change nothing. If the input is another model, the two are joined.

    Examples:
        dink update topics.dink.safetensors week27.parquet -o topics.dink.safetensors
        dink update topics.dink.safetensors week27.parquet --dry-run --alarm 0.05
        dink update north.dink.safetensors south.dink.safetensors -o both.dink.safetensors
    """
    if dry_run == (output is not None):
        raise UsageError("give -o MODEL for the new model, or --dry-run to write none")
    check_model_path(output)
    from dinkcli.assigning.update import UpdateOptions
    from dinkcli.models.file import is_model

    if any(map(is_model, inputs)):
        _join(model_path, inputs, output, shown)
        return
    UpdateOptions(freeze, birth_price, min_size, half_life, max_size)  # a wrong one is told first
    model = load_model(model_path, inputs)
    data = rows.open(model, inputs, sample_weight=sample_weight, texts=texts)

    from dinkcli.insight.naming import update as core

    with rows_shown(data, shown.silent) as on_rows:
        result = core(
            model,
            data,
            freeze=freeze,
            birth_price=birth_price,
            min_size=min_size,
            half_life=half_life,
            max_size=max_size,
            device=rows.device,
            on_rows=on_rows,
        )
    if output is not None:
        result.model.save(output)
    if shown.as_json:
        print_json(result.to_dict() | ({} if output is None else {"model": output}))
    elif not shown.quiet:
        _show(result, output)
    if alarm is not None and (result.far or 0.0) > alarm:
        raise typer.Exit(_ALARM)


def _join(model_path: str, inputs: list[str], output: str | None, shown: shared.Shown) -> None:
    from dinkcli.assigning.update import join
    from dinkcli.models.file import load

    model = load_model(model_path)
    for path in inputs:
        model = join(model, load(path))
    if output is None:
        raise UsageError("--dry-run reports on rows; models are joined with -o MODEL")
    model.save(output)
    born = [number for entry in model.history[-len(inputs) :] for number in entry.get("born", [])]
    if shown.as_json:
        print_json({"model": output, "n_clusters": model.n_clusters, "born": born})
    elif not shown.quiet:
        say(f"{printable(output)}: {model.n_clusters} clusters, {len(born)} of them new")


def _show(result: Update, output: str | None) -> None:
    names, counts = result.model.all_names, result.counts
    if result.repeated:
        say("The model already has these rows: it stays as it is.")
    far = "" if result.far is None else f"; {result.far:.1%} beyond the 99 % distance"
    say(f"{result.rows:,} rows in {int((counts > 0).sum())} clusters{far}")
    say_bad_rows(result.bad_rows, False)
    for what, numbers in (("new", result.born), ("retired", result.retired)):
        if numbers:
            listed = ", ".join(f"{j} {printable(names[j])}".strip() for j in numbers[:_MOST_SHOWN])
            say(f"{what} clusters: {listed}")
    if output is not None:
        say(f"{printable(output)}: {len(result.model.present)} clusters")
        return
    show_result(result, False)


def edit(
    *,
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] | None = shared.OPTIONAL_INPUTS,
    output: str = shared.file_option(help=_TARGET),
    merge: list[str] | None = clusters_option(
        None,
        "--merge A,B,...",
        help="Merge clusters into the first one, which keeps its number. May be given more than "
        "once.",
    ),
    merged_name: str | None = clusters_option(
        None, "--as NAME", help="The name of the merged cluster."
    ),
    split: list[str] | None = clusters_option(
        None,
        "--split A[:PARTS]",
        help="Split a cluster in two, or in as many parts as given, by the rows of INPUT; the "
        "largest part keeps the number.",
    ),
    drop: list[str] | None = clusters_option(
        None,
        "--drop A[:outlier]",
        help="Drop a cluster: its rows go to the next centre, or with :outlier have the label -1.",
    ),
    name: list[str] | None = clusters_option(
        None,
        "--name A:NAME",
        help="Name a cluster. dink name changes such a name only with --force.",
    ),
    seed: int = shared.SEED,
    rows: shared.ModelRows,
    shown: shared.Shown,
) -> None:
    """Change a model by hand: merge, split, drop and name clusters.

    A cluster is given by its number, its name, or a part of its name. Edits are done in the order
    merge, split, drop, name. Numbers of clusters never change, and a number that is gone is not
    used again.

    Examples:
        dink edit topics.dink.safetensors --merge 10,51 --as 'card lost' -o topics.dink.safetensors
        dink edit topics.dink.safetensors rows.parquet --split 69:3 -o finer.dink.safetensors
        dink edit topics.dink.safetensors --drop 5:outlier --name '7: late' -o new.dink.safetensors
    """
    merge, split, drop, name = merge or [], split or [], drop or [], name or []
    number = len(merge) + len(split) + len(drop) + len(name)
    if number == 0:
        raise UsageError("nothing to edit: give --merge, --split, --drop or --name")
    if bool(split) != bool(inputs):
        raise UsageError("--split looks at rows: give an INPUT with it, and none without")
    if merged_name is not None and len(merge) != 1:
        raise UsageError("--as names what one --merge merges")
    check_model_path(output)
    from dinkcli.insight.overview import cluster_of
    from dinkcli.models import edit as edits

    model = load_model(model_path, inputs or ())
    for text in merge:
        model = edits.merge(
            model, [cluster_of(model, part) for part in text.split(",")], merged_name
        )
    for text in split:
        from dinkcli.insight.split import split as split_by_rows
        from dinkcli.processes.device import resolve_device

        match = re.fullmatch(r"(.*):(\d{1,6})", text)
        which, parts = (text, 2) if match is None else (match[1], int(match[2]))
        data, device = rows.open(model, inputs or []), resolve_device(rows.device)
        model = split_by_rows(model, cluster_of(model, which), data, parts, seed, device)
    for text in drop:
        outlier = text.endswith(":outlier")
        model = edits.drop(model, cluster_of(model, text.removesuffix(":outlier")), outlier)
    for text in name:
        which, colon, new = text.partition(":")
        if not colon or not new.strip():
            raise UsageError(f"--name {printable(text)}: expected a cluster, a colon and its name")
        model = edits.rename(model, cluster_of(model, which), new.strip())
    model.save(output)
    entries = model.history[-number:]
    if shown.as_json:
        print_json({"model": output, "n_clusters": len(model.present), "edits": entries})
    elif not shown.quiet:
        for entry in entries:
            say(edits.described(entry))
        say(f"{printable(output)}: {len(model.present)} clusters")
