"""``dink plan``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import astuple
from typing import TYPE_CHECKING

import typer

from dinkcli.cli import options as shared
from dinkcli.cli.console import duration, print_json, printable, show_notes, warn, width, wrapped
from dinkcli.cli.options import main_option, run_option

if TYPE_CHECKING:
    from dinkcli.planning.plan import Plan
    from dinkcli.planning.work import Range

_WHAT = {
    "start": "libraries, and their end",
    "read": "all rows into memory",
    "sample": "drawing {rows} rows",
    "seed": "first centres from {rows} rows",
    "anneal": "{rounds} updates on {rows} rows each",
    "refine": "{rounds} rounds on up to {rows} rows each",
    "passes": "{rounds} passes over {rows} rows",
}


def plan(
    *,
    inputs: list[str] = shared.INPUTS,
    n_clusters: int = main_option(
        ...,
        "-k",
        "--n-clusters",
        metavar="K",
        help="How many clusters.",
        show_default=False,
    ),
    device: str = shared.DEVICE,
    processes: int = run_option(
        1, help="How many processes share the rows, each with the power and memory of this machine."
    ),
    memory: str | None = shared.MEMORY,
    vectors: shared.Vectors,
    effort: shared.Effort,
    as_json: bool = shared.JSON,
) -> None:
    """Show what training would take: time, memory, passes.

    Parts of it are run on the first rows and scaled up, which takes a few seconds. How many rounds
    and passes the data need shows only in training: you see a usual number, and a range.

    Examples:
        dink plan emb.npy -k 1000
        dink plan embeddings/ -k 10000 --processes 8 --memory 16GB
    """
    begun = time.process_time(), time.monotonic()
    from dinkcli.data.memory import parse_size

    options = effort.options(n_clusters)
    limit = None if memory is None else parse_size(memory)
    data = vectors.open(inputs)
    show_notes(data, as_json)

    from dinkcli.planning import plan as core

    # What it takes to come here is what it takes a training.
    startup = begun[0] + time.monotonic() - begun[1]
    estimate = core.plan(
        data, options, device=device, memory=limit, processes=processes, startup=startup
    )
    if as_json:
        print_json(estimate.as_dict())
        return
    for line in _lines(estimate):
        typer.echo(wrapped(line, width(), " " * 9))
    for warning in estimate.warnings:
        warn(warning)


def _lines(plan: Plan) -> list[str]:
    from dinkcli.data.memory import size_text

    how = "held in memory" if plan.held else f"read {_between(plan.readings)} times"
    each = "" if plan.processes == 1 else f" in each of {plan.processes} processes"
    lines = [
        f"input    {printable(plan.name)}: {plan.rows} rows x {plan.features} features",
        f"rows     {size_text(plan.held_bytes)} of {plan.dtype}, {how}",
        f"sample   {plan.sample} rows, {size_text(plan.sample_bytes)}",
        "",
    ]
    for phase in plan.phases:
        if phase.rounds.high:
            what = _WHAT[phase.name].format(rounds=_between(phase.rounds), rows=phase.rows)
            lines.append(f"{phase.name:8} {_between(phase.seconds, duration):22} {what}")
    lines += [
        "",
        f"train    {_between(plan.seconds, duration):22} {size_text(plan.memory)} of memory{each}",
        f"assign   {duration(plan.assign_seconds):22} "
        f"{size_text(plan.assign_memory)} of memory{each}",
    ]
    if plan.device_memory is not None:
        lines.append(f"{plan.device:8} {size_text(plan.device_memory)} of its memory")
    if plan.processes > 1:
        low, typical, high = map(size_text, astuple(plan.exchanged))
        lines.append(
            f"network  {typical} ({low} to {high}) sent by each process; its time is not counted"
        )
    return lines


def _between(amount: Range, text: Callable[[float], str] = "{:g}".format) -> str:
    low, typical, high = map(text, astuple(amount))
    return typical if low == high else f"{typical} ({low} to {high})"
