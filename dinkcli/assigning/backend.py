"""Where rows are among the centres: what a backend finds, and the one that uses NumPy, for work
that is done before torch would be loaded (the other is in ``torch_backend``).

Shapes: B rows in a block, K clusters, D features, M = ``AssignOptions.top``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol

import numpy as np

from dinkcli.data.base import Reader
from dinkcli.data.dataset import DataSet
from dinkcli.models.model import Model
from dinkcli.nearest.small import ChunkResult, SmallIndex
from dinkcli.options import LEARNED, AssignOptions

# Multiplications: NumPy takes half of the time for them that loading torch does.
_MOST_WORK = 4 * 10**9


@dataclass(frozen=True)
class BlockResult:
    """Of some rows, as far as the options want it; clusters are numbered as the centres are.

    Attributes:
        labels: (B,) int64, the nearest centre.
        distances: (B,) float32 to it.
        own: (B,) float32, its probability.
        ranked: (B, M) int64, the most probable clusters, best first.
        probabilities: of these (B, M), or of all (B, K), in the type that is asked for.
    """

    labels: np.ndarray
    distances: np.ndarray | None = None
    own: np.ndarray | None = None
    ranked: np.ndarray | None = None
    probabilities: np.ndarray | None = None

    @classmethod
    def joined(cls, parts: Sequence[BlockResult]) -> BlockResult:
        """Of the rows of all ``parts``, of which there is one at least."""
        found: dict[str, Any] = {}
        for field in fields(cls):
            values = [getattr(part, field.name) for part in parts]
            found[field.name] = None if values[0] is None else np.concatenate(values)
        return cls(**found)


class NearestPair(NamedTuple):
    """Rows (B, D) float32 as the model compares them, and the numbers (B,) int64 of the nearest and
    of the second-nearest centre of each; with one centre, that is both."""

    z: np.ndarray
    labels: np.ndarray
    second_labels: np.ndarray


class Backend(Protocol):
    """Finds the places of ``vectors`` (B, D) float32, which it leaves as they are."""

    @property
    def has_core_to_spare(self) -> bool:
        """Whether reading ahead pays: beside products on all cores a reader measured slower (npy)
        or no faster (parquet), beside products on one of two cores parquet took three quarters."""

    @property
    def takes_half(self) -> bool:
        """Whether vectors may come as narrow as they are stored."""

    def send(self, vectors: np.ndarray) -> Any:
        """Begins to move ``vectors`` to where they are looked at, on a thread that reads ahead;
        gives what ``__call__`` then takes."""

    def __call__(self, vectors: Any, chosen: np.ndarray | None = None) -> BlockResult:
        """``chosen`` (B,): labels in place of the nearest centres, by torch only."""

    def nearest_pair(self, vectors: np.ndarray) -> NearestPair:
        """The two nearest centres, whatever the options ask for."""


def is_small(model: Model, data: DataSet) -> bool:
    """Whether NumPy is done before torch would be loaded; the same for all shares of the data."""
    if model.metric == LEARNED:
        return False
    numbers = sum(_numbers_in(reader) for reader in data.readers)
    return numbers * len(model.centers) <= _MOST_WORK


def _numbers_in(reader: Reader) -> float:
    """About how many numbers the rows of an input hold; of a text, no more than it has bytes."""
    if reader.n_rows is not None:
        return reader.n_rows * reader.n_features
    return os.path.getsize(reader.path) if os.path.isfile(reader.path) else math.inf


class NumpyBackend:
    """On the CPU, in float64."""

    has_core_to_spare = False
    takes_half = False

    def __init__(self, model: Model, options: AssignOptions, temperature: float):
        self._index = SmallIndex(model.centers, normalize=model.metric == "cosine")
        self._options = options
        self._temperature = temperature

    def send(self, vectors: np.ndarray) -> np.ndarray:
        return vectors

    def __call__(self, vectors: np.ndarray, chosen: np.ndarray | None = None) -> BlockResult:
        assert chosen is None, "labels of all rows at once are no small work"
        return BlockResult.joined([self._found(chunk) for chunk in self._index.chunks(vectors)])

    def nearest_pair(self, vectors: np.ndarray) -> NearestPair:
        parts = [
            (chunk.rows.astype(np.float32), chunk.labels, self._index.seconds(chunk))
            for chunk in self._index.chunks(vectors)
        ]
        return NearestPair(*map(np.concatenate, zip(*parts, strict=True)))

    def _found(self, chunk: ChunkResult) -> BlockResult:
        options, distances = self._options, None
        if options.distance or options.max_distance is not None:
            distances = self._index.distances(chunk).astype(np.float32)
        if not options.needs_probabilities:
            return BlockResult(chunk.labels, distances)
        kind = options.probability_type
        exponents = self._index.exponents(chunk, self._temperature, kind)
        probabilities = np.exp(exponents)
        probabilities /= probabilities.sum(1, keepdims=True)
        own = np.take_along_axis(probabilities, chunk.labels[:, None], 1)[:, 0].astype(np.float32)
        if options.soft:
            return BlockResult(chunk.labels, distances, own, None, probabilities.astype(kind))
        if options.top is None:
            return BlockResult(chunk.labels, distances, own)
        # By exponents, which tell apart what is too improbable to be more than 0.
        ranked = np.argsort(-exponents, axis=1, kind="stable")[:, : options.top]
        best = np.take_along_axis(probabilities, ranked, 1).astype(kind)
        return BlockResult(chunk.labels, distances, own, ranked, best)
