"""``dink export``."""

from __future__ import annotations

from typing import Annotated

import typer

from dinkcli.cli.console import error_boundary, say
from dinkcli.cli.options import ModelPath, Quiet
from dinkcli.cli.paths import load_model, refuse_stream, warn_if_unfinished


def export(
    model_path: ModelPath,
    output: Annotated[
        str,
        typer.Option("-o", "--output", help="Where to write the model.", show_default=False),
    ],
    format: Annotated[
        str | None,
        typer.Option(
            help="npy, parquet, csv, json or safetensors (the centres); onnx, pt2 (torch.export), "
            "faiss or sklearn (skops), which compute labels. Without it, by the output's suffix.",
            show_default=False,
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Writes a model for other tools: its centres, or what computes labels without dink.

    dink export emb.dink.safetensors -o centers.npy
    """
    with error_boundary():
        from dinkcli.data.atomic import check_target
        from dinkcli.data.suffix import by_suffix
        from dinkcli.models.export import SUFFIXES
        from dinkcli.models.export import export as export_model

        refuse_stream(output, "an export")
        chosen = format or by_suffix(output, SUFFIXES)
        check_target(output)
        model = load_model(model_path)
        warn_if_unfinished(model, model_path)
        export_model(model, output, chosen)
        if not quiet:
            say(f"{output}: {model.n_clusters} centres of {model.n_features} features, {chosen}")
