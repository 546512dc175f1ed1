"""``dink sweep``."""

from __future__ import annotations

from dinkcli.cli import options as shared
from dinkcli.cli.console import ProgressLines, say, say_bad_rows, show_result
from dinkcli.cli.options import main_option


def sweep(
    *,
    inputs: list[str] = shared.INPUTS,
    numbers: str = main_option(
        "2:100",
        "-k --n-clusters RANGE",
        help="The numbers to try: 5:100 (some of them, larger ones while these are best, then "
        "those around the best), 5:100:5 (every fifth), or a list such as 5,10,20.",
    ),
    metric: shared.Metric = shared.METRIC,
    sample_weight: str | None = shared.SAMPLE_WEIGHT,
    seed: int = shared.SEED,
    device: str = shared.DEVICE,
    vectors: shared.Vectors,
    shown: shared.Shown,
) -> None:
    """Try many numbers of clusters, and recommend one.

    If none stands out, the one that works best is suggested. Nothing is written.

    Examples:
        dink sweep emb.npy
        dink sweep emb.parquet -k 10:400 --metric cosine
    """
    from dinkcli.insight.ranges import parse_numbers

    tried, _ = parse_numbers(numbers)  # a wrong range is told before files are opened

    data = vectors.open(inputs, sample_weight=sample_weight).repeatable()
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
    show_result(result, shown.as_json, name=data.name)
    if not shown.as_json:
        say_bad_rows(result.bad_rows, shown.quiet)
