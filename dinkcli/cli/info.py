"""``dink info``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from dinkcli.cli import options as shared
from dinkcli.cli.console import print_json, printable, show_notes, width, wrapped

if TYPE_CHECKING:
    from dinkcli.insight.info import Info
    from dinkcli.models.model import Model

_SHOWN_COLUMNS = 12


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
    from dinkcli.data.base import Columns
    from dinkcli.data.inputs import open_data
    from dinkcli.data.memory import parse_size
    from dinkcli.insight.info import describe
    from dinkcli.models.file import is_model, load

    if len(inputs) == 1 and is_model(inputs[0]):
        _show_model(load(inputs[0]), as_json)
        return
    limit = None if memory is None else parse_size(memory)
    data = open_data(inputs, Columns(column, dim=dim, bits=bits))
    show_notes(data, as_json)
    facts = describe(data, limit)
    if as_json:
        print_json(facts.as_dict())
        return
    for name, value in _lines(facts):
        typer.echo(wrapped(f"{name:9} {value}", width(), " " * 10))


def _show_model(model: Model, as_json: bool) -> None:
    values = model.summary()
    if as_json:
        print_json(values)
        return
    for name, value in values.items():
        if isinstance(value, list):
            shown = ", ".join(map(str, value[:_SHOWN_COLUMNS]))
            value = shown + (
                f", {len(value) - _SHOWN_COLUMNS} more" * (len(value) > _SHOWN_COLUMNS)
            )
        if value not in (None, "", False):
            name = name.replace("_", " ")
            typer.echo(wrapped(f"{name:14} {printable(str(value))}", width(), " " * 15))


def _lines(facts: Info) -> list[tuple[str, str]]:
    from dinkcli.data.memory import size_text

    formats = ", ".join(
        name if number == 1 else f"{number} {name} files" for name, number in facts.formats.items()
    )
    lines = [
        ("input", printable(facts.name)),
        ("format", formats),
        ("rows", f"{facts.n_rows}"),
        ("features", f"{facts.n_features}"),
        ("dtype", facts.dtype),
    ]
    if facts.text:
        lines.insert(2, ("text", printable(facts.text)))
    if facts.column is not None or facts.chosen:
        named = printable(facts.column or "")
        chosen = printable(facts.chosen)
        lines.append(("column", f"{named} ({chosen})" if named and chosen else named or chosen))
    if facts.columns:
        shown = [f"{name} ({kind})" for name, kind in list(facts.columns.items())[:_SHOWN_COLUMNS]]
        more = len(facts.columns) - len(shown)
        lines.append(("columns", printable(", ".join(shown)) + (f", {more} more" if more else "")))
    if facts.n_bytes:
        lines.append(("size", size_text(facts.n_bytes)))
    if facts.norms is not None:
        low, mean, high = facts.norms
        unit = ", all of them 1" if facts.unit else ""
        lines.append(("norms", f"{low:.4g} to {high:.4g}, mean {mean:.4g}{unit}"))
    bad = f"{facts.n_bad} rows null, ragged or not finite, {facts.n_zero} of norm 0"
    lines.append(("bad", bad + (f"; first {facts.first_bad}" if facts.n_bad else "")))
    how = "held in memory" if facts.held else "read anew for each pass (--memory sets the limit)"
    lines.append(("training", f"{size_text(facts.memory)} of rows, {how}"))
    return lines
