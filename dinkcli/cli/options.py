"""Options that several commands share, with one wording each."""

from __future__ import annotations

from typing import Annotated

import typer

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Files (npy, npz, parquet, Arrow, safetensors, jsonl, csv, fvecs), folders of them, "
        "patterns, URLs, or - for npy or Arrow on standard input; several are one data set.",
        show_default=False,
    ),
]
ModelPath = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model made by dink train.", show_default=False)
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Column = Annotated[
    str | None,
    typer.Option(
        help="Column of the embeddings, or a pattern such as 'dim_*' for one column per "
        "dimension; in npz and safetensors the member. Found when there is one candidate.",
        show_default=False,
    ),
]
Dim = Annotated[
    int | None,
    typer.Option(help="Dimension of the vectors in a column of bytes.", show_default=False),
]
BadRows = Annotated[
    str,
    typer.Option(
        help="Rows that are null, ragged, not finite, or of norm 0 under cosine: stop at the "
        "first, or go on and skip them, or label them -1."
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        help="What the rows may take, such as 2GB; a quarter of the machine by default. More "
        "data are read anew for each pass.",
        show_default=False,
    ),
]
Metric = Annotated[str, typer.Option(help="euclidean or cosine.")]
SampleWeight = Annotated[
    str | None,
    typer.Option(
        help="Weights of the rows: a parquet column, or an .npy file of one number a row.",
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option(help="Of all random draws.")]
IdColumn = Annotated[
    str | None,
    typer.Option(help="Column to name rows by, instead of their number.", show_default=False),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(help="Column of the true labels, to compare with.", show_default=False),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")]
Json = Annotated[
    bool, typer.Option("--json", help="The summary as one line of JSON on standard error.")
]
JsonData = Annotated[
    bool, typer.Option("--json", help="JSON on standard output in place of tables.")
]
JsonLine = Annotated[bool, typer.Option("--json", help="As one line of JSON on standard output.")]
Match = Annotated[
    str | None,
    typer.Option(
        "--match",
        metavar="OLD_MODEL",
        help="Give clusters the ids of an older model, by optimal assignment of centres.",
        show_default=False,
    ),
]
TextColumn = Annotated[
    str | None,
    typer.Option(help="Parquet column of texts to show the rows by.", show_default=False),
]
Exemplars = Annotated[int, typer.Option(help="Rows to show of each cluster.", min=1)]
Refine = Annotated[bool, typer.Option(help="Move whole centres to where they are worth more.")]
Starts = Annotated[
    int | None,
    typer.Option(
        "--n-init",
        help="Starts, of which the best is kept; 4 on tiny data, else 1.",
        show_default=False,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        help="Most passes over all rows: 30 unless the temperature is inf, where it is 50.",
        show_default=False,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(help="Rows per update; follows rows and clusters.", show_default=False),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        help="Also show every step with its losses and temperature; with --json, the history.",
    ),
]
