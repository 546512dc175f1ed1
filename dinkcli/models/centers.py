"""Centres from files of other tools, to start training from, recognised by content. Nothing is
unpickled: skops loads only types that are known to be harmless.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import load_file

from dinkcli.data.base import is_wide
from dinkcli.data.inputs import open_data
from dinkcli.data.machine import require
from dinkcli.errors import InputError, UsageError
from dinkcli.models.file import check_map, is_model, load
from dinkcli.models.model import unmapped

_TENSOR = "cluster_centers"
_UNDER_A_MAP = (
    "holds centres of rows that are transformed first, not of the rows as they are; start from the "
    "model file, or from a file of centres"
)


def read_centers(path: str, feature_names: Sequence[str] = ()) -> np.ndarray:
    """(K, D) centres, float32 or float64, from npy, parquet, safetensors, a faiss index, or skops.
    Those of a model go by ``feature_names``, of the rows that they are for. Raises InputError for a
    file that holds no centres, and ExtraError where a package is missing that reads it."""
    if not os.path.isfile(path):
        raise UsageError(f"{path}: no such file of centres")
    with open(path, "rb") as file:
        start = file.read(9)
    # Eight bytes of header length, then a JSON object.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < os.path.getsize(path):
        centers = _safetensors(path, feature_names)
    elif start[:2] in (b"Ix", b"Iw"):  # the first of four letters that name the kind of index
        centers = _faiss(path)
    elif start[:2] == b"PK" and zipfile.is_zipfile(path) and _is_skops(path):
        centers = _skops(path)
    elif start[:1] == b"\x80":
        raise InputError(
            f"{path}: a pickle, which dink never loads; save the estimator by skops.io.dump, or "
            "its cluster_centers_ by numpy.save"
        )
    else:
        data = open_data([path]).repeatable()
        wide = any(is_wide(reader.dtype) for reader in data.readers)
        kind = np.float64 if wide else np.float32
        return data.load_rows(np.empty((data.known_rows, data.n_features), kind))[0]
    return np.ascontiguousarray(centers, np.float64 if is_wide(centers.dtype) else np.float32)


def _safetensors(path: str, feature_names: Sequence[str]) -> np.ndarray:
    """A dink model, an export of one, or the state dict of a head."""
    if is_model(path):
        return load(path).means_by_name(feature_names)
    try:
        tensors = load_file(path)
        if tensors.keys() >= {_TENSOR, "map", "origin"}:
            centers, map, origin = (tensors[name] for name in (_TENSOR, "map", "origin"))
            wide = origin.dtype == np.float64  # with an offset in it
            inner = np.zeros_like(centers[0]) if wide else origin
            check_map(centers, map, inner)
            before = unmapped(centers, map, inner)
            return before + origin if wide else before
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: damaged safetensors file ({error}); copy it again") from error
    if _TENSOR not in tensors:
        raise InputError(f"{path}: no tensor {_TENSOR!r}; it has {', '.join(sorted(tensors))}")
    return tensors[_TENSOR]


def _faiss(path: str) -> np.ndarray:
    """The vectors of a flat index, or the centroids of an inverted file."""
    faiss = require("faiss", "faiss", f"`init` {path}")
    try:
        whole = inner = faiss.read_index(path)  # the whole owns what is inside it
        if isinstance(whole, faiss.IndexPreTransform):
            inner = faiss.downcast_index(whole.index)
            first = faiss.downcast_VectorTransform(whole.chain.at(0))
            if not isinstance(first, faiss.NormalizationTransform):
                raise InputError(f"{path}: {_UNDER_A_MAP}")
        flat = faiss.downcast_index(getattr(inner, "quantizer", inner))
        if isinstance(flat, faiss.IndexFlat):
            return flat.reconstruct_n(0, flat.ntotal)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"{path}: cannot be read by faiss ({reason})") from error
    raise InputError(
        f"{path}: a faiss {type(flat).__name__} keeps no centres as they are; expected a flat "
        "index or an inverted file over one"
    )


def _skops(path: str) -> np.ndarray:
    """``cluster_centers_`` of an estimator, or of the last step of a pipeline."""
    skops = require("skops.io", "sklearn", f"`init` {path}")
    try:
        unknown = skops.get_untrusted_types(file=path)
        whole: Any = None if unknown else skops.load(path)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be read by skops ({error})") from error
    if unknown:
        raise InputError(
            f"{path}: holds types that are not known to be harmless: {', '.join(unknown)}; "
            "save its cluster_centers_ by numpy.save"
        )
    *before, last = [step for _, step in getattr(whole, "steps", [("", whole)])]
    if any(hasattr(step, "components_") for step in before):
        raise InputError(f"{path}: {_UNDER_A_MAP}")
    if not hasattr(last, "cluster_centers_"):
        raise InputError(f"{path}: a {type(last).__name__} without cluster_centers_; fit it first")
    offset = getattr(before[0], "mean_", 0) if before else 0
    return last.cluster_centers_ + offset


def _is_skops(path: str) -> bool:
    """Whether a zip file, as npz is too, is one of skops."""
    with zipfile.ZipFile(path) as archive:
        return "schema.json" in archive.namelist()
