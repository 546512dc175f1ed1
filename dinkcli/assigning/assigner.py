"""Assigning rows to the centres of a trained model, block by block.

Shapes: B rows in a block, K clusters, D features, M = ``AssignOptions.top``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from dinkcli.data.ahead import read_ahead
from dinkcli.data.dataset import SKIP, DataSet
from dinkcli.models.matching import Matching
from dinkcli.models.model import Model
from dinkcli.nearest.index import CenterIndex, chunk_rows
from dinkcli.nearest.limits import LARGEST_NORM, normalize_, refuse_overflow
from dinkcli.nearest.probabilities import Probabilities
from dinkcli.options import HARD, AssignOptions
from dinkcli.processes.device import in_pieces

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

    def __getitem__(self, where: slice) -> Assignments:
        """A part of the rows, without a copy."""
        return Assignments(**{field.name: self._part(field.name, where) for field in fields(self)})

    def without(self, bad: np.ndarray) -> Assignments:
        """Without the rows of the mask ``bad`` (B,)."""
        good = np.flatnonzero(~bad)
        kept: dict[str, Any] = {}
        for field in fields(self):
            values = getattr(self, field.name)
            kept[field.name] = None if values is None else _rows(values, good)
        return Assignments(**kept)

    def unassigned(self, bad: np.ndarray) -> Assignments:
        """With label -1 and nothing else known about the rows of the mask ``bad`` (B,)."""
        column = bad[:, None]
        return replace(
            self,
            labels=np.where(bad, np.int32(-1), self.labels),
            distances=None if self.distances is None else _blank(self.distances, bad, np.nan),
            own=None if self.own is None else _blank(self.own, bad, np.nan),
            clusters=None if self.clusters is None else _blank(self.clusters, column, -1),
            probabilities=(
                None if self.probabilities is None else _blank(self.probabilities, column, 0)
            ),
        )

    def _part(self, name: str, where: slice) -> Any:
        values = getattr(self, name)
        if isinstance(values, pa.RecordBatch):
            start, stop, _ = where.indices(len(self))
            return values.slice(start, stop - start)
        return None if values is None else values[where]


def _rows(values: Any, where: np.ndarray) -> Any:
    return values.take(where) if isinstance(values, pa.RecordBatch) else values[where]


def _blank(values: np.ndarray, where: np.ndarray, value: float) -> np.ndarray:
    return np.where(where, values.dtype.type(value), values)


class Assigner:
    """A model's centres on a device, ready to take batches.

    Args:
        matching: gives clusters the ids of an older model.
        chosen: (N,) int32 labels by the number of the row, in place of the nearest centres.
    """

    def __init__(
        self,
        model: Model,
        device: torch.device | str = "cpu",
        options: AssignOptions = HARD,
        matching: Matching | None = None,
        chosen: np.ndarray | None = None,
    ):
        self.model = model
        self.device = torch.device(device)
        self.options = options
        self.chosen = chosen
        self.index = CenterIndex(torch.from_numpy(model.cluster_centers).to(self.device))
        self._usual_range = LARGEST_NORM / model.n_features**0.5 / 2
        if np.abs(model.cluster_centers).max() > self._usual_range:
            self._usual_range = 0.0
        temperature = model.temperature if options.temperature is None else options.temperature
        kind = getattr(torch, options.probability_type)
        self._soften = Probabilities(self.index, temperature, dtype=kind)
        self.n_ids = model.n_clusters if matching is None else matching.n_ids
        self._ids: Tensor | None = None
        if matching is not None:
            self._ids = torch.from_numpy(matching.ids).to(self.device)

    def __call__(
        self, vectors: np.ndarray, rows: np.ndarray, carried: pa.RecordBatch | None = None
    ) -> Assignments:
        """The assignments of ``vectors`` (B, D) float32 with the numbers ``rows`` (B,)."""
        found = list(in_pieces(lambda w: self._assign(vectors[w], rows[w]), len(vectors)))
        arrays = {name: np.concatenate([piece[name] for piece in found]) for name in found[0]}
        return Assignments(rows, carried=carried, **arrays)

    def _assign(self, vectors: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays of ``Assignments`` for these rows, by name."""
        z = prepared(vectors, self.model.metric, self.device)
        found: dict[str, Tensor] = {}
        options = self.options
        if self.chosen is not None:
            # Of bad rows nothing is kept in the end.
            nearest = torch.from_numpy(self.chosen[rows].clip(0)).long().to(self.device)
            if options.distance:
                found["distances"] = self.index.squared_distances_to(z, nearest).sqrt_()
        elif options.distance or options.max_distance is not None:
            nearest, squared_distances = self.index.nearest(z)
            found["distances"] = squared_distances.sqrt_()
        else:
            nearest = self.index.labels(z)
        labels = nearest if self._ids is None else self._ids[nearest]
        if options.needs_probabilities:
            found |= self._probabilities(z, nearest)
        if options.marks_outliers:
            outlier = torch.zeros_like(labels, dtype=torch.bool)
            if options.max_distance is not None:
                outlier |= found["distances"] > options.max_distance
            if options.min_prob is not None:
                outlier |= found["own"] < options.min_prob
            labels = torch.where(outlier, -1, labels)
        found["labels"] = labels.to(torch.int32)
        wanted = ["labels", *self._wanted()]
        return {name: found[name].cpu().numpy() for name in wanted if name in found}

    def _wanted(self) -> list[str]:
        options = self.options
        wanted = {"distances": options.distance, "clusters": options.top is not None}
        wanted["probabilities"] = options.soft or options.top is not None
        wanted["own"] = options.needs_probabilities
        return [name for name, is_wanted in wanted.items() if is_wanted]

    def _probabilities(self, z: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """``own`` (B,), and ``probabilities`` with ``clusters`` as far as they are wanted."""
        parts: list[dict[str, Tensor]] = []
        # One chunk's (rows, K) exponents at a time, whatever is kept of them.
        for rows, label in zip(self.index.chunks(z), self.index.chunks(labels), strict=True):
            exponents = self._soften.exponents(rows, label)
            probabilities = torch.softmax(exponents, dim=1)
            part = {"own": probabilities.gather(1, label[:, None])[:, 0]}
            part |= self._kept(exponents, probabilities)
            parts.append(part)
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _kept(self, exponents: Tensor, probabilities: Tensor) -> dict[str, Tensor]:
        kind = getattr(torch, self.options.probability_type)
        if self.options.soft:
            if self._ids is not None:
                # The position in the list is the id; ids that no cluster has are improbable.
                matched = probabilities.new_zeros(len(probabilities), self.n_ids)
                matched[:, self._ids] = probabilities
                probabilities = matched
            return {"probabilities": probabilities.to(kind)}
        if self.options.top is None:
            return {}
        # By exponents, which tell apart what is too improbable to be more than 0.
        ranked = exponents.topk(self.options.top).indices
        clusters = ranked if self._ids is None else self._ids[ranked]
        return {
            "clusters": clusters.to(torch.int32),
            "probabilities": probabilities.gather(1, ranked).to(kind),
        }

    def check_range(self, vectors: np.ndarray, name: str, start: int) -> None:
        """Raises InputError at a row so far away that distances would overflow float32."""
        if self.model.metric == "cosine":
            return
        # The range of all numbers says enough, but for data that lie far from the origin.
        if float(np.abs(vectors).max(initial=0.0)) > self._usual_range:
            rows = as_tensor(vectors).to(self.device)
            shift = self.index.shift
            refuse_overflow(rows if shift is None else rows - shift, name, start)


def as_tensor(vectors: np.ndarray) -> torch.Tensor:
    """The same memory as a tensor; a mapped, read-only file is copied first."""
    return torch.from_numpy(vectors if vectors.flags.writeable else vectors.copy())


def prepared(vectors: np.ndarray, metric: str, device: torch.device | str) -> Tensor:
    """``vectors`` (B, D) float32 on the device as a model compares them: cosine wants norm 1."""
    z = as_tensor(vectors).to(device)
    if metric == "cosine":
        z = z.clone()  # may be the caller's memory
        normalize_(z)
    return z


def block_rows(
    n_clusters: int, n_features: int, written: int, device: torch.device | str = "cpu"
) -> int:
    """Rows to read and assign at once: whole chunks of the distance computation.

    Args:
        written: numbers that are written for a row.
    """
    width = max(n_features, written)
    chunk = chunk_rows(n_clusters, n_features)
    elements = _BLOCK_ELEMENTS.get(torch.device(device).type, _BLOCK_ELEMENTS["cpu"])
    return chunk * max(1, round(elements / (chunk * width)))


def _has_core_to_spare(device: torch.device) -> bool:
    """Whether reading ahead pays: beside products on all cores a reader measured slower (npy) or
    no faster (parquet), beside products on one of two cores parquet took three quarters."""
    return device.type != "cpu" or torch.get_num_threads() < (os.cpu_count() or 1)


def assign(
    model: Model,
    data: DataSet,
    device: torch.device | str = "cpu",
    options: AssignOptions = HARD,
    matching: Matching | None = None,
    first: int = 0,
    on_bad: Callable[[int], None] = lambda n_bad: None,
    chosen: np.ndarray | None = None,
) -> Iterator[Assignments]:
    """The clusters of all rows, in order, in memory that does not grow with the data.

    Those of a part are, to the last bit, what they are when all rows are assigned.

    Args:
        first: number of the first row to give; the rows before it are skipped.
        on_bad: called with the number of bad rows in a block, where ``data.bad_rows`` is "skip",
            which leaves them out, or "label", which gives them the label -1.
        chosen: (N,) int32 labels of all rows, in place of the nearest centres.

    Raises:
        InputError: the data's dimension is not the model's, or a row is bad.
        UsageError: more clusters are asked for than the model has.
    """
    model.check_features(data.n_features, data.name)
    options.check_clusters(model.n_clusters)
    assigner = Assigner(model, device, options, matching, chosen)
    written = assigner.n_ids if options.soft else options.top or 1
    rows = block_rows(model.n_clusters, model.n_features, written, device)
    needs_direction = model.metric == "cosine"
    # Blocks lie on the same grid whatever the limits: rounding is that of a whole run.
    first = max(first, data.first)
    blocks = data.whole.blocks(rows, first, data.stop, nonzero=needs_direction)
    for block in read_ahead(blocks) if _has_core_to_spare(assigner.device) else blocks:
        assigner.check_range(block.vectors, data.name, block.start)
        numbers = np.arange(block.start, block.start + len(block), dtype=np.int64)
        found = assigner(block.vectors, numbers, block.carried)
        stop = None if data.stop is None else data.stop - block.start
        inside = slice(max(0, first - block.start), stop)
        found = found[inside]
        if block.bad is not None:
            bad = block.bad[inside]
            on_bad(int(bad.sum()))
            found = found.without(bad) if data.bad_rows == SKIP else found.unassigned(bad)
        yield found
