"""faiss: a flat index of the centres, whose ``search(rows, 1)`` gives distances and clusters, or an
inverted file with the centres as its lists, trained and empty, for rows to be added to.

Under cosine the index scales rows to norm 1 before it adds or searches; a learned map is applied
to them.
"""

from __future__ import annotations

import numpy as np

from dinkcli.data.extras import require
from dinkcli.models.model import Model


def write(model: Model, path: str, inverted: bool = False) -> None:
    """Writes an IndexFlatL2, or an ``inverted`` IndexIVFFlat without rows, behind what the metric
    does to rows."""
    faiss = require("faiss", "faiss", "faiss export")
    k, d = model.n_clusters, model.n_features
    index = flat = faiss.IndexFlatL2(d)
    flat.add(np.ascontiguousarray(model.cluster_centers))
    if inverted:
        index = faiss.IndexIVFFlat(flat, d, k, faiss.METRIC_L2)
        index.is_trained = True
    transform = None
    if model.metric == "cosine":
        transform = faiss.NormalizationTransform(d, 2.0)
    elif model.map is not None and model.origin is not None:
        transform = faiss.LinearTransform(d, d, True)
        shift = -(model.origin.astype(np.float64) @ model.map)
        faiss.copy_array_to_vector(np.ascontiguousarray(model.map.T).ravel(), transform.A)
        faiss.copy_array_to_vector(shift.astype(np.float32), transform.b)
        transform.is_trained = True
    if transform is not None:
        index = faiss.IndexPreTransform(transform, index)
        index.is_trained = True
    faiss.write_index(index, path)
