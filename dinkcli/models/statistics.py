"""What a model keeps of the rows of each centre, so that a mean can go on without them.

Weight, mean and squared deviation are added without cancellation (Chan, Golub, LeVeque 1983; so
does BETULA, arXiv 2006.12881). Shapes: C centres, D features, B rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

# Four bins for a factor of two in squared distance, 9 % of a distance each; from 2 ** -16 to 2 ** 8
# times the mean.
_PER_OCTAVE = 4
N_BINS = 96
_BELOW_MEAN = 64
VERY_FAR = 0.99  # of the rows of a centre are nearer than what counts as far
_FEW = 20  # rows, of which quantiles say little
_FARTHEST_BIN = 1 << 13


@dataclass
class Statistics:
    """Of the rows that were assigned to each centre so far.

    Attributes:
        deviations: sum of weight times squared distance to the mean.
        distances: weight by squared distance to the centre that the rows had when they came.
        first_bin: number of the first of the bins of these; bin i begins at 2 ** (i / 4).
    """

    weights: np.ndarray  # (C,) float64, as are the others
    means: np.ndarray  # (C, D)
    deviations: np.ndarray  # (C,)
    distances: np.ndarray  # (C, N_BINS)
    first_bin: int = field(kw_only=True)

    @classmethod
    def empty(cls, shape: tuple[int, ...], first_bin: int) -> Statistics:
        """Of centres of ``shape`` (C, D) without rows."""
        weights, deviations = np.zeros((2, shape[0]))
        distances = np.zeros((shape[0], N_BINS))
        return cls(weights, np.zeros(shape), deviations, distances, first_bin=first_bin)

    @classmethod
    def trained(cls, weights: np.ndarray, centers: np.ndarray, inertia: np.ndarray) -> Statistics:
        """Of centres that are means of rows of these weights and inertia, with no distances yet."""
        mean = inertia.sum() / max(float(weights.sum()), 1e-300)
        first = int(np.floor(np.log2(mean) * _PER_OCTAVE)) if mean > 0 else 0
        result = cls.empty(centers.shape, first - _BELOW_MEAN)
        result.weights[:], result.means[:], result.deviations[:] = weights, centers, inertia
        return result

    @classmethod
    def of_rows(
        cls,
        rows: np.ndarray,
        labels: np.ndarray,
        squared_distances: np.ndarray,
        weights: np.ndarray,
        centers: np.ndarray,
        first_bin: int,
    ) -> Statistics:
        """Of ``rows`` (B, D) as the model compares them; sums are of differences to ``centers``."""
        result = cls.empty(centers.shape, first_bin)
        result.weights[:] = np.bincount(labels, weights, len(centers))
        result.count(labels, squared_distances, weights)
        order = np.argsort(labels, kind="stable")
        present, starts = np.unique(labels[order], return_index=True)
        if len(present):
            total = result.weights[present]
            away = rows[order].astype(np.float64) - centers[labels[order]]
            weighed = weights[order, None] * away
            shift = np.add.reduceat(weighed, starts) / np.maximum(total[:, None], 1e-300)
            squares = np.add.reduceat((weighed * away).sum(1), starts)
            result.means[present] = centers[present] + shift
            result.deviations[present] = np.maximum(squares - total * (shift**2).sum(1), 0)
        return result

    def count(self, labels: np.ndarray, squared_distances: np.ndarray, weights: np.ndarray) -> None:
        """Counts rows (B,) by their distance alone."""
        cells = labels * N_BINS + self._bins(squared_distances)
        counts = np.bincount(cells, weights, self.distances.size)
        self.distances += counts.reshape(self.distances.shape)

    def __getitem__(self, where: np.ndarray) -> Statistics:
        return Statistics(*(each[where] for each in self._arrays()), first_bin=self.first_bin)

    def joined(self, other: Statistics) -> Statistics:
        """Of the centres of both, those of ``other`` at the end."""
        pairs = zip(self._arrays(), other._with_bins(self.first_bin)._arrays(), strict=True)
        return Statistics(*map(np.concatenate, pairs), first_bin=self.first_bin)

    def added(self, other: Statistics) -> Statistics:
        """Of the rows of both, centre by centre."""
        other = other._with_bins(self.first_bin)
        weights = self.weights + other.weights
        share = np.divide(other.weights, weights, out=np.zeros_like(weights), where=weights > 0)
        apart = other.means - self.means
        squares = self.weights * share * (apart**2).sum(1)
        return Statistics(
            weights,
            self.means + share[:, None] * apart,
            self.deviations + other.deviations + squares,
            self.distances + other.distances,
            first_bin=self.first_bin,
        )

    def gathered(self, targets: np.ndarray, number: int) -> Statistics:
        """Of ``number`` centres, each the sum of those with its number in ``targets`` (C,)."""
        result = Statistics.empty((number, self.means.shape[1]), self.first_bin)
        result.weights[:] = weights = np.bincount(targets, self.weights, number)
        np.add.at(result.means, targets, self.weights[:, None] * self.means)
        result.means /= np.where(weights > 0, weights, 1)[:, None]
        apart = ((self.means - result.means[targets]) ** 2).sum(1)
        result.deviations[:] = np.bincount(targets, self.deviations + self.weights * apart, number)
        np.add.at(result.distances, targets, self.distances)
        return result

    def faded(self, factor: float) -> Statistics:
        """With all weights times ``factor``."""
        parts = self.weights * factor, self.means, self.deviations * factor
        return Statistics(*parts, self.distances * factor, first_bin=self.first_bin)

    def quantiles(self, share: float) -> np.ndarray:
        """(C,) squared distances below which ``share`` of the weight lies: of a centre with few
        rows, of all rows; infinite where no distance is known."""
        counts = self._known()
        below = np.cumsum(counts, axis=1)
        wanted = share * below[:, -1]
        bins = (below < wanted[:, None]).sum(1).clip(max=N_BINS - 1)
        every = np.arange(len(counts))
        inside = counts[every, bins]
        before = below[every, bins] - inside
        part = np.divide(wanted - before, inside, out=np.ones_like(wanted), where=inside > 0)
        quantiles = 2.0 ** ((bins + part.clip(0, 1) + self.first_bin) / _PER_OCTAVE)
        return np.where(below[:, -1] > 0, quantiles, np.inf)

    def shares_beyond(self, centers: np.ndarray, squared_distances: np.ndarray) -> np.ndarray:
        """(M,) share of the weight of each of ``centers`` (M,) that lies in the bin of a squared
        distance (M,) or beyond; 1 where no distance is known."""
        beyond = np.cumsum(self._known()[centers, ::-1], axis=1)[:, ::-1]
        total = beyond[:, 0]
        share = beyond[np.arange(len(total)), self._bins(squared_distances)]
        return np.divide(share, total, out=np.ones_like(total), where=total > 0)

    def tensors(self, centers: np.ndarray) -> dict[str, np.ndarray]:
        """As they stand in the model file: where the ``centers`` of the model are the means, as
        after a training, the model says all but the distances already."""
        tensors: dict[str, np.ndarray] = {
            "statistics.distances": self.distances.astype(np.float32),
            "statistics.first_bin": np.array([self.first_bin], np.int64),
        }
        if not np.array_equal(self.means, centers):
            tensors["statistics.weights"] = self.weights
            tensors["statistics.means"] = self.means
            tensors["statistics.deviations"] = self.deviations
        return tensors

    @classmethod
    def from_tensors(cls, tensors: dict[str, np.ndarray], shape: tuple[int, ...]) -> Statistics:
        """Of centres of ``shape`` (C, D); raises ValueError for what are no statistics of them."""
        c, d = shape
        shapes = {"weights": (c,), "means": (c, d), "deviations": (c,), "distances": (c, N_BINS)}
        arrays = []
        for name, expected in shapes.items():
            values = tensors[f"statistics.{name}"].astype(np.float64)
            if values.shape != expected:
                raise ValueError(f"statistics.{name} {values.shape}, expected {expected}")
            if not np.isfinite(values).all() or (name != "means" and values.min() < 0):
                raise ValueError(f"statistics.{name} that are not finite, or negative")
            arrays.append(values)
        first = tensors["statistics.first_bin"]
        if first.shape != (1,) or not abs(float(first[0])) <= _FARTHEST_BIN:
            raise ValueError(f"statistics.first_bin is {first!r:.80}")
        return cls(*arrays, first_bin=int(first[0]))

    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return self.weights, self.means, self.deviations, self.distances

    def _with_bins(self, first_bin: int) -> Statistics:
        """The same with distances counted from another bin on."""
        if first_bin == self.first_bin:
            return self
        distances = np.zeros_like(self.distances)
        into = (np.arange(N_BINS) + self.first_bin - first_bin).clip(0, N_BINS - 1)
        np.add.at(distances.T, into, self.distances.T)
        return replace(self, distances=distances, first_bin=first_bin)

    def _known(self) -> np.ndarray:
        """(C, N_BINS) the distances, of a centre with few rows those of all."""
        counts = self.distances.copy()
        counts[counts.sum(1) < _FEW] = counts.sum(0)
        return counts

    def _bins(self, squared_distances: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            octave = np.log2(squared_distances.astype(np.float64))
        bins = np.floor(octave * _PER_OCTAVE) - self.first_bin
        return bins.clip(0, N_BINS - 1).astype(np.int64)


def root_mean(inertia: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(K,) roots of the mean squared distances; NaN for an empty cluster."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sizes > 0, np.sqrt(inertia / sizes), np.nan)
