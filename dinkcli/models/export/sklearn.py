"""scikit-learn, through skops and without a pickle: a fitted KMeans.

Under cosine it is a pipeline of a Normalizer and that KMeans, with a learned map one of a PCA that
holds the map and the KMeans. ``predict`` takes float32 rows, as the centres are float32.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from dinkcli.data.extras import require
from dinkcli.models.model import Model


def write(model: Model, path: str) -> None:
    """Writes the estimator; ``skops.io.load(path)`` reads it."""
    skops = require("skops.io", "sklearn", "scikit-learn export")
    centers = np.ascontiguousarray(model.cluster_centers)
    estimator = _part("cluster").KMeans(model.n_clusters, init=centers, n_init=1, max_iter=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one step does not converge, and is not meant to
        estimator.fit(centers)
    estimator.cluster_centers_ = centers
    estimator.labels_ = np.arange(model.n_clusters, dtype=np.int32)
    steps = [estimator]
    if model.metric == "cosine":
        steps.insert(0, _part("preprocessing").Normalizer())
    if model.map is not None:
        # A PCA subtracts a mean and multiplies by a matrix, whatever that is.
        some = np.eye(model.n_features + 1, model.n_features, dtype=np.float32)
        transform = _part("decomposition").PCA(model.n_features).fit(some)
        transform.mean_, transform.components_ = model.origin, np.ascontiguousarray(model.map.T)
        steps.insert(0, transform)
    whole = _part("pipeline").make_pipeline(*steps) if len(steps) > 1 else estimator
    skops.dump(whole, path)


def _part(name: str) -> Any:
    return require(f"sklearn.{name}", "sklearn", "scikit-learn export")
