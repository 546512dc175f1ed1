"""Assigning rows to the centres of a trained model, block by block.

Shapes: B rows in a block, K clusters, C centres, D features, M = ``AssignOptions.top``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dinkcli.assigning.backend import Nearest, NearestPair, NumpyBackend, is_small
from dinkcli.assigning.layout import Rows
from dinkcli.data.base import Block
from dinkcli.data.dataset import LABEL, SKIP, DataSet
from dinkcli.errors import ModelError
from dinkcli.models.matching import Matching, check_matchable, ids_of, match
from dinkcli.models.model import OUTLIER, Model
from dinkcli.nearest.small import chunk_rows
from dinkcli.options import HARD, AssignOptions

if TYPE_CHECKING:
    import torch

    from dinkcli.assigning.torch_backend import TorchBackend

# Rows are read and written in pieces of about 8 MB in float32, which measured best, and computed
# in chunks that CenterIndex chooses from K. A GPU wants larger pieces for each round trip.
_BLOCK_ELEMENTS = {"cpu": 2 << 20, "cuda": 16 << 20, "mps": 8 << 20}
# Models of different metrics are matched by this many rows at most, in blocks spread evenly.
_MATCHED_ROWS, _MATCHED_BLOCKS = 1 << 16, 16
_UNKNOWN = {"cluster": -1, "distance": np.nan, "own": np.nan, "clusters": -1, "probabilities": 0}


class Assigner:
    """A model's centres, ready to take batches; with a ``matching``, under the ids of an older
    model. If ``small``, NumPy computes on the CPU, whatever the device, and torch is not loaded."""

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
        # (N,) int32 labels by the number of the row, in place of the nearest centres.
        self.chosen: np.ndarray | None = None
        temperature = model.temperature if options.temperature is None else options.temperature
        self._adds_up = model.parts is not None and options.needs_probabilities
        if self._adds_up:  # probabilities of all centres are summed by cluster here
            options = replace(options, soft=True, top=None, probability_type="float32")
        self.backend: NumpyBackend | TorchBackend
        if small:
            self.backend = NumpyBackend(model, options, temperature)
        else:
            from dinkcli.assigning.torch_backend import TorchBackend

            self.backend = TorchBackend(model, device, options, temperature)
        ids, self.n_ids = ids_of(matching, model.n_clusters)
        owners = model.center_clusters
        self._ids = np.where(owners == OUTLIER, OUTLIER, ids[owners])  # (C,), of the centres
        self._moves = not np.array_equal(self._ids, np.arange(self.n_ids))

    def __call__(
        self, vectors: Any, rows: np.ndarray, carried: pa.RecordBatch | None = None
    ) -> Rows:
        """What is known of ``vectors`` (B, D) float32, or of what ``backend.send`` has made of
        such, with the numbers ``rows`` (B,), in columns as far as the options want them:

        cluster: (B,) int32, -1 for an outlier.
        distance: (B,) float32, Euclidean, to the nearest centre.
        own: (B,) float32, the probability of the row's own cluster.
        clusters: (B, M) int32, the most probable ones, best first.
        probabilities: of these (B, M), or of all (B, K), float32 or float16.
        """
        # Of bad rows, which have no label, nothing is kept in the end.
        chosen = None if self.chosen is None else self.chosen[rows].clip(0)
        nearest, options = self.backend(vectors, chosen), self.options
        labels = self._ids[nearest.pop("label")].astype(np.int32)
        if self._adds_up:
            nearest |= self._by_cluster(nearest.pop("probabilities"), labels)
        elif "clusters" in nearest:
            nearest["clusters"] = self._ids[nearest["clusters"]].astype(np.int32)
        elif "probabilities" in nearest and self._moves:
            # The position in the list is the id; ids that no cluster has are improbable.
            given = nearest["probabilities"]
            nearest["probabilities"] = np.zeros((len(given), self.n_ids), given.dtype)
            nearest["probabilities"][:, self._ids] = given
        if options.max_distance is not None:
            labels[nearest["distance"] > options.max_distance] = -1
        if options.min_prob is not None:
            labels[nearest["own"] < options.min_prob] = -1
        if not options.distance:
            nearest.pop("distance", None)
        return Rows(rows, {"cluster": labels, **nearest}, carried)

    def pairs(self, data: DataSet) -> Iterator[tuple[Block, NearestPair]]:
        """All blocks in order, and the two nearest centres of the good rows of each."""

        def near(block: Block) -> tuple[Block, NearestPair]:
            pair = self.backend.nearest_pair(block.vectors)
            if block.bad is not None:
                pair = NearestPair(*(each[block.good] for each in pair))
            return block, pair

        return self.backend.each(near, self.blocks(data))

    def _by_cluster(self, of_centers: np.ndarray, labels: np.ndarray) -> Nearest:
        """The probabilities (B, C) of the centres of each cluster added up, by id. A row's sum is
        less than 1 where centres are outliers'; the ``own`` of an outlier is theirs."""
        columns = np.where(self._ids == OUTLIER, self.n_ids, self._ids)
        order = np.argsort(columns, kind="stable")
        present, starts = np.unique(columns[order], return_index=True)
        every = np.zeros((len(labels), self.n_ids + 1), np.float32)
        every[:, present] = np.add.reduceat(of_centers[:, order], starts, axis=1)
        result = {"own": every[np.arange(len(labels)), labels]}  # the label -1 is the last column
        by_id, kind, top = every[:, :-1], self.options.probability_type, self.options.top
        if top is not None:
            best = np.argsort(-by_id, axis=1, kind="stable")[:, :top]
            result["clusters"] = best.astype(np.int32)
            by_id = np.take_along_axis(by_id, best, 1)
        if top is not None or self.options.soft:
            result["probabilities"] = by_id.astype(kind)
        return result

    def blocks(self, data: DataSet, first: int = 0, half: bool = False) -> Iterator[Block]:
        """The one way of rows through a model: in order, in whole chunks of the distance
        computation, on the same grid wherever they begin; without blocks that end before the row
        ``first``, and where ``half`` is set as narrow as they are stored."""
        model, options = self.model, self.options
        data = model.rows_of(data)
        written = self.n_ids if options.soft else options.top or 1
        rows = block_rows(model.n_clusters, model.n_features, written, self.device)
        kind, direction = data.dtype if half else np.float32, model.metric == "cosine"
        return data.whole.blocks(rows, first, data.stop, dtype=kind, nonzero=direction)


