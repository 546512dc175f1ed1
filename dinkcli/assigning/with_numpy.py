"""The places of rows by NumPy: for work that is done before torch would be loaded."""

from __future__ import annotations

import numpy as np

from dinkcli.assigning.places import Found
from dinkcli.models.model import Model
from dinkcli.nearest.small import Seen, SmallIndex
from dinkcli.options import AssignOptions

# Multiplications: NumPy takes half of the time for them that loading torch does.
MOST_WORK = 4 * 10**9
# Metrics under which rows are compared as they come, or scaled.
METRICS = ("euclidean", "cosine")


class NumpyPlaces:
    has_core_to_spare = False
    takes_short = False

    def __init__(self, model: Model, options: AssignOptions, temperature: float):
        self._index = SmallIndex(model.cluster_centers, normalize=model.metric == "cosine")
        self._options = options
        self._temperature = temperature

    def send(self, vectors: np.ndarray) -> np.ndarray:
        return vectors

    def __call__(self, vectors: np.ndarray) -> Found:
        return Found.joined([self._found(seen) for seen in self._index.look(vectors)])

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
