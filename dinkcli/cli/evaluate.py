"""``dink evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dinkcli.cli import options as shared
from dinkcli.cli.console import Field, Sheet, print_json, rows_shown, say, say_bad_rows, show
from dinkcli.cli.paths import load_model

if TYPE_CHECKING:
    import numpy as np

    from dinkcli.insight.agreement import Agreement
    from dinkcli.insight.evaluate import Evaluation, Quality
    from dinkcli.models.model import Model

_MOST_PARTS = 20  # of classes
_WEAKEST = 5
_LEAST_CLUSTERS = 4  # of which some are worth naming


def evaluate(
    *,
    model_path: str = shared.MODEL_PATH,
    inputs: list[str] = shared.INPUTS,
    labels: list[str] | None = shared.LABELS,
    rows: shared.ModelRows,
    shown: shared.Shown,
) -> None:
    """Measure the clusters, alone or against known classes.

    The inputs are read twice.

    Examples:
        dink evaluate emb.dink.safetensors emb.npy
        dink evaluate emb.dink.safetensors emb.parquet --labels topic
        dink evaluate emb.dink.safetensors emb.npy --labels topics.txt
    """
    model = load_model(model_path, inputs)
    data = rows.open(model, inputs, labels=labels)

    from dinkcli.insight.evaluate import evaluate as measure

    with rows_shown(data, shown.silent) as on_rows:
        evaluation = measure(model, data, rows.device, on_rows)
    if shown.as_json:
        print_json(evaluation.as_dict() | ({"names": model.names} if model.names else {}))
        return
    _show(evaluation, model)
    say_bad_rows(evaluation.quality.bad_rows, shown.quiet)
    if evaluation.unlabelled and not shown.quiet:
        say(f"{evaluation.unlabelled} rows without a label are left out of the agreement")


def _show(evaluation: Evaluation, model: Model) -> None:
    quality = evaluation.quality
    table = Sheet(Field(), "", Field(drop=1), headings=False)
    for name, value, meaning in (
        ("inertia", quality.inertia, f"{quality.inertia / quality.rows:.4g} per row"),
        ("simplified silhouette", quality.simplified_silhouette, "0 to 1, higher is better"),
        ("Davies-Bouldin", quality.davies_bouldin, "lower is better"),
        ("Calinski-Harabasz", quality.calinski_harabasz, "higher is better"),
        ("imbalance", quality.imbalance, "1 is equal sizes"),
    ):
        table.add(name, "-" if value is None else f"{value:.6g}", meaning)
    if quality.ambiguous is not None:
        share = f"{quality.ambiguous:.2%}"
        table.add("ambiguous rows", share, "second centre within 5 % of the first")
    show(f"{quality.rows:,} rows in {len(quality.sizes)} clusters", table)
    if evaluation.agreement is not None and evaluation.table is not None:
        classes = evaluation.classes or []
        _show_agreement(evaluation.agreement, len(classes))
        _show_confused(evaluation.table, evaluation.agreement.matching, classes, model)
    _show_weakest(quality, model)


def _show_agreement(agreement: Agreement, n_classes: int) -> None:
    table = Sheet(Field(), "", headings=False)
    for name, value in (
        ("accuracy (ACC)", agreement.accuracy),
        ("mutual information (NMI)", agreement.normalized_mutual_information),
        ("adjusted Rand index (ARI)", agreement.adjusted_rand_index),
        ("macro-F1", agreement.macro_f1),
        ("homogeneity", agreement.homogeneity),
        ("completeness", agreement.completeness),
        ("V-measure", agreement.v_measure),
    ):
        table.add(name, f"{value:.4f}")
    show(f"against {n_classes} classes", table)


def _show_weakest(quality: Quality, model: Model) -> None:
    """The clusters whose rows are hardly nearer to their centre than to another."""
    sizes, silhouette = quality.sizes, quality.cluster_silhouette
    order = [j for j in silhouette.argsort(kind="stable").tolist() if sizes[j]]
    if len(order) < _LEAST_CLUSTERS:
        return
    named = Field("name", text=True) if model.names else None
    table = Sheet("cluster", named, "rows", "silhouette")
    for j in order[:_WEAKEST]:
        table.add(j, model.all_names[j] or "-", sizes[j], f"{silhouette[j]:.3f}")
    show("clusters that are least apart from others", table)


def _called(cluster: int, model: Model) -> str:
    """A cluster by its number and name."""
    return "none" if cluster < 0 else f"{cluster} {model.all_names[cluster]}".rstrip()


def _show_confused(
    counts: np.ndarray, matching: np.ndarray, classes: list[Any], model: Model
) -> None:
    """The largest parts of classes that lie outside the cluster of their class."""
    wrong = counts.copy()
    matched = (matching >= 0).nonzero()[0]
    wrong[matched, matching[matched]] = 0
    order = wrong.ravel().argsort(kind="stable")[::-1][:_MOST_PARTS].tolist()
    side: Any = "left" if model.names else "right"
    own, other = (Field(head, side, text=side == "left") for head in ("its cluster", "in"))
    table = Sheet("rows", Field("of class", text=True), own, other)
    for i, j in (divmod(cell, counts.shape[1]) for cell in order):
        if wrong[i, j]:
            table.add(wrong[i, j], classes[i], _called(matching[i], model), _called(j, model))
    if wrong.any():
        show("largest groups outside their class's cluster (--json has the whole table)", table)
