"""``dink edit``."""

from __future__ import annotations

import re

from dinkcli.cli import options as shared
from dinkcli.cli.console import print_json, printable, say
from dinkcli.cli.options import clusters_option, file_option
from dinkcli.cli.paths import check_model_path, load_model
from dinkcli.errors import UsageError

_MERGE = clusters_option(
    None,
    "--merge",
    metavar="A,B,...",
    help="Clusters that are one from now on, with the number of the first. May be given more "
    "than once.",
)
_SPLIT = clusters_option(
    None,
    "--split",
    metavar="A[:PARTS]",
    help="A cluster that is two from now on, or as many as said, by the rows of INPUT; the "
    "largest part keeps its number.",
)
_DROP = clusters_option(
    None,
    "--drop",
    metavar="A[:outlier]",
    help="A cluster that is none from now on: its rows go to the next centre, or with :outlier "
    "have the label -1.",
)
_NAME = clusters_option(
    None,
    "--name",
    metavar="A:NAME",
    help="The name of a cluster. dink name changes it with --force only.",
)


def edit(
    *,
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] | None = shared.OPTIONAL_INPUTS,
    output: str = file_option(help="The model to write; MODEL itself, if that is meant."),
    merge: list[str] | None = _MERGE,
    merged_name: str | None = clusters_option(
        None, "--as", metavar="NAME", help="The name of what --merge merges."
    ),
    split: list[str] | None = _SPLIT,
    drop: list[str] | None = _DROP,
    name: list[str] | None = _NAME,
    seed: int = shared.SEED,
    rows: shared.ModelRows,
    shown: shared.Shown,
) -> None:
    """Change a model by hand: merge, split, drop and name clusters.

    A cluster is given by its number, its name, or a part of it. Edits are done in the order merge,
    split, drop, name. Numbers of clusters never change, and those that are gone are not used again.

    Examples:
        dink edit topics.dink.safetensors --merge 10,51 --as 'card lost' -o topics.dink.safetensors
        dink edit topics.dink.safetensors rows.parquet --split 69:3 -o finer.dink.safetensors
        dink edit topics.dink.safetensors --drop 5:outlier --name '7: late' -o new.dink.safetensors
    """
    check_model_path(output)
    if not (merge or split or drop or name):
        raise UsageError("nothing to edit: give --merge, --split, --drop or --name")
    if bool(split) != bool(inputs):
        raise UsageError("--split looks at rows: give an INPUT with it, and none without")
    if merged_name is not None and len(merge or ()) != 1:
        raise UsageError("--as names what one --merge merges")
    from dinkcli.data.atomic import check_target
    from dinkcli.insight.overview import cluster_of
    from dinkcli.models import edit as edits

    check_target(output)
    model = load_model(model_path, inputs or ())
    for text in merge or ():
        clusters = [cluster_of(model, part) for part in text.split(",")]
        model = edits.merge(model, clusters, merged_name)
    for text in split or ():
        which, parts = _with_number(text)
        from dinkcli.insight.split import split as split_by_rows
        from dinkcli.processes.device import resolve_device

        data, device = rows.open(model, inputs or []), resolve_device(rows.device)
        model = split_by_rows(model, cluster_of(model, which), data, parts, seed, device)
    for text in drop or ():
        outlier = text.endswith(":outlier")
        model = edits.drop(model, cluster_of(model, text.removesuffix(":outlier")), outlier)
    for text in name or ():
        which, colon, new = text.partition(":")
        if not colon or not new.strip():
            raise UsageError(f"--name {printable(text)}: expected a cluster, a colon and its name")
        model = edits.rename(model, cluster_of(model, which), new.strip())
    model.save(output)
    entries = model.history[-sum(map(len, (merge or (), split or (), drop or (), name or ()))) :]
    if shown.as_json:
        print_json({"model": output, "n_clusters": len(model.present), "edits": entries})
    elif not shown.quiet:
        for entry in entries:
            say(described(entry))
        say(f"{printable(output)}: {len(model.present)} clusters")


def described(entry: dict[str, object]) -> str:
    """A line of a model's history."""
    more = {key: value for key, value in entry.items() if key not in ("when", "what") and value}
    facts = ", ".join(f"{key} {printable(value)}" for key, value in more.items())
    return f"{entry.get('what', '')}: {facts}"


def _with_number(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.*):(\d{1,6})", text)
    return (text, 2) if match is None else (match[1], int(match[2]))
