"""``dink sweep``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from dinkcli.cli import options as shared
from dinkcli.cli.console import say, say_bad_rows
from dinkcli.cli.options import clusters_option
from dinkcli.cli.paths import columns_of, open_twice
from dinkcli.cli.progress import ProgressLines
from dinkcli.cli.tables import Field, Sheet, bar, print_json, say_result, show

if TYPE_CHECKING:
    from dinkcli.data.dataset import DataSet
    from dinkcli.insight.inspect import Seen
    from dinkcli.insight.recommend import Candidate, Sweep

_BAR = 16
# Neighbours: numbers within this factor. A run of that many is shown by its ends and the best, if
# their figures differ by no more than this share of the best.
_NEIGHBOUR = 1.12
_LONG_RUN = 5
_ALIKE = 0.2
_NAMED = 20  # clusters in a table


def sweep(
    inputs: list[str] = shared.INPUTS,
    numbers: str = clusters_option(
        "2:100",
        "-k",
        "--n-clusters",
        metavar="RANGE",
        help="Which numbers to try: 5:100 (some between, then those around the best), 5:100:5 "
        "(every fifth), or a list such as 5,10,20.",
    ),
    metric: shared.Metric = shared.METRIC,
    sample_weight: str | None = shared.SAMPLE_WEIGHT,
    seed: int = shared.SEED,
    device: str = shared.DEVICE,
    texts: list[str] | None = shared.TEXTS,
    column: str | None = shared.COLUMN,
    bits: bool = shared.BITS,
    bad_rows: shared.BadRows = shared.BAD_ROWS,
    as_json: bool = shared.JSON,
    quiet: bool = shared.QUIET,
) -> None:
    """Try many numbers of clusters, and say which one is clear.

    Examples:
        dink sweep emb.npy
        dink sweep emb.parquet -k 10:400 --metric cosine
        dink sweep emb.npy --texts texts.txt
    """
    from dinkcli.insight.ranges import parse_numbers

    tried, between = parse_numbers(numbers)  # a wrong range is told before files are opened

    wanted = columns_of(column, bits=bits, sample_weight=sample_weight, texts=texts)
    data = open_twice(inputs, wanted, bad_rows)
    most = data.known_rows // 2
    if tried[-1] > most and not (quiet or as_json):
        say(f"Note: -k {numbers}: tries at most {most}, with two rows for each cluster")

    from dinkcli import api

    with ProgressLines(quiet or as_json) as progress:
        found = api.sweep(
            data,
            numbers,
            metric=metric,
            seed=seed,
            device=device,
            on_step=lambda _, done, total: progress.update(
                "trying numbers of clusters", done, total, "tried"
            ),
        )
    named = None
    if data.columns.text is not None:
        named = _named(found, data, metric, device, quiet or as_json)
    if as_json:
        clusters = {} if named is None else {"clusters": _clusters(named)}
        print_json(found.as_dict() | clusters)
    else:
        _show(found, data.name, between)
        if named is not None:
            _show_names(named)
        say_bad_rows(found.bad_rows, quiet)


def _named(found: Sweep, data: DataSet, metric: str, device: str, quiet: bool) -> Seen:
    """What the clusters of the workable K would be about, as far as a sweep knows them."""
    import numpy as np

    from dinkcli.cli.name import find
    from dinkcli.models.model import Model

    assert found.cluster_centers is not None
    model = Model(found.cluster_centers, np.ones(found.workable), metric, offset=found.offset)
    return find(model, data, device, quiet)


def _clusters(named: Seen) -> list[dict[str, Any]]:
    """Plain JSON, the largest first."""
    order = (-named.sizes).argsort(kind="stable").tolist()
    return [
        {"size": int(named.sizes[j]), "name": named.names[j], "terms": named.terms[j]}
        for j in order
    ]


def _show_names(named: Seen) -> None:
    clusters = _clusters(named)
    table = Sheet("rows", "share", Field("about", text=True))
    total = max(1, sum(named.sizes))
    for cluster in clusters[:_NAMED]:
        share = f"{cluster['size'] / total:.1%}"
        table.add(cluster["size"], share, cluster["name"] or "-")
    hidden = len(clusters) - _NAMED
    show(
        f"what {len(clusters)} clusters would be about",
        table,
        f"and {hidden} smaller ones" if hidden > 0 else "",
        "A first look: dink train makes better ones.",
    )


def _show(found: Sweep, name: str, between: bool) -> None:
    from dinkcli.insight.recommend import LEAST_EXCESS, LEAST_STABILITY

    table = Sheet(
        "K",
        "above noise",
        Field(drop=9),
        "stability",
        Field(drop=8),
        Field("silhouette", "right", drop=3),
        Field("noise", "right", drop=4),
        Field("inertia", "right", drop=1),
    )
    most = max(1e-9, *(c.excess for c in found.candidates))
    shown = _worth_a_row(found) if between else list(found.candidates)
    for c in shown:
        if c is None:
            table.add("...", *[""] * 7)
            continue
        mark = "> " if c.n_clusters == found.n_clusters else ""
        mark = "~ " if not mark and c.n_clusters == found.workable else mark
        table.add(
            f"{mark}{c.n_clusters}",
            f"{c.excess:.3f}",
            bar(max(0.0, c.excess) / most, _BAR),
            f"{c.stability:.2f}",
            bar(max(0.0, c.stability), _BAR // 2),
            f"{c.silhouette:.3f}",
            f"{c.noise_silhouette:.3f}",
            f"{c.inertia:.6g}",
        )
    alike = "... stands for neighbours of the best that are nearly alike; --json lists them all."
    show(
        f"{name}: {len(found.candidates)} numbers of clusters",
        table,
        alike if None in shown else "",
        "above noise: how much better rows fit their clusters (silhouette) than structureless "
        f"noise of the same spread does; it counts from {LEAST_EXCESS} on.",
        "stability: how alike the clusters of two halves of the data are; 1 is the same, 0 is "
        f"chance; it counts from {LEAST_STABILITY} on.",
    )
    if found.n_clusters is not None:
        say_result(f"K = {found.n_clusters}: {found.reason}")
    else:
        say_result(f"no clear K: {found.reason}")
        say_result(f"K = {found.workable} will do: {found.workable_reason}")


def _worth_a_row(found: Sweep) -> list[Candidate | None]:
    """All candidates but those in the middle of a run of neighbours that are nearly alike and that
    no reason names; one None stands for them."""
    most = max(c.excess for c in found.candidates)
    said = f"{found.workable} {found.reason} {found.workable_reason}"
    named = set(map(int, re.findall(r"(?<![\d.])\d+(?!\.?\d)", said)))
    runs: list[list[Candidate]] = []
    for c in found.candidates:
        if runs and c.n_clusters <= _NEIGHBOUR * runs[-1][-1].n_clusters:
            runs[-1].append(c)
        else:
            runs.append([c])
    shown: list[Candidate | None] = []
    for run in runs:
        excess = [c.excess for c in run]
        if len(run) < _LONG_RUN or max(excess) - min(excess) > _ALIKE * most:
            shown += run
            continue
        kept = [c if c in (run[0], run[-1]) or c.n_clusters in named else None for c in run]
        shown += [c for i, c in enumerate(kept) if c is not None or kept[i - 1] is not None]
    return shown
