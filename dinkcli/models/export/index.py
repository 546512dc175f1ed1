"""faiss: a flat index of the centres, whose ``search(rows, 1)`` gives distances and clusters, or an
inverted file with the centres as its lists, trained and empty, for rows to be added to.

Under cosine the index scales rows to norm 1 before it adds or searches; a learned map is applied
to them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dinkcli.data.extras import require
from dinkcli.models.model import Model


def write(model: Model, path: str) -> None:
    """Writes an IndexFlatL2, under cosine behind a NormalizationTransform.

    Raises:
        ExtraError: faiss is not installed.
    """
    faiss, index = _flat(model)
    faiss.write_index(_scaled(faiss, model, index), path)


def write_ivf(model: Model, path: str) -> None:
    """Writes an IndexIVFFlat without rows, under cosine behind a NormalizationTransform.

    Raises:
        ExtraError: faiss is not installed.
    """
    faiss, quantizer = _flat(model)
    index = faiss.IndexIVFFlat(quantizer, model.n_features, model.n_clusters, faiss.METRIC_L2)
    index.is_trained = True
    faiss.write_index(_scaled(faiss, model, index), path)


def _flat(model: Model) -> tuple[Any, Any]:
    """The package, and an index of the centres."""
    faiss = require("faiss", "faiss", "faiss export")
    index = faiss.IndexFlatL2(model.n_features)
    index.add(np.ascontiguousarray(model.cluster_centers))
    return faiss, index


def _scaled(faiss: Any, model: Model, index: Any) -> Any:
    """The index behind what the metric does to rows."""
    if model.metric == "cosine":
        transform = faiss.NormalizationTransform(model.n_features, 2.0)
    elif model.map is not None and model.origin is not None:
        transform = faiss.LinearTransform(model.n_features, model.n_features, True)
        shift = -(model.origin.astype(np.float64) @ model.map)
        faiss.copy_array_to_vector(np.ascontiguousarray(model.map.T).ravel(), transform.A)
        faiss.copy_array_to_vector(shift.astype(np.float32), transform.b)
        transform.is_trained = True
    else:
        return index
    scaled = faiss.IndexPreTransform(transform, index)
    scaled.is_trained = True
    return scaled
