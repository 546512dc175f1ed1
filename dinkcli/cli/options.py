"""Options that several commands share, with one wording each."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

import typer

from dinkcli.cli.help import CLUSTERS, EXPERT, INPUT, OUTPUT, RUN


def option(group: str, *names: Any, help: str, choices: str = "", **more: Any) -> Any:
    """An option in one of the groups of ``help``.

    Args:
        names: by default that of the parameter; in a signature its default value stands before
            them, which for one that has to be given is an ellipsis.
        choices: what completes on TAB, separated by spaces, where other values do as well.
    """
    if choices:
        known = choices.split()
        more["autocompletion"] = lambda incomplete: [c for c in known if c.startswith(incomplete)]
    return typer.Option(*names, help=help, rich_help_panel=group, **more)


input_option = partial(option, INPUT)
clusters_option = partial(option, CLUSTERS)
output_option = partial(option, OUTPUT)
expert_option = partial(option, EXPERT)
run_option = partial(option, RUN)

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Files (npy, npz, parquet, Arrow, safetensors, HDF5, json, jsonl, csv, word vectors, "
        "fvecs), compressed or not, folders of them, patterns or URLs, or - for standard input. "
        "Several are one data set.",
        show_default=False,
    ),
]
OptionalInputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[INPUT]...", help="Files or folders, to look at their rows.", show_default=False
    ),
]
ModelPath = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model made by dink train.", show_default=False)
]

Column = Annotated[
    str | None,
    input_option(
        help="The column of embeddings, or a pattern such as 'dim_*' for one column per "
        "dimension; in npz and safetensors files, the member. Not needed if only one will do."
    ),
]
Dim = Annotated[
    int | None, input_option(help="How many dimensions the vectors in a column of bytes have.")
]
Bits = Annotated[
    bool,
    typer.Option(
        "--bits",
        help="The bytes are packed bits (binary embeddings); read each bit as -1 or +1. --dim says "
        "how many there are, if not all.",
    ),
]
BadRows = Annotated[
    Literal["stop", "skip", "label"],
    input_option(
        help="What to do with rows that are null, ragged, not finite, or of norm 0 under cosine: "
        "stop at the first, skip them, or label them -1."
    ),
]
SampleWeight = Annotated[
    str | None,
    input_option(
        help="The weights of the rows: a column, or an .npy file with one number for each row."
    ),
]
IdColumn = Annotated[
    str | None, input_option(help="A column that names the rows; without it, they are numbered.")
]
_BESIDE = (
    "for each row, in their order: txt (a line each), csv, json, jsonl, parquet, Arrow or npy. "
    "FILE:COLUMN chooses a column. One file for all inputs, or the option once for each."
)
Ids = Annotated[
    list[str] | None, input_option("--ids", metavar="FILE", help=f"A file with a name {_BESIDE}")
]
Labels = Annotated[
    list[str] | None,
    input_option("--labels", metavar="FILE", help=f"A file with a true class {_BESIDE}"),
]
Texts = Annotated[
    list[str] | None, input_option("--texts", metavar="FILE", help=f"A file with a text {_BESIDE}")
]
Against = Annotated[
    list[str] | None,
    input_option(
        metavar="OLD",
        help="Files of rows that are there already: rows that repeat one of them do not stay. "
        "May be given more than once.",
    ),
]
LabelColumn = Annotated[str | None, input_option(help="The column of the true classes.")]
TextColumn = Annotated[str | None, input_option(help="A column of texts to show the rows by.")]

Metric = Annotated[
    Literal["euclidean", "cosine", "learned"],
    clusters_option(
        help="How rows are compared: by their distance, by their direction, or by their distance "
        "under a map that brings rows near that are each other's neighbours."
    ),
]
Seed = Annotated[
    int, clusters_option(help="The seed of all random draws: the same seed, the same model.")
]
Match = Annotated[
    str | None,
    clusters_option(
        "--match",
        metavar="OLD_MODEL",
        help="Keep the cluster ids of an older model, by the best pairing of the centres.",
    ),
]

Exemplars = Annotated[int, output_option(help="How many rows to show of each cluster.", min=1)]
Json = Annotated[
    bool, output_option("--json", help="Give the summary as one line of JSON, on standard error.")
]
JsonData = Annotated[
    bool, output_option("--json", help="Give JSON on standard output instead of tables.")
]
JsonLine = Annotated[
    bool, output_option("--json", help="Give one line of JSON on standard output.")
]

Refine = Annotated[
    bool, expert_option(help="Also move whole centres to where they are worth more.")
]
Starts = Annotated[
    int | None,
    expert_option(
        "--n-init",
        help="How often to start anew; the best start is kept. By default at most 4 times on "
        "small data, and once on larger ones.",
    ),
]
Epochs = Annotated[
    int | None,
    expert_option(
        help="How many times at most to pass over all rows. By default 30, or 50 at temperature "
        "inf."
    ),
]
BatchSize = Annotated[
    int | None,
    expert_option(help="Rows for each update. By default it follows from rows and clusters."),
]

Device = Annotated[
    str,
    run_option(
        help="Where to compute: auto, cpu, cuda, cuda:N or mps.", choices="auto cpu cuda cuda:0 mps"
    ),
]
Memory = Annotated[
    str | None,
    run_option(
        metavar="SIZE",
        help="How much memory the rows may take, such as 2GB; by default a quarter of the "
        "machine. More rows than that are read anew for each pass.",
    ),
]
Quiet = Annotated[bool, run_option("--quiet", "-q", help="Show no progress and no summary.")]
TablePath = Annotated[
    str | None,
    output_option(
        "-o",
        "--output",
        metavar="FILE",
        help="Where to write: .parquet, .npy, .csv, .jsonl, .arrow or .arrows (.csv.gz and "
        "the like are compressed), or a folder with --rows-per-file. By default, and for -, "
        "standard output.",
    ),
]
OutputFormat = Annotated[
    Literal["csv", "jsonl", "npy", "parquet", "arrow", "arrows"] | None,
    output_option(
        help="The format to write; arrow is a file, arrows a stream. By default it follows "
        "from the suffix; standard output gets csv, parts are parquet."
    ),
]
Compression = Annotated[
    Literal["none", "gzip", "zstd", "lz4", "snappy", "brotli"] | None,
    output_option(
        help="gzip or zstd for csv and jsonl; lz4 or zstd for arrow; for parquet zstd (the "
        "default), snappy, gzip, lz4 or brotli."
    ),
]
CarriedColumns = Annotated[
    str | None,
    output_option(
        metavar="A,B,...", help="Columns of the input to write as well, separated by commas."
    ),
]
CsvSafe = Annotated[
    bool,
    output_option(
        "--csv-safe",
        help="In csv, put an apostrophe before texts that a spreadsheet would run as a formula "
        "(they begin with =, +, -, @, a tab or a line break).",
    ),
]
JsonFile = Annotated[
    str | None, output_option(metavar="FILE", help="Also write the summary as JSON to this file.")
]
RowsPerFile = Annotated[
    int | None,
    output_option(
        help="Write a folder of parts, each with this many rows of the input (of a sample: of the "
        "sample). With --shard, by default as many parts as shares, or a million rows each."
    ),
]
JobShard = Annotated[
    str | None,
    run_option(
        "--shard",
        metavar="I/N",
        help="Be one of N processes, 1/N to N/N, that share the work and each write a share of the "
        "parts of one folder. They need not run at the same time. Under torchrun this happens by "
        "itself.",
    ),
]
WorkResume = Annotated[
    bool,
    run_option(
        "--resume",
        help="Go on with a run that was stopped, if there is one; its work lies beside the output.",
    ),
]
JobMemory = Annotated[
    str | None,
    run_option(
        "--memory",
        metavar="SIZE",
        help="How much memory rows may take, such as 2GB; a quarter of the machine by default. "
        "They are sorted into a file beside the output.",
    ),
]
