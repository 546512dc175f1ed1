"""Reading the model file, whatever is in it: never more memory than its size asks for."""

from __future__ import annotations

import json
import math
import os
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load as parse_tensors

from dinkcli.errors import ModelError, UsageError
from dinkcli.models.model import (
    FORMAT_VERSION,
    LISTS,
    METADATA_KEY,
    OUTLIER,
    PLAIN,
    STATE_PREFIX,
    Centers,
    Model,
    TrainingState,
)
from dinkcli.models.statistics import Statistics
from dinkcli.options import LEARNED, METRICS

# A header is parsed as a whole, so it has to be small. The longest history that fits is kept.
_HEADER_BYTES = 32 << 20
_LARGEST_NORM = 5e18  # distances between rows of this norm have squares that float32 can hold
_LARGEST_WEIGHT = 1e100
_LARGEST_OFFSET = 1e300
_LARGEST_CONDITION = 1e12
_LOOKED_AT = 64  # centres, for whether they come back through a map
_NUMBER = (int, float)

# What ``Model.save`` writes: types, [type] for a list, and objects. A name that ends in "?" may be
# missing; others may be there.
_STEP = {"phase": str, "start?": int, "temperature": (*_NUMBER, str)} | {
    name: _NUMBER for name in ("inertia", "dilation_loss", "shrink_loss", "smallest", "largest")
}
_INPUT = {"files?": [str], "dtype?": [str], "bits?": bool} | {
    f"{name}?": int for name in ("rows", "features", "bytes", "bad_rows", "dim")
}
_TRAINING = {
    "options?": {},
    "input?": _INPUT,
    "metrics?": {"cluster_inertia?": [_NUMBER], "inertia?": _NUMBER},
    "versions?": {},
    "history?": [_STEP],
}
_DOCUMENT = {
    "n_clusters": int,
    "n_features": int,
    "metric": str,
    "column?": (str, type(None)),
    "feature_names?": [str],
    "temperature?": _NUMBER,
    "names?": [str],
    "terms?": [[str]],
    "training?": _TRAINING,
    "group_names?": [{"clusters": [int], "name": str}],
    "named_by_hand?": [int],
    "history?": [{"when": str}],
    "state?": {"progress": {}, "checksums": {}, "environment": {}},
}


def is_model(path: str) -> bool:
    """Whether a file says that it is a model of dink, be it damaged or not."""
    try:
        with safe_open(path, "np") as file:
            return METADATA_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def as_model(model: Model | str | os.PathLike[str]) -> Model:
    """The model itself, or the one at a path."""
    return model if isinstance(model, Model) else load(model)


def load(path: str | os.PathLike[str]) -> Model:
    """Reads a model file, of this format or an older one.

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
            document = _document(file, path)
            file.seek(0)
            tensors = {name: values.copy() for name, values in parse_tensors(file.read()).items()}
        _check_document(document)
        return _model(tensors, document)
    except ModelError:
        raise
    # RecursionError: nested JSON; KeyError: no such tensor, or a type that NumPy lacks.
    except (SafetensorError, ValueError, KeyError, RecursionError, OSError) as error:
        raise ModelError(
            f"{path}: not a dink model, or damaged ({error}); train or copy it again"
        ) from error


def _model(tensors: dict[str, np.ndarray], document: dict[str, Any]) -> Model:
    parts = statistics = state = None
    if "center_clusters" in tensors:
        parts = Centers(tensors["centers"], tensors["center_clusters"])
    _check_tensors(tensors, parts, document)
    if "statistics.distances" in tensors:
        centers, sizes = tensors["cluster_centers"], tensors["cluster_sizes"]
        inertia = document.get("training", {}).get("metrics", {}).get("cluster_inertia", [])
        trained = {"weights": sizes, "means": centers, "deviations": np.array(inertia)}
        usual = {f"statistics.{name}": values for name, values in trained.items()}
        shape = (centers if parts is None else parts.centers).shape
        statistics = Statistics.from_tensors(usual | tensors, shape)
    if "state" in document:
        names = [name for name in tensors if name.startswith(STATE_PREFIX)]
        inner = {name.removeprefix(STATE_PREFIX): tensors[name] for name in names}
        state = TrainingState(inner, document["state"])
    groups = document.get("group_names", ())
    return Model(
        tensors["cluster_centers"],
        tensors["cluster_sizes"],
        **{name: document[name] for name in (*PLAIN, *LISTS) if name in document},
        map=tensors.get("map"),
        origin=tensors.get("origin"),
        offset=tensors.get("offset"),
        parts=parts,
        statistics=statistics,
        state=state,
        group_names={tuple(each["clusters"]): each["name"] for each in groups},
    )


def _document(file: IO[bytes], path: str) -> dict[str, Any]:
    """The metadata of a model file of a version that can be read; else ModelError or ValueError."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    if length > _HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes, more than {_HEADER_BYTES}")
    try:
        text = json.loads(file.read(length))["__metadata__"][METADATA_KEY]
    except (KeyError, TypeError):
        raise ModelError(
            f"{path}: a safetensors file, but not a dink model; give one that dink train wrote"
        ) from None
    parsers: dict[str, Any] = dict.fromkeys(("parse_constant", "parse_float"), _finite)
    document = json.loads(str(text), parse_int=_integer, **parsers)
    _check(document, {}, "its metadata")
    version = document.get("format_version")
    if type(version) is not int or version < 1:
        raise ValueError(f"format version {version!r:.80}")
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{path}: model format {version}, this dink reads up to {FORMAT_VERSION}; "
            "use the version of dink that wrote it, or a newer one"
        )
    _check(document, _DOCUMENT, "")
    return document


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text:.20} in its metadata")
    return number


