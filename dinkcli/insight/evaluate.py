"""How good clusters are, with known classes and without, in two passes over the rows; and names of
clusters by the known labels of their rows. Everything is summed in float64.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dinkcli.data.dataset import DataSet
from dinkcli.data.formats.types import is_text
from dinkcli.data.inputs import open_inputs
from dinkcli.errors import InputError, UsageError
from dinkcli.insight.agreement import Agreement, Contingency, agreement
from dinkcli.insight.survey import View, squares_to, survey
from dinkcli.models.file import as_model
from dinkcli.models.model import Model
from dinkcli.results import NAME, Field, Result, Sheet

if TYPE_CHECKING:
    import torch

OnRows = Callable[[str, int], None]

_CLOSE = 1.05  # second distance over first
_ENOUGH = 0.8  # of the rows of a cluster, for its name
_MOST = 3  # labels in it
_MOST_PARTS, _WEAKEST = 20, 5  # parts of classes, and clusters, that are shown
_LEAST_CLUSTERS = 4  # of which some are worth naming
_AGREEMENT = {
    "accuracy": "accuracy (ACC)",
    "normalized_mutual_information": "mutual information (NMI)",
    "adjusted_rand_index": "adjusted Rand index (ARI)",
    "macro_f1": "macro-F1",
    "homogeneity": "homogeneity",
    "completeness": "completeness",
    "v_measure": "V-measure",
}


@dataclass(frozen=True)
class Quality:
    """Measures of a partition and its centres. None where a measure needs two clusters.

    Attributes:
        rows: N, bad rows not counted.
        bad_rows: those that were left out.
        inertia: sum of squared distances to the nearest centre.
        simplified_silhouette: mean over rows of (b - a) / max(a, b), with a the distance to the
            nearest centre and b to the second nearest (Hruschka et al. 2004). From -1 to 1, here
            at least 0; higher is better. Over all rows, which costs no more than a sample here.
        davies_bouldin: mean over clusters of the worst ratio of both spreads to the distance
            between two means (Davies and Bouldin 1979); lower is better.
        calinski_harabasz: variance between clusters over variance within (Calinski and Harabasz
            1974); higher is better.
        imbalance: K sum n_j^2 / N^2, as in faiss: 1 for equal sizes, K for one full cluster.
        ambiguous: share of rows whose second centre is at most 5 % farther than their first.
        sizes: (K,) int64 rows of each cluster.
        cluster_inertia: (K,) float64 inertia of each cluster.
        cluster_silhouette: (K,) float64 mean simplified silhouette, 0 for an empty cluster.
    """

    rows: int
    bad_rows: int
    inertia: float
    simplified_silhouette: float | None
    davies_bouldin: float | None
    calinski_harabasz: float | None
    imbalance: float
    ambiguous: float | None
    sizes: np.ndarray
    cluster_inertia: np.ndarray
    cluster_silhouette: np.ndarray


class FirstPass:
    """Sizes, silhouettes and inertia: what one look at the rows gives."""

    def __init__(self, n_clusters: int):
        self.sizes, self.inertia, self.silhouette = np.zeros((3, n_clusters))
        self.close = self.bad_rows = 0

    def add(self, view: View) -> None:
        k, labels = len(self.sizes), view.labels
        first, second = view.distances, view.second_distances
        self.sizes += np.bincount(labels, minlength=k)
        self.inertia += np.bincount(labels, first**2, k)
        ratio = np.divide(first, second, out=np.ones_like(first), where=second > 0)
        self.silhouette += np.bincount(labels, 1 - ratio, k)
        self.bad_rows += view.n_bad
        self.close += int((second <= _CLOSE * first).sum())


def measured(
    model: Model,
    data: DataSet,
    device: torch.device | str,
    on_rows: OnRows,
    look: Callable[[View], None],
) -> Quality:
    """The measures, from two passes over the rows of ``data``; ``look`` sees the first one too."""
    from scipy.sparse import csr_array

    first, k = FirstPass(model.n_clusters), model.n_clusters
    sums = np.zeros((k, model.n_features))
    for view in survey(model, data, device):
        first.add(view)
        look(view)
        one_hot = (np.ones(len(view)), view.labels, np.arange(len(view) + 1))
        sums += csr_array(one_hot, shape=(len(view), k)).T @ view.z.astype(np.float64)
        on_rows("assign", view.end)
    means = sums / np.maximum(first.sizes, 1)[:, None]  # (K, D); zero for an empty cluster
    distances, squares = np.zeros((2, k))  # from the means, summed by cluster
    for view in survey(model, data, device):
        apart = squares_to(means, view.z, view.labels)
        squares += np.bincount(view.labels, apart, k)
        distances += np.bincount(view.labels, np.sqrt(apart), k)
        on_rows("spread", view.end)
    sizes, rows, several = first.sizes, first.sizes.sum(), k > 1
    davies_bouldin, calinski_harabasz = _scatter(sizes, means, distances, squares)
    return Quality(
        rows=int(rows),
        bad_rows=first.bad_rows,
        inertia=float(first.inertia.sum()),
        simplified_silhouette=float(first.silhouette.sum() / rows) if several else None,
        davies_bouldin=davies_bouldin,
        calinski_harabasz=calinski_harabasz,
        imbalance=float(k * (sizes**2).sum() / rows**2),
        ambiguous=float(first.close / rows) if several else None,
        sizes=sizes.astype(np.int64),
        cluster_inertia=first.inertia,
        cluster_silhouette=first.silhouette / np.maximum(sizes, 1),
    )


def _scatter(
    sizes: np.ndarray, means: np.ndarray, distances: np.ndarray, squares: np.ndarray
) -> tuple[float | None, float | None]:
    """(Davies-Bouldin, Calinski-Harabasz) over the clusters that are not empty."""
    full = sizes > 0
    sizes, means = sizes[full], means[full]
    rows, n_clusters = sizes.sum(), len(sizes)
    if n_clusters < 2 or n_clusters >= rows:
        return None, None
    spread = distances[full] / sizes
    within = squares.sum()
    between = (sizes[:, None] * (means - sizes @ means / rows) ** 2).sum()
    worst = np.zeros(n_clusters)
    for j, mean in enumerate(means):
        apart = np.sqrt(((means - mean) ** 2).sum(1))
        # 0 for means that coincide, as in scikit-learn; the cluster itself is one of these.
        both, ratio = spread + spread[j], np.zeros(n_clusters)
        worst[j] = np.divide(both, apart, out=ratio, where=apart > 0).max()
    degrees = (rows - n_clusters) / (n_clusters - 1)
    return float(worst.mean()), float(between / within * degrees) if within else 1.0


@dataclass(frozen=True)
class Evaluation(Result):
    """Everything known about a model's clusters of some rows.

    Attributes:
        model: the model, whose names are shown.
        quality: measures without classes.
        agreement: measures against classes, or None without labels.
        classes: (C,) the distinct labels, sorted where they can be.
        table: (C, K) int64, rows of each class in each cluster; None without labels.
        unlabelled: rows whose label is null or NaN; only ``quality`` counts them.
    """

    model: Model
    quality: Quality
    agreement: Agreement | None = None
    classes: list[Any] | None = None
    table: np.ndarray | None = None
    unlabelled: int = 0

    def to_dict(self) -> dict[str, Any]:
        document = _plain(asdict(self.quality))
        if self.agreement is not None and self.table is not None:
            classes = [
                label if isinstance(label, (int, float, str)) else str(label)
                for label in self.classes or ()
            ]
            document |= {
                "unlabelled": self.unlabelled,
                "agreement": _plain(asdict(self.agreement)),
                "confusion": {"classes": classes, "counts": self.table.tolist()},
            }
        return document | ({"names": self.model.names} if self.model.names else {})

    def to_arrow(self) -> pa.Table:
        """A row for each cluster: its number, name, size, inertia and silhouette."""
        quality = self.quality
        columns = (quality.sizes, quality.cluster_inertia, quality.cluster_silhouette)
        numbers, names = np.arange(len(quality.sizes)), self.model.all_names
        arrays = [pa.array(values) for values in (numbers, names, *columns)]
        return pa.table(arrays, ["cluster", "name", "size", "inertia", "silhouette"])

    def sheets(self) -> list[Sheet]:
        return [*self._measures(), *self._confused(), *self._weakest()]

    def _measures(self) -> Iterator[Sheet]:
        quality, agreement = self.quality, self.agreement
        title = f"{quality.rows:,} rows in {len(quality.sizes)} clusters"
        sheet = Sheet(Field(), "", Field(drop=1), title=title)
        for name, value, meaning in (
            ("inertia", quality.inertia, f"{quality.inertia / quality.rows:.4g} per row"),
            ("simplified silhouette", quality.simplified_silhouette, "0 to 1, higher is better"),
            ("Davies-Bouldin", quality.davies_bouldin, "lower is better"),
            ("Calinski-Harabasz", quality.calinski_harabasz, "higher is better"),
            ("imbalance", quality.imbalance, "1 is equal sizes"),
        ):
            sheet.add(name, "-" if value is None else f"{value:.6g}", meaning)
        if quality.ambiguous is not None:
            share = f"{quality.ambiguous:.2%}"
            sheet.add("ambiguous rows", share, "second centre within 5 % of the first")
        yield sheet
        if agreement is not None:
            title = f"against {len(self.classes or ())} classes"
            sheet = Sheet(Field(), "", title=title)
            for attribute, name in _AGREEMENT.items():
                sheet.add(name, f"{getattr(agreement, attribute):.4f}")
            yield sheet

    def _confused(self) -> Iterator[Sheet]:
        """The largest parts of classes that lie outside the cluster of their class."""
        if self.table is None or self.agreement is None or self.classes is None:
            return
        wrong, matching = self.table.copy(), self.agreement.matching
        matched = matching >= 0
        wrong[matched, matching[matched]] = 0
        order = wrong.argsort(axis=None, kind="stable")[::-1][:_MOST_PARTS]
        side: Any = "left" if self.model.names else "right"
        own, other = (Field(head, side, text=side == "left") for head in ("its cluster", "in"))
        title = "largest groups outside their class's cluster (--json has the whole table)"
        sheet = Sheet("rows", Field("of class", text=True), own, other, title=title)
        for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True):
            if wrong[i, j]:
                sheet.add(wrong[i, j], self.classes[i], self._called(matching[i]), self._called(j))
        if sheet.rows:
            yield sheet

    def _called(self, cluster: int) -> str:
        return "none" if cluster < 0 else f"{cluster} {self.model.all_names[cluster]}".rstrip()

    def _weakest(self) -> Iterator[Sheet]:
        """The clusters whose rows are hardly nearer to their centre than to another."""
        sizes, silhouette = self.quality.sizes, self.quality.cluster_silhouette
        order = [j for j in silhouette.argsort(kind="stable").tolist() if sizes[j]]
        if len(order) < _LEAST_CLUSTERS:
            return
        title = "clusters that are least apart from others"
        sheet = Sheet("cluster", NAME, "rows", "silhouette", title=title)
        for j in order[:_WEAKEST]:
            sheet.add(j, self.model.all_names[j], sizes[j], f"{silhouette[j]:.3f}")
        yield sheet


def evaluate(
    model: Model | str | os.PathLike[str],
    inputs: Any,
    *,
    labels: Any = None,
    column: str | None = None,
    bad_rows: str = "stop",
    device: str = "auto",
    on_rows: OnRows = lambda phase, done: None,
) -> Evaluation:
    """Measures the clusters of N rows, alone or against known classes, in two passes over them.

    Args:
        model: a model or the path of one.
        inputs: as for ``train``.
        labels: the true classes: a column of the inputs, a file, or (N,) values.
        column, bad_rows, device: as for ``assign``.
        on_rows: called with the pass's name and the rows seen so far.

    Raises:
        InputError: rows that the model cannot take, or no labelled row at all.
        UsageError: labels that are no labels: lists, or as many as rows.
    """
    model = as_model(model)
    data = open_inputs(inputs, column, bad_rows, model=model, labels=labels).repeatable()
    counts = Contingency(model.n_clusters)
    count = partial(count_labels, counts, data.columns.label)
    quality = measured(model, data, device, on_rows, count)
    if data.columns.label is None:
        return Evaluation(model, quality)
    if not counts.classes:
        raise InputError(f"{data.name}: every label is null, nothing to compare the clusters with")
    classes, table = counts.classes, counts.table
    with suppress(TypeError):  # of several types
        order = sorted(range(len(classes)), key=classes.__getitem__)
        classes, table = [classes[i] for i in order], table[order]
    return Evaluation(model, quality, agreement(table), classes, table, counts.unlabelled)


def count_labels(counts: Contingency, label: str | None, view: View) -> None:
    """Counts the labels in the column ``label`` of a view, where there is one."""
    if label is None or view.carried is None:
        return
    import pyarrow.compute as pc  # takes as long to load as all else

    labels = view.carried.column(label)
    if pa.types.is_nested(labels.type):
        raise UsageError(f"labels are {labels.type}, expected numbers, text or booleans")
    if pa.types.is_dictionary(labels.type):
        labels = labels.dictionary_decode()
    missing = labels.is_null(nan_is_null=True)
    if is_text(labels.type):  # a blank is no class
        missing = pc.or_kleene(missing, pc.equal(pc.utf8_trim_whitespace(labels), ""))
    labelled = pc.invert(missing)
    encoded = labels.filter(labelled).dictionary_encode()
    counts.unlabelled += len(labels) - len(encoded)
    if len(encoded):
        clusters = view.labels[labelled.to_numpy(zero_copy_only=False)]
        counts.add(encoded.dictionary.to_pylist(), encoded.indices.to_numpy(), clusters)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()}


def names_by_labels(
    model: Model,
    data: DataSet,
    device: torch.device | str,
    on_rows: Callable[[int], None],
) -> list[str]:
    """K names: the commonest label of each cluster, and the next ones, at most three, until most of
    its rows have one of them; "" for a cluster without labelled rows."""
    counts = Contingency(model.n_clusters)
    for view in survey(model, data, device):
        count_labels(counts, data.columns.label, view)
        on_rows(view.end)
    names = []
    for rows in counts.table.T:
        order = (-rows).argsort(kind="stable")[:_MOST]
        before = np.cumsum(rows[order]) - rows[order]
        chosen = order[(rows[order] > 0) & (before < _ENOUGH * rows.sum())]
        names.append(", ".join(str(counts.classes[i]) for i in chosen))
    return names
