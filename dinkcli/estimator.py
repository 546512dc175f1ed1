"""``DinkClustering``: the training behind scikit-learn's estimator interface.

Shapes: N rows, K clusters, D features.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch

from dinkcli import api
from dinkcli.data.machine import install_line
from dinkcli.errors import InputError
from dinkcli.insight.naming import update
from dinkcli.models.model import Model
from dinkcli.nearest.hardware import has_float64
from dinkcli.nearest.index import CenterIndex
from dinkcli.nearest.prepare import RowMap
from dinkcli.processes.device import resolve_device

try:
    from sklearn.base import (
        BaseEstimator,
        ClassNamePrefixFeaturesOutMixin,
        ClusterMixin,
        TransformerMixin,
    )
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        f"DinkClustering needs scikit-learn 1.6 or later: {install_line('sklearn')}"
    ) from error

_DTYPES = [np.float64, np.float32]


class DinkClustering(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator
):
    """Clusters rows as ``dink train`` does, as a scikit-learn estimator.

    Training is in float32; ``predict`` and ``transform`` compute in the dtype of their rows.

    Args:
        n_clusters: K; "auto", or a range such as "5:300", for the one that ``dinkcli.sweep``
            recommends.
        init: "kmeans++", "random", "xavier", or (K, D) centres.
        metric, temperature, dilation, refine, n_init, epochs, batch_size, tol, device: as for
            ``dinkcli.train``.
        random_state: int, ``numpy.random.RandomState`` or None, as everywhere in scikit-learn.

    Attributes:
        n_clusters_: K.
        cluster_centers_: (K, D), in the dtype of the rows.
        labels_: (N,) int32, the clusters of the rows of the last ``fit`` or ``partial_fit``.
        inertia_: weighted sum of squared distances of these rows to their centres.
        n_iter_: passes over all rows, or calls of ``partial_fit`` as far as there were any.
        cluster_weights_: (K,) float64, the weight of the rows that each centre is a mean of.
        n_features_in_: D.
        model_: the ``dinkcli.Model``, to be saved or exported.
    """

    def __init__(
        self,
        n_clusters: int | str = 8,
        *,
        init: str | np.ndarray = "kmeans++",
        metric: str = "euclidean",
        temperature: float | str = "auto",
        dilation: float | None = None,
        refine: bool = True,
        n_init: int | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        tol: float = 1e-4,
        random_state: Any = None,
        device: str = "auto",
    ):
        self.n_clusters = n_clusters
        self.init = init
        self.metric = metric
        self.temperature = temperature
        self.dilation = dilation
        self.refine = refine
        self.n_init = n_init
        self.epochs = epochs
        self.batch_size = batch_size
        self.tol = tol
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: object = None, sample_weight: Any = None) -> DinkClustering:
        """Trains on ``X`` (N, D); ``y`` is ignored, ``sample_weight`` is (N,).

        Raises:
            ValueError: as ``dinkcli.train`` (its errors are ValueErrors too).
        """
        X, sample_weight = self._rows(X, sample_weight, reset=True)  # noqa: N806
        self._fit(X, sample_weight)
        return self

    def partial_fit(self, X: Any, y: object = None, sample_weight: Any = None) -> DinkClustering:
        """Moves the centres by one batch ``X`` (B, D); the first call trains on its batch.

        This is ``dinkcli.update`` without new clusters: each centre stays the mean of all the rows
        that it was given so far. After ``fit`` it goes on from the fitted centres.

        Raises:
            ValueError: fewer distinct rows than clusters in the first batch; other features.
        """
        first = not hasattr(self, "model_")
        X, sample_weight = self._rows(X, sample_weight, reset=first)  # noqa: N806
        if first:
            self._fit(X, sample_weight)
            return self
        options: dict[str, Any] = {"device": self.device, "birth_price": math.inf, "again": True}
        result = update(self.model_, X, sample_weight=sample_weight, **options)
        self._adopt(result.model, self.cluster_centers_.dtype)
        self._measure(X, sample_weight)
        self.n_iter_ += 1
        return self

    @classmethod
    def from_model(cls, model: Model) -> DinkClustering:
        """A fitted estimator of a model, such as one that ``dinkcli.load`` has read.

        Raises:
            ValueError: an edited model, whose clusters own several centres.
        """
        if model.parts is not None:
            raise ValueError("an edited model has clusters of several centres, or of none")
        fitted = cls(model.n_clusters, metric=model.metric)
        fitted._adopt(model, np.dtype(np.float32))
        fitted.n_features_in_, fitted.n_iter_ = model.n_features, 1
        return fitted

    def predict(self, X: Any) -> np.ndarray:
        """The nearest centre of each row of ``X`` (N, D): (N,) int32."""
        return self._assigned(self._new_rows(X))[0]

    def transform(self, X: Any) -> np.ndarray:
        """Distances of the rows of ``X`` (N, D) to all centres: (N, K), in the dtype of ``X``."""
        z = self._new_rows(X)
        index = self._index(z)
        parts = [index.squared_distances(rows).sqrt_() for rows in index.chunks(z)]
        return torch.cat(parts).cpu().numpy()

    def score(self, X: Any, y: object = None, sample_weight: Any = None) -> float:
        """Minus the inertia of ``X`` (N, D): higher is better."""
        z = self._new_rows(X)
        weights = _check_sample_weight(sample_weight, X, dtype=z.cpu().numpy().dtype)
        return -float(self._assigned(z)[1] @ weights)

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)

    def _fit(self, X: np.ndarray, sample_weight: np.ndarray) -> None:
        # A clear error for a wrong type comes before options are compared with numbers.
        for name, kinds in (("n_clusters", (Integral, str)), ("tol", (Real,))):
            if not isinstance(getattr(self, name), kinds):
                raise ValueError(f"{name}={getattr(self, name)!r}: expected a number")
        options = self.get_params(deep=False)
        k = options.pop("n_clusters")
        options["seed"] = int(check_random_state(options.pop("random_state")).randint(2**31 - 1))
        if not isinstance(self.init, str):
            options["init"] = np.asarray(self.init)
        if (sample_weight != 1).any():
            options["sample_weight"] = sample_weight
        try:
            model = api.train(X, k if isinstance(k, str) else int(k), **options)
        except InputError:
            if isinstance(k, str):
                raise
            # scikit-learn's estimators warn where dink itself refuses.
            apart = np.asarray(X - X[:1], np.float32)[sample_weight > 0]
            distinct = len(np.unique(apart, axis=0))
            missing = k - distinct
            if distinct == 0 or missing <= 0 or self.metric == "cosine":
                raise
            warnings.warn(
                f"{distinct} distinct rows, fewer than n_clusters={k}: "
                f"{missing} clusters stay empty",
                ConvergenceWarning,
                stacklevel=3,
            )
            model = api.train(X, distinct, **options)
            # A copy of centre 0 is nearest to no row: the lowest index wins a tie.
            copies = np.repeat(model.cluster_centers[:1], missing, axis=0)
            centers = np.concatenate([model.cluster_centers, copies])
            sizes = np.append(model.cluster_sizes, np.zeros(missing))
            model = replace(model, cluster_centers=centers, cluster_sizes=sizes, statistics=None)
            model.training["metrics"]["cluster_inertia"] += [0.0] * missing
        self._adopt(model, X.dtype)
        passes = sum(step["phase"] == "pass" for step in model.training["history"])
        self.n_iter_ = max(1, passes - 1)
        self._measure(X, sample_weight)

    def _adopt(self, model: Model, dtype: np.dtype) -> None:
        centers = model.cluster_centers if model.maps else model.means
        self.model_, self.n_clusters_ = model, model.n_clusters
        self.cluster_centers_ = centers.astype(dtype)
        self.cluster_weights_ = model.cluster_sizes

    def _measure(self, X: np.ndarray, sample_weight: np.ndarray) -> None:
        self.labels_, squared_distances = self._assigned(self._prepared(X))
        self.inertia_ = float(squared_distances @ sample_weight)

    def _assigned(self, z: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Of each row of ``z`` (N, D) the nearest centre, (N,) int32, and the squared distance to
        it, (N,) float64."""
        near = self._index(z).nearest(z)
        labels, distances = near.labels.cpu().numpy(), near.squared_distances.cpu().numpy()
        return labels.astype(np.int32), distances.astype(np.float64)

    def _rows(self, X: Any, sample_weight: Any, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        X = validate_data(self, X, dtype=_DTYPES, order="C", reset=reset)  # noqa: N806
        return X, _check_sample_weight(sample_weight, X, dtype=X.dtype, ensure_non_negative=True)

    def _new_rows(self, X: Any) -> torch.Tensor:
        check_is_fitted(self)
        return self._prepared(validate_data(self, X, dtype=_DTYPES, order="C", reset=False))

    def _prepared(self, X: np.ndarray) -> torch.Tensor:
        device = resolve_device(self.device)
        z = torch.from_numpy(np.array(X, X.dtype if has_float64(device) else np.float32))
        z, model = z.to(device), self.model_
        if model.maps:
            origin = model.origin if model.offset is None else model.origin + model.offset
            return RowMap(*(torch.from_numpy(part).to(z) for part in (origin, model.map)))(z)
        return torch.nn.functional.normalize(z, dim=1) if model.metric == "cosine" else z

    def _index(self, z: torch.Tensor) -> CenterIndex:
        return CenterIndex(torch.from_numpy(self.cluster_centers_).to(z))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
