"""Where a training stands, as tensors and plain values that a file can hold.

With the rows, the options and the state of the random generator, ``Progress`` is all that the
next step depends on.

Shapes: K clusters, D features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from dinkcli.nearest.device import accumulator_dtype
from dinkcli.nearest.sums import Statistics
from dinkcli.training.anneal import Annealing
from dinkcli.training.refine import Refining
from dinkcli.training.schedule import most_axes


@dataclass
class Passing:
    """Where the passes over all rows stand.

    Attributes:
        statistics: of the pass under way, or of the last one.
        under_way: whether a pass has begun and is not finished.
        blocks: blocks of rows that the pass under way has summed.
        done: passes finished.
        previous: the objective of the pass before; None at first and after a re-seeding.
        finished: no pass is left to do.
    """

    statistics: Statistics
    under_way: bool = False
    blocks: int = 0
    done: int = 0
    previous: float | None = None
    finished: bool = False

    @classmethod
    def begin(cls, centers: Tensor) -> Passing:
        return cls(Statistics.zeros(centers))

    def restart(self, centers: Tensor) -> None:
        """Begins a pass, or begins it once more."""
        self.statistics, self.under_way, self.blocks = Statistics.zeros(centers), True, 0


@dataclass
class Descending:
    """Where the gradient descent on the literal losses stands.

    Attributes:
        weights: (K, D) the parameter, before any projection.
        first, second: (K, D) moments of Adam.
        updates: made so far.
        blocks: blocks of rows of the pass under way that have been used.
        done: passes finished.
    """

    weights: Tensor
    first: Tensor
    second: Tensor
    updates: int = 0
    blocks: int = 0
    done: int = 0

    @classmethod
    def begin(cls, centers: Tensor) -> Descending:
        return cls(centers, torch.zeros_like(centers), torch.zeros_like(centers))

    def resume(self, optimizer: torch.optim.Adam, parameter: torch.nn.Parameter) -> None:
        """Gives these moments to a fresh optimizer, which keeps them up to date."""
        optimizer.state[parameter] = {
            "step": torch.tensor(float(self.updates)),
            "exp_avg": self.first,
            "exp_avg_sq": self.second,
        }


Loop = Annealing | Refining | Passing | Descending
_LOOPS: dict[str, type[Loop]] = {
    "anneal": Annealing,
    "refine": Refining,
    "pass": Passing,
    "literal": Descending,
}
_ON_AXES = ("anneal", "refine")  # of the sample, which may be fewer than D
_VECTORS = ("counts", "shares", "cluster_inertia")


@dataclass
class Progress:
    """Where a training stands.

    Attributes:
        centers: (K, D) as of the last update.
        counts: (K,) weight of each cluster, an estimate until all rows have been passed over.
        cluster_inertia: (K,) the part of each cluster in the inertia; zeros until all rows have
            been passed over.
        start: which of the ``n_init`` starts, from 1.
        best, best_inertia: of the starts before; None before the first.
        loop: the loop under way; None before seeding.
    """

    centers: Tensor
    counts: Tensor
    cluster_inertia: Tensor
    start: int = 1
    best: Tensor | None = None
    best_inertia: float = math.inf
    loop: Loop | None = None

    @classmethod
    def begin(cls, n_clusters: int, n_features: int, device: torch.device) -> Progress:
        return cls(
            torch.zeros(n_clusters, n_features, device=device),
            torch.zeros(n_clusters, dtype=accumulator_dtype(device), device=device),
            torch.zeros(n_clusters, dtype=accumulator_dtype(device), device=device),
        )

    def measured(self, found: Statistics) -> None:
        """Takes what a whole pass says about the clusters."""
        self.counts = found.counts
        self.cluster_inertia = torch.as_tensor(found.cluster_inertia)

    def restart_pass(self) -> None:
        """Forgets the part of a pass that is done, when blocks of rows are no longer the same."""
        if isinstance(self.loop, Passing) and self.loop.under_way:
            self.loop.restart(self.centers)
        elif isinstance(self.loop, Descending):
            self.loop.blocks = 0

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All tensors and all plain values by dotted name; infinity is the string "inf"."""
        tensors: dict[str, Tensor] = {}
        values: dict[str, Any] = {}
        for name, value in _flat(self):
            if isinstance(value, Tensor):
                tensors[name] = value
            elif value is not None:
                values[name] = "inf" if value == math.inf else value
        if self.loop is not None:
            values["loop"] = next(k for k, v in _LOOPS.items() if isinstance(self.loop, v))
        return tensors, values

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> Progress:
        """What ``pack`` gave, checked.

        Raises:
            ValueError: a name, shape or value that ``pack`` cannot have given.
        """
        kind = values.get("loop")
        if kind is not None and kind not in _LOOPS:
            raise ValueError(f"unknown loop {kind!r:.80}")
        shape = tensors["centers"].shape
        if len(shape) != 2:
            raise ValueError(f"centers has shape {tuple(shape)}")
        try:
            progress = _build(cls, "", tensors, values, shape)
            if kind is not None:
                if kind in _ON_AXES:
                    shape = _shape_on_axes(tensors["loop.centers"].shape, shape)
                progress.loop = _build(_LOOPS[kind], "loop.", tensors, values, shape)
        except TypeError as error:
            raise ValueError(f"the state of the training is incomplete ({error})") from None
        if isinstance(progress.loop, Refining) and progress.loop.moves > shape[0]:
            raise ValueError(f"loop.moves is {progress.loop.moves}, more than the centres")
        return progress


def _shape_on_axes(found: torch.Size, whole: torch.Size) -> torch.Size:
    if len(found) == 2 and found[1] != whole[1] and not 0 < found[1] <= most_axes(*whole):
        raise ValueError(f"loop.centers has shape {tuple(found)}, centers {tuple(whole)}")
    return torch.Size((whole[0], found[-1]))


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in fields(value):
        part, name = getattr(value, field.name), prefix + field.name
        if is_dataclass(part):
            yield from _flat(part, f"{name}.")
        else:
            yield name, part


def _build(
    cls: Any,
    prefix: str,
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Any],
    shape: torch.Size,
) -> Any:
    found: dict[str, Any] = {}
    for field in fields(cls):
        name = prefix + field.name
        if field.type == "Statistics":
            found[field.name] = _build(Statistics, f"{name}.", tensors, values, shape)
        elif name in tensors:
            vector = field.name in _VECTORS
            found[field.name] = _checked(name, tensors[name], shape[:1] if vector else shape)
        elif name in values and field.name != "loop":
            found[field.name] = _number(name, values[name], "float" in str(field.type))
    return cls(**found)


def _checked(name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    if tensor.shape != shape or not tensor.is_floating_point() or not tensor.isfinite().all():
        raise ValueError(f"{name} is not finite numbers of shape {tuple(shape)}")
    return tensor


def _number(name: str, value: Any, is_float: bool) -> Any:
    if is_float and value == "inf":
        return math.inf
    if not isinstance(value, (int, float) if is_float else int) or not 0 <= value < math.inf:
        raise ValueError(f"{name} is {value!r:.80}")
    return value
