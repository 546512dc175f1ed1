"""faiss: a flat index of the centres. ``index.search(rows, 1)`` gives distances and clusters.

Under cosine the index scales rows to norm 1 before it searches.
"""

from __future__ import annotations

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
    if model.metric == "cosine":
        index = faiss.IndexPreTransform(faiss.NormalizationTransform(model.n_features, 2.0), index)
    faiss.write_index(index, path)
