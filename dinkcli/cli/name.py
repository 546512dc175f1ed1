"""``dink name``, and names as other commands give them to a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dinkcli.cli import options as shared
from dinkcli.cli.console import ProgressLines, printable, say, show_result
from dinkcli.cli.options import main_option, output_option
from dinkcli.cli.paths import check_model_path, levels_of, load_model
from dinkcli.cli.signals import exit_code
from dinkcli.errors import UsageError

if TYPE_CHECKING:
    from dinkcli.insight.llm import Reply


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
    from dinkcli.insight.llm import Answers
    from dinkcli.insight.naming import name as core

    by_rows = bool(texts or labels)
    if bool(inputs) != by_rows:
        raise UsageError(
            "names come from texts or labels of rows: give an INPUT, and --texts or --labels"
        )
    if prompt and not texts:
        raise UsageError("--prompt shows rows: give an INPUT with --texts")
    if prompt and (names or llm):
        raise UsageError("--prompt, --names and --llm are three ways to names: choose one of them")
    model = load_model(model_path, inputs or ())
    target = output or model_path
    check_model_path(output)
    check_target(target)
    data = rows.open(model, inputs, labels=labels, texts=texts) if inputs else None
    n_rows = 0 if data is None else data.known_rows
    answers = f"{target}.answers.jsonl" if llm else None
    with ProgressLines(shown.silent) as lines:

        def on_reply(what: str, done: int, total: int, reply: Reply) -> None:
            lines.update("asking", done, total, f"{what}s", reply.name or "")
            if reply.name is None:
                lines.details(f"{what} {reply.number}: {reply.problem}; its words stay")

        try:
            result = core(
                model,
                data,
                names=names,
                llm=llm,
                llm_model=llm_model,
                answers=answers,
                levels=levels_of(levels),
                force=force,
                device=rows.device,
                on_rows=lambda done: lines.update("naming", done, n_rows, "rows"),
                on_reply=on_reply,
            )
        except KeyboardInterrupt as error:
            advice = Answers(answers).advice
            if not advice:
                raise
            say(f"Interrupted{advice}.")
            raise typer.Exit(exit_code(error)) from None
    if prompt:
        sys.stdout.write(result.prompt)
        return
    result.model.save(target)
    if answers is not None:
        Path(answers).unlink(missing_ok=True)
    show_result(result, shown.as_json)
    if not shown.silent:
        number = sum(map(bool, result.model.names))
        say(f"{printable(target)}: {number} of {model.n_clusters} clusters have a name")
