"""What a model keeps of the rows of each centre, so that a mean can go on without them.

Weight, mean and squared deviation are added without cancellation (Chan, Golub, LeVeque 1983; so
does BETULA, arXiv 2006.12881); distances are counted in bins of equal ratio, the same for all
models, so that counts of two models add up. Shapes: C centres, D features, B rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Squared distances from 2 ** -96 to 2 ** 96, four bins an octave of theirs: 9 % of a distance each.
_PER_OCTAVE = 4
_LOWEST = -96
N_BINS = 768
_STORED = 96  # bins beside each other that a file holds; a factor of 2 ** 24 in squared distance


@dataclass
class Statistics:
    """Of the rows that were assigned to each centre so far.

    Attributes:
        weights: (C,) float64.
        means: (C, D) float64.
        deviations: (C,) float64, sum of weight times squared distance to the mean.
        distances: (C, N_BINS) float64, weight by squared distance to the centre that the rows had
            when they came.
    """

    weights: np.ndarray
    means: np.ndarray
    deviations: np.ndarray
    distances: np.ndarray

    def __getitem__(self, where: np.ndarray) -> Statistics:
        return Statistics(*(each[where] for each in self._arrays()))

    def joined(self, other: Statistics) -> Statistics:
        """Of the centres of both, those of ``other`` at the end."""
        pairs = zip(self._arrays(), other._arrays(), strict=True)
        return Statistics(*map(np.concatenate, pairs))

    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return self.weights, self.means, self.deviations, self.distances

    @classmethod
    def empty(cls, n_centers: int, n_features: int) -> Statistics:
        shapes = (n_centers,), (n_centers, n_features), (n_centers,), (n_centers, N_BINS)
        return cls(*map(np.zeros, shapes))

    @classmethod
    def of_rows(
        cls,
        rows: np.ndarray,
        labels: np.ndarray,
        squared_distances: np.ndarray,
        weights: np.ndarray,
        centers: np.ndarray,
    ) -> Statistics:
        """Of ``rows`` (B, D) with the ``labels`` (B,), as the model compares them.

        Args:
            centers: (C, D), near the means: sums are of differences to them.
        """
        found = cls.empty(*centers.shape)
        order = np.argsort(labels, kind="stable")
        present, starts = np.unique(labels[order], return_index=True)
        found.weights[:] = np.bincount(labels, weights, len(centers))
        np.add.at(found.distances, (labels, bins(squared_distances)), weights)
        if len(present):
            away = rows[order].astype(np.float64) - centers[labels[order]]
            weighed = weights[order, None] * away
            shift = np.add.reduceat(weighed, starts) / np.maximum(
                found.weights[present, None], 1e-300
            )
            squares = np.add.reduceat((weighed * away).sum(1), starts)
            found.means[present] = centers[present] + shift
            found.deviations[present] = np.maximum(
                squares - found.weights[present] * (shift**2).sum(1), 0
            )
        return found

    def added(self, other: Statistics) -> Statistics:
        """Of the rows of both, centre by centre."""
        weights = self.weights + other.weights
        share = np.divide(other.weights, weights, out=np.zeros_like(weights), where=weights > 0)
        apart = other.means - self.means
        squares = self.weights * share * (apart**2).sum(1)
        return Statistics(
            weights,
            self.means + share[:, None] * apart,
            self.deviations + other.deviations + squares,
            self.distances + other.distances,
        )

    def gathered(self, targets: np.ndarray, number: int) -> Statistics:
        """Of ``number`` centres, to each of which those with that number in ``targets`` (C,) add
        up."""
        weights = np.bincount(targets, self.weights, number)
        means = np.zeros((number, self.means.shape[1]))
        np.add.at(means, targets, self.weights[:, None] * self.means)
        means /= np.where(weights > 0, weights, 1)[:, None]
        apart = ((self.means - means[targets]) ** 2).sum(1)
        deviations = np.bincount(targets, self.deviations + self.weights * apart, number)
        distances = np.zeros((number, N_BINS))
        np.add.at(distances, targets, self.distances)
        return Statistics(weights, means, deviations, distances)

    def faded(self, factor: float) -> Statistics:
        """With all weights times ``factor``."""
        return Statistics(
            self.weights * factor, self.means, self.deviations * factor, self.distances * factor
        )

    def quantiles(self, share: float) -> np.ndarray:
        """(C,) squared distances below which ``share`` of the weight lies; infinite without any."""
        counts = np.cumsum(self.distances, axis=1)
        wanted = share * counts[:, -1]
        bin_ = (counts < wanted[:, None]).sum(1).clip(max=N_BINS - 1)
        every = np.arange(len(counts))
        inside = self.distances[every, bin_]
        before = counts[every, bin_] - inside
        part = np.divide(wanted - before, inside, out=np.ones_like(wanted), where=inside > 0)
        quantiles = 2.0 ** ((bin_ + part.clip(0, 1)) / _PER_OCTAVE + _LOWEST)
        return np.where(counts[:, -1] > 0, quantiles, np.inf)

    def tensors(self, centers: np.ndarray) -> dict[str, np.ndarray]:
        """As they stand in the model file, by name; of the bins those with all of the weight.

        Args:
            centers: (K, D) float32 of the model. Where they are the means, as after a training,
                the model says all but the distances already.
        """
        used = np.flatnonzero(self.distances.sum(0))
        stop = int(used[-1]) + 1 if len(used) else _STORED
        first = max(0, stop - _STORED)
        stored = self.distances[:, first:stop].copy()
        if first < stop:
            stored[:, 0] += self.distances[:, :first].sum(1)
        tensors = {
            "statistics.distances": stored.astype(np.float32),
            "statistics.first_bin": np.array([first]),
        }
        if not np.array_equal(self.means, centers):
            tensors["statistics.weights"] = self.weights
            tensors["statistics.means"] = self.means
            tensors["statistics.deviations"] = self.deviations
        return tensors

    @classmethod
    def from_tensors(
        cls,
        tensors: dict[str, np.ndarray],
        weights: np.ndarray,
        means: np.ndarray,
        deviations: np.ndarray,
    ) -> Statistics:
        """What ``tensors`` gave; of a model as it was trained with its ``weights`` (K,), ``means``
        (K, D) and ``deviations`` (K,).

        Raises:
            ValueError: other shapes, or numbers that are no statistics.
        """
        weights = tensors.get("statistics.weights", weights)
        means = tensors.get("statistics.means", means)
        deviations = tensors.get("statistics.deviations", deviations)
        stored, first = tensors["statistics.distances"], tensors["statistics.first_bin"]
        c, d = tensors.get("centers", tensors["cluster_centers"]).shape
        shapes = [each.shape for each in (weights, means, deviations, first, stored[..., :0])]
        if (
            shapes != [(c,), (c, d), (c,), (1,), (c, 0)]
            or not 0 <= first[0] <= N_BINS - stored.shape[1]
        ):
            raise ValueError("statistics of other shapes than the centres")
        distances = np.zeros((c, N_BINS))
        distances[:, int(first[0]) : int(first[0]) + stored.shape[1]] = stored
        for values in (weights, deviations, distances):
            if not ((values >= 0) & (values < np.inf)).all():
                raise ValueError("statistics that are not finite, or negative")
        if not np.isfinite(means).all():
            raise ValueError("statistics with means that are not finite")
        return cls(*(each.astype(np.float64) for each in (weights, means, deviations, distances)))


def bins(squared_distances: np.ndarray) -> np.ndarray:
    """(B,) int64 bin of each squared distance (B,)."""
    with np.errstate(divide="ignore"):
        octave = np.log2(squared_distances.astype(np.float64)) - _LOWEST
    return np.floor(octave * _PER_OCTAVE).clip(0, N_BINS - 1).astype(np.int64)
