"""Reading the model file, whatever is in it: never more memory than its size asks for.

Needs no torch, so that commands which only look at a model start fast.
"""

from __future__ import annotations

import json
import os
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse_tensors

from dinkcli.errors import ModelError, UsageError
from dinkcli.models.model import FORMAT_VERSION, METADATA_KEY, STATE_PREFIX, Model, TrainingState
from dinkcli.options import LEARNED, METRICS

# A header is parsed as a whole, so it has to be small. The longest history that fits is kept.
_HEADER_BYTES = 32 << 20
_Kinds = dict[str, type | tuple[type, ...]]
_SCHEMA: _Kinds = {
    "n_clusters": int,
    "n_features": int,
    "metric": str,
    "column": (str, type(None)),
    "training": dict,
}
_TRAINING: _Kinds = {
    "options": dict,
    "input": dict,
    "metrics": dict,
    "versions": dict,
    "history": list,
}
_STATE = ("progress", "checksums", "environment")


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
            tensors = parse_tensors(file.read())
        _check_document(document)
        _check_tensors(tensors, document)
    except ModelError:
        raise
    # RecursionError: nested JSON; KeyError: a type of number that NumPy lacks.
    except (SafetensorError, ValueError, KeyError, RecursionError, OSError) as error:
        raise ModelError(
            f"{path}: not a dink model, or damaged ({error}); train or copy it again"
        ) from error
    state = None
    if "state" in document:
        names = [name for name in tensors if name.startswith(STATE_PREFIX)]
        inner = {name.removeprefix(STATE_PREFIX): tensors[name] for name in names}
        state = TrainingState(inner, document["state"])
    return Model(
        tensors["cluster_centers"].copy(),
        tensors["cluster_sizes"].copy(),
        document["metric"],
        document.get("column"),
        document.get("training", {}),
        state,
        document.get("temperature", -1.0),
        document.get("names", []),
        document.get("terms", []),
        *(tensors[name].copy() if name in tensors else None for name in ("map", "origin")),
    )


def _document(file: IO[bytes], path: str) -> dict[str, Any]:
    """The metadata of a model file of a version that can be read.

    Raises:
        ModelError: a safetensors file of something else, or a newer version.
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
    text = metadata.get(METADATA_KEY) if isinstance(metadata, dict) else None
    if text is None:
        raise ModelError(
            f"{path}: a safetensors file, but not a dink model; give one that dink train wrote"
        )
    document = json.loads(text, parse_constant=_refuse) if isinstance(text, str) else None
    if not isinstance(document, dict):
        raise ValueError("its metadata are not an object")
    version = document.get("format_version")
    if type(version) is not int or version < 1:
        raise ValueError(f"format version {version!r}")
    if version > FORMAT_VERSION:
        raise ModelError(
            f"{path}: model format {version}, this dink reads up to {FORMAT_VERSION}; "
            "use the version of dink that wrote it, or a newer one"
        )
    return document


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} in its metadata")


def _check_document(document: dict[str, Any]) -> None:
    """Raises ValueError where the metadata are not what ``Model.save`` writes."""
    training = document.get("training", {})
    _check_kinds(document, _SCHEMA)
    _check_kinds(training, _TRAINING, "training.")
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
        parts = [state.get(name) for name in _STATE] if isinstance(state, dict) else [None]
        if not all(isinstance(part, dict) for part in parts):
            raise ValueError(f"state is {state!r:.80}, expected {', '.join(_STATE)}")


def _check_kinds(document: dict[str, Any], kinds: _Kinds, where: str = "") -> None:
    empty: dict[Any, Any] = {dict: {}, list: []}
    for name, kind in kinds.items():
        value = document.get(name, empty.get(kind))
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{where}{name} is {value!r:.80}")


def _check_names(document: dict[str, Any]) -> None:
    names, terms = document.get("names", []), document.get("terms", [])
    for name, value in (("names", names), ("terms", terms)):
        if not isinstance(value, list) or len(value) not in (0, document["n_clusters"]):
            raise ValueError(f"{name} is {value!r:.80}, expected one entry for each cluster")
    if not all(isinstance(each, list) for each in terms):
        raise ValueError("terms that are not lists")
    if not all(isinstance(text, str) for each in (names, *terms) for text in each):
        raise ValueError("names or terms that are not text")


def _check_tensors(tensors: dict[str, np.ndarray], document: dict[str, Any]) -> None:
    """Raises ValueError where centres or sizes are not what ``Model.save`` writes."""
    k, d = shape = (document["n_clusters"], document["n_features"])
    centers, sizes = tensors["cluster_centers"], tensors["cluster_sizes"]
    if centers.shape != shape or min(shape) < 1:
        raise ValueError(f"centres of shape {centers.shape}, its metadata say {shape}")
    if sizes.shape != (k,):
        raise ValueError(f"sizes of shape {sizes.shape}, expected {(k,)}")
    if not _is_finite(centers, np.float32):
        raise ValueError("centres that are not all finite float32 numbers")
    if document["metric"] == LEARNED:
        for name, right in (("map", (d, d)), ("origin", (d,))):
            values = tensors.get(name, np.empty(0))
            if values.shape != right or not _is_finite(values, np.float32):
                raise ValueError(f"{name} is not finite float32 numbers of shape {right}")
    if not _is_finite(sizes, np.float64) or (sizes < 0).any():
        raise ValueError("sizes that are not all finite float64 numbers of at least 0")


def _is_finite(values: np.ndarray, dtype: type) -> bool:
    return values.dtype == dtype and bool(np.isfinite(values).all())
