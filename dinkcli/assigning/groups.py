"""What belongs together through pairs.

Shapes: M things, P pairs.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


class Groups:
    """Groups of M things, whatever the order of joins; the root of each is its lowest member."""

    def __init__(self, number: int):
        self._parents = np.arange(number)

    def roots(self, things: np.ndarray) -> np.ndarray:
        """The lowest member of the group of each of the ``things``."""
        found = self._parents[things]
        while True:
            above = self._parents[found]
            if np.array_equal(above, found):
                break
            found = above
        self._parents[things] = found
        return found

    def apart(self, pairs: np.ndarray) -> np.ndarray:
        """(P,) bool: which pairs (P, 2) are of two groups."""
        roots = self.roots(pairs.reshape(-1)).reshape(pairs.shape)
        return roots[:, 0] != roots[:, 1]

    def join(self, pairs: np.ndarray) -> None:
        """Makes one group of the groups of each pair (P, 2)."""
        if not len(pairs):
            return
        nodes, ends = np.unique(self.roots(pairs.reshape(-1)), return_inverse=True)
        left, right = ends.reshape(pairs.shape).T
        ones = np.ones(len(left), bool)
        graph = coo_matrix((ones, (left, right)), (len(nodes), len(nodes)))
        count, labels = connected_components(graph, directed=False)
        lowest = np.full(count, len(self._parents))
        np.minimum.at(lowest, labels, nodes)
        self._parents[nodes] = lowest[labels]

    def connections(self) -> np.ndarray:
        """Pairs (P, 2) that make these groups again: everything and its root, but for roots."""
        everything = np.arange(len(self._parents))
        roots = self.roots(everything)
        joined = np.flatnonzero(roots != everything)
        return np.stack([joined, roots[joined]], 1)
