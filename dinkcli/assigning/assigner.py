"""Assigning rows to the centres of a trained model, block by block.

Shapes: B rows in a block, K clusters, C centres, D features, M = ``AssignOptions.top``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dinkcli.assigning.backend import Nearest, NumpyBackend, is_small
from dinkcli.assigning.layout import rows_at
from dinkcli.data.base import Block
from dinkcli.data.dataset import SKIP, DataSet
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


@dataclass(frozen=True)
class Assignments:
    """The clusters of some rows, in input order. An outlier has the label -1.

    Attributes:
        rows: (B,) int64, numbers of the rows over all inputs, ascending.
        labels: (B,) int32.
        distances: (B,) float32, Euclidean, to the nearest centre, or None.
        own: (B,) float32, the probability of the row's own cluster, or None.
        clusters: (B, M) int32, the most probable ones, best first, or None.
        probabilities: of these (B, M), or of all (B, K), float32 or float16, or None.
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
        unknown = {"labels": -1, "distances": np.nan, "own": np.nan, "clusters": -1}
        changed = {}
        for name, value in {**unknown, "probabilities": 0}.items():
            values = getattr(self, name)
            if values is not None:
                mask = bad if values.ndim == 1 else bad[:, None]
                changed[name] = np.where(mask, values.dtype.type(value), values)
        return replace(self, **changed)


class Assigner:
    """A model's centres, ready to take batches.

    Args:
        matching: gives clusters the ids of an older model.
        small: compute with NumPy on the CPU, whatever the device; torch is not loaded.

    Attributes:
        chosen: (N,) int32 labels by the number of the row, in place of the nearest centres, or
            None.
        backend: what finds rows among the centres, and takes them ahead of that.
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
    ) -> Assignments:
        """The assignments of ``vectors`` (B, D) float32, or of what ``backend.send`` has made of
        such, with the numbers ``rows`` (B,)."""
        # Of bad rows, which have no label, nothing is kept in the end.
        chosen = None if self.chosen is None else self.chosen[rows].clip(0)
        nearest, options = self.backend(vectors, chosen), self.options
        labels = self._ids[nearest.pop("labels")].astype(np.int32)
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
            labels[nearest["distances"] > options.max_distance] = -1
        if options.min_prob is not None:
            labels[nearest["own"] < options.min_prob] = -1
        if not options.distance:
            nearest.pop("distances", None)
        return Assignments(rows, labels, carried=carried, **nearest)

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
        computation, on the same grid wherever they begin.

        Args:
            first: blocks that end before this row are left out.
            half: rows as narrow as they are stored.

        Raises:
            InputError: the data's dimension is not the model's, or a row is bad where
                ``data.bad_rows`` is "stop".
        """
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
    not loaded. Under a limit of sizes it has looked at all rows before.

    Args:
        local_rank: of this process on its machine, which chooses among GPUs.

    Raises:
        UsageError: there is no such device; or, with ``max_size``, an input that can be read only
            once, or a limit that is too low.
    """
    if device == "auto" and options.max_size is None and is_small(model, data):
        return Assigner(model, "cpu", options, matching, small=True)
    if isinstance(device, str):
        from dinkcli.processes.device import resolve_device

        device = resolve_device(device, local_rank)
    assigner = Assigner(model, device, options, matching)
    if options.max_size is not None:
        from dinkcli.assigning.torch_backend import labels_of_all

        assigner.chosen = labels_of_all(assigner, data)
    return assigner


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
    backend = assigner.backend
    assigner.options.check_clusters(assigner.model.n_clusters)
    first = max(first, data.first)
    blocks = assigner.blocks(data, first, backend.takes_half)

    def assigned(sent: tuple[Block, Any]) -> tuple[Block, Assignments]:
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
            on_bad(int(bad.sum()))
            skip = data.bad_rows == SKIP
            rows = rows[np.flatnonzero(~bad)] if skip else rows.unassigned(bad)
        yield rows


def match_on(
    data: DataSet, old: Model, new: Model, device: torch.device | str = "auto"
) -> Matching:
    """``models.matching.match``, by the rows of ``data`` where the models' metrics differ.

    Raises:
        ModelError: as ``match``, or the columns of the models are in another order.
        InputError: as ``assign``.
    """
    check_matchable(old, new.n_features, feature_names=new.feature_names)
    if old.metric == new.metric:
        return match(old, new)
    if old.feature_names and new.feature_names and old.feature_names != new.feature_names:
        raise ModelError("`match`: the columns of the old model are in another order")
    data = replace(data.whole, bad_rows=SKIP)
    shared = np.zeros((new.n_clusters, old.n_clusters), np.int64)
    assigners = [assigner_for(model, data, device) for model in (new, old)]
    n_rows, length = data.known_rows, _MATCHED_ROWS // _MATCHED_BLOCKS
    ends = np.linspace(0, n_rows, min(_MATCHED_BLOCKS, n_rows // length + 1) + 1).astype(int)
    for first, end in pairwise(ends.tolist()):
        labels = np.full((2, end - first), OUTLIER)  # of bad rows too
        for own, assigner in zip(labels, assigners, strict=True):
            for some in assign(assigner, data.part(first, min(end, first + length))):
                own[some.rows - first] = some.labels
        theirs = labels[:, (labels != OUTLIER).all(0)]
        np.add.at(shared, (theirs[0], theirs[1]), 1)
    return match(old, new, shared)