def _integer(text: str) -> int:
    if abs(number := int(text)) >= 1 << 63:
        raise ValueError(f"{text:.20} in its metadata")
    return number


def _check_document(document: dict[str, Any]) -> None:
    """Raises ValueError where what the metadata say does not fit together."""
    k, training = document["n_clusters"], document.get("training", {})
    inertia = training.get("metrics", {}).get("cluster_inertia")
    of_clusters = {"names": document.get("names"), "terms": document.get("terms")}
    for name, values in (of_clusters | {"cluster_inertia": inertia}).items():
        if values and len(values) != k:
            raise ValueError(f"{name} of {len(values)} entries, expected {k}")
    features = document.get("feature_names", ())
    if len(set(features)) < len(features):
        raise ValueError("feature_names with one name twice")
    if any(not 0 <= j < k for j in document.get("named_by_hand", ())):
        raise ValueError("named_by_hand has numbers of no cluster")
    if document.get("temperature", 0) < 0:
        raise ValueError(f"temperature is {document['temperature']}")
    if document["metric"] not in METRICS:
        raise ValueError(f"unknown metric {document['metric']!r:.80}")


def _check(value: Any, kind: Any, where: str) -> None:
    if isinstance(kind, dict) and isinstance(value, dict):
        for name, inner in kind.items():
            key = name.removesuffix("?")
            if key in value or key == name:
                _check(value.get(key), inner, f"{where}.{key}".lstrip("."))
    elif isinstance(kind, list) and isinstance(value, list):
        for each in value:
            _check(each, kind[0], f"an entry of {where}")
    elif (
        isinstance(kind, (dict, list))
        or not isinstance(value, kind)
        or (isinstance(value, bool) and kind is not bool)
    ):
        raise ValueError(f"{where} is {value!r:.80}")


def _check_tensors(
    tensors: dict[str, np.ndarray], parts: Centers | None, document: dict[str, Any]
) -> None:
    """Raises ValueError where centres, sizes or the map are not what ``Model.save`` writes."""
    k, d = document["n_clusters"], document["n_features"]
    centers, sizes = tensors["cluster_centers"], tensors["cluster_sizes"]
    if min(k, d) < 1:
        raise ValueError(f"its metadata say {k} clusters of {d} features")
    _check_numbers(centers, "cluster_centers", (k, d))
    _check_kind(sizes, "cluster_sizes", np.float64, (k,))
    if not ((sizes >= 0) & (sizes <= _LARGEST_WEIGHT)).all():
        raise ValueError("cluster_sizes that are no weights of rows")
    if (offset := tensors.get("offset")) is not None:
        _check_kind(offset, "offset", np.float64, (d,))
        if not (np.abs(offset) < _LARGEST_OFFSET).all():
            raise ValueError("offset that is not finite, or too large")
    if parts is not None:
        owners = parts.clusters
        _check_kind(owners, "center_clusters", np.int64, (len(parts.centers),))
        _check_numbers(parts.centers, "centers", (len(owners), d))
        if not OUTLIER <= owners.min() <= owners.max() < k or owners.max() < 0:
            raise ValueError(f"center_clusters from {owners.min()} to {owners.max()}")
    if document["metric"] == LEARNED:
        check_map(centers, tensors["map"], tensors["origin"])


def check_map(centers: np.ndarray, map: np.ndarray, origin: np.ndarray) -> None:
    """Raises ValueError for a map that rows cannot go through, or from which centres (K, D) cannot
    come back."""
    d = centers.shape[1]
    _check_numbers(map, "map", (d, d))
    _check_numbers(origin, "origin", (d,))
    some = centers[:_LOOKED_AT].astype(np.float64)
    try:
        back = np.linalg.solve(map.T.astype(np.float64), some.T).T
    except np.linalg.LinAlgError:
        raise ValueError("map is singular") from None
    grown = np.linalg.norm(back, axis=1) * np.linalg.norm(map)
    if not (grown <= _LARGEST_CONDITION * np.linalg.norm(some, axis=1)).all():
        raise ValueError("map is singular, or nearly so")
    with np.errstate(over="ignore"):
        before = (back + origin).astype(np.float32)
        _check_numbers(before, "centres before the map", before.shape)
        shift = (origin.astype(np.float64) @ map).astype(np.float32)
        _check_numbers(shift, "origin after the map", (d,))


def _check_numbers(values: np.ndarray, name: str, shape: tuple[int, ...]) -> None:
    _check_kind(values, name, np.float32, shape)
    norms = np.linalg.norm(values.astype(np.float64), axis=-1)
    if not (norms <= _LARGEST_NORM).all():
        raise ValueError(f"{name} that are not finite, or whose squares are beyond float32")


def _check_kind(values: np.ndarray, name: str, kind: type, shape: tuple[int, ...]) -> None:
    if values.dtype != kind or values.shape != shape:
        wanted = f"{np.dtype(kind)} {shape}"
        raise ValueError(f"{name} of {values.dtype} {values.shape}, expected {wanted}")
