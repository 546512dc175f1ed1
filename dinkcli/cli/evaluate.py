"""``dink evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dinkcli.cli import options as shared
from dinkcli.cli.console import error_boundary, say
from dinkcli.cli.opening import columns_of, open_for
from dinkcli.cli.paths import load_model
from dinkcli.cli.progress import ProgressLines
from dinkcli.cli.tables import Field, add_row, new_table, print_json, show, width

if TYPE_CHECKING:
    from dinkcli.insight.evaluate import Evaluation

_MOST_COLUMNS = 12  # of the confusion table
_MOST_ROWS = 40
_WEAKEST = 5
_LEAST_CLUSTERS = 4  # of which some are worth naming


def evaluate(
    model_path: shared.ModelPath,
    inputs: shared.Inputs,
    labels: shared.Labels = None,
    label_column: shared.LabelColumn = None,
    device: shared.Device = "auto",
    column: shared.Column = None,
    bad_rows: shared.BadRows = "stop",
    as_json: shared.JsonData = False,
    quiet: shared.Quiet = False,
) -> None:
    """Measure the clusters, alone or against known classes.

    The inputs are read twice.

    Examples:
        dink evaluate emb.dink.safetensors emb.npy
        dink evaluate emb.dink.safetensors emb.parquet --label-column topic
        dink evaluate emb.dink.safetensors emb.npy --labels topics.txt
    """
    with error_boundary():
        wanted = columns_of(column, label=label_column, labels=labels)
        model = load_model(model_path, inputs)
        data = open_for(model, inputs, wanted, bad_rows)

        from dinkcli.insight.evaluate import evaluate as measure

        with ProgressLines(quiet or as_json) as progress:
            found = measure(
                model,
                data,
                device,
                lambda phase, done: progress.update(phase, done, data.known_rows, "rows"),
            )
        if as_json:
            print_json(found.as_dict() | ({"names": model.names} if model.names else {}))
        else:
            _show(found, model.names)
            if found.quality.bad_rows and not quiet:
                say(f"bad rows left out: {found.quality.bad_rows}")
            if found.unlabelled and not quiet:
                say(f"{found.unlabelled} rows without a label are left out of the agreement")


def _show(found: Evaluation, names: list[str]) -> None:
    quality = found.quality
    table = new_table([Field(""), Field("", "right"), Field("", drop=1)], headings=False)
    for name, value, meaning in (
        ("inertia", quality.inertia, f"{quality.inertia / quality.rows:.4g} per row"),
        ("simplified silhouette", quality.simplified_silhouette, "0 to 1, higher is better"),
        ("Davies-Bouldin", quality.davies_bouldin, "lower is better"),
        ("Calinski-Harabasz", quality.calinski_harabasz, "higher is better"),
        ("imbalance", quality.imbalance, "1 is equal sizes"),
    ):
        add_row(table, name, "-" if value is None else f"{value:.6g}", meaning)
    if quality.ambiguous is not None:
        share = f"{quality.ambiguous:.2%}"
        add_row(table, "ambiguous rows", share, "second centre within 5 % of the first")
    show(f"{quality.rows:,} rows in {len(quality.sizes)} clusters", table)
    if found.agreement is not None:
        _show_agreement(found)
        _show_confusion(found, names)
    _show_weakest(found, names)


def _show_agreement(found: Evaluation) -> None:
    assert found.agreement is not None
    table = new_table([("", "left"), ("", "right")], headings=False)
    for name, value in (
        ("accuracy (ACC)", found.agreement.accuracy),
        ("mutual information (NMI)", found.agreement.normalized_mutual_information),
        ("adjusted Rand index (ARI)", found.agreement.adjusted_rand_index),
        ("macro-F1", found.agreement.macro_f1),
        ("homogeneity", found.agreement.homogeneity),
        ("completeness", found.agreement.completeness),
        ("V-measure", found.agreement.v_measure),
    ):
        add_row(table, name, f"{value:.4f}")
    show(f"against {len(found.classes or ())} classes", table)


def _show_weakest(found: Evaluation, names: list[str]) -> None:
    """The clusters whose rows are hardly nearer to their centre than to another."""
    sizes, silhouette = found.quality.sizes, found.quality.cluster_silhouette
    order = [j for j in silhouette.argsort(kind="stable").tolist() if sizes[j]]
    if len(order) < _LEAST_CLUSTERS:
        return
    title = [Field("name", text=True)] if names else []
    table = new_table(
        [Field("cluster", "right"), *title, Field("rows", "right"), Field("silhouette", "right")]
    )
    for j in order[:_WEAKEST]:
        cells = [names[j] or "-"] if names else []
        add_row(table, j, *cells, sizes[j], f"{silhouette[j]:.3f}")
    show("clusters that are least apart from others", table)


def _show_confusion(found: Evaluation, names: list[str]) -> None:
    """Classes by their own cluster and the clusters that take most of the rest."""
    assert found.table is not None and found.agreement is not None
    counts, matching = found.table, found.agreement.matching.tolist()
    rest = counts.sum(0).argsort(kind="stable")[::-1].tolist()
    own = [j for j in matching if j >= 0]
    shown = [*own, *(j for j in rest if j not in set(own) and counts[:, j].any())]
    title = [Field("its cluster", text=True, drop=1)] if names else []
    numbers = [Field("rows", "right"), *(Field(str(j), "right") for j in shown)]
    table = new_table([Field("class", text=True), *title, *numbers])
    for label, mine, row in zip(found.classes or (), matching, counts, strict=True):
        cells = [f"{row[j]}" if row[j] else "." for j in shown]
        add_row(table, label, *([_called(mine, names)] if names else []), f"{row.sum()}", *cells)
    if len(shown) > _MOST_COLUMNS or len(counts) > _MOST_ROWS or table.least() > width():
        _show_confused_pairs(found, names)
        return
    show("rows of each class (down) in each cluster (across)", table)


def _called(cluster: int, names: list[str]) -> str:
    """A cluster by its number and name."""
    if cluster < 0:
        return "none"
    return f"{cluster} {names[cluster]}".rstrip() if names else str(cluster)


def _show_confused_pairs(found: Evaluation, names: list[str]) -> None:
    """What a table too large for a terminal comes down to."""
    assert found.table is not None and found.agreement is not None
    counts, matching = found.table, found.agreement.matching
    wrong = counts.copy()
    matched = (matching >= 0).nonzero()[0]
    wrong[matched, matching[matched]] = 0
    order = wrong.ravel().argsort(kind="stable")[::-1][:20].tolist()
    side = "left" if names else "right"
    table = new_table(
        [
            Field("rows", "right"),
            Field("of class", text=True),
            Field("its cluster", side, text=bool(names)),
            Field("in", side, text=bool(names)),
        ]
    )
    for cell in order:
        i, j = divmod(cell, counts.shape[1])
        if wrong[i, j]:
            own = _called(int(matching[i]), names)
            add_row(table, wrong[i, j], (found.classes or [])[i], own, _called(j, names))
    show("largest groups outside their class's cluster (--json has the whole table)", table)
