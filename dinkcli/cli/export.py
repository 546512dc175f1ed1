"""``dink export``."""

from __future__ import annotations

from typing import Literal

from dinkcli.cli import options as shared
from dinkcli.cli.console import say
from dinkcli.cli.options import file_option, output_option
from dinkcli.cli.paths import load_model, refuse_stream

Format = Literal[
    "npy", "parquet", "csv", "json", "safetensors", "onnx", "pt2", "faiss", "faiss-ivf", "sklearn"
]
_FORMAT = output_option(
    None,
    help="The first five hold the centres; onnx, pt2 (torch.export), faiss and sklearn "
    "(skops) compute labels; faiss-ivf is an index to add rows to, with the centres as its "
    "lists. By default the format follows from the suffix.",
)


def export(
    *,
    model_path: str = shared.MODEL_PATH,
    output: str = file_option(help="The file to write."),
    format: Format | None = _FORMAT,
    quiet: bool = shared.QUIET,
) -> None:
    """Write a model for other tools.

    That is its centres, or something that computes labels without dink.

    Examples:
        dink export emb.dink.safetensors -o centers.npy
        dink export emb.dink.safetensors -o model.onnx
    """
    from dinkcli.data.atomic import by_suffix, check_target
    from dinkcli.models.export import SUFFIXES
    from dinkcli.models.export import export as core

    refuse_stream(output, "an export")
    if format is None:
        by_suffix(output, SUFFIXES)  # a wrong one is told before the model is read
    check_target(output)
    model = load_model(model_path, warns=True)
    chosen = core(model, output, format)
    if not quiet:
        say(f"{output}: {model.n_clusters} centres of {model.n_features} features, {chosen}")
