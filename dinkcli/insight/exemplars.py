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
        # Labels, distances and numbers of the rows.
        self._held = [np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64)]
        self._carried: pa.Table | None = None

    def add(self, view: View) -> None:
        new = [view.labels, view.distances, view.rows]
        keep = self._nearest(*new)  # before columns of all rows are copied
        held = [np.append(old, values[keep]) for old, values in zip(self._held, new, strict=True)]
        best = self._nearest(*held)
        self._held = [values[best] for values in held]
        if view.carried is not None:
            carried = pa.Table.from_batches([view.carried]).take(pa.array(keep))
            if self._carried is not None:
                carried = pa.concat_tables([self._carried, carried])
            self._carried = carried.take(pa.array(best)).combine_chunks()

    def of_clusters(self) -> list[list[Exemplar]]:
        """K lists, each nearest (or farthest) first and shorter for a cluster of few rows."""
        labels, distances, rows = (values.tolist() for values in self._held)
        values = [{} for _ in rows] if self._carried is None else self._carried.to_pylist()
        result: list[list[Exemplar]] = [[] for _ in range(self._n_clusters)]
        for label, row, distance, carried in zip(labels, rows, distances, values, strict=True):
            result[label].append(Exemplar(row, distance, carried))
        return result

    def _nearest(self, labels: np.ndarray, distances: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Positions of the nearest rows of each label: by label, distance, then row."""
        order = np.lexsort((rows, self._sign * distances, labels))
        sizes = np.bincount(labels, minlength=self._n_clusters)
        rank = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return order[rank < self._number]
