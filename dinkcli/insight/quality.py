"""What can be said of clusters without knowing true classes, in two passes over the rows.

Shapes: B rows in a block, K clusters, D features. Everything is summed in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dinkcli.insight.survey import View
from dinkcli.nearest.device import wide
from dinkcli.nearest.sums import segment_sums

_CLOSE = 1.05  # second distance over first


@dataclass(frozen=True)
class Quality:
    """Measures of a partition and its centres. None where a measure needs two clusters.

    Attributes:
        rows: N, bad rows not counted.
        bad_rows: those that were left out.
        inertia: sum of squared distances to the nearest centre.
        simplified_silhouette: mean over rows of (b - a) / max(a, b), with a the distance to the
            nearest centre and b to the second nearest (Hruschka et al. 2004). From -1 to 1, here
            at least 0; higher is better. Over all rows, which costs no more than a sample here.
        davies_bouldin: mean over clusters of the worst ratio of both spreads to the distance
            between two means (Davies and Bouldin 1979); lower is better.
        calinski_harabasz: variance between clusters over variance within (Calinski and Harabasz
            1974); higher is better.
        imbalance: K sum n_j^2 / N^2, as in faiss: 1 for equal sizes, K for one full cluster.
        ambiguous: share of rows whose second centre is at most 5 % farther than their first.
        sizes: (K,) int64 rows of each cluster.
        cluster_inertia: (K,) float64 inertia of each cluster.
        cluster_silhouette: (K,) float64 mean simplified silhouette, 0 for an empty cluster.
    """

    rows: int
    bad_rows: int
    inertia: float
    simplified_silhouette: float | None
    davies_bouldin: float | None
    calinski_harabasz: float | None
    imbalance: float
    ambiguous: float | None
    sizes: np.ndarray
    cluster_inertia: np.ndarray
    cluster_silhouette: np.ndarray


class FirstPass:
    """Sizes, means, silhouettes and inertia: what one look at the rows gives."""

    def __init__(self, n_clusters: int, n_features: int, device: torch.device | str = "cpu"):
        dtype = wide(torch.device(device))
        self.sizes = torch.zeros(n_clusters, dtype=dtype, device=device)
        self.inertia = torch.zeros_like(self.sizes)
        self.silhouette = torch.zeros_like(self.sizes)
        self.sums = torch.zeros(n_clusters, n_features, dtype=dtype, device=device)
        self.close = self.bad_rows = 0

    def add(self, view: View) -> None:
        k, labels = len(self.sizes), view.labels
        first, second = view.distances, view.second_distances
        self.sizes += torch.bincount(labels, minlength=k)
        self.sums += segment_sums(view.z.to(self.sums.dtype), labels, k)
        self.inertia += segment_sums(first.square(), labels, k)
        ratio = torch.where(second > 0, first / second, 1.0)
        self.silhouette += segment_sums(1 - ratio, labels, k)
        self.bad_rows += view.n_bad
        self.close += int((second <= _CLOSE * first).sum())

    @property
    def means(self) -> torch.Tensor:
        """(K, D); zero for an empty cluster."""
        return self.sums / self.sizes.clamp(min=1)[:, None]


class SecondPass:
    """Distances to the means that the first pass found."""

    def __init__(self, first: FirstPass):
        self.means = first.means
        self.distances = torch.zeros_like(first.sizes)
        self.squares = torch.zeros_like(first.sizes)

    def add(self, view: View) -> None:
        k = len(self.distances)
        residuals = view.z.to(self.means.dtype) - self.means[view.labels]
        squares = residuals.square().sum(1)
        self.squares += segment_sums(squares, view.labels, k)
        self.distances += segment_sums(squares.sqrt(), view.labels, k)


def quality(first: FirstPass, second: SecondPass | None) -> Quality:
    """The measures; without a second pass those that need one are None."""
    sizes = first.sizes.cpu().numpy()
    rows = sizes.sum()
    inertia, silhouette = first.inertia.cpu().numpy(), first.silhouette.cpu().numpy()
    several = len(sizes) > 1
    measures = (None, None) if second is None else _scatter(sizes, second)
    return Quality(
        rows=int(rows),
        bad_rows=first.bad_rows,
        inertia=float(inertia.sum()),
        simplified_silhouette=float(silhouette.sum() / rows) if several else None,
        davies_bouldin=measures[0],
        calinski_harabasz=measures[1],
        imbalance=float(len(sizes) * (sizes**2).sum() / rows**2),
        ambiguous=float(first.close / rows) if several else None,
        sizes=sizes.astype(np.int64),
        cluster_inertia=inertia,
        cluster_silhouette=silhouette / np.maximum(sizes, 1),
    )


def _scatter(sizes: np.ndarray, second: SecondPass) -> tuple[float | None, float | None]:
    """(Davies-Bouldin, Calinski-Harabasz) over the clusters that are not empty."""
    full = sizes > 0
    sizes = sizes[full]
    rows, n_clusters = sizes.sum(), len(sizes)
    if n_clusters < 2 or n_clusters >= rows:
        return None, None
    means = second.means.cpu().numpy()[full]
    spread = second.distances.cpu().numpy()[full] / sizes
    within = second.squares.cpu().numpy()[full].sum()
    between = (sizes[:, None] * (means - sizes @ means / rows) ** 2).sum()
    worst = np.zeros(n_clusters)
    for j, mean in enumerate(means):
        apart = np.sqrt(((means - mean) ** 2).sum(1))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = (spread + spread[j]) / apart
        ratio[apart == 0] = 0.0  # as scikit-learn does; the cluster itself is one of these
        worst[j] = ratio.max()
    degrees = (rows - n_clusters) / (n_clusters - 1)
    return float(worst.mean()), float(between / within * degrees) if within else 1.0
