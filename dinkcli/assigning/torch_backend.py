"""Rows among centres by torch, on any device; and labels under a limit of the size of clusters,
which depend on all rows at once.

Shapes: B rows in a block, N rows, K clusters, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from dinkcli.assigning.backend import Nearest, NearestPair, joined
from dinkcli.data.dataset import DataSet, read_ahead
from dinkcli.errors import UsageError
from dinkcli.models.model import Model
from dinkcli.nearest.capacity import labels_within
from dinkcli.nearest.hardware import Copies, Sent, products
from dinkcli.nearest.index import CenterIndex
from dinkcli.nearest.prepare import RowMap, normalize_
from dinkcli.nearest.probabilities import Probabilities
from dinkcli.options import AssignOptions, most_rows
from dinkcli.processes.device import in_pieces, is_out_of_memory
from dinkcli.processes.workers import Workers

if TYPE_CHECKING:
    from dinkcli.assigning.assigner import Assigner

_WORKERS = 4  # blocks at once: each takes some 30 MB
Item = TypeVar("Item")
Value = TypeVar("Value")


class TorchBackend:
    def __init__(
        self, model: Model, device: torch.device | str, options: AssignOptions, temperature: float
    ):
        self._device = torch.device(device)
        self._copies = Copies(self._device)
        self._model = model
        self._options = options
        centers = torch.from_numpy(model.centers).to(self._device)
        self.index = CenterIndex(centers)
        self._map = map_of(model, self._device)
        # Labels need no mapped rows.
        self._unmapped = None if self._map is None else CenterIndex(centers, self._map)
        self._kind = getattr(torch, options.probability_type)
        self._soften = Probabilities(self.index, temperature, dtype=self._kind)

    def each(self, work: Callable[[Item], Value], items: Iterator[Item]) -> Iterator[Value]:
        """``work`` on each item, in order; reading, computing and writing go side by side. On a CPU
        blocks do too, with a thread each: threads that share the products of one wait for each
        other, and all of them for the next block."""
        if self._device.type != "cpu":
            yield from map(work, read_ahead(items))
            return
        threads = torch.get_num_threads()
        number = min(_WORKERS, threads)
        with products(self._device), Workers(number, threads // number) as workers:
            results = (workers.submit(work, item) for item in items)
            for result in read_ahead(results, max(1, number - 1)):
                yield result.result()

    @property
    def takes_half(self) -> bool:
        """Whether vectors may come as narrow as they are stored."""
        return self._copies.overlaps

    def send(self, vectors: np.ndarray) -> np.ndarray | Sent:
        """Begins to move ``vectors`` (B, D) to where they are looked at, on a thread that reads
        ahead; gives what ``__call__`` then takes."""
        if not self._copies.overlaps:
            return vectors
        try:
            return self._copies.send(as_tensor(vectors))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return vectors.astype(np.float32, copy=False)  # then in pieces

    def __call__(self, vectors: np.ndarray | Sent, chosen: np.ndarray | None = None) -> Nearest:
        """``vectors`` (B, D) float32 stay as they are. ``chosen`` (B,): labels in place of the
        nearest centres."""
        rows = self._copies.receive(vectors) if isinstance(vectors, Sent) else vectors

        def work(where: slice) -> Nearest:
            return self._nearest(rows[where], None if chosen is None else chosen[where])

        return joined(in_pieces(work, len(rows)))

    def nearest_pair(self, vectors: np.ndarray) -> NearestPair:
        """The two nearest centres, whatever the options ask for."""
        z = prepared(vectors, self._model, self._device)
        near = self.index.nearest_two(z)
        return NearestPair(*(each.cpu().numpy() for each in (z, near.labels, near.second_labels)))

    def _nearest(self, vectors: np.ndarray | Tensor, chosen: np.ndarray | None) -> Nearest:
        options = self._options
        z = scaled(vectors, self._model.metric, self._device)
        if self._unmapped is not None and chosen is None and options.labels_alone:
            return {"label": self._unmapped.labels(z).cpu().numpy()}
        if self._map is not None:
            z = self._map(z)
        measures, squares = options.distance or options.max_distance is not None, None
        if chosen is None and measures:
            labels, squares = self.index.nearest(z)
        elif chosen is None:
            labels = self.index.labels(z)
        else:
            labels = torch.from_numpy(chosen).long().to(self._device)
            squares = self.index.squared_distances_to(z, labels) if measures else None
        result = {"label": labels}
        if squares is not None:
            result["distance"] = squares.sqrt_()
        if options.needs_probabilities:
            result |= self._probabilities(z, labels)
        return {name: values.cpu().numpy() for name, values in result.items()}

    def _probabilities(self, z: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """``own`` (B,), and ``probabilities`` with ``clusters`` as far as they are wanted."""
        parts: list[dict[str, Tensor]] = []
        # One chunk's (rows, K) exponents at a time, whatever is kept of them.
        for rows, label in zip(self.index.chunks(z), self.index.chunks(labels), strict=True):
            exponents = self._soften.exponents(rows, label)
            probabilities = torch.softmax(exponents, dim=1)
            part = {"own": probabilities.gather(1, label[:, None])[:, 0]}
            if self._options.top is not None:
                # By exponents, which tell apart what is too improbable to be more than 0.
                part["clusters"] = exponents.topk(self._options.top).indices
                probabilities = probabilities.gather(1, part["clusters"])
            if self._options.top is not None or self._options.soft:
                part["probabilities"] = probabilities.to(self._kind)
            parts.append(part)
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def as_tensor(vectors: np.ndarray) -> torch.Tensor:
    """The same memory as a tensor; a mapped, read-only file is copied first."""
    return torch.from_numpy(vectors if vectors.flags.writeable else vectors.copy())


def prepared(vectors: np.ndarray | Tensor, model: Model, device: torch.device | str) -> Tensor:
    """``vectors`` (B, D) float32 on the device as the model compares them."""
    z = scaled(vectors, model.metric, device)
    row_map = map_of(model, device)
    return z if row_map is None else row_map(z)


def map_of(model: Model, device: torch.device | str) -> RowMap | None:
    """What rows go through before they are compared, under the metric "learned"."""
    if model.map is None or model.origin is None:
        return None
    parts = (torch.from_numpy(part).to(device) for part in (model.origin, model.map))
    return RowMap(*parts)


def scaled(vectors: np.ndarray | Tensor, metric: str, device: torch.device | str) -> Tensor:
    """``vectors`` (B, D) float32 on the device, under cosine of norm 1; those of a tensor there may
    be narrower."""
    z = vectors.float() if isinstance(vectors, Tensor) else as_tensor(vectors).to(device)
    if metric == "cosine":
        z = z.clone()  # may be the caller's memory
        normalize_(z)
    return z


def labels_of_all(assigner: Assigner, data: DataSet, max_size: str | int) -> np.ndarray:
    """(N,) int32: the labels of least inertia of which none is there more often than ``max_size``
    allows; -1 for bad rows."""
    model, device = assigner.model, assigner.device
    if data.stream is not None:
        raise UsageError(
            f"{data.stream}: a stream is read once, and `max_size` looks at all rows before "
            "the first of them gets a cluster; write the stream to a file first"
        )
    if model.parts is not None:
        raise UsageError("max_size: clusters of an edited model have no size that could be limited")
    data = data.whole
    good = np.concatenate([block.good for block in assigner.blocks(data)])
    labels = np.full(len(good), -1, np.int32)

    def rows() -> Iterator[Tensor]:
        for block in assigner.blocks(data):
            yield prepared(block.vectors[block.good], model, device)

    if good.any():
        limit = most_rows(max_size, int(good.sum()), model.n_clusters)
        centers = torch.from_numpy(model.cluster_centers).to(device)
        labels[good] = labels_within(rows, centers, limit)
    return labels
