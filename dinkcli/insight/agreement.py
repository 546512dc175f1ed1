"""How well clusters agree with known classes, from a table (C, K) int64 of the rows of each class
in each cluster; labels are counted block by block and never held. Definitions and degenerate cases
are scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dinkcli.errors import UsageError

_MOST_CELLS = 1 << 26


class Contingency:
    """Counts pairs of a class and a cluster, in batches.

    Attributes:
        table: (C, K) int64.
        unlabelled: rows, which are not counted.
    """

    def __init__(self, n_clusters: int):
        self.table = np.zeros((0, n_clusters), np.int64)
        self.unlabelled = 0
        self._position: dict[Hashable, int] = {}

    @property
    def classes(self) -> list[Any]:
        """The distinct labels in order of first appearance."""
        return list(self._position)

    def add(self, values: Sequence[Hashable], codes: np.ndarray, clusters: np.ndarray) -> None:
        """Counts B rows: row i is of class ``values[codes[i]]``, in cluster ``clusters[i]``."""
        for value in values:
            self._position.setdefault(value, len(self._position))
        n_classes, n_clusters = len(self._position), self.table.shape[1]
        if n_classes * n_clusters > _MOST_CELLS:
            raise UsageError(
                f"more than {n_classes} distinct labels; is this column of labels one of ids?"
            )
        of_value = np.array([self._position[value] for value in values], np.int64)
        cells = of_value[codes] * n_clusters + clusters
        counts = np.bincount(cells, minlength=n_classes * n_clusters).reshape(n_classes, -1)
        counts[: len(self.table)] += self.table
        self.table = counts


@dataclass(frozen=True)
class Agreement:
    """The usual measures of clusters against classes, all at most 1, higher being better.

    Attributes:
        accuracy: share of rows in the cluster that is matched to their class, under the best
            matching of clusters to classes, one to one (Hungarian algorithm).
        macro_f1: mean over classes of the F1 of the cluster matched to it, 0 without one.
        normalized_mutual_information: with the arithmetic mean of both entropies.
        adjusted_rand_index: 0 on average for random clusters.
        homogeneity, completeness, v_measure: Rosenberg and Hirschberg 2007.
        matching: (C,) the cluster matched to each class, -1 for none.
    """

    accuracy: float
    macro_f1: float
    normalized_mutual_information: float
    adjusted_rand_index: float
    homogeneity: float
    completeness: float
    v_measure: float
    matching: np.ndarray


def agreement(table: np.ndarray) -> Agreement:
    """All measures of a (C, K) table of at least one row."""
    from scipy.optimize import linear_sum_assignment

    classes, clusters = linear_sum_assignment(table, maximize=True)
    matching = np.full(len(table), -1)
    matching[classes] = clusters
    hits, taken = np.zeros((2, len(table)))
    hits[classes], taken[classes] = table[classes, clusters], table.sum(0)[clusters]
    f1 = 2 * hits / np.maximum(table.sum(1) + taken, 1)
    of_classes, of_clusters = _entropy(table.sum(1)), _entropy(table.sum(0))
    mutual = max(0.0, of_classes + of_clusters - _entropy(table))
    homogeneity = min(1.0, mutual / of_classes) if of_classes else 1.0
    completeness = min(1.0, mutual / of_clusters) if of_clusters else 1.0
    total = homogeneity + completeness
    v_measure = 2 * homogeneity * completeness / total if total else 0.0
    return Agreement(
        accuracy=float(hits.sum() / table.sum()),
        macro_f1=float(f1.mean()),
        normalized_mutual_information=v_measure,  # the same
        adjusted_rand_index=adjusted_rand_index(table),
        homogeneity=homogeneity,
        completeness=completeness,
        v_measure=v_measure,
        matching=matching,
    )


def adjusted_rand_index(table: np.ndarray) -> float:
    """Of a (C, K) table; 1 when both partitions are the same."""
    # Python's integers: products of pair counts pass 2^63 at a few hundred thousand rows.
    rows = int(table.sum())
    together = sum(int(count) ** 2 for count in table[table > 0])
    in_classes = sum(int(count) ** 2 for count in table.sum(1))
    in_clusters = sum(int(count) ** 2 for count in table.sum(0))
    split, merged = in_classes - together, in_clusters - together
    both, neither = together - rows, rows**2 - together - split - merged
    if split == merged == 0:
        return 1.0
    excess = 2 * (both * neither - split * merged)
    return excess / ((both + split) * (split + neither) + (both + merged) * (merged + neither))


def _entropy(counts: np.ndarray) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())
