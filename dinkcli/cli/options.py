"""Options that several commands share, with one wording each."""

from __future__ import annotations

from typing import Annotated

import typer

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Files (.npy, .parquet) or folders of them; several are one data set.",
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
        help="Parquet column of the embeddings, or a pattern such as 'dim_*' for one column per "
        "dimension. Found by itself when there is one candidate.",
        show_default=False,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")]
Json = Annotated[
    bool, typer.Option("--json", help="The summary as one line of JSON on standard error.")
]
