"""The model file: tensors and one JSON text in the safetensors format. Never pickle.

Reading needs no torch, so that commands which only look at a model start fast.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse_tensors
from safetensors.numpy import save as tensors_as_bytes

from dinkcli.data.atomic import atomic_path
from dinkcli.errors import ModelError, UsageError
from dinkcli.options import LEARNED, METRICS

if TYPE_CHECKING:
    from dinkcli.data.base import Columns
    from dinkcli.head.head import DinkClusterHead

FORMAT_VERSION = 1
SUFFIX = ".dink.safetensors"
_KEY = "dink"
_STATE = "state."
_JUDGED_CENTERS = 1024  # for the usual temperature
_NEIGHBOUR_SHARE = 1 / 7
# A header is parsed as a whole, so it has to be small. The longest history that fits is kept.
_HEADER_BYTES = 32 << 20
_HISTORY_STEPS = 50_000
_SCHEMA: dict[str, type | tuple[type, ...]] = {
    "n_clusters": int,
    "n_features": int,
    "metric": str,
    "column": (str, type(None)),
    "training": dict,
}
_TRAINING_SCHEMA = {
    "options": dict,
    "input": dict,
    "metrics": dict,
    "versions": dict,
    "history": list,
}
_STATE_SCHEMA = ("progress", "checksums", "environment")


@dataclass
class TrainingState:
    """What a checkpoint holds beyond a model: all that training needs to go on.

    Attributes:
        tensors: by name; float32, float64, and uint8 for the random generator.
        values: plain JSON.
    """

    tensors: dict[str, np.ndarray]
    values: dict[str, Any]


@dataclass
class Model:
    """Trained centres with everything that assigning needs.

    Attributes:
        cluster_centers: (K, D) float32.
        cluster_sizes: (K,) float64, rows (or their weight) of each cluster in training.
        metric: "euclidean", "cosine" (rows are normalised before they are compared) or "learned"
            (rows z become (z - origin) @ map before they are compared, and centres are of these).
        column: the parquet column trained on, or None.
        training: how it was made: options, input, metrics, versions, history. Plain JSON.
        temperature: of the probabilities that ``assign`` gives, softmax over centres of minus the
            squared distance over it; by default that of ``usual_temperature``.
        names: K names of the clusters, "" for one without; empty where there are none.
        terms: K lists of distinctive terms of their texts, or empty.
        map: (D, D) float32, and
        origin: (D,) float32, of the metric "learned"; None elsewhere.
        state: where its training stands when this is a checkpoint; None in a finished model.
    """

    cluster_centers: np.ndarray
    cluster_sizes: np.ndarray
    metric: str = "euclidean"
    column: str | None = None
    training: dict[str, Any] = field(default_factory=dict)
    state: TrainingState | None = None
    temperature: float = -1.0
    names: list[str] = field(default_factory=list)
    terms: list[list[str]] = field(default_factory=list)
    map: np.ndarray | None = None
    origin: np.ndarray | None = None

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
    def means(self) -> np.ndarray:
        """(K, D) float32, the centres in the coordinates of the rows as they are given."""
        if self.map is None or self.origin is None:
            return self.cluster_centers
        inside = np.linalg.solve(self.map.T.astype(np.float64), self.cluster_centers.T).T
        return (inside + self.origin).astype(np.float32)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of what labels depend on: the centres, the metric and its map."""
        centers = np.ascontiguousarray(self.cluster_centers, "<f4")
        text = f"{self.metric} {centers.shape[0]} {centers.shape[1]} ".encode()
        maps = (part for part in (self.map, self.origin) if part is not None)
        more = b"".join(np.ascontiguousarray(part, "<f4").tobytes() for part in maps)
        return hashlib.sha256(text + centers.tobytes() + more).hexdigest()[:16]

    def head(self) -> DinkClusterHead:
        """A new head with these centres, on the CPU."""
        import torch

        from dinkcli.head.head import DinkClusterHead

        head = DinkClusterHead(self.n_clusters, self.n_features)
        head.reset_cluster_centers(torch.from_numpy(self.cluster_centers))
        return head

    def as_trained(self, columns: Columns) -> Columns:
        """The columns to read where the user does not say otherwise: those of the training."""
        bits = columns.bits or bool(self.training.get("input", {}).get("bits"))
        dim = columns.dim or (self.n_features if bits else None)
        return replace(columns, usual=self.column, bits=bits, dim=dim)

    def check_features(self, n_features: int, source: str) -> None:
        """Raises UsageError when data of another dimension are meant for this model."""
        if n_features != self.n_features:
            raise UsageError(
                f"{source}: {n_features} features per row, but the model was trained on "
                f"{self.n_features}; use the embeddings that the model was trained for"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model file, whole or not at all; the same model gives the same bytes."""
        document: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "n_clusters": self.n_clusters,
            "n_features": self.n_features,
            "metric": self.metric,
            "column": self.column,
            "temperature": self.temperature,
            "training": self.training | _thinned(self.training.get("history", [])),
        }
        if self.names:
            document["names"] = self.names
        if self.terms:
            document["terms"] = self.terms
        tensors: dict[str, np.ndarray] = {
            "cluster_centers": np.ascontiguousarray(self.cluster_centers, np.float32),
            "cluster_sizes": np.ascontiguousarray(self.cluster_sizes, np.float64),
        }
        if self.map is not None and self.origin is not None:
            tensors["map"] = np.ascontiguousarray(self.map, np.float32)
            tensors["origin"] = np.ascontiguousarray(self.origin, np.float32)
        if self.state is not None:
            document["state"] = self.state.values
            tensors |= {_STATE + name: values for name, values in self.state.tensors.items()}
        metadata = {_KEY: json.dumps(document, allow_nan=False, sort_keys=True)}
        # By bytes, since safetensors' own writer has its own error for a full disk.
        with atomic_path(os.fspath(path)) as temporary, open(temporary, "wb") as file:
            file.write(tensors_as_bytes(tensors, metadata))


def checkpoint_path(target: str) -> str:
    """Where the checkpoints of the model ``target`` go: beside it, so that a model which is there
    already stays until the new one is finished."""
    stem, suffix = os.path.splitext(target)
    return f"{stem}.checkpoint{suffix}"


def _thinned(history: list[dict[str, Any]]) -> dict[str, Any]:
    while len(history) > _HISTORY_STEPS:
        history = history[1::2] if len(history) % 2 == 0 else history[::2]  # the last one stays
    return {"history": history} if history else {}


def load(path: str | os.PathLike[str]) -> Model:
    """Reads a model file, of this format or an older one. Never more memory than the file's size
    asks for, whatever its header claims.

    Raises:
        UsageError: no such file.
        ModelError: not a dink model, damaged, or of a newer format.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise UsageError(f"{path}: no such model file")
    try:
        # Read, not mapped: a mapped file that shrinks kills the process.
        with open(path, "rb") as file:
            document = _document(file)
            if document is None:
                raise ModelError(
                    f"{path}: a safetensors file, but not a dink model; give one that dink train "
                    "wrote"
                )
            _check_version(path, document)
            file.seek(0)
            tensors = parse_tensors(file.read())
        _check_schema(document)
        _check_tensors(tensors, document)
    except ModelError:
        raise
    # RecursionError: nested JSON; KeyError: a type of number that NumPy lacks.
    except (SafetensorError, ValueError, KeyError, RecursionError, OSError) as error:
        raise ModelError(
            f"{path}: not a dink model, or damaged ({error}); train or copy it again"
        ) from error
    centers, sizes = tensors.pop("cluster_centers"), tensors.pop("cluster_sizes")
    state = None
    if "state" in document:
        names = [name for name in tensors if name.startswith(_STATE)]
        named = {name.removeprefix(_STATE): tensors[name] for name in names}
        state = TrainingState(named, document["state"])
    column, training = document.get("column"), document.get("training", {})
    metric, temperature = document["metric"], document.get("temperature", -1.0)
    maps = (tensors[name].copy() if name in tensors else None for name in ("map", "origin"))
    return Model(
        centers.copy(),
        sizes.copy(),
        metric,
        column,
        training,
        state,
        temperature,
        document.get("names", []),
        document.get("terms", []),
        *maps,
    )


def usual_temperature(cluster_centers: np.ndarray) -> float:
    """A seventh of what the nearest other centre is away, squared, for the median centre.

    The mean probability of the rows' own clusters is then about the share of rows that a second
    training assigns alike (docs/objective.md). 0 where most centres have a copy.

    Args:
        cluster_centers: (K, D); of many, some are looked at.
    """
    centers = cluster_centers.astype(np.float64)
    centers -= centers.mean(0)
    if len(centers) == 1:
        return 1.0
    chosen = np.unique(np.linspace(0, len(centers) - 1, _JUDGED_CENTERS).astype(int))
    nearest = []
    for part in np.array_split(chosen, -(-len(chosen) // 64)):
        squares = (centers**2).sum(1) + (centers[part] ** 2).sum(1)[:, None]
        squares -= 2 * centers[part] @ centers.T
        squares[np.arange(len(part)), part] = np.inf
        others = squares.argmin(1)
        nearest.append(((centers[part] - centers[others]) ** 2).sum(1))
    # To six digits, so that it does not depend on the number of threads.
    return float(f"{np.median(np.concatenate(nearest)) * _NEIGHBOUR_SHARE:.6g}")


def _document(file: IO[bytes]) -> dict[str, Any] | None:
    """The metadata of a safetensors file, or None where they are not dink's.

    Raises:
        ValueError: not a safetensors file, or with a header that cannot be one of dink's.
    """
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    if length > _HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes, more than {_HEADER_BYTES}")
    header = json.loads(file.read(length))
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    text = metadata.get(_KEY) if isinstance(metadata, dict) else None
    if text is None:
        return None
    document = json.loads(text, parse_constant=_refuse) if isinstance(text, str) else None
    if not isinstance(document, dict):
        raise ValueError("its metadata are not an object")
    return document


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} in its metadata")


def _check_version(path: str, document: dict[str, Any]) -> None:
    version = document.get("format_version")
    if type(version) is not int or version < 1:
        raise ValueError(f"format version {version!r}")
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{path}: model format {version}, this dink reads up to {FORMAT_VERSION}; "
            "use the version of dink that wrote it, or a newer one"
        )


def _check_schema(document: dict[str, Any]) -> None:
    """Raises ValueError where the metadata are not what ``Model.save`` writes."""
    for name, kind in _SCHEMA.items():
        value = document.get(name, {} if kind is dict else None)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{name} is {value!r:.80}")
    training = document.get("training", {})
    for name, kind in _TRAINING_SCHEMA.items():
        if not isinstance(training.get(name, kind()), kind):
            raise ValueError(f"training.{name} is {training[name]!r:.80}")
    if not all(isinstance(step, dict) for step in training.get("history", [])):
        raise ValueError("training.history holds something else than steps")
    temperature = document.get("temperature", 0.0)
    if not isinstance(temperature, float | int) or not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature is {temperature!r:.80}")
    _check_names(document)
    if document["metric"] not in METRICS:
        raise ValueError(f"unknown metric {document['metric']!r:.80}")
    if "state" in document:
        state = document["state"]
        if not isinstance(state, dict) or not all(
            isinstance(state.get(name), dict) for name in _STATE_SCHEMA
        ):
            raise ValueError(f"state is {state!r:.80}, expected {', '.join(_STATE_SCHEMA)}")


def _check_names(document: dict[str, Any]) -> None:
    names, terms = document.get("names", []), document.get("terms", [])
    for name, value in (("names", names), ("terms", terms)):
        if not isinstance(value, list) or len(value) not in (0, document["n_clusters"]):
            raise ValueError(f"{name} is {value!r:.80}, expected one entry for each cluster")
    texts = [names, *(each if isinstance(each, list) else [each] for each in terms)]
    if not all(isinstance(text, str) for each in texts for text in each):
        raise ValueError("names or terms that are not text")
    if not all(isinstance(each, list) for each in terms):
        raise ValueError("terms that are not lists")


def _check_tensors(tensors: dict[str, np.ndarray], document: dict[str, Any]) -> None:
    """Raises ValueError where centres or sizes are not what ``Model.save`` writes."""
    shape = (document["n_clusters"], document["n_features"])
    centers, sizes = tensors["cluster_centers"], tensors["cluster_sizes"]
    if centers.shape != shape or min(shape) < 1:
        raise ValueError(f"centres of shape {centers.shape}, its metadata say {shape}")
    if sizes.shape != shape[:1]:
        raise ValueError(f"sizes of shape {sizes.shape}, expected {shape[:1]}")
    if centers.dtype != np.float32 or not np.isfinite(centers).all():
        raise ValueError("centres that are not all finite float32 numbers")
    if document["metric"] == LEARNED:
        for name, right in (("map", (shape[1], shape[1])), ("origin", (shape[1],))):
            values = tensors.get(name, np.empty(0))
            if values.shape != right or values.dtype != np.float32 or not np.isfinite(values).all():
                raise ValueError(f"{name} is not finite float32 numbers of shape {right}")
    if sizes.dtype != np.float64 or not np.isfinite(sizes).all() or (sizes < 0).any():
        raise ValueError("sizes that are not all finite float64 numbers of at least 0")
