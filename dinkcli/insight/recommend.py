"""Which numbers of clusters to try, which of them the data speak for, and which others look alike.

Needs no torch: it judges figures that ``sweeper`` has measured.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from dinkcli.errors import InputError, UsageError
from dinkcli.results import Field, Result, Sheet

USUAL = "2:100"
_IN_AN_OCTAVE = 3
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
_LEAST_FIGURES = [[1e-3], [0.01], [0.01]]  # excess, stability and modularity that a score counts


def grid(first: int, last: int) -> list[int]:
    """Both, and the numbers between them of a grid that is the same for every range."""
    steps = range(_IN_AN_OCTAVE * last.bit_length())
    inner = {round(2 * 2 ** (step / _IN_AN_OCTAVE)) for step in steps}
    return sorted({first, last} | {k for k in inner if first < k < last})


def parse_numbers(text: str, n_rows: int | None = None) -> tuple[list[int], bool]:
    """(numbers of clusters, whether they may grow) of "5,10,20", "5:100" or "5:100:5".

    "5:100" stands for three numbers an octave, and then those around the best and beyond. A range
    ends, and a list leaves numbers out, where there would be fewer than two of ``n_rows`` for each
    cluster; UsageError where none is left.
    """
    most = sys.maxsize if n_rows is None else n_rows // 2
    wrong = UsageError(
        f"`n_clusters` {text}: expected numbers of at least 2 such as 5,10,20, a range such "
        "as 5:100, or one with a step such as 5:100:5"
    )
    try:
        parts = [[int(number) for number in part.split(":")] for part in text.split(",")]
    except ValueError:
        raise wrong from None
    numbers: set[int] = set()
    for first, *rest in parts:
        last, step = (*rest, 0, 0)[:2] if rest else (first, 0)
        if (len(rest) > 1 and step < 1) or len(rest) > 2 or not 2 <= first <= last:
            raise wrong
        if first <= most:
            last = min(last, most)
            numbers.update(range(first, last + 1, step) if step else grid(first, last))
    if not numbers:
        raise UsageError(
            f"`n_clusters` {text}: a sweep needs at least 2 rows for each cluster, and there "
            f"are {n_rows}"
        )
    return sorted(numbers), len(parts) == 1 and len(parts[0]) == 2


@dataclass(frozen=True)
class Candidate:
    """What is known of one K."""

    n_clusters: int
    inertia: float  # of the sample's clusters around their means, scaled to all rows
    # Mean simplified silhouette of the rows of one half of the sample under the centres found on
    # the other, and the same on structureless noise of the data's spread.
    silhouette: float
    noise_silhouette: float
    # Adjusted Rand index of the partitions that the centres of either half make of the sample.
    stability: float
    # Of the graph of nearest neighbours, the share of all links that are within clusters, less that
    # by chance.
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
        scores = dict(zip(self.candidates, score(self.candidates).tolist(), strict=True))
        most = max(1e-9, *scores.values())
        # The best, the ends of those that look alike, levels, and some between them all.
        named = {self.workable, *self.alike, *self.levels}
        some = len(self.candidates) / max(1, _ROWS - len(named))
        chosen = {int(i * some) for i in range(_ROWS)}
        shown = [c for i, c in enumerate(self.candidates) if i in chosen or c.n_clusters in named]
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


def number_of(found: Sweep, wanted: str, name: str) -> int:
    """The K of "auto"; that of "clear" only where it is, else InputError."""
    if wanted == "clear" and found.n_clusters is None:
        raise InputError(f"{name}: no clear K: {found.answer}; give a number, or `n_clusters` auto")
    return found.workable


def recommend(candidates: Sequence[Candidate], bad_rows: int = 0) -> Sweep:
    """What the candidates, in ascending order, say. One is clear that stands out from noise, is
    found again on other rows, and is a peak.

    The silhouette is compared with that of noise, which has a high one too in few dimensions.
    """
    scores, best = score(candidates), highest(candidates)
    rivals = [c for c in candidates if not 1 / _NEAR <= c.n_clusters / best.n_clusters <= _NEAR]
    is_peak = all(c.excess <= _ALIKE * best.excess for c in rivals)
    is_clear = is_peak and best.is_structure and best.stability >= _LEAST_STABILITY
    values = np.array([c.excess for c in candidates]) if is_clear else scores
    if not is_clear:
        best = candidates[int(scores.argmax())]
    numbers, levels = [c.n_clusters for c in candidates], list[int]()
    at = numbers.index(best.n_clusters)
    halves = f"({best.stability:.2f} of 1)"
    noise = f"(silhouette {best.silhouette:.2f} for {best.noise_silhouette:.2f})"
    if is_clear:
        reason = (
            f"two halves of the data agree on these clusters {halves}, and rows are nearer to them "
            f"than noise would be {noise}"
        )
    elif best.is_structure:
        reason = (
            f"here two halves of the data agree on the clusters {halves}, neighbours share one "
            f"(modularity {best.modularity:.2f}), and rows are nearer to them than noise would be "
            f"{noise}, all three together best"
        )
    else:
        reason = f"rows are no nearer to clusters than noise would be {noise}"
    if best.is_structure:
        levels = _levels(np.array(numbers), scores, at)
        if 0 < at == len(numbers) - 1:
            reason += "; it is the largest that was tried, so look higher"
        elif at == 0 and len(numbers) > 1 and numbers[0] > 2:
            reason += "; it is the smallest that was tried, so look lower"
    lower = np.flatnonzero(values < _ALIKE * values[at])  # which end the run around the best
    before, after = lower[lower < at], lower[lower > at]
    low, high = max(before, default=-1) + 1, min(after, default=len(numbers)) - 1
    k, alike = best.n_clusters, (numbers[low], numbers[high])
    clear = k if is_clear else None
    return Sweep(list(candidates), clear, k, best.is_structure, alike, levels, reason, bad_rows)


def score(candidates: Sequence[Candidate]) -> np.ndarray:
    """Root of the excess, times stability, times the square of modularity, each averaged over the
    numbers within an octave, the nearer the more: the stability of one number depends much on
    which rows are in which half."""
    numbers, *figures = np.array(
        [(c.n_clusters, c.excess, c.stability, c.modularity) for c in candidates]
    ).T
    excess, stability, modularity = np.log(np.maximum(figures, _LEAST_FIGURES))
    octaves = np.log2(numbers)
    weights = np.maximum(0, 1 - abs(octaves[:, None] - octaves))
    return np.exp(weights @ (excess / 2 + stability + modularity * 2) / weights.sum(1))


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


def _levels(numbers: np.ndarray, scores: np.ndarray, at: int) -> list[int]:
    """Numbers at least an octave from the best that are the best of their octaves, and between
    which and the best there is a dip."""
    levels = []
    for i, (k, value) in enumerate(zip(numbers.tolist(), scores.tolist(), strict=True)):
        if (
            max(k / numbers[at], numbers[at] / k) >= 2
            and value == scores[(k / 2 < numbers) & (numbers < 2 * k)].max()
            and value >= _LEVEL * scores[at]
            and scores[min(i, at) : max(i, at) + 1].min() < _DIP * value
        ):
            levels.append(k)
    return levels
