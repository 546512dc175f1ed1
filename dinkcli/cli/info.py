"""``dink info``."""

from __future__ import annotations

from typing import Any

from dinkcli.cli import options as shared
from dinkcli.cli.console import show_notes, show_result


def info(
    *,
    inputs: list[str] = shared.INPUTS,
    column: str | None = shared.COLUMN,
    dim: int | None = shared.DIM,
    bits: bool = shared.BITS,
    memory: str | None = shared.MEMORY,
    as_json: bool = shared.JSON,
) -> None:
    """Show what the inputs are and how training would read them.

    Of a model, what it is and which columns it reads.

    Examples:
        dink info emb.parquet
        dink info emb.dink.safetensors
        dink info hf://datasets/NAME/embeddings.parquet
    """
    from dinkcli.data.machine import parse_size
    from dinkcli.insight.info import info as core
    from dinkcli.models.file import is_model

    limit = None if memory is None else parse_size(memory)
    data: Any = inputs
    if len(inputs) > 1 or not is_model(inputs[0]):
        data = shared.Vectors(column, dim, bits, "stop").open(inputs)
        show_notes(data, as_json)
    show_result(core(data, memory=limit), as_json)
