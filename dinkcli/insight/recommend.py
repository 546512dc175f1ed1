"""Recommends one of many numbers of clusters, or one that works where none stands out.

Needs no torch: it judges figures that ``sweeper`` has measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from dinkcli.errors import InputError

if TYPE_CHECKING:
    import numpy as np

# What makes a K clear. docs/LOG.md has the figures of data with and without one.
LEAST_EXCESS = 0.03
LEAST_STABILITY = 0.8
_NEAR = 1.2  # numbers within this factor are the same answer
_PEAK = 0.9  # of the best excess, which no number farther away may reach


@dataclass(frozen=True)
class Candidate:
    """What is known of one K.

    Attributes:
        n_clusters: K.
        inertia: over all rows, after passes that all K share.
        silhouette: mean simplified silhouette of the rows of one half of the sample under the
            centres found on the other.
        noise_silhouette: the same on structureless noise of the data's spread.
        stability: adjusted Rand index of the partitions that the centres of either half make of
            the sample.
    """

    n_clusters: int
    inertia: float
    silhouette: float
    noise_silhouette: float
    stability: float

    @property
    def excess(self) -> float:
        """How far the silhouette is above that of noise."""
        return self.silhouette - self.noise_silhouette


@dataclass(frozen=True)
class Sweep:
    """Every K that was tried, and what they say.

    Attributes:
        candidates: in ascending order.
        n_clusters: the K that stands out, or None.
        reason: why that one, or why there is no clear one.
        workable: a K to work with in any case: ``n_clusters`` where that is clear, else the one
            that separates best from noise and is found again best, both weighed alike.
        workable_reason: why that one.
        bad_rows: rows that were left out.
        cluster_centers: (K, D) float32, centres for the workable K; training makes better ones.
        offset: (D,) float64 that they are given less of, or None.
    """

    candidates: list[Candidate]
    n_clusters: int | None
    reason: str
    workable: int
    workable_reason: str
    bad_rows: int = 0
    cluster_centers: np.ndarray | None = field(default=None, compare=False, repr=False)
    offset: np.ndarray | None = field(default=None, compare=False, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "n_clusters": self.n_clusters,
            "reason": self.reason,
            "workable": self.workable,
            "workable_reason": self.workable_reason,
            "bad_rows": self.bad_rows,
            "candidates": [asdict(candidate) for candidate in self.candidates],
        }


def recommend(candidates: Sequence[Candidate], bad_rows: int = 0) -> Sweep:
    """What the candidates, in ascending order, say."""
    clear, reason = clear_number(candidates)
    if clear is not None:
        return Sweep(list(candidates), clear, reason, clear, "it is clear", bad_rows)
    return Sweep(list(candidates), None, reason, *workable_number(candidates), bad_rows)


def number_of(found: Sweep, wanted: str, name: str, warn: Callable[[str], object]) -> int:
    """The clear K; where there is none, for "auto" a workable one with a warning.

    Raises:
        InputError: "clear" was wanted.
    """
    if found.n_clusters is not None:
        return found.n_clusters
    if wanted == "clear":
        raise InputError(
            f"{name}: no clear K: {found.reason}; {found.workable} would do, or give a number"
        )
    warn(f"no clear K: {found.reason}. Taking K = {found.workable}: {found.workable_reason}")
    return found.workable


def clear_number(candidates: Sequence[Candidate]) -> tuple[int | None, str]:
    """(K, reason), or (None, why there is no clear one).

    The silhouette is compared with that of noise, which has a high one too in few dimensions. A
    clear K stands out from noise, is found again on other rows, and is a peak.
    """
    best = _best(candidates)
    k = best.n_clusters
    figures = (
        f"silhouette {best.silhouette:.3f} where noise has {best.noise_silhouette:.3f}, "
        f"stability {best.stability:.2f}"
    )
    if best.excess < LEAST_EXCESS:
        return None, f"no K stands out from structureless noise; the nearest is {k}: {figures}"
    if best.stability < LEAST_STABILITY:
        return None, f"two halves of the data disagree on the clusters even at {k}: {figures}"
    rivals = [c for c in candidates if abs(math.log(c.n_clusters / k)) > math.log(_NEAR)]
    if not rivals:
        return k, f"the best of its neighbours: {figures}; try a wider range"
    second = max(rivals, key=lambda c: c.excess)
    if second.excess > _PEAK * best.excess:
        return None, (
            f"{second.n_clusters} is as good as {k}: {figures}; "
            f"{second.n_clusters} has silhouette {second.silhouette:.3f} where noise has "
            f"{second.noise_silhouette:.3f}, stability {second.stability:.2f}"
        )
    return k, (
        f"{figures}; next best is {second.n_clusters} at {second.silhouette:.3f}"
        f"{_edge(k, candidates)}"
    )


def workable_number(candidates: Sequence[Candidate]) -> tuple[int, str]:
    """(K, reason) where no K is clear: the highest excess times stability."""
    best = max(candidates, key=lambda c: max(0.0, c.excess) * max(0.0, c.stability))
    k = best.n_clusters
    if best.excess < LEAST_EXCESS:
        return k, "no number is better than another; this one is as good as any"
    return k, (
        f"it is the best of both: {best.excess:.3f} above noise, and two halves of the data agree "
        f"on the clusters to {best.stability:.2f}{_edge(k, candidates)}"
    )


def _edge(k: int, candidates: Sequence[Candidate]) -> str:
    """Advice where K lies at an end of the range, beyond which it might be better."""
    first, last = candidates[0].n_clusters, candidates[-1].n_clusters
    if k * _NEAR > last:
        wider = f"-k {first}:{4 * last}"
        return f"; it lies at the end of the range, so look higher with dink sweep {wider}"
    if first > 2 and k <= first * _NEAR:
        return f"; it lies at the start of the range, so look lower with dink sweep -k 2:{last}"
    return ""


def _best(candidates: Sequence[Candidate]) -> Candidate:
    """The highest excess; or a larger K nearly as high if it is no less stable.

    Two true clusters near each other have a higher silhouette as one. But one cluster too many
    cuts a true one somewhere else in either half, which costs about 1/K of the stability.
    """
    highest = max(candidates, key=lambda c: c.excess)
    larger = [
        c
        for c in candidates
        if c.n_clusters > highest.n_clusters
        and c.excess >= _PEAK * highest.excess
        and c.stability >= highest.stability - 0.25 / c.n_clusters
    ]
    return max(larger, key=lambda c: c.n_clusters, default=highest)
