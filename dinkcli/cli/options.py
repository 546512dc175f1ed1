"""The options that commands share, each declared once, and bundles of them: a parameter of a
command whose type is a bundle stands for all of its options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

import typer

if TYPE_CHECKING:
    from dinkcli.data.dataset import DataSet
    from dinkcli.models.model import Model

# The groups of the help, in their order; an option without one stands in the last.
GROUPS = ("Main", "Input", "Clusters", "Output", "Expert", "Run")


def option(group: str, default: Any, names: str = "", *, choices: str = "", **more: Any) -> Any:
    """An option in one of the groups of the help; the ``default`` is an ellipsis where there is
    none, ``names`` such as ``-o --output FILE`` may end in what stands for the value, ``choices``
    are completed on TAB where other values are possible too."""
    known, words = choices.split(), names.split()
    if known:
        more["autocompletion"] = lambda incomplete: [c for c in known if c.startswith(incomplete)]
    if words and not words[-1].startswith("-"):
        more["metavar"] = words.pop()
    return typer.Option(default, *words, rich_help_panel=group, show_envvar=False, **more)


main_option, input_option, clusters_option, output_option, expert_option, run_option = (
    partial(option, group) for group in GROUPS
)


def with_bundles(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the fields of bundles in their place, and with help for each option."""
    signature = inspect.signature(command, eval_str=True)
    bundles: dict[str, Any] = {}
    helps, flat = _described(command), []
    for each in signature.parameters.values():
        bundle: Any = each.annotation
        if not is_dataclass(bundle):
            flat.append(each)
            continue
        bundles[each.name], types = bundle, get_type_hints(bundle)
        for field in fields(bundle):
            own = {"default": field.default, "annotation": types[field.name]}
            flat.append(each.replace(name=field.name, **own))
        for base in reversed(each.annotation.__mro__):
            helps |= _described(base)
    for each in flat:
        each.default.help = each.default.help or helps[each.name]

    @wraps(command)
    def run(**values: Any) -> None:
        for name, bundle in bundles.items():
            values[name] = bundle(**{each.name: values.pop(each.name) for each in fields(bundle)})
        command(**values)

    run.__signature__ = signature.replace(parameters=flat)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return run


def _described(documented: Any) -> dict[str, str]:
    """What the Args or Attributes of a docstring say, by name."""
    text = re.split(r"\n(?:Args|Attributes):\n", inspect.cleandoc(documented.__doc__ or ""))[-1]
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", text, re.MULTILINE)
    return {name: " ".join(said.split()) for name, said in entries}


INPUTS = typer.Argument(
    ...,
    metavar="INPUT...",
    help="Files (npy, npz, parquet, Arrow, safetensors, HDF5, json, jsonl, csv, word vectors, "
    "fvecs), compressed or not, folders, patterns, URLs, or - for standard input. Several are one "
    "data set.",
    show_default=False,
)
OPTIONAL_INPUTS = typer.Argument(
    None,
    metavar="[INPUT]...",
    help="Files or folders, to show the rows of each cluster.",
    show_default=False,
)
MODEL_PATH = typer.Argument(
    ..., metavar="MODEL", help="A model made by dink train.", show_default=False
)

COLUMN = main_option(
    None,
    help="The column of embeddings, or a pattern such as 'dim_*' for one column per dimension; in "
    "npz and safetensors files, the member. Needed only if several are possible.",
)
Metric = Literal["euclidean", "cosine", "learned"]
METRIC = main_option(
    "euclidean",
    help="How rows are compared: by distance, by direction, or by distance under a learned map "
    "that moves each row towards its nearest neighbours.",
)
DIM = input_option(None, help="The dimension of vectors in a column of bytes.")
BITS = input_option(
    False,
    "--bits",
    help="The bytes are packed bits (binary embeddings): read each bit as -1 or +1. --dim gives "
    "their number, if not all are used.",
)
BadRows = Literal["stop", "skip", "label"]
BAD_ROWS = input_option(
    "stop",
    help="What to do with rows that are null, ragged, not finite, or of norm 0 under cosine: "
    "stop at the first, skip them, or label them -1.",
)
_BESIDE = (
    ": a column of the inputs, or a file with one for each row, in their order (txt, csv, json, "
    "jsonl, parquet, Arrow or npy)."
)
_REFERENCE = "COLUMN|FILE[:COLUMN]"
_EACH = f"{_BESIDE} One file for all inputs, or the option once for each."
IDS = input_option(
    None, f"--ids {_REFERENCE}", help=f"The ids of the rows{_EACH} By default rows are numbered."
)
TEXTS = input_option(None, f"--texts {_REFERENCE}", help=f"The texts of the rows{_EACH}")
LABELS = input_option(None, f"--labels {_REFERENCE}", help=f"The true classes of the rows{_EACH}")
SAMPLE_WEIGHT = input_option(
    None, f"--sample-weight {_REFERENCE}", help=f"The weights of the rows{_BESIDE}"
)
SEED = clusters_option(0, help="The seed of all random draws: the same seed, the same model.")
MATCH = clusters_option(
    None,
    "--match OLD_MODEL",
    help="Keep the cluster ids of an older model, by the best pairing of centres, or for another "
    "metric, of the rows that clusters share.",
)

