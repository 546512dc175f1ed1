"""``dink sweep``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dinkcli.cli.console import ProgressLines, error_boundary, say
from dinkcli.cli.opening import open_twice
from dinkcli.cli.options import (
    BadRows,
    Column,
    Device,
    Inputs,
    JsonData,
    Metric,
    Quiet,
    SampleWeight,
    Seed,
)
from dinkcli.cli.tables import add_row, bar, console, new_table, print_json, show

if TYPE_CHECKING:
    from dinkcli.insight.sweeper import Sweep

_BAR = 16


def sweep(
    inputs: Inputs,
    numbers: Annotated[
        str,
        typer.Option(
            "-k",
            "--n-clusters",
            metavar="RANGE",
            help="5:100 (a few, then those around the best), 5:100:5, or a list such as 5,10,20.",
        ),
    ] = "2:100",
    metric: Metric = "euclidean",
    sample_weight: SampleWeight = None,
    seed: Seed = 0,
    device: Device = "auto",
    column: Column = None,
    bad_rows: BadRows = "stop",
    as_json: JsonData = False,
    quiet: Quiet = False,
) -> None:
    """Tries many numbers of clusters; recommends one, or says that none is clear.

    dink sweep emb.npy -k 5:100
    """
    with error_boundary():
        from dinkcli.insight.ranges import parse_numbers

        parse_numbers(numbers)  # usage errors come before any file is opened

        from dinkcli.data.base import Columns
        from dinkcli.data.weights import read_weights

        data = open_twice(inputs, Columns(column), bad_rows)
        weights = None if sample_weight is None else read_weights(sample_weight, data)

        from dinkcli import api

        with ProgressLines(quiet or as_json) as progress:
            found = api.sweep(
                data,
                numbers,
                metric=metric,
                seed=seed,
                device=device,
                sample_weight=weights,
                on_step=lambda phase, done, total: progress.update(phase, done, total, "K tried"),
            )
        if as_json:
            print_json(found.as_dict())
        else:
            _show(found, data.name)
            if found.bad_rows and not quiet:
                say(f"bad rows left out: {found.bad_rows}")


def _show(found: Sweep, name: str) -> None:
    from rich.text import Text

    table = new_table(
        [
            ("K", "right"),
            ("inertia", "right"),
            ("", "left"),
            ("silhouette", "right"),
            ("noise", "right"),
            ("above noise", "left"),
            ("stability", "right"),
            ("", "left"),
        ]
    )
    highest = max(c.inertia for c in found.candidates)
    most = max(1e-9, *(c.excess for c in found.candidates))
    for c in found.candidates:
        add_row(
            table,
            f"{'> ' if c.n_clusters == found.n_clusters else ''}{c.n_clusters}",
            f"{c.inertia:.6g}",
            bar(c.inertia / highest, _BAR // 2) if highest else "",
            f"{c.silhouette:.3f}",
            f"{c.noise_silhouette:.3f}",
            bar(max(0.0, c.excess) / most, _BAR),
            f"{c.stability:.2f}",
            bar(max(0.0, c.stability), _BAR // 2),
        )
    show(f"{name}: {len(found.candidates)} numbers of clusters", table)
    verdict = f"K = {found.n_clusters}" if found.n_clusters else "no clear K"
    console().print(Text(f"{verdict}: {found.reason}"))