def assigner_for(
    model: Model,
    data: DataSet,
    device: torch.device | str = "auto",
    options: AssignOptions = HARD,
    matching: Matching | None = None,
    local_rank: int = 0,
) -> Assigner:
    """What assigns the rows of ``data``: small work with device "auto" by NumPy, and then torch is
    not loaded. Under a limit of sizes it has looked at all rows before. ``local_rank`` chooses
    among GPUs."""
    if device == "auto" and options.max_size is None and is_small(model, data):
        return Assigner(model, "cpu", options, matching, small=True)
    if isinstance(device, str):
        from dinkcli.processes.device import resolve_device

        device = resolve_device(device, local_rank)
    assigner = Assigner(model, device, options, matching)
    if options.max_size is not None:
        from dinkcli.assigning.torch_backend import labels_of_all

        assigner.chosen = labels_of_all(assigner, data, options.max_size)
    return assigner


def block_rows(
    n_clusters: int, n_features: int, written: int, device: torch.device | str = "cpu"
) -> int:
    """Rows to read and assign at once, of which so many numbers each are ``written``: whole chunks
    of the distance computation."""
    width = max(n_features, written)
    chunk = chunk_rows(n_clusters, n_features)
    elements = _BLOCK_ELEMENTS.get(str(device).partition(":")[0], _BLOCK_ELEMENTS["cpu"])
    return chunk * max(1, round(elements / (chunk * width)))


def assign(assigner: Assigner, data: DataSet, first: int = 0) -> Iterator[Rows]:
    """The clusters of all rows from the number ``first`` on, in order, in memory that does not grow
    with the data. Those of a part are, to the last bit, what they are when all are assigned. Bad
    rows are left out or, where ``data.bad_rows`` is "label", have the label -1.
    """
    backend = assigner.backend
    assigner.options.check_clusters(assigner.model.n_clusters)
    first = max(first, data.first)
    blocks = assigner.blocks(data, first, backend.takes_half)

    def assigned(sent: tuple[Block, Any]) -> tuple[Block, Rows]:
        block, vectors = sent
        numbers = np.arange(block.start, block.start + len(block), dtype=np.int64)
        return block, assigner(vectors, numbers, block.carried)

    sent = ((block, backend.send(block.vectors)) for block in blocks)
    for block, rows in backend.each(assigned, sent):
        stop = None if data.stop is None else data.stop - block.start
        inside = slice(max(0, first - block.start), stop)
        rows = rows[inside]
        if block.bad is not None:
            bad = block.bad[inside]
            if data.bad_rows == SKIP:
                rows = rows[np.flatnonzero(~bad)]
            else:
                for name, values in rows.columns.items():
                    values[bad] = _UNKNOWN[name]
            rows = replace(rows, n_bad=int(bad.sum()))
        yield rows


def match_on(
    data: DataSet, old: Model, new: Model, device: torch.device | str = "auto"
) -> Matching:
    """``models.matching.match``, by the rows of ``data`` where the models' metrics differ."""
    check_matchable(old, new.n_features, feature_names=new.feature_names)
    if old.metric == new.metric:
        return match(old, new)
    if old.feature_names and new.feature_names and old.feature_names != new.feature_names:
        raise ModelError("`match`: the columns of the old model are in another order")
    data = replace(data.whole, bad_rows=LABEL)
    shared = np.zeros((new.n_clusters, old.n_clusters), np.int64)
    assigners = [assigner_for(model, data, device) for model in (new, old)]
    n_rows, length = data.known_rows, _MATCHED_ROWS // _MATCHED_BLOCKS
    ends = np.linspace(0, n_rows, min(_MATCHED_BLOCKS, n_rows // length + 1) + 1).astype(int)
    for first, end in pairwise(ends.tolist()):
        part = data.part(first, min(end, first + length))
        new_labels, old_labels = (
            np.concatenate([rows.columns["cluster"] for rows in assign(assigner, part)])
            for assigner in assigners
        )
        both = (new_labels != OUTLIER) & (old_labels != OUTLIER)
        np.add.at(shared, (new_labels[both], old_labels[both]), 1)
    return match(old, new, shared)
