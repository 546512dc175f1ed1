"""faiss: a flat index of the centres, whose ``search(rows, 1)`` gives distances and clusters, or an
inverted file with the centres as its lists, trained and empty, for rows to be added to.

Under cosine the index scales rows to norm 1 before it adds or searches.
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
    faiss = require("faiss", "faiss", "faiss export")
    index = faiss.IndexFlatL2(model.n_features)
    index.add(np.ascontiguousarray(model.cluster_centers))
    faiss.write_index(_scaled(faiss, model, index), path)


def write_ivf(model: Model, path: str) -> None:
    """Writes an IndexIVFFlat without rows, under cosine behind a NormalizationTransform.

    Raises:
        ExtraError: faiss is not installed.
    """
    faiss = require("faiss", "faiss", "faiss export")
    quantizer = faiss.IndexFlatL2(model.n_features)
    quantizer.add(np.ascontiguousarray(model.cluster_centers))
    index = faiss.IndexIVFFlat(quantizer, model.n_features, model.n_clusters, faiss.METRIC_L2)
    index.is_trained = True
    faiss.write_index(_scaled(faiss, model, index), path)


def _scaled(faiss: Any, model: Model, index: Any) -> Any:
    if model.metric != "cosine":
        return index
    scaled = faiss.IndexPreTransform(faiss.NormalizationTransform(model.n_features, 2.0), index)
    scaled.is_trained = True
    return scaled
