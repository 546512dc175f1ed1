"""Help, completion and choices through the real command."""

import os
import re
import subprocess
import sys
from typing import get_args

import pytest
from conftest import environment, loads_torch, python

from dinkcli.assigning.writers import FORMATS
from dinkcli.cli import changes, options
from dinkcli.cli.app import COMMANDS
from dinkcli.data.dataset import BAD_ROWS
from dinkcli.models.export import EXPORTERS
from dinkcli.options import METRICS


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_groups_and_examples(dink, command):
    shown = dink(command, "--help").stdout
    assert dink(command, "-h").stdout == shown
    assert shown.startswith(f"Usage: dink {command} ")
    groups = re.findall(r"^(\w+):$", shown, re.MULTILINE)
    order = ["Arguments", "Main", "Input", "Clusters", "Output", "Expert", "Run", "Examples"]
    assert groups == [name for name in order if name in groups]
    assert {"Arguments", "Run", "Examples"} <= set(groups)
    examples = re.findall(r"^  (.*\bdink .*)$", shown.partition("Examples:")[2], re.MULTILINE)
    assert len(examples) >= 2
    for option in re.findall(r" (--?[a-z][a-z-]*)", " ".join(examples)):
        assert re.search(rf"{option}\b", shown.partition("Examples:")[0]) or "|" in shown
    # Sentences: a capital or a value first, a full stop last.
    for text in re.findall(r"^  -.*?(?=^  -|^$)", shown, re.MULTILINE | re.DOTALL):
        words = re.sub(r"\[(default|required|x>=|x<=)[^]]*\]", "", " ".join(text.split()))
        assert words.rstrip().endswith((".", ")", "--quiet")), words


def test_the_list_of_commands_is_whole(dink):
    listed = dink("--help").stdout.partition("Commands:")[2].partition("Options:")[0]
    assert re.findall(r"^  (\w+)", listed, re.MULTILINE) == list(COMMANDS)
    assert all(line.endswith(".") and "..." not in line for line in listed.split("\n") if line)


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_help_uses_the_width(dink, columns):
    env = environment() | {"COLUMNS": str(columns)}
    for command in COMMANDS:
        shown = dink(command, "-h", env=env).stdout.partition("Examples:")[0]
        widest = max(map(len, shown.splitlines()))
        assert min(columns, 110) - 20 < widest <= columns


def complete(*words):
    env = environment() | {
        "_DINK_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(("dink", *words)),
        "COMP_CWORD": str(len(words)),
    }
    command = [python(), "-c", "from dinkcli.cli import main; main()"]
    return subprocess.run(command, env=env, capture_output=True, text=True).stdout.split()


@pytest.mark.slow
def test_values_complete():
    assert complete("train", "--metric", "") == list(METRICS)
    assert complete("train", "--bad-rows", "s") == ["stop", "skip"]
    assert complete("train", "-k", "") == ["auto", "clear"]
    assert complete("assign", "--format", "arr") == ["arrow", "arrows"]
    assert complete("train", "--device", "c") == ["cpu", "cuda", "cuda:0"]
    assert complete("train", "--init", "k") == ["kmeans++"]
    assert set(complete("t")) == {"train"}


def test_choices_are_those_of_the_core():
    """What the command line offers, which knows no core module, is what the core takes."""

    def choices(annotation):
        if getattr(annotation, "__metadata__", None):
            annotation = annotation.__origin__
        found = [get_args(part) or (part,) for part in get_args(annotation)]
        flat = [value for group in found for value in group]
        return {value for value in flat if isinstance(value, str)}

    def of(command, name):
        import inspect

        return choices(inspect.signature(command, eval_str=True).parameters[name].annotation)

    assert choices(options.Metric) == set(METRICS)
    assert choices(options.BadRows) == set(BAD_ROWS)
    assert choices(options.OutputFormat) == set(FORMATS)
    assert of(changes.export, "format") == set(EXPORTERS)


def test_a_wrong_choice_lists_the_right_ones(dink):
    result = dink("train", "x.npy", "-k", 3, "--metric", "taxi", code=2)
    assert "Invalid value for '--metric': 'taxi' is not one of 'euclidean', 'cosine'" in (
        result.stderr
    )


def test_help_needs_neither_torch_nor_rich():
    assert not loads_torch("train", "--help")
    code = "import sys; from dinkcli.cli import main; sys.argv = ['dink', 'train', '-h']\n"
    code += "try:\n    main()\nfinally:\n    print('rich' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "False"
    assert os.environ.get("TYPER_USE_RICH") is None
