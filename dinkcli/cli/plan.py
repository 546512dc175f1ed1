"""``dink plan``."""

from __future__ import annotations

import time

from dinkcli.cli import options as shared
from dinkcli.cli.console import show_notes, show_result, warn
from dinkcli.cli.options import main_option, run_option


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
    from dinkcli.data.machine import parse_size

    options = effort.options(n_clusters)
    limit = None if memory is None else parse_size(memory)
    data = vectors.open(inputs)
    show_notes(data, as_json)

    from dinkcli.planning import plan as core

    # What it takes to come here is what it takes a training.
    startup = begun[0] + time.monotonic() - begun[1]
    result = core.plan(
        data, options, device=device, memory=limit, processes=processes, startup=startup
    )
    show_result(result, as_json)
    for warning in () if as_json else result.warnings:
        warn(warning)
