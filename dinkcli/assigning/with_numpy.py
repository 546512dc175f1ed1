"""The places of rows by NumPy: for work that is done before torch would be loaded."""

from __future__ import annotations

import math
import os

import numpy as np

from dinkcli.assigning.places import Found, Two
from dinkcli.data.base import Reader
from dinkcli.data.dataset import DataSet
from dinkcli.models.model import Model
from dinkcli.nearest.small import Seen, SmallIndex
from dinkcli.options import LEARNED, AssignOptions

# Multiplications: NumPy takes half of the time for them that loading torch does.
_MOST_WORK = 4 * 10**9


def is_small(model: Model, data: DataSet) -> bool:
    """Whether NumPy is done before torch would be loaded; the same for all shares of the data."""
    if model.metric == LEARNED:
        return False
    numbers = sum(_numbers_in(reader) for reader in data.readers)
    return numbers * model.n_clusters <= _MOST_WORK


def _numbers_in(reader: Reader) -> float:
    """About how many numbers the rows of an input hold; of a text, no more than it has bytes."""
    if reader.n_rows is not None:
        return reader.n_rows * reader.n_features
    return os.path.getsize(reader.path) if os.path.isfile(reader.path) else math.inf


class NumpyPlaces:
    has_core_to_spare = False
    takes_short = False

    def __init__(self, model: Model, options: AssignOptions, temperature: float):
        self._index = SmallIndex(model.cluster_centers, normalize=model.metric == "cosine")
        self._options = options
        self._temperature = temperature

    def send(self, vectors: np.ndarray) -> np.ndarray:
        return vectors

    def __call__(self, vectors: np.ndarray, chosen: np.ndarray | None = None) -> Found:
        assert chosen is None, "labels of all rows at once are no small work"
        return Found.joined([self._found(seen) for seen in self._index.look(vectors)])

    def two(self, vectors: np.ndarray) -> Two:
        parts = [
            (seen.rows.astype(np.float32), seen.labels, self._index.seconds(seen))
            for seen in self._index.look(vectors)
        ]
        return Two(*map(np.concatenate, zip(*parts, strict=True)))

    def _found(self, seen: Seen) -> Found:
        options, distances = self._options, None
        if options.distance or options.max_distance is not None:
            distances = self._index.distances(seen).astype(np.float32)
        if not options.needs_probabilities:
            return Found(seen.labels, distances)
        kind = options.probability_type
        exponents = self._index.exponents(seen, self._temperature, kind)
        probabilities = np.exp(exponents)
        probabilities /= probabilities.sum(1, keepdims=True)
        own = np.take_along_axis(probabilities, seen.labels[:, None], 1)[:, 0].astype(np.float32)
        if options.soft:
            return Found(seen.labels, distances, own, None, probabilities.astype(kind))
        if options.top is None:
            return Found(seen.labels, distances, own)
        # By exponents, which tell apart what is too improbable to be more than 0.
        ranked = np.argsort(-exponents, axis=1, kind="stable")[:, : options.top]
        best = np.take_along_axis(probabilities, ranked, 1).astype(kind)
        return Found(seen.labels, distances, own, ranked, best)
