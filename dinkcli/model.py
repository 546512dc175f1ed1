"""The model file: tensors and one JSON text in the safetensors format. Never pickle.

Reading needs no torch, so that commands which only look at a model start fast.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
from safetensors.numpy import save_file

from dinkcli.atomic import atomic_path
from dinkcli.errors import InputError, ModelError, UsageError
from dinkcli.options import METRICS

if TYPE_CHECKING:
    from dinkcli.head import DinkClusterHead

FORMAT_VERSION = 1
SUFFIX = ".dink.safetensors"
_KEY = "dink"


@dataclass
class Model:
    """Trained centres with everything that assigning needs.

    Attributes:
        cluster_centers: (K, D) float32.
        cluster_sizes: (K,) float64, rows (or their weight) of each cluster in training.
        metric: "euclidean" or "cosine" (rows are normalised before they are compared).
        column: the parquet column trained on, or None.
        training: how it was made: options, input, metrics, versions, history. Plain JSON.
    """

    cluster_centers: np.ndarray
    cluster_sizes: np.ndarray
    metric: str = "euclidean"
    column: str | None = None
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def n_clusters(self) -> int:
        return self.cluster_centers.shape[0]

    @property
    def n_features(self) -> int:
        return self.cluster_centers.shape[1]

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of what labels depend on: the centres and the metric."""
        centers = np.ascontiguousarray(self.cluster_centers, "<f4")
        text = f"{self.metric} {centers.shape[0]} {centers.shape[1]} ".encode()
        return hashlib.sha256(text + centers.tobytes()).hexdigest()[:16]

    def head(self) -> DinkClusterHead:
        """A new head with these centres, on the CPU."""
        import torch

        from dinkcli.head import DinkClusterHead

        head = DinkClusterHead(self.n_clusters, self.n_features)
        head.reset_cluster_centers(torch.from_numpy(self.cluster_centers))
        return head

    def check_features(self, n_features: int, source: str) -> None:
        """Raises InputError when data of another dimension are meant for this model."""
        if n_features != self.n_features:
            raise InputError(
                f"{source}: {n_features} features per row, but the model was trained on "
                f"{self.n_features}; use the embeddings that the model was trained for"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model file, whole or not at all; the same model gives the same bytes."""
        document = {
            "format_version": FORMAT_VERSION,
            "n_clusters": self.n_clusters,
            "n_features": self.n_features,
            "metric": self.metric,
            "column": self.column,
            "training": self.training,
        }
        with atomic_path(os.fspath(path)) as temporary:
            save_file(
                {
                    "cluster_centers": np.ascontiguousarray(self.cluster_centers, np.float32),
                    "cluster_sizes": np.ascontiguousarray(self.cluster_sizes, np.float64),
                },
                temporary,
                metadata={_KEY: json.dumps(document, allow_nan=False, sort_keys=True)},
            )


def load(path: str | os.PathLike[str]) -> Model:
    """Reads a model file.

    Raises:
        UsageError: no such file.
        ModelError: not a dink model, damaged, or of a newer format.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise UsageError(f"{path}: no such model file")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            document = json.loads((file.metadata() or {}).get(_KEY, "null"))
            if not isinstance(document, dict):
                raise ModelError(f"{path}: a safetensors file, but not a dink model")
            version = document.get("format_version")
            if version != FORMAT_VERSION:
                raise ModelError(
                    f"{path}: model format {version}, this dink reads {FORMAT_VERSION}; "
                    "use the version of dink that wrote it, or a newer one"
                )
            centers = file.get_tensor("cluster_centers")
            sizes = file.get_tensor("cluster_sizes")
    except (safetensors.SafetensorError, json.JSONDecodeError, OSError) as error:
        raise ModelError(
            f"{path}: not a dink model, or damaged ({error}); train or copy it again"
        ) from error
    _check(path, centers, sizes, document)
    return Model(
        centers, sizes, document["metric"], document.get("column"), document.get("training", {})
    )


def _check(path: str, centers: np.ndarray, sizes: np.ndarray, document: dict[str, Any]) -> None:
    shape = (document.get("n_clusters"), document.get("n_features"))
    if centers.ndim != 2 or centers.shape != shape or 0 in shape:
        raise ModelError(f"{path}: centres of shape {centers.shape}, the model says {shape}")
    if centers.dtype != np.float32 or not np.isfinite(centers).all():
        raise ModelError(f"{path}: centres are not all finite float32 numbers; train it again")
    if sizes.shape != shape[:1]:
        raise ModelError(f"{path}: sizes of shape {sizes.shape}, expected {shape[:1]}")
    if document.get("metric") not in METRICS:
        raise ModelError(f"{path}: unknown metric {document.get('metric')!r}")
