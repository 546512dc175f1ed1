"""``dink sweep``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dinkcli.cli import options as shared
from dinkcli.cli.console import (
    Field,
    ProgressLines,
    Sheet,
    bar,
    print_json,
    say,
    say_bad_rows,
    show,
)
from dinkcli.cli.options import main_option

if TYPE_CHECKING:
    from dinkcli.insight.recommend import Candidate, Sweep

_BAR = 16
_ROWS = 12  # of numbers in a table


def sweep(
    *,
    inputs: list[str] = shared.INPUTS,
    numbers: str = main_option(
        "2:100",
        "-k",
        "--n-clusters",
        metavar="RANGE",
        help="Which numbers to try: 5:100 (some between, larger ones while these are best, then "
        "those around the best), 5:100:5 (every fifth), or a list such as 5,10,20.",
    ),
    metric: shared.Metric = shared.METRIC,
    sample_weight: str | None = shared.SAMPLE_WEIGHT,
    seed: int = shared.SEED,
    device: str = shared.DEVICE,
    vectors: shared.Vectors,
    shown: shared.Shown,
) -> None:
    """Try many numbers of clusters, and say which one to take.

    Examples:
        dink sweep emb.npy
        dink sweep emb.parquet -k 10:400 --metric cosine
    """
    from dinkcli.insight.ranges import parse_numbers

    tried, _ = parse_numbers(numbers)  # a wrong range is told before files are opened

    from dinkcli.data.spool import repeatable

    data = repeatable(vectors.open(inputs, sample_weight=sample_weight))
    most = data.known_rows // 2
    if tried[-1] > most and not shown.silent:
        say(f"Note: -k {numbers}: tries at most {most}, with two rows for each cluster")

    from dinkcli import api

    with ProgressLines(shown.silent) as progress:
        result = api.sweep(
            data,
            numbers,
            metric=metric,
            seed=seed,
            device=device,
            on_step=lambda _, done, total: progress.update(
                "trying numbers of clusters", done, total, "tried"
            ),
        )
    if shown.as_json:
        print_json(result.as_dict())
    else:
        _show(result, data.name)
        say_bad_rows(result.bad_rows, shown.quiet)


def _show(result: Sweep, name: str) -> None:
    from dinkcli.insight.recommend import score

    show(result.answer)
    if result.levels:
        levels = ",".join(map(str, result.levels))
        show(f"{levels.replace(',', ' and ')} stand out too: levels of one model")
    table = Sheet(
        "K",
        "score",
        Field(drop=9),
        "stability",
        "modularity",
        Field("silhouette", "right", drop=3),
        Field("noise", "right", drop=4),
        Field("inertia", "right", drop=1),
    )
    scores = dict(zip(result.candidates, score(result.candidates), strict=True))
    most = max(1e-9, *scores.values())
    shown = _worth_a_row(result)
    for c in shown:
        mark = "> " if c.n_clusters == result.workable else ""
        table.add(
            f"{mark}{c.n_clusters}",
            f"{scores[c]:.3f}",
            bar(scores[c] / most, _BAR),
            f"{c.stability:.2f}",
            f"{c.modularity:.2f}",
            f"{c.silhouette:.3f}",
            f"{c.noise_silhouette:.3f}",
            f"{c.inertia:.6g}",
        )
    hidden = len(result.candidates) - len(shown)
    show(
        f"{name}: {len(result.candidates)} numbers of clusters",
        table,
        f"--json lists {hidden} more." if hidden else "",
        "stability: how alike the clusters of two halves of the data are; 1 is the same, 0 is "
        "chance. modularity: how many more neighbours share a cluster than by chance. score: "
        "the root of what the silhouette is above that of noise, times stability, times the square "
        "of modularity, averaged over like numbers.",
        "silhouette: how well rows fit their clusters, and how well noise of the same spread does.",
    )


def _worth_a_row(result: Sweep) -> list[Candidate]:
    """The best, the ends of those that look alike, levels, and some between them all."""
    named = {result.workable, *result.alike, *result.levels}
    some = len(result.candidates) / max(1, _ROWS - len(named))
    chosen = {int(i * some) for i in range(_ROWS)}
    return [c for i, c in enumerate(result.candidates) if i in chosen or c.n_clusters in named]
