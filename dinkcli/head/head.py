"""The learnable cluster head of Dink-Net.

Shapes: B rows in a batch, K clusters, D features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dinkcli.head.objective import dilation_loss, tempered_shrink_loss
from dinkcli.nearest.index import CenterIndex
from dinkcli.nearest.probabilities import Probabilities
from dinkcli.options import LEAST_TEMPERATURE


class DinkClusterHead(nn.Module):
    """K cluster centres as a parameter, with the losses that move them.

    Put it behind an encoder and add its two losses to your own, or let ``dinkcli.train`` fit it
    to fixed embeddings. The state dict has one key, ``cluster_centers``, (K, D).

    Source: Liu et al., "Dink-Net: Neural Clustering on Large Graphs", ICML 2023.

    Args:
        n_clusters: K, at least 1.
        n_features: D, at least 1.

    Raises:
        ValueError: if ``n_clusters`` or ``n_features`` is below 1.
    """

    def __init__(self, n_clusters: int, n_features: int):
        super().__init__()
        if n_clusters < 1 or n_features < 1:
            raise ValueError(
                f"n_clusters and n_features must be at least 1, got {n_clusters} and {n_features}"
            )
        self.n_clusters = n_clusters
        self.n_features = n_features
        self.cluster_centers = nn.Parameter(torch.empty(n_clusters, n_features))
        self.reset_cluster_centers()

    @torch.no_grad()
    def reset_cluster_centers(self, cluster_centers: Tensor | None = None) -> None:
        """Copies the given (K, D) tensor into the centres; Xavier uniform without one.

        Raises:
            ValueError: if the shape of ``cluster_centers`` is not (K, D); both are named.
        """
        if cluster_centers is None:
            nn.init.xavier_uniform_(self.cluster_centers)
            return
        if cluster_centers.shape != self.cluster_centers.shape:
            raise ValueError(
                f"cluster_centers has shape {tuple(cluster_centers.shape)}, "
                f"expected {tuple(self.cluster_centers.shape)} (n_clusters, n_features)"
            )
        self.cluster_centers.copy_(cluster_centers)

    def forward(self, z: Tensor, temperature: float = math.inf) -> tuple[Tensor, Tensor]:
        """(dilation_loss, shrink_loss), two scalars of at least float32.

        Args:
            z: (B, D), B at least 1.
            temperature: of the shrink loss, in units of a squared distance. Infinity, the
                default, is the paper's Eq. 6; 0 is the k-means objective.

        Raises:
            ValueError: if ``z`` is not (B, D), has no rows, or the temperature is negative, NaN,
                or above 0 and below 1e-30.
        """
        self._check(z)
        if len(z) == 0:
            raise ValueError("z has no rows; the losses are means over at least one")
        if not (temperature == 0 or temperature >= LEAST_TEMPERATURE):
            raise ValueError(
                f"temperature must be 0 or at least {LEAST_TEMPERATURE}, got {temperature}"
            )
        shrink = tempered_shrink_loss(z, self.cluster_centers, temperature)
        return dilation_loss(self.cluster_centers), shrink

    @torch.no_grad()
    def cluster(self, z: Tensor, soft: bool = False) -> Tensor:
        """The clusters of the rows of ``z`` (B, D), without a gradient.

        Returns:
            Hard: index of the nearest centre, (B,) int64, the lowest one of a tie, whatever the
            batch. Soft: softmax over centres of minus the Euclidean distance, (B, K).

        Raises:
            ValueError: if ``z`` is not (B, D).
        """
        self._check(z)
        index = CenterIndex(self.cluster_centers)
        if not soft:
            return index.labels(z)
        soften = Probabilities(index, temperature=1.0, squared=False)
        return torch.cat([soften(rows, index.labels(rows)) for rows in index.chunks(z)])

    predict = cluster

    def extra_repr(self) -> str:
        return f"n_clusters={self.n_clusters}, n_features={self.n_features}"

    def _check(self, z: Tensor) -> None:
        if z.ndim != 2 or z.shape[1] != self.n_features:
            raise ValueError(
                f"z has shape {tuple(z.shape)}, expected (batch, {self.n_features}) "
                f"to go with cluster_centers {tuple(self.cluster_centers.shape)}"
            )
