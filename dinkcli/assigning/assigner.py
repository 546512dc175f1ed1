"""Assigning rows to the centres of a trained model, block by block.

Shapes: B rows in a block, K clusters, D features, M = ``AssignOptions.top``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dinkcli.assigning.places import Found, Places, Two
from dinkcli.assigning.with_numpy import NumpyPlaces, is_small
from dinkcli.assigning.writers.base import rows_at
from dinkcli.data.ahead import read_ahead
from dinkcli.data.dataset import SKIP, DataSet
from dinkcli.models.matching import Matching, ids_of
from dinkcli.models.model import Model
from dinkcli.nearest.common import LARGEST_NORM, chunk_rows
from dinkcli.options import HARD, AssignOptions

if TYPE_CHECKING:
    import torch

# Rows are read and written in pieces of about 8 MB in float32, which measured best, and computed
# in chunks that CenterIndex chooses from K. A GPU wants larger pieces for each round trip.
_BLOCK_ELEMENTS = {"cpu": 2 << 20, "cuda": 16 << 20, "mps": 8 << 20}


@dataclass(frozen=True)
class Assignments:
    """The clusters of some rows, in input order. An outlier has the label -1.

    Attributes:
        rows: (B,) int64, numbers of the rows over all inputs, ascending.
        labels: (B,) int32.
        distances: (B,) float32, Euclidean, to the nearest centre, or None.
        own: (B,) float32, the probability of the row's own cluster, or None.
        clusters: (B, M) int32, the most probable ones, best first, or None.
        probabilities: (B, M), or (B, K) for soft assignments, float32 or float16, or None.
        carried: the B values of each carried column, or None without such columns.
    """

    rows: np.ndarray
    labels: np.ndarray
    distances: np.ndarray | None = None
    own: np.ndarray | None = None
    clusters: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    carried: pa.RecordBatch | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, where: slice | np.ndarray) -> Assignments:
        """The rows of a slice, without a copy, or at positions."""
        return Assignments(*(rows_at(getattr(self, each.name), where) for each in fields(self)))

    def unassigned(self, bad: np.ndarray) -> Assignments:
        """With label -1 and nothing else known about the rows of the mask ``bad`` (B,)."""
        column = bad[:, None]
        return replace(
            self,
            labels=_blank(self.labels, bad, -1),
            distances=_blank(self.distances, bad, np.nan),
            own=_blank(self.own, bad, np.nan),
            clusters=_blank(self.clusters, column, -1),
            probabilities=_blank(self.probabilities, column, 0),
        )


def _blank(values: Any, where: np.ndarray, value: float) -> Any:
    return None if values is None else np.where(where, values.dtype.type(value), values)


class Assigner:
    """A model's centres, ready to take batches.

    Args:
        matching: gives clusters the ids of an older model.
        small: compute with NumPy on the CPU, whatever the device; torch is not loaded.

    Attributes:
        chosen: (N,) int32 labels by the number of the row, in place of the nearest centres, or
            None.
        places: what finds rows among the centres, and takes them ahead of that.
    """

    def __init__(
        self,
        model: Model,
        device: torch.device | str = "cpu",
        options: AssignOptions = HARD,
        matching: Matching | None = None,
        small: bool = False,
    ):
        self.model = model
        self.device = device
        self.options = options
        self.chosen: np.ndarray | None = None
        temperature = model.temperature if options.temperature is None else options.temperature
        self.places: Places
        if small:
            self.places = NumpyPlaces(model, options, temperature)
        else:
            from dinkcli.assigning.with_torch import TorchPlaces

            self.places = TorchPlaces(model, device, options, temperature)
        self._usual_range = LARGEST_NORM / model.n_features**0.5 / 2
        if np.abs(model.cluster_centers).max() > self._usual_range:
            self._usual_range = 0.0
        self._ids, self.n_ids = ids_of(matching, model.n_clusters)

    def __call__(
        self, vectors: Any, rows: np.ndarray, carried: pa.RecordBatch | None = None
    ) -> Assignments:
        """The assignments of ``vectors`` (B, D) float32, or of what ``places.send`` has made of
        such, with the numbers ``rows`` (B,)."""
        # Of bad rows, which have no label, nothing is kept in the end.
        chosen = None if self.chosen is None else self.chosen[rows].clip(0)
        found, options = self.places(vectors, chosen), self.options
        labels = self._ids[found.labels].astype(np.int32)
        if options.max_distance is not None and found.distances is not None:
            labels[found.distances > options.max_distance] = -1
        if options.min_prob is not None and found.own is not None:
            labels[found.own < options.min_prob] = -1
        return Assignments(
            rows,
            labels,
            found.distances if options.distance else None,
            found.own,
            None if found.ranked is None else self._ids[found.ranked].astype(np.int32),
            self._by_id(found),
            carried,
        )

    def _by_id(self, found: Found) -> np.ndarray | None:
        """The probabilities as they are kept."""
        probabilities = found.probabilities
        if probabilities is None or found.ranked is not None:
            return probabilities
        if len(self._ids) == self.n_ids and (self._ids == np.arange(self.n_ids)).all():
            return probabilities
        # The position in the list is the id; ids that no cluster has are improbable.
        matched = np.zeros((len(probabilities), self.n_ids), probabilities.dtype)
        matched[:, self._ids] = probabilities
        return matched

    def check_range(self, vectors: np.ndarray, name: str, start: int) -> None:
        """Raises InputError at a row so far away that distances would overflow float32."""
        if self.model.metric == "cosine":
            return
        # The range of all numbers says enough, but for data that lie far from the origin.
        if float(np.abs(vectors).max(initial=0.0)) > self._usual_range:
            from dinkcli.assigning.with_torch import refuse_far_rows

            refuse_far_rows(self.model, vectors, name, start)


def two_nearest(
    model: Model, data: DataSet, device: torch.device | str
) -> Callable[[np.ndarray], Two]:
    """What finds the two nearest centres for blocks (B, D) float32 of the rows of ``data``.

    Args:
        device: with "auto" small work is done by NumPy, and torch is not loaded.

    Raises:
        UsageError: there is no such device.
    """
    small = device == "auto" and is_small(model, data)
    if isinstance(device, str) and not small:
        from dinkcli.processes.device import resolve_device

        device = resolve_device(device)
    return Assigner(model, device, small=small).places.two


def block_rows(
    n_clusters: int, n_features: int, written: int, device: torch.device | str = "cpu"
) -> int:
    """Rows to read and assign at once: whole chunks of the distance computation.

    Args:
        written: numbers that are written for a row.
    """
    width = max(n_features, written)
    chunk = chunk_rows(n_clusters, n_features)
    elements = _BLOCK_ELEMENTS.get(str(device).partition(":")[0], _BLOCK_ELEMENTS["cpu"])
    return chunk * max(1, round(elements / (chunk * width)))


def assign(
    assigner: Assigner,
    data: DataSet,
    first: int = 0,
    on_bad: Callable[[int], None] = lambda n_bad: None,
) -> Iterator[Assignments]:
    """The clusters of all rows, in order, in memory that does not grow with the data.

    Those of a part are, to the last bit, what they are when all rows are assigned.

    Args:
        first: number of the first row to give; the rows before it are skipped.
        on_bad: called with the number of bad rows in a block, where ``data.bad_rows`` is "skip",
            which leaves them out, or "label", which gives them the label -1.

    Raises:
        InputError: the data's dimension is not the model's, or a row is bad.
        UsageError: more clusters are asked for than the model has.
    """
    model, options, places = assigner.model, assigner.options, assigner.places
    data = model.rows_of(data)
    options.check_clusters(model.n_clusters)
    written = assigner.n_ids if options.soft else options.top or 1
    rows = block_rows(model.n_clusters, model.n_features, written, assigner.device)
    # Blocks lie on the same grid whatever the limits: rounding is that of a whole run.
    first = max(first, data.first)
    kind = data.dtype if places.takes_short else np.float32
    direction = model.metric == "cosine"
    blocks = data.whole.blocks(rows, first, data.stop, dtype=kind, nonzero=direction)
    sent = ((block, places.send(block.vectors)) for block in blocks)
    for block, vectors in read_ahead(sent) if places.has_core_to_spare else sent:
        assigner.check_range(block.vectors, data.name, block.start)
        numbers = np.arange(block.start, block.start + len(block), dtype=np.int64)
        found = assigner(vectors, numbers, block.carried)
        stop = None if data.stop is None else data.stop - block.start
        inside = slice(max(0, first - block.start), stop)
        found = found[inside]
        if block.bad is not None:
            bad = block.bad[inside]
            on_bad(int(bad.sum()))
            skip = data.bad_rows == SKIP
            found = found[np.flatnonzero(~bad)] if skip else found.unassigned(bad)
        yield found
