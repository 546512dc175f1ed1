"""Who visits a cluster to be compared with its rows."""

from __future__ import annotations

import numpy as np

from dinkcli.jobs.shelves import Shelves
from dinkcli.jobs.survey import Survey


class Visitors:
    """Positions of the rows that visit a cluster, without those that repeat another exactly."""

    def __init__(self, shelves: Shelves, seen: Survey, alone: np.ndarray):
        places = shelves.places[seen.more["visits"]]
        visited = seen.more["visited"]
        places, visited = places[alone[places]], visited[alone[places]]
        order = np.argsort(visited, kind="stable")
        self._places = places[order]
        self._starts = np.searchsorted(visited[order], np.arange(len(shelves.starts)))

    def of(self, label: int) -> np.ndarray:
        return self._places[self._starts[label] : self._starts[label + 1]]
