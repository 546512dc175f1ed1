"""Commands that change a model, by rows or by hand, or write it for other tools."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from dinkcli.cli import console
from dinkcli.cli import options as shared
from dinkcli.cli.options import clusters_option, main_option, output_option
from dinkcli.cli.paths import check_model_path, levels_of, load_model, refuse_stream
from dinkcli.cli.signals import end, exit_code
from dinkcli.errors import UsageError
from dinkcli.options import UpdateOptions

if TYPE_CHECKING:
    from dinkcli.assigning.update import Update
    from dinkcli.insight.llm import Reply

_MOST_SHOWN = 20
_ALARM = 3  # the exit code, for cron
Format = Literal[
    "npy", "parquet", "csv", "json", "safetensors", "onnx", "pt2", "faiss", "faiss-ivf", "sklearn"
]


def name(
    *,
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] | None = shared.OPTIONAL_INPUTS,
    texts: list[str] | None = shared.TEXTS,
    labels: list[str] | None = shared.LABELS,
    names: str | None = main_option(None, "--names FILE"),
    prompt: bool = output_option(False, "--prompt"),
    llm: str | None = main_option(None, "--llm URL"),
    llm_model: str | None = main_option(None, "--llm-model NAME"),
    levels: str | None = main_option(None, "--levels K,K,..."),
    output: str | None = main_option(None, "-o --output FILE"),
    force: bool = main_option(False, "--force"),
    rows: shared.ModelRows,
    shown: shared.Shown,
) -> None:
    """Name clusters by texts or labels of rows, or from a file.

    By texts, a name is of terms that tell a cluster from the others; by labels, of those that most
    of its rows have.

    Args:
        names: Take the names from a file: lines such as '17: name' or '17,name', a name on each
            line, or JSON. - is standard input. Clusters that are not in it keep theirs.
        prompt: Write on standard output what a language model needs to name the clusters: terms
            and typical rows. Its answer is a file for --names. The model stays as it is.
        llm: Ask a language model for the names, one request a cluster: any server of OpenAI's chat
            completions, as http://localhost:8000/v1; with a key in OPENAI_API_KEY if it wants one.
            Needs --texts.
        llm_model: The model that the server of --llm should use.
        levels: Also name the groups of these levels of the tree, which assign --levels writes.
        output: Write the named model here; by default the model itself gets the names.
        force: Replace names that were given by dink edit as well.

    Examples:
        dink name emb.dink.safetensors emb.parquet --texts text
        dink name emb.dink.safetensors emb.parquet --texts text --prompt > prompt.txt
        dink name emb.dink.safetensors emb.npy --texts texts.txt
        dink name emb.dink.safetensors emb.parquet --labels topic
        dink name emb.dink.safetensors --names answers.txt
        dink name MODEL emb.parquet --texts text --llm http://localhost:8000/v1 --llm-model qwen3
    """
    from dinkcli.insight.llm import Answers
    from dinkcli.insight.naming import name as core

    if prompt and not texts:
        raise UsageError("--prompt shows rows: give an INPUT with --texts")
    if prompt and (names or llm):
        raise UsageError("--prompt, --names and --llm are three ways to name: choose one of them")
    model = load_model(model_path, inputs or ())
    target = output or model_path
    check_model_path(target)
    beside: dict[str, Any] = {"texts": texts, "labels": labels}
    data = rows.open(model, inputs, **beside) if inputs else None
    n_rows = 0 if data is None else data.known_rows
    answers = f"{target}.answers.jsonl" if llm else None
    with console.ProgressLines(shown.silent) as lines:

        def on_reply(what: str, done: int, total: int, reply: Reply) -> None:
            lines.update("asking", done, total, f"{what}s", reply.name or "")
            if reply.name is None:
                lines.details(f"{what} {reply.number}: {reply.problem}; its words stay")

        try:
            result = core(
                model,
                data,
                **({} if inputs else beside),
                names=names,
                llm=llm,
                llm_model=llm_model,
                answers=answers,
                levels=levels_of(levels),
                force=force,
                device=rows.device,
                on_rows=partial(lines.update, "naming", total=n_rows, unit="rows"),
                on_reply=on_reply,
            )
        except KeyboardInterrupt as error:
            if advice := Answers(answers).advice:
                end(exit_code(error), shown.as_json, f"Interrupted{advice}.")
            raise
    if prompt:
        sys.stdout.write(result.prompt)
        return
    result.model.save(target)
    if answers is not None:
        Path(answers).unlink(missing_ok=True)
    number = sum(map(bool, result.model.names))
    said = f"{target}: {number} of {model.n_clusters} clusters have a name"
    console.show_result(result, shown, said)


def update(
    *,
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] = shared.INPUTS,
    output: str | None = main_option(None, "-o --output FILE"),
    dry_run: bool = output_option(False, "--dry-run"),
    freeze: bool = clusters_option(False, "--freeze"),
    birth_price: float = clusters_option(5.0),
    min_size: int = clusters_option(5),
    half_life: float | None = clusters_option(None),
    max_size: str | None = clusters_option(None, "--max-size NUMBER|1.2x"),
    alarm: float | None = output_option(None, "--alarm SHARE"),
    sample_weight: str | None = shared.SAMPLE_WEIGHT,
    texts: list[str] | None = shared.TEXTS,
    rows: shared.ModelRows,
    shown: shared.Shown,
) -> None:
    """Update a model by new rows, without the old ones.

    Centres stay the means of all rows that were ever assigned to them, clusters keep their numbers
    and names, and sets of rows that are far from all of them become new clusters. The same rows
    twice change nothing. If the input is another model, the two are joined.

    Args:
        output: The model to write; to change MODEL itself, name it again. Not with --dry-run.
        dry_run: Write nothing and show how the rows differ from those before: the drift report.
        freeze: Move no centre and make no cluster; only count the rows.
        birth_price: How much a new cluster must lower the inertia, in mean squared distances of a
            row; inf for no new clusters.
        min_size: The fewest rows of a new cluster.
        half_life: After how many updates earlier rows count half. A cluster that gets no more rows
            retires. By default nothing fades.
        max_size: The most new rows that a cluster may take, or how many times the mean.
        alarm: End with exit code 3 where more than this share of the rows lies beyond the 99 %
            distance of its cluster.

    Examples:
        dink update topics.dink.safetensors week27.parquet -o topics.dink.safetensors
        dink update topics.dink.safetensors week27.parquet --dry-run --alarm 0.05
        dink update north.dink.safetensors south.dink.safetensors -o both.dink.safetensors
    """
    if dry_run == (output is not None):
        raise UsageError("give -o MODEL for the new model, or --dry-run to write none")
    if output is not None:
        check_model_path(output)
    from dinkcli.models.file import is_model

    if any(map(is_model, inputs)):
        _join(model_path, inputs, output, shown)
        return
    options = UpdateOptions(freeze, birth_price, min_size, half_life, max_size)
    model = load_model(model_path, inputs)
    data = rows.open(model, inputs, sample_weight=sample_weight, texts=texts)

    from dinkcli.insight.naming import update as core

    with console.rows_shown(data, shown.silent) as on_rows:
        result = core(model, data, **vars(options), device=rows.device, on_rows=on_rows)
    if output is not None:
        result.model.save(output)
    document = result.to_dict() | ({} if output is None else {"model": output})
    console.show_result(document, shown, *_sentences(result, output))
    if output is None and not shown.silent:
        console.show_result(result, shown)
    if alarm is not None and (result.far or 0.0) > alarm:
        raise typer.Exit(_ALARM)


def _join(model_path: str, inputs: list[str], output: str | None, shown: shared.Shown) -> None:
    from dinkcli.assigning.update import join

    if output is None:
        raise UsageError("--dry-run reports on rows; models are joined with -o MODEL")
    model = load_model(model_path)
    for path in inputs:
        model = join(model, path)
    model.save(output)
    born = [number for entry in model.history[-len(inputs) :] for number in entry.get("born", [])]
    document = {"model": output, "n_clusters": model.n_clusters, "born": born}
    said = f"{output}: {model.n_clusters} clusters, {len(born)} of them new"
    console.show_result(document, shown, said)


def _sentences(result: Update, output: str | None) -> Iterator[str]:
    names = result.model.all_names
    if result.repeated:
        yield "The model already has these rows: it stays as it is."
    far = "" if result.far is None else f"; {result.far:.1%} beyond the 99 % distance"
    yield f"{result.rows:,} rows in {int((result.counts > 0).sum())} clusters{far}"
    yield console.bad_rows(result.bad_rows)
    for what, numbers in (("new", result.born), ("retired", result.retired)):
        if numbers:
            listed = ", ".join(f"{j} {names[j]}".strip() for j in numbers[:_MOST_SHOWN])
            yield f"{what} clusters: {listed}"
    if output is not None:
        yield f"{output}: {len(result.model.present)} clusters"


def edit(
    *,
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] | None = shared.OPTIONAL_INPUTS,
    output: str = shared.file_option(),
    merge: list[str] | None = clusters_option(None, "--merge A,B,..."),
    merged_name: str | None = clusters_option(None, "--as NAME"),
    split: list[str] | None = clusters_option(None, "--split A[:PARTS]"),
    drop: list[str] | None = clusters_option(None, "--drop A[:outlier]"),
    name: list[str] | None = clusters_option(None, "--name A:NAME"),
    seed: int = shared.SEED,
    rows: shared.ModelRows,
    shown: shared.Shown,
) -> None:
    """Change a model by hand: merge, split, drop and name clusters.

    A cluster is given by its number, its name, or a part of its name. Edits are done in the order
    merge, split, drop, name. Numbers of clusters never change, and a number that is gone is not
    used again.

    Args:
        output: The model to write; to change MODEL itself, name it again.
        merge: Merge clusters into the first one, which keeps its number. May be given more than
            once.
        merged_name: The name of the merged cluster.
        split: Split a cluster in two, or in as many parts as given, by the rows of INPUT; the
            largest part keeps the number.
        drop: Drop a cluster: its rows go to the next centre, or with :outlier have the label -1.
        name: Name a cluster. dink name changes such a name only with --force.

    Examples:
        dink edit topics.dink.safetensors --merge 10,51 --as 'card lost' -o topics.dink.safetensors
        dink edit topics.dink.safetensors rows.parquet --split 69:3 -o finer.dink.safetensors
        dink edit topics.dink.safetensors --drop 5:outlier --name '7: late' -o new.dink.safetensors
    """
    merge, split, drop, name = merge or [], split or [], drop or [], name or []
    number = len(merge) + len(split) + len(drop) + len(name)
    if not number:
        raise UsageError("nothing to edit: give --merge, --split, --drop or --name")
    if bool(split) != bool(inputs):
        raise UsageError("--split looks at rows: give an INPUT with it, and none without")
    if merged_name is not None and len(merge) != 1:
        raise UsageError("--as names what one --merge merges")
    check_model_path(output)
    from dinkcli.models import edit as edits

    model = load_model(model_path, inputs or ())
    for text in merge:
        clusters = [edits.cluster_of(model, part) for part in text.split(",")]
        model = edits.merge(model, clusters, merged_name)
    for text in split:
        from dinkcli import api

        match = re.fullmatch(r"(.*):(\d{1,6})", text)
        which, parts = (text, 2) if match is None else (match[1], int(match[2]))
        data, cluster = rows.open(model, inputs or []), edits.cluster_of(model, which)
        model = api.split(model, cluster, data, parts, seed=seed, device=rows.device)
    for text in drop:
        outlier = text.endswith(":outlier")
        model = edits.drop(model, edits.cluster_of(model, text.removesuffix(":outlier")), outlier)
    for text in name:
        which, colon, new = text.partition(":")
        if not colon or not new.strip():
            raise UsageError(f"--name {text}: expected a cluster, a colon and its name")
        model = edits.rename(model, edits.cluster_of(model, which), new.strip())
    model.save(output)
    entries, number = model.history[-number:], len(model.present)
    document = {"model": output, "n_clusters": number, "edits": entries}
    said = map(edits.described, entries)
    console.show_result(document, shown, *said, f"{output}: {number} clusters")


def export(
    *,
    model_path: str = shared.MODEL_PATH,
    output: str = shared.file_option(),
    format: Format | None = output_option(None),
    quiet: bool = shared.QUIET,
) -> None:
    """Write a model for other tools.

    That is its centres, or something that computes labels without dink.

    Args:
        output: The file to write.
        format: The first five hold the centres; onnx, pt2 (torch.export), faiss and sklearn (skops)
            compute labels; faiss-ivf is an index to add rows to, with the centres as its lists. By
            default the format follows from the suffix.

    Examples:
        dink export emb.dink.safetensors -o centers.npy
        dink export emb.dink.safetensors -o model.onnx
    """
    from dinkcli.models.export import export as core

    refuse_stream(output, "an export")
    model = load_model(model_path, warns=True)
    chosen = core(model, output, format)
    if not quiet:
        console.say(
            f"{output}: {model.n_clusters} centres of {model.n_features} features, {chosen}"
        )
