"""``dink sweep``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dinkcli.cli import options as shared
from dinkcli.cli.console import Field, Sheet, bar, print_json, say, say_bad_rows, show
from dinkcli.cli.options import main_option
from dinkcli.cli.progress import ProgressLines

if TYPE_CHECKING:
    from dinkcli.data.dataset import DataSet
    from dinkcli.insight.inspect import Seen
    from dinkcli.insight.recommend import Sweep

_BAR = 16
_NAMED = 20  # clusters in a table


def sweep(
    *,
    inputs: list[str] = shared.INPUTS,
    numbers: str = main_option(
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
    vectors: shared.Vectors,
    shown: shared.Shown,
) -> None:
    """Try many numbers of clusters, and recommend one.

    Examples:
        dink sweep emb.npy
        dink sweep emb.parquet -k 10:400 --metric cosine
        dink sweep emb.npy --texts texts.txt
    """
    from dinkcli.insight.ranges import parse_numbers

    tried, _ = parse_numbers(numbers)  # a wrong range is told before files are opened

    from dinkcli.data.spool import repeatable

    data = repeatable(vectors.open(inputs, sample_weight=sample_weight, texts=texts))
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
    named = None
    if data.columns.text is not None:
        named = _named(result, data, metric, device, shown.silent)
    if shown.as_json:
        clusters = {} if named is None else {"clusters": _clusters(named)}
        print_json(result.as_dict() | clusters)
    else:
        _show(result, data.name)
        if named is not None:
            _show_names(named)
        say_bad_rows(result.bad_rows, shown.quiet)


def _named(result: Sweep, data: DataSet, metric: str, device: str, quiet: bool) -> Seen:
    """What the clusters of the workable K would be about, as far as a sweep knows them."""
    import numpy as np

    from dinkcli.cli.name import name_by_texts
    from dinkcli.models.model import Model

    assert result.cluster_centers is not None
    model = Model(result.cluster_centers, np.ones(result.workable), metric, offset=result.offset)
    return name_by_texts(model, data, device, quiet)


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


def _show(result: Sweep, name: str) -> None:
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
    most = max(1e-9, *(c.excess for c in result.candidates))
    for c in result.candidates:
        mark = "> " if c.n_clusters == result.n_clusters else ""
        mark = "~ " if not mark and c.n_clusters == result.workable else mark
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
    show(
        f"{name}: {len(result.candidates)} numbers of clusters",
        table,
        "above noise: how much better rows fit their clusters (silhouette) than structureless "
        f"noise of the same spread does; it counts from {LEAST_EXCESS} on.",
        "stability: how alike the clusters of two halves of the data are; 1 is the same, 0 is "
        f"chance; it counts from {LEAST_STABILITY} on.",
    )
    if result.n_clusters is not None:
        show(f"K = {result.n_clusters}: {result.reason}")
    else:
        show(f"no clear K: {result.reason}")
        show(f"K = {result.workable} works: {result.workable_reason}")
