"""The model file: tensors and one JSON text in the safetensors format. Never pickle; no torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save as tensors_as_bytes

from dinkcli.data.atomic import atomic_path
from dinkcli.errors import ModelError, UsageError
from dinkcli.models.statistics import Statistics, root_mean
from dinkcli.models.tree import Merge, parents, squared_distances, ward

if TYPE_CHECKING:
    from dinkcli.data.base import Columns
    from dinkcli.data.dataset import DataSet
    from dinkcli.head.head import DinkClusterHead

FORMAT_VERSION = 2  # of models that dink 0.1 would read wrongly: with parts or an offset; else 1
SUFFIX = ".dink.safetensors"
METADATA_KEY = "dink"
OUTLIER = -1  # owns the centres of clusters whose rows are none's
STATE_PREFIX = "state."
PLAIN = ("metric", "column", "temperature", "training")  # attributes as they stand in the file,
LISTS = ("feature_names", "names", "terms", "named_by_hand", "history")  # these if not empty
_JUDGED_CENTERS = 1024  # for the usual temperature
_NEIGHBOUR_SHARE = 1 / 7
_HISTORY_STEPS = 50_000


@dataclass
class TrainingState:
    """What a checkpoint holds beyond a model: all that training needs to go on."""

    tensors: dict[str, np.ndarray]  # float32, float64, and uint8 for the random generator
    values: dict[str, Any]  # plain JSON


@dataclass(frozen=True)
class Centers:
    """The centres that rows are compared with, where clusters own several, or none."""

    centers: np.ndarray  # (C, D) float32
    clusters: np.ndarray  # (C,) int64, the cluster that each belongs to, or ``OUTLIER``


@dataclass
class Model:
    """Trained centres with everything that assigning needs.

    Attributes:
        cluster_centers: (K, D) float32, the mean of each cluster; ``centers`` are what rows are
            compared with.
        cluster_sizes: (K,) float64, rows (or their weight) of each cluster in training.
        metric: "euclidean", "cosine" (rows are normalised before they are compared) or "learned"
            (rows z become (z - origin) @ map before they are compared, and centres are of these).
        column: the column trained on, or None.
        feature_names: of the columns trained on where each is a dimension, else empty.
        training: how it was made: options, input, metrics, versions, history. Plain JSON.
        temperature: of the probabilities that ``assign`` gives, softmax over centres of minus the
            squared distance over it; by default that of ``usual_temperature``.
        names: K names of the clusters, "" for one without; empty where there are none.
        terms: K lists of distinctive terms of their texts, or empty.
        map: (D, D) float32, and
        origin: (D,) float32, of the metric "learned"; None elsewhere.
        offset: (D,) float64 that is subtracted from rows before all else, where float32 would not
            tell them apart otherwise; None elsewhere. Centres and the origin of a map are less it.
        state: where its training stands when this is a checkpoint; None in a finished model.
        parts: the centres of an edited model; None where each cluster has the one that is its mean.
        statistics: of the rows of each centre so far, which ``update`` goes on from, or None.
        group_names: of groups of the tree, by their clusters, ascending.
        named_by_hand: clusters whose names only a person changes.
        history: what was done to the model since its training, plain JSON.
    """

    cluster_centers: np.ndarray
    cluster_sizes: np.ndarray
    metric: str = "euclidean"
    column: str | None = None
    feature_names: list[str] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    state: TrainingState | None = None
    temperature: float = -1.0
    names: list[str] = field(default_factory=list)
    terms: list[list[str]] = field(default_factory=list)
    map: np.ndarray | None = None
    origin: np.ndarray | None = None
    offset: np.ndarray | None = None
    parts: Centers | None = None
    statistics: Statistics | None = None
    group_names: dict[tuple[int, ...], str] = field(default_factory=dict)
    named_by_hand: list[int] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.temperature < 0:
            self.temperature = usual_temperature(self.cluster_centers)

    @property
    def n_clusters(self) -> int:
        return self.cluster_centers.shape[0]

    @property
    def n_features(self) -> int:
        return self.cluster_centers.shape[1]

    @property
    def centers(self) -> np.ndarray:
        """(C, D) float32, the centres that rows are compared with."""
        return self.cluster_centers if self.parts is None else self.parts.centers

    @property
    def center_clusters(self) -> np.ndarray:
        """(C,) int64, the cluster that each of ``centers`` belongs to, or ``OUTLIER``."""
        return np.arange(self.n_clusters) if self.parts is None else self.parts.clusters

    @property
    def ownership(self) -> np.ndarray:
        """(C, K) float32, 1 where a centre belongs to a cluster."""
        return (self.center_clusters[:, None] == np.arange(self.n_clusters)).astype(np.float32)

    @property
    def spreads(self) -> np.ndarray:
        """(K,) root mean squared distance of the training rows to their centre; NaN if unknown."""
        inertia = self.training.get("metrics", {}).get("cluster_inertia")
        if inertia is None or len(inertia) != self.n_clusters:
            return np.full(self.n_clusters, np.nan)
        return root_mean(np.asarray(inertia, np.float64), self.cluster_sizes)

    @property
    def present(self) -> np.ndarray:
        """(P,) int64, ascending, the clusters that have centres, not merged, dropped or retired."""
        return np.unique(self.center_clusters[self.center_clusters != OUTLIER])

    @property
    def all_names(self) -> list[str]:
        """K names, "" for each cluster without one."""
        return self.names or [""] * self.n_clusters

    @property
    def maps(self) -> dict[str, np.ndarray]:
        """``map`` and ``origin`` by name, where the metric is "learned"."""
        if self.map is None or self.origin is None:
            return {}
        return {"map": self.map, "origin": self.origin}

    @property
    def means(self) -> np.ndarray:
        """(K, D), among the rows as they are given; float32, or float64 with an offset."""
        means = unmapped(self.cluster_centers, **self.maps) if self.maps else self.cluster_centers
        return means if self.offset is None else means + self.offset

    def means_by_name(self, names: Sequence[str]) -> np.ndarray:
        """``means`` (K, D) with the features in the order of ``names`` if both sides have names;
        raises ModelError for other ones."""
        if not names or not self.feature_names:
            return self.means
        if other := sorted(set(names).symmetric_difference(self.feature_names)):
            raise ModelError(
                f"feature {other[0]!r} is only on one side ({len(other)} are), the older model or "
                "the rows; clusters compare on the same columns"
            )
        return self.means[:, [self.feature_names.index(name) for name in names]]

    @property
    def tree(self) -> list[tuple[int, int, float]]:
        """The merges of Ward's tree of the clusters, numbered as in ``present``; made each time."""
        return ward(self.cluster_centers[self.present], self.cluster_sizes[self.present])

    def groups(self, level: int, tree: list[Merge] | None = None) -> np.ndarray:
        """(K,) int32, the group of each cluster where the tree has ``level`` groups, of 1 to P: the
        lowest cluster in it, and -1 for one without centres. ``tree`` saves making it anew."""
        groups = np.full(self.n_clusters, -1, np.int32)
        groups[self.present] = parents(tree or self.tree, level, self.present)
        return groups

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of what labels depend on: the centres, the metric and its map."""
        digest = hashlib.sha256(f"{self.metric} {self.n_clusters} {self.n_features} ".encode())
        arrays = [(array, "<f4") for array in (self.centers, *self.maps.values())]
        if self.offset is not None:
            arrays.append((self.offset, "<f8"))
        if self.parts is not None:
            arrays.append((self.parts.clusters, "<i8"))
        for array, kind in arrays:
            digest.update(np.ascontiguousarray(array, kind).tobytes())
        return digest.hexdigest()[:16]

    def summary(self) -> dict[str, Any]:
        """What the model is, and which columns it reads, as plain JSON."""
        trained = self.training.get("input", {})
        names = "n_clusters", "n_features", "metric", "column", "feature_names"
        return {name: getattr(self, name) for name in names} | {
            "dim": trained.get("dim"),
            "bits": bool(trained.get("bits")),
            "files": trained.get("files", []),
            "rows": trained.get("rows"),
            "named": sum(map(bool, self.names)),
            "finished": self.state is None,
            "fingerprint": self.fingerprint,
        }

    def head(self) -> DinkClusterHead:
        """A new head with these centres, on the CPU."""
        import torch

        from dinkcli.head.head import DinkClusterHead

        head = DinkClusterHead(self.n_clusters, self.n_features)
        head.reset_cluster_centers(torch.from_numpy(self.cluster_centers))
        return head

    def as_trained(self, columns: Columns) -> Columns:
        """The columns to read where the user does not say otherwise: those of the training."""
        trained = self.training.get("input", {})
        bits = columns.bits or bool(trained.get("bits"))
        dim = columns.dim or (self.n_features if bits or trained.get("dim") else None)
        names = tuple(self.feature_names)
        return replace(columns, usual=self.column, features=names, bits=bits, dim=dim)

    def rows_of(self, data: DataSet) -> DataSet:
        """The rows of ``data`` less the offset of the model; raises UsageError for another D."""
        if data.n_features != self.n_features:
            raise UsageError(
                f"{data.name}: {data.n_features} features per row, but the model was trained on "
                f"{self.n_features}; use the embeddings that the model was trained for"
            )
        return data.around(self.offset)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model file, whole or not at all; the same model gives the same bytes."""
        document = {name: getattr(self, name) for name in ("n_clusters", "n_features", *PLAIN)}
        document |= {name: values for name in LISTS if (values := getattr(self, name))}
        document["format_version"] = 1 if self.parts is self.offset is None else FORMAT_VERSION
        if history := self.training.get("history"):
            while len(history) > _HISTORY_STEPS:
                history = history[(len(history) - 1) % 2 :: 2]  # the last one stays
            document["training"] = self.training | {"history": history}
        if groups := sorted(self.group_names.items()):
            document["group_names"] = [{"clusters": list(c), "name": name} for c, name in groups]
        arrays: dict[str, tuple[np.ndarray, type]] = {
            "cluster_centers": (self.cluster_centers, np.float32),
            "cluster_sizes": (self.cluster_sizes, np.float64),
        }
        arrays |= {name: (values, np.float32) for name, values in self.maps.items()}
        if self.offset is not None:
            arrays["offset"] = self.offset, np.float64
        if self.parts is not None:
            arrays["centers"] = self.parts.centers, np.float32
            arrays["center_clusters"] = self.parts.clusters, np.int64
        tensors = {name: np.ascontiguousarray(*each) for name, each in arrays.items()}
        if self.statistics is not None:
            tensors |= self.statistics.tensors(self.cluster_centers)
        if self.state is not None:
            document["state"] = self.state.values
            tensors |= {STATE_PREFIX + name: each for name, each in self.state.tensors.items()}
        metadata = {METADATA_KEY: json.dumps(document, allow_nan=False, sort_keys=True)}
        # By bytes, since safetensors' own writer has its own error for a full disk.
        with atomic_path(os.fspath(path)) as temporary, open(temporary, "wb") as file:
            file.write(tensors_as_bytes(tensors, metadata))


