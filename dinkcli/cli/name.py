"""``dink name``, and names as other commands give them to a model."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import typer

from dinkcli.cli import options as shared
from dinkcli.cli.console import (
    Field,
    ProgressLines,
    Sheet,
    print_json,
    printable,
    rows_shown,
    say,
    show,
)
from dinkcli.cli.options import main_option, output_option
from dinkcli.cli.paths import check_model_path, levels_of, load_model
from dinkcli.cli.signals import exit_code
from dinkcli.errors import DinkError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dinkcli.data.dataset import DataSet
    from dinkcli.insight.inspect import Seen
    from dinkcli.insight.llm import Answers, Server
    from dinkcli.models.model import Model


def name(
    *,
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] | None = shared.OPTIONAL_INPUTS,
    texts: list[str] | None = shared.TEXTS,
    labels: list[str] | None = shared.LABELS,
    names: str | None = main_option(
        None,
        "--names",
        metavar="FILE",
        help="Take the names from a file: lines such as '17: name' or '17,name', a name on "
        "each line, or JSON. - is standard input. Clusters that are not in it keep theirs.",
    ),
    prompt: bool = output_option(
        False,
        "--prompt",
        help="Write on standard output what a language model needs to name the clusters: "
        "terms and typical rows. Its answer is a file for --names. The model stays as it is.",
    ),
    llm: str | None = main_option(
        None,
        "--llm",
        metavar="URL",
        help="Ask a language model for the names, one request a cluster: any server of OpenAI's "
        "chat completions, as http://localhost:8000/v1; with a key in OPENAI_API_KEY if it wants "
        "one. Needs --texts.",
    ),
    llm_model: str | None = main_option(
        None, "--llm-model", metavar="NAME", help="The model that the server of --llm should use."
    ),
    levels: str | None = main_option(
        None,
        "--levels",
        metavar="K,K,...",
        help="Also name the groups of these levels of the tree, which assign --levels writes.",
    ),
    output: str | None = main_option(
        None,
        "-o",
        "--output",
        metavar="FILE",
        help="Write the named model here; by default the model itself gets the names.",
    ),
    force: bool = main_option(
        False, "--force", help="Replace names that were given by dink edit as well."
    ),
    rows: shared.ModelRows,
    shown: shared.Shown,
) -> None:
    """Name clusters by texts or labels of rows, or from a file.

    By texts, a name is of terms that tell a cluster from the others; by labels, of those that most
    of its rows have.

    Examples:
        dink name emb.dink.safetensors emb.parquet --texts text
        dink name emb.dink.safetensors emb.parquet --texts text --prompt > prompt.txt
        dink name emb.dink.safetensors emb.npy --texts texts.txt
        dink name emb.dink.safetensors emb.parquet --labels topic
        dink name emb.dink.safetensors --names answers.txt
        dink name MODEL emb.parquet --texts text --llm http://localhost:8000/v1 --llm-model qwen3
    """
    from dinkcli.data.atomic import check_target
    from dinkcli.insight.llm import Answers, Server, group_questions, questions
    from dinkcli.insight.names import group_names, keep_group_names

    by_texts, by_labels = bool(texts), bool(labels)
    if bool(inputs) != (by_texts or by_labels):
        raise UsageError(
            "names come from texts or labels of rows: give an INPUT, and --texts or --labels"
        )
    if not inputs and names is None and not levels:
        raise UsageError("give an INPUT with --texts or --labels, or --names FILE")
    if prompt and not by_texts:
        raise UsageError("--prompt shows rows: give an INPUT with --texts")
    if prompt and names is not None:
        raise UsageError("--prompt asks for names and --names gives them: use one at a time")
    if (llm is None) != (llm_model is None) or (llm is not None and not by_texts):
        raise UsageError("a language model names texts: give --llm, --llm-model and --texts")
    if llm is not None and (prompt or names is not None):
        raise UsageError("--llm asks for names by itself: leave --prompt and --names away")
    answers = None
    server = None if llm is None or llm_model is None else Server(llm, llm_model)
    model = load_model(model_path, inputs or ())
    if output is not None:
        check_model_path(output)
    check_target(output or model_path)
    before = model.all_names
    given = {} if names is None else _read_names(names, model.n_clusters)
    if inputs:
        data = rows.open(model, inputs, labels=labels, texts=texts)
        if by_texts:
            named = name_by_texts(model, data, rows.device, shown.silent)
            if prompt:
                from dinkcli.insight.inspect import prompt as prompt_of

                sys.stdout.write(prompt_of(named))
                return
            model.names, model.terms, model.group_names = named.names, named.terms, {}
            if server is not None:
                answers = Answers(f"{output or model_path}.answers.jsonl")
                by_hand = () if force else model.named_by_hand
                asked = {j: q for j, q in questions(model, named).items() if j not in by_hand}
                for j, text in _ask(server, asked, answers, "cluster", shown.silent).items():
                    model.names[j] = text
        if by_labels:
            from dinkcli.insight.evaluate import names_by_labels

            with rows_shown(data, shown.silent) as progress:
                model.names = names_by_labels(model, data, rows.device, partial(progress, "naming"))
    model.names = [given.get(j, text) for j, text in enumerate(model.all_names)]
    if force:
        model.named_by_hand = []
    for j in model.named_by_hand:
        model.names[j] = before[j]
    groups = []
    for level in levels_of(levels):
        named_groups = group_names(model, model.groups(level))
        if server is not None and answers is not None:
            asked = group_questions(model, level)
            named_groups |= _ask(server, asked, answers, "group", shown.silent)
        groups += keep_group_names(model, level, named_groups)
    target = output or model_path
    model.save(target)
    if answers is not None:
        answers.remove()
    if shown.as_json:
        print_json(
            [
                {"cluster": j, "name": text, "terms": model.terms[j] if model.terms else []}
                for j, text in enumerate(model.names)
            ]
            + groups
        )
        return
    _show_names(model)
    if groups:
        table = Sheet(
            "level", "group", Field("clusters", drop=1, text=True), Field("name", text=True)
        )
        for each in groups:
            inside = ",".join(map(str, each["clusters"]))
            table.add(each["level"], each["group"], inside, each["name"] or "-")
        show("groups of clusters", table)
    if not shown.quiet:
        number = sum(map(bool, model.names))
        say(f"{printable(target)}: {number} of {model.n_clusters} clusters have a name")


def name_by_texts(model: Model, data: DataSet, device: str, quiet: bool) -> Seen:
    """Names by the texts of the rows, with progress."""
    from dinkcli.insight.inspect import look

    with rows_shown(data, quiet) as progress:
        return look(model, data, 8, device, with_terms=True, on_rows=partial(progress, "naming"))


def _ask(
    server: Server, asked: Mapping[int, str], answers: Answers, what: str, silent: bool
) -> dict[int, str]:
    """The names that a language model gives, by number; none where its answer is no name."""
    from dinkcli.insight.llm import ask

    names: dict[int, str] = {}
    try:
        with ProgressLines(silent) as lines:
            for done, reply in enumerate(ask(server, asked, answers), 1):
                lines.update("asking", done, len(asked), f"{what}s", reply.name or "")
                if reply.name is None:
                    lines.details(f"{what} {reply.number}: {reply.problem}; its words stay")
                else:
                    names[reply.number] = reply.name
    except (KeyboardInterrupt, DinkError) as error:
        kept = f"answers kept in {printable(answers.path)}: {len(answers)}; "
        kept = kept + "the same command goes on from there" if len(answers) else ""
        if isinstance(error, DinkError):
            raise type(error)(f"{error}; {kept}" if kept else str(error)) from error
        say(f"Interrupted; {kept or 'nothing was written'}.")
        raise typer.Exit(exit_code(error)) from None
    return names


def _read_names(path: str, n_clusters: int) -> dict[int, str]:
    """The names in a file, by cluster."""
    from dinkcli.insight.names import parse_names

    try:
        if path == "-":
            text = sys.stdin.read()
        else:
            with open(path, encoding="utf-8-sig") as file:
                text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"--names {printable(path)}: {reason}") from None
    return parse_names(text, n_clusters, f"--names {printable(path)}")


def _show_names(model: Model) -> None:
    """A table of names, the largest clusters first."""
    terms = Field("terms", drop=1, text=True) if model.terms else None
    table = Sheet("cluster", "rows", Field("name", text=True), terms)
    for j in (-model.cluster_sizes).argsort(kind="stable").tolist():
        words = ", ".join(model.terms[j]) if model.terms else ""
        table.add(j, f"{model.cluster_sizes[j]:g}", model.names[j] or "-", words)
    show("clusters by size", table)
