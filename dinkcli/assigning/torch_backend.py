"""The places of rows by torch, on any device."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor

from dinkcli.assigning.backend import BlockResult, NearestPair
from dinkcli.models.model import Model
from dinkcli.nearest.device import Copies, Sent
from dinkcli.nearest.float_range import normalize_, refuse_overflow
from dinkcli.nearest.index import CenterIndex
from dinkcli.nearest.maps import RowMap
from dinkcli.nearest.probabilities import Probabilities
from dinkcli.options import AssignOptions
from dinkcli.processes.device import in_pieces, is_out_of_memory


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

    @property
    def has_core_to_spare(self) -> bool:
        return self._device.type != "cpu" or torch.get_num_threads() < (os.cpu_count() or 1)

    @property
    def takes_half(self) -> bool:
        return self._copies.overlaps

    def send(self, vectors: np.ndarray) -> np.ndarray | Sent:
        if not self._copies.overlaps:
            return vectors
        try:
            return self._copies.send(as_tensor(vectors))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return vectors.astype(np.float32, copy=False)  # then in pieces

    def __call__(self, vectors: np.ndarray | Sent, chosen: np.ndarray | None = None) -> BlockResult:
        rows = self._copies.receive(vectors) if isinstance(vectors, Sent) else vectors

        def work(where: slice) -> BlockResult:
            return self._found(rows[where], None if chosen is None else chosen[where])

        return BlockResult.joined(list(in_pieces(work, len(rows))))

    def nearest_pair(self, vectors: np.ndarray) -> NearestPair:
        z = prepared(vectors, self._model, self._device)
        near = self.index.nearest_two(z)
        return NearestPair(*(each.cpu().numpy() for each in (z, near.labels, near.second_labels)))

    def _found(self, vectors: np.ndarray | Tensor, chosen: np.ndarray | None) -> BlockResult:
        options = self._options
        z = scaled(vectors, self._model.metric, self._device)
        if self._unmapped is not None and chosen is None and options.labels_alone:
            return BlockResult(self._unmapped.labels(z).cpu().numpy())
        if self._map is not None:
            z = self._map(z)
        found: dict[str, Tensor] = {}
        if chosen is not None:
            found["labels"] = torch.from_numpy(chosen).long().to(self._device)
            if options.distance:
                squared_distances = self.index.squared_distances_to(z, found["labels"])
                found["distances"] = squared_distances.sqrt_()
        elif options.distance or options.max_distance is not None:
            found["labels"], squared_distances = self.index.nearest(z)
            found["distances"] = squared_distances.sqrt_()
        else:
            found["labels"] = self.index.labels(z)
        if options.needs_probabilities:
            found |= self._probabilities(z, found["labels"])
        return BlockResult(**{name: values.cpu().numpy() for name, values in found.items()})

    def _probabilities(self, z: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """``own`` (B,), and ``probabilities`` with ``ranked`` as far as they are wanted."""
        parts: list[dict[str, Tensor]] = []
        # One chunk's (rows, K) exponents at a time, whatever is kept of them.
        for rows, label in zip(self.index.chunks(z), self.index.chunks(labels), strict=True):
            exponents = self._soften.exponents(rows, label)
            probabilities = torch.softmax(exponents, dim=1)
            part = {"own": probabilities.gather(1, label[:, None])[:, 0]}
            if self._options.top is not None:
                # By exponents, which tell apart what is too improbable to be more than 0.
                part["ranked"] = exponents.topk(self._options.top).indices
                probabilities = probabilities.gather(1, part["ranked"])
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


def refuse_far_rows(model: Model, vectors: np.ndarray, name: str, start: int) -> None:
    """Raises InputError at a row so far from the centres that distances would overflow float32."""
    shift = CenterIndex(torch.from_numpy(model.centers)).shift
    if model.origin is not None:
        shift = torch.from_numpy(model.origin)
    rows = as_tensor(vectors)
    refuse_overflow(rows if shift is None else rows - shift, name, start)
