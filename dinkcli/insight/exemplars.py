"""The rows that stand for each cluster: the nearest to its centre.

Shapes: N rows, B rows in a block, K clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dinkcli.insight.survey import View


@dataclass(frozen=True)
class Exemplar:
    """A row near its centre.

    Attributes:
        row: its number over all inputs.
        distance: to the centre.
        carried: its values of the carried columns, by name.
    """

    row: int
    distance: float
    carried: dict[str, object]


class Exemplars:
    """Keeps the ``number`` rows nearest to each of K centres, or of those that belong to it the
    ``farthest``; memory for these alone."""

    def __init__(self, n_clusters: int, number: int, farthest: bool = False):
        self._n_clusters, self._number = n_clusters, number
        self._sign = -1 if farthest else 1
        self._labels = np.empty(0, np.int64)
        self._distances = np.empty(0)
        self._rows = np.empty(0, np.int64)
        self._carried: pa.Table | None = None

    def add(self, view: View) -> None:
        labels, distances = view.labels, view.distances
        keep = self._nearest(labels, distances, np.arange(len(labels)))
        rows = view.rows[keep]
        if view.carried is not None:
            new = pa.Table.from_batches([view.carried]).take(pa.array(keep))
            old = self._carried
            self._carried = new if old is None else pa.concat_tables([old, new])
        self._labels = np.append(self._labels, labels[keep])
        self._distances = np.append(self._distances, distances[keep])
        self._rows = np.append(self._rows, rows)
        best = self._nearest(self._labels, self._distances, self._rows)
        self._labels, self._distances = self._labels[best], self._distances[best]
        self._rows = self._rows[best]
        if self._carried is not None:
            self._carried = self._carried.take(pa.array(best)).combine_chunks()

    def of_clusters(self) -> list[list[Exemplar]]:
        """K lists, each nearest (or farthest) first and shorter for a cluster of few rows."""
        values = [{} for _ in self._rows] if self._carried is None else self._carried.to_pylist()
        result: list[list[Exemplar]] = [[] for _ in range(self._n_clusters)]
        for label, distance, row, carried in zip(
            self._labels.tolist(),
            self._distances.tolist(),
            self._rows.tolist(),
            values,
            strict=True,
        ):
            result[label].append(Exemplar(row, distance, carried))
        return result

    def _nearest(self, labels: np.ndarray, distances: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Positions of the nearest rows of each label: by label, distance, then row."""
        order = np.lexsort((rows, self._sign * distances, labels))
        sizes = np.bincount(labels, minlength=self._n_clusters)
        rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return order[rank < self._number]
