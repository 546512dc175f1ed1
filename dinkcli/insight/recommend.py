"""Which of many numbers of clusters the data speak for, and which others look alike.

Needs no torch: it judges figures that ``sweeper`` has measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from dinkcli.errors import InputError
from dinkcli.results import Field, Result, Sheet

if TYPE_CHECKING:
    import numpy as np

# docs/LOG.md has the figures of data with and without a clear number.
_LEAST_EXCESS = 0.03  # of what is no noise,
_LEAST_SHARE = 0.2  # and of the silhouette of noise, which differs by a tenth from draw to draw
_LEAST_STABILITY = 0.8  # of what is clear
_NEAR = 1.2  # numbers within this factor are the same answer
_ALIKE = 0.9  # of the best: as good
_LEVEL = 0.8  # of the best score, for another number to stand out
_ROWS = 12  # of numbers in a table
_MEANINGS = (
    "stability: how alike the clusters of two halves of the data are; 1 is the same, 0 is chance. "
    "modularity: how many more neighbours share a cluster than by chance. score: the root of what "
    "the silhouette is above that of noise, times stability, times the square of modularity, "
    "averaged over like numbers.",
    "silhouette: how well rows fit their clusters, and how well noise of the same spread does.",
)
_DIP = 0.97  # of its score, to which it falls on the way to the best


@dataclass(frozen=True)
class Candidate:
    """What is known of one K.

    Attributes:
        n_clusters: K.
        inertia: of the sample's clusters around their means, scaled to all rows.
        silhouette: mean simplified silhouette of the rows of one half of the sample under the
            centres found on the other.
        noise_silhouette: the same on structureless noise of the data's spread.
        stability: adjusted Rand index of the partitions that the centres of either half make of
            the sample.
        modularity: of the graph of nearest neighbours, how many more links are within clusters
            than by chance; a share of all links.
    """

    n_clusters: int
    inertia: float
    silhouette: float
    noise_silhouette: float
    stability: float
    modularity: float

    @property
    def excess(self) -> float:
        """How far the silhouette is above that of noise."""
        return self.silhouette - self.noise_silhouette

    @property
    def is_structure(self) -> bool:
        """Whether that is more than chance."""
        return self.excess >= max(_LEAST_EXCESS, _LEAST_SHARE * self.noise_silhouette)


@dataclass(frozen=True)
class Sweep(Result):
    """Every K that was tried, and what they say.

    Attributes:
        candidates: in ascending order.
        n_clusters: the K that the data speak for clearly, or None.
        workable: a K to work with in any case: ``n_clusters`` where that is clear.
        structure: whether rows are nearer to the clusters of that than noise would be.
        alike: the lowest and the highest K around it that are nearly as good.
        levels: other K that stand out, ascending.
        reason: why that one, or why there is no clear one; one sentence.
        bad_rows: rows that were left out.
        cluster_centers: (K, D) float32, centres for the workable K; training makes better ones.
        offset: (D,) float64 that they are given less of, or None.
    """

    candidates: list[Candidate]
    n_clusters: int | None
    workable: int
    structure: bool
    alike: tuple[int, int]
    levels: list[int]
    reason: str
    bad_rows: int = 0
    cluster_centers: np.ndarray | None = field(default=None, compare=False, repr=False)
    offset: np.ndarray | None = field(default=None, compare=False, repr=False)

    _records = "candidates"

    def to_dict(self) -> dict[str, Any]:
        names = ("n_clusters", "workable", "structure", "alike", "levels", "reason", "bad_rows")
        document = {name: getattr(self, name) for name in names}
        return document | {"candidates": [asdict(candidate) for candidate in self.candidates]}

    @property
    def answer(self) -> str:
        """K, how wide it is, and why, in one line."""
        if not self.structure:
            return f"no structure: {self.reason}; K = {self.workable} is as good as any"
        low, high = self.alike
        alike = f"; {low} to {high} look alike" if low < high else ""
        return f"K = {self.workable}{alike}: {self.reason}"

    def sheets(self, name: str = "") -> list[Sheet]:
        """Tables for people; ``name`` is that of the data."""
        sheets = [Sheet(title=self.answer)]
        if self.levels:
            levels = " and ".join(map(str, self.levels))
            sheets.append(Sheet(title=f"{levels} stand out too: levels of one model"))
        scores = dict(zip(self.candidates, score(self.candidates), strict=True))
        most = max(1e-9, *scores.values())
        shown = self._worth_a_row()
        hidden = len(self.candidates) - len(shown)
        sheet = Sheet(
            "K",
            "score",
            Field(drop=9, bar=16),
            "stability",
            "modularity",
            Field("silhouette", "right", drop=3),
            Field("noise", "right", drop=4),
            Field("inertia", "right", drop=1),
            title=f"{name}: {len(self.candidates)} numbers of clusters".removeprefix(": "),
            notes=[f"--json lists {hidden} more." if hidden else "", *_MEANINGS],
        )
        for c in shown:
            sheet.add(
                f"{'> ' * (c.n_clusters == self.workable)}{c.n_clusters}",
                f"{scores[c]:.3f}",
                scores[c] / most,
                f"{c.stability:.2f}",
                f"{c.modularity:.2f}",
                f"{c.silhouette:.3f}",
                f"{c.noise_silhouette:.3f}",
                f"{c.inertia:.6g}",
            )
        return [*sheets, sheet]

    def _worth_a_row(self) -> list[Candidate]:
        """The best, the ends of those that look alike, levels, and some between them all."""
        named = {self.workable, *self.alike, *self.levels}
        some = len(self.candidates) / max(1, _ROWS - len(named))
        chosen = {int(i * some) for i in range(_ROWS)}
        return [c for i, c in enumerate(self.candidates) if i in chosen or c.n_clusters in named]


def number_of(found: Sweep, wanted: str, name: str) -> int:
    """The K of "auto"; that of "clear" only where it is.

    Raises:
        InputError: "clear" was wanted, and none is.
    """
    if wanted == "clear" and found.n_clusters is None:
        raise InputError(f"{name}: no clear K: {found.answer}; give a number, or `n_clusters` auto")
    return found.workable


def recommend(candidates: Sequence[Candidate], bad_rows: int = 0) -> Sweep:
    """What the candidates, in ascending order, say."""
    numbers = [c.n_clusters for c in candidates]
    scores = score(candidates)
    best = _clear(candidates)
    if best is not None:
        values = [c.excess for c in candidates]
        clear = best.n_clusters
        reason = (
            f"two halves of the data agree on these clusters ({best.stability:.2f} of 1), and "
            f"rows are nearer to them than noise would be (silhouette {best.silhouette:.2f} "
            f"for {best.noise_silhouette:.2f})"
        )
    else:
        values, clear = scores, None
        best = candidates[max(range(len(scores)), key=scores.__getitem__)]
        reason = (
            f"here two halves of the data agree on the clusters ({best.stability:.2f} of 1), "
            f"neighbours share one (modularity {best.modularity:.2f}), and rows are nearer to "
            f"them than noise would be (silhouette {best.silhouette:.2f} for "
            f"{best.noise_silhouette:.2f}), all three together best"
        )
    structure = best.is_structure
    if not structure:
        reason = (
            f"rows are no nearer to clusters than noise would be (silhouette "
            f"{best.silhouette:.2f} for {best.noise_silhouette:.2f})"
        )
    at = numbers.index(best.n_clusters)
    low, high = _run(values, at)
    levels = _levels(numbers, scores, at) if structure else []
    reason += _edge(numbers, at) if structure else ""
    alike = numbers[low], numbers[high]
    k = best.n_clusters
    return Sweep(list(candidates), clear, k, structure, alike, levels, reason, bad_rows)


def score(candidates: Sequence[Candidate]) -> list[float]:
    """Root of the excess, times stability, times the square of modularity, each averaged over the
    numbers within an octave, the nearer the more: the stability of one number depends much on
    which rows are in which half."""
    octaves = [math.log2(c.n_clusters) for c in candidates]
    logs = [
        math.log(max(1e-3, c.excess)) / 2
        + math.log(max(0.01, c.stability))
        + math.log(max(0.01, c.modularity)) * 2
        for c in candidates
    ]
    scores = []
    for at in octaves:
        weights = [max(0.0, 1 - abs(at - other)) for other in octaves]
        mean = sum(w * value for w, value in zip(weights, logs, strict=True)) / sum(weights)
        scores.append(math.exp(mean))
    return scores


def _clear(candidates: Sequence[Candidate]) -> Candidate | None:
    """The one that stands out from noise, is found again on other rows, and is a peak.

    The silhouette is compared with that of noise, which has a high one too in few dimensions.
    """
    best = highest(candidates)
    if not best.is_structure or best.stability < _LEAST_STABILITY:
        return None
    rivals = [c for c in candidates if not 1 / _NEAR <= c.n_clusters / best.n_clusters <= _NEAR]
    if any(c.excess > _ALIKE * best.excess for c in rivals):
        return None
    return best


def highest(candidates: Sequence[Candidate]) -> Candidate:
    """The highest excess; or of larger K nearly as high and no less stable the most stable.

    Two true clusters near each other have a higher silhouette as one. But one cluster too many
    cuts a true one somewhere else in either half, which costs about 1/K of the stability.
    """
    highest = max(candidates, key=lambda c: c.excess)
    larger = [
        c
        for c in candidates
        if c.n_clusters > highest.n_clusters
        and c.excess >= _ALIKE * highest.excess
        and c.stability >= highest.stability - 0.25 / c.n_clusters
    ]
    return max(larger, key=lambda c: c.stability, default=highest)


def _run(values: Sequence[float], at: int) -> tuple[int, int]:
    """The ends of the run around position ``at`` of values nearly as high as there."""
    low = high = at
    while low > 0 and values[low - 1] >= _ALIKE * values[at]:
        low -= 1
    while high + 1 < len(values) and values[high + 1] >= _ALIKE * values[at]:
        high += 1
    return low, high


def _levels(numbers: Sequence[int], scores: Sequence[float], at: int) -> list[int]:
    """Numbers at least an octave from the best that are the best of their octaves, and between
    which and the best there is a dip."""
    levels = []
    for i, (k, value) in enumerate(zip(numbers, scores, strict=True)):
        around = [v for n, v in zip(numbers, scores, strict=True) if k / 2 < n < 2 * k]
        between = scores[min(i, at) : max(i, at) + 1]
        if (
            abs(math.log2(k / numbers[at])) >= 1
            and value == max(around)
            and value >= _LEVEL * scores[at]
            and min(between) < _DIP * value
        ):
            levels.append(k)
    return levels


def _edge(numbers: Sequence[int], at: int) -> str:
    """Advice where K lies at an end of the range, beyond which it might be better."""
    if len(numbers) > 1 and at == len(numbers) - 1:
        return "; it is the largest that was tried, so look higher"
    if len(numbers) > 1 and at == 0 and numbers[0] > 2:
        return "; it is the smallest that was tried, so look lower"
    return ""