def checkpoint_path(target: str) -> str:
    """Beside the model ``target``, which stays as it is until the new one is finished."""
    stem, suffix = os.path.splitext(target)
    return f"{stem}.checkpoint{suffix}"


def unmapped(centers: np.ndarray, map: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """(K, D) float32, the rows whose places under a learned map are ``centers`` (K, D)."""
    inside = np.linalg.solve(map.T.astype(np.float64), centers.T.astype(np.float64)).T
    return (inside + origin).astype(np.float32)


def usual_temperature(cluster_centers: np.ndarray) -> float:
    """A seventh of what the nearest other centre is away, squared, for the median of some of the
    centres (K, D): rows then have their own cluster with about the probability that a second
    training assigns them alike (docs/objective.md)."""
    centers = cluster_centers.astype(np.float64)
    if len(centers) == 1:
        return 1.0
    chosen = np.unique(np.linspace(0, len(centers) - 1, _JUDGED_CENTERS).astype(int))
    nearest = np.empty(len(chosen), int)
    for start in range(0, len(chosen), 64):
        part = chosen[start : start + 64]
        squares = squared_distances(centers[part], centers)
        squares[np.arange(len(part)), part] = np.inf
        nearest[start : start + 64] = squares.argmin(1)
    # To six digits, so that it does not depend on the number of threads.
    apart = ((centers[chosen] - centers[nearest]) ** 2).sum(1)
    return float(f"{np.median(apart) * _NEIGHBOUR_SHARE:.6g}")
