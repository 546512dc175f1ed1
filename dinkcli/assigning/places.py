"""Where rows are among the centres: what ``with_torch`` and ``with_numpy`` both find.

Shapes: B rows in a block, K clusters, D features, M = ``AssignOptions.top``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol

import numpy as np


@dataclass(frozen=True)
class Found:
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
    def joined(cls, parts: Sequence[Found]) -> Found:
        """Of the rows of all ``parts``, of which there is one at least."""
        found: dict[str, Any] = {}
        for field in fields(cls):
            values = [getattr(part, field.name) for part in parts]
            found[field.name] = None if values[0] is None else np.concatenate(values)
        return cls(**found)


class Two(NamedTuple):
    """Rows (B, D) float32 as the model compares them, and the numbers (B,) int64 of the nearest and
    of the second-nearest centre of each; with one centre, that is both."""

    z: np.ndarray
    labels: np.ndarray
    seconds: np.ndarray


class Places(Protocol):
    """Finds the places of ``vectors`` (B, D) float32, which it leaves as they are."""

    @property
    def has_core_to_spare(self) -> bool:
        """Whether reading ahead pays: beside products on all cores a reader measured slower (npy)
        or no faster (parquet), beside products on one of two cores parquet took three quarters."""

    @property
    def takes_short(self) -> bool:
        """Whether vectors may come as narrow as they are stored."""

    def send(self, vectors: np.ndarray) -> Any:
        """Begins to move ``vectors`` to where they are looked at, on a thread that reads ahead;
        gives what ``__call__`` then takes."""

    def __call__(self, vectors: Any, chosen: np.ndarray | None = None) -> Found:
        """``chosen`` (B,): labels in place of the nearest centres, by torch only."""

    def two(self, vectors: np.ndarray) -> Two:
        """The two nearest centres, whatever the options ask for."""
