"""Nearest centres by NumPy, for work that is done before torch would be loaded (``torch_backend``
does all other). Shapes: B rows in a block, K clusters, D features, M = ``AssignOptions.top``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

import numpy as np

from dinkcli.data.dataset import DataSet
from dinkcli.models.model import Model
from dinkcli.nearest.small import ChunkResult, SmallIndex
from dinkcli.options import LEARNED, AssignOptions

# Multiplications: NumPy takes half of the time for them that loading torch does.
_MOST_WORK = 4 * 10**9

# Columns of ``Assigner`` by name, but for the clusters, in whose place are the nearest centres:
# ``label`` (B,) and ``clusters`` (B, M) int64.
Nearest: TypeAlias = dict[str, np.ndarray]


class NearestPair(NamedTuple):
    """Rows (B, D) float32 as the model compares them, and the numbers (B,) int64 of the nearest and
    of the second-nearest centre of each; with one centre, that is both."""

    z: np.ndarray
    labels: np.ndarray
    second_labels: np.ndarray


class NumpyBackend:
    """Finds nearest centres on the CPU, in float64; what ``TorchBackend`` says of itself there is
    said of both."""

    each = staticmethod(map)
    takes_half = False

    def __init__(self, model: Model, options: AssignOptions, temperature: float):
        self._index = SmallIndex(model.centers, normalize=model.metric == "cosine")
        self._options = options
        self._temperature = temperature

    def send(self, vectors: np.ndarray) -> np.ndarray:
        return vectors

    def __call__(self, vectors: np.ndarray, chosen: np.ndarray | None = None) -> Nearest:
        assert chosen is None, "labels of all rows at once are no small work"
        return joined(self._nearest(chunk) for chunk in self._index.chunks(vectors))

    def nearest_pair(self, vectors: np.ndarray) -> NearestPair:
        parts = [
            (chunk.rows.astype(np.float32), chunk.labels, self._index.seconds(chunk))
            for chunk in self._index.chunks(vectors)
        ]
        return NearestPair(*map(np.concatenate, zip(*parts, strict=True)))

    def _nearest(self, chunk: ChunkResult) -> Nearest:
        options, result = self._options, {"label": chunk.labels}
        if options.distance or options.max_distance is not None:
            result["distance"] = self._index.distances(chunk).astype(np.float32)
        if not options.needs_probabilities:
            return result
        kind = options.probability_type
        exponents = self._index.exponents(chunk, self._temperature, kind)
        probabilities = np.exp(exponents)
        probabilities /= probabilities.sum(1, keepdims=True)
        own = np.take_along_axis(probabilities, chunk.labels[:, None], 1)[:, 0]
        result["own"] = own.astype(np.float32)
        if options.top is not None:
            # By exponents, which tell apart what is too improbable to be more than 0.
            result["clusters"] = np.argsort(-exponents, axis=1, kind="stable")[:, : options.top]
            probabilities = np.take_along_axis(probabilities, result["clusters"], 1)
        if options.top is not None or options.soft:
            result["probabilities"] = probabilities.astype(kind)
        return result


def joined(parts: Iterable[Nearest]) -> Nearest:
    """What all ``parts`` say, of which there is one at least."""
    parts = list(parts)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def is_small(model: Model, data: DataSet) -> bool:
    """Whether NumPy is done before torch would be loaded; the same for all shares of the data."""
    # A text has no more numbers than bytes; a stream, of 0 bytes, may have any.
    numbers = sum(
        reader.n_bytes or math.inf if reader.n_rows is None else reader.n_rows * reader.n_features
        for reader in data.readers
    )
    return model.metric != LEARNED and numbers * len(model.centers) <= _MOST_WORK