exemplars_option = partial(output_option, help="How many rows to show of each cluster.", min=1)
file_option = partial(main_option, ..., "-o --output FILE")
JSON = output_option(
    False,
    "--json",
    help="Write the result or its summary as one line of JSON on standard output, and an error as "
    "one on standard error.",
)

DEVICE = run_option(
    "auto",
    help="Where to compute: auto, cpu, cuda, cuda:N or mps.",
    choices="auto cpu cuda cuda:0 mps",
)
MEMORY = run_option(
    None,
    "--memory SIZE",
    help="The memory for rows, such as 2GB; by default a quarter of the machine's. More rows are "
    "read anew in each pass.",
)
QUIET = run_option(False, "--quiet -q", help="Show no progress and no summary.")
RESUME = run_option(
    False,
    "--resume",
    help="Continue the interrupted run that was writing this output, if there is one. Inputs and "
    "options have to be the same.",
)
_TABLE = (
    "Where to write: .parquet, .npy, .csv, .jsonl, .arrow or .arrows (.csv.gz and the like are "
    "compressed){}. By default, and for -, standard output."
)
TABLE_FILE, TABLE_PATH = (
    main_option(None, "-o --output FILE", help=_TABLE.format(folder))
    for folder in ("", ", or a folder with --rows-per-file")
)
OutputFormat = Literal["csv", "jsonl", "npy", "parquet", "arrow", "arrows"] | None
_FORMAT = output_option(None)


def names_in(text: str | None) -> tuple[str, ...]:
    """The names that a text has, separated by commas."""
    return tuple(name.strip() for name in text.split(",")) if text else ()


@dataclass(frozen=True)
class Shown:
    """What a command prints beside its result."""

    as_json: bool = JSON
    quiet: bool = QUIET

    @property
    def silent(self) -> bool:
        """Neither progress nor sentences."""
        return self.quiet or self.as_json


@dataclass(frozen=True)
class TableOutput(Shown):
    """How rows are written, and what is printed beside them.

    Attributes:
        format: The format to write; arrow is a file, arrows a stream. By default the suffix
            decides; standard output gets csv, parts are parquet.
        csv_safe: In csv, put an apostrophe before texts that a spreadsheet would run as a formula:
            those that begin with =, +, -, @, a tab or a line break.
        json_file: Also write the summary to this file, as JSON.
    """

    format: OutputFormat = _FORMAT
    csv_safe: bool = output_option(False, "--csv-safe")
    json_file: str | None = output_option(None, "--json-file FILE")


@dataclass(frozen=True)
class Vectors:
    """Which vectors are read, and how."""

    column: str | None = COLUMN
    dim: int | None = DIM
    bits: bool = BITS
    bad_rows: BadRows = BAD_ROWS

    def open(self, inputs: list[str], **references: Any) -> DataSet:
        """The inputs; ``references`` are those of ``sidefiles.columns_of``."""
        from dinkcli.data.inputs import open_inputs

        more = {"lists_are_files": True, "dim": self.dim, "bits": self.bits, **references}
        return open_inputs(inputs, self.column, self.bad_rows, **more)


@dataclass(frozen=True)
class ModelRows:
    """How rows are read that a model looks at, and where it computes."""

    column: str | None = COLUMN
    bad_rows: BadRows = BAD_ROWS
    device: str = DEVICE

    def open(self, model: Model, inputs: list[str], once: bool = False, **more: Any) -> DataSet:
        """The inputs; ``more`` is as in ``Vectors``, and what is read ``once`` need not be kept."""
        from dinkcli.data.inputs import open_inputs

        more |= {"model": model, "lists_are_files": True}
        data = open_inputs(inputs, self.column, self.bad_rows, **more)
        return data if once else data.repeatable()


@dataclass(frozen=True)
class WrittenRows(ModelRows):
    """How rows are read that are written again, with what the model adds.

    Attributes:
        columns: Also write these columns of the input.
    """

    dim: int | None = DIM
    bits: bool = BITS
    ids: list[str] | None = IDS
    columns: str | None = output_option(None, "--columns A,B,...")

    def open(self, model: Model, inputs: list[str], once: bool = False, **more: Any) -> DataSet:
        others = names_in(self.columns)
        more |= {"ids": self.ids, "others": others, "dim": self.dim, "bits": self.bits}
        return super().open(model, inputs, once, **more)


@dataclass(frozen=True)
class Effort:
    """The options on which the time of a training depends.

    Attributes:
        refine: After annealing, move whole centres to where they lower the inertia.
        n_init: The number of starts, of which the best is kept. By default at most 4 on small data,
            and 1 on larger data.
        epochs: The most passes over all rows. By default 30, or 50 at temperature inf.
        batch_size: Rows per update. By default it follows from rows and clusters.
    """

    metric: Metric = METRIC
    refine: bool = expert_option(True)
    n_init: int | None = expert_option(None)
    epochs: int | None = expert_option(None)
    batch_size: int | None = expert_option(None)
