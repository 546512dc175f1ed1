"""The options of the jobs, checked. Needs no torch, so that usage errors are quick."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dinkcli.errors import UsageError

SAMPLES = ("balanced", "proportional", "prototypes", "diverse")


@dataclass(frozen=True)
class DedupOptions:
    """Which rows are near-duplicates, and which of them stays.

    Attributes:
        threshold: the least cosine similarity; None goes by ``distance``.
        distance: the largest Euclidean distance, between rows of norm 1 where the metric is cosine.
        keep: "nearest" to or "farthest" from its centre, the "first", or the name of a column of
            numbers, of which the row with the largest stays.
        keep_only: write only the rows that stay.

    Raises:
        UsageError: a value out of range, or none or both of the limits.
    """

    threshold: float | None = None
    distance: float | None = None
    keep: str = "nearest"
    keep_only: bool = False

    def __post_init__(self) -> None:
        if (self.threshold is None) == (self.distance is None):
            raise UsageError("give either the least similarity (--threshold) or a --distance")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise UsageError(
                f"--threshold {self.threshold}: expected a cosine similarity above 0, up to 1"
            )
        if self.distance is not None and not 0 <= self.distance < math.inf:
            raise UsageError(f"--distance {self.distance}: expected a number of at least 0")


@dataclass(frozen=True)
class SampleOptions:
    """What sample is wanted.

    Attributes:
        number: rows in it; None where ``quota`` says it.
        by: "balanced" (equal shares of the clusters), "proportional", or equal shares of
            "prototypes" (rows nearest to their centre) or "diverse" rows (farthest-first).
        quota: a file of rows by cluster, in place of shares.
        levels: groups of clusters on the levels of a tree, that have equal shares first.
        sample_weight: a column or file of weights; rows are drawn in proportion to them.
        seed: of all random draws.

    Raises:
        UsageError: a value out of range, or two that exclude each other.
    """

    number: int | None = None
    by: str = "balanced"
    quota: str | None = None
    levels: tuple[int, ...] = ()
    sample_weight: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.number is None) == (self.quota is None):
            raise UsageError("give how many rows (-n), or a file of them by cluster (--quota)")
        if self.number is not None and self.number < 1:
            raise UsageError(f"-n {self.number}: expected at least 1")
        if not 0 <= self.seed < 1 << 63:
            raise UsageError(f"--seed {self.seed}: expected at least 0 and less than 2^63")
        if self.by not in SAMPLES:
            raise UsageError(f"--by {self.by}: expected one of {', '.join(SAMPLES)}")
        if self.levels and (self.quota is not None or self.by == "proportional"):
            raise UsageError("--levels shares equally: leave out --quota and --by proportional")
        if any(level < 1 for level in self.levels) or list(self.levels) != sorted(set(self.levels)):
            raise UsageError(f"--levels {self.levels}: expected ascending numbers such as 10,100")
        if self.sample_weight is not None and self.by in ("prototypes", "diverse"):
            raise UsageError(f"--by {self.by} draws nothing: leave out --sample-weight")
