"""The options of a run: a UsageError names the parameter of a value out of range, or of two that
exclude each other. Needs no torch, so that such errors are quick.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from dinkcli.errors import UsageError

LEARNED = "learned"
METRICS = ("euclidean", "cosine", LEARNED)
CHOSEN = ("auto", "clear")
SEEDINGS = ("kmeans++", "random", "xavier")
GIVEN = "given"
PROBABILITY_TYPES = ("float32", "float16")
SAMPLES = ("balanced", "proportional", "prototypes", "diverse")
_LARGEST_DILATION = 1e12
LEAST_TEMPERATURE = 1e-30  # but for 0: float32 holds no smaller squared distances
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def parse_seconds(text: str) -> float:
    """The seconds of ``30s``, ``5m`` or ``2h``; raises UsageError for anything else, or 0."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([smh])", text.strip())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if seconds == 0:
        raise UsageError(f"`checkpoint_every` {text}: expected a time such as 30s, 5m or 2h")
    return seconds


def most_rows(limit: str | int, n_rows: int, n_clusters: int) -> int:
    """The rows that a cluster may have at most, by a ``limit`` that is a number, or a multiple of
    the mean such as 1.2x; raises UsageError for neither, or too few for all rows."""
    match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?|\.\d+) ?x", str(limit).strip())
    if match is None:
        raise UsageError(
            f"`max_size` {limit}: expected a number of rows, or a multiple of the mean such as 1.2x"
        )
    least = -(-n_rows // n_clusters)
    most = int(match[1] or 0)
    if match[2] and float(match[2]) >= 1:
        # A mean that is no whole number does not forbid what is nearest to it.
        most = max(least, int(float(match[2]) * n_rows / n_clusters + 1e-9))
    if most < least:
        raise UsageError(
            f"`max_size` {limit}: {n_clusters} clusters cannot hold {n_rows} rows like that; "
            f"give at least {least}, or 1x"
        )
    return most


def _expect(fine: bool, parameter: str, value: object, expected: str) -> None:
    """Raises UsageError for a value that is not fine."""
    if not fine:
        raise UsageError(f"`{parameter}` {value}: expected {expected}")


def _expect_one(value: str, parameter: str, choices: tuple[str, ...]) -> None:
    _expect(value in choices, parameter, value, f"one of {', '.join(choices)}")


def _expect_seed(seed: int) -> None:
    _expect(0 <= seed < 1 << 63, "seed", seed, "at least 0 and less than 2^63")


@dataclass(frozen=True)
class TrainOptions:
    """What the result depends on, besides the data and the device: arguments of ``dinkcli.train``,
    but that ``init`` is "given" where ``Trainer`` gets centres."""

    n_clusters: int | str
    init: str = "kmeans++"
    metric: str = "euclidean"
    temperature: float | str = "auto"
    dilation: float | None = None
    refine: bool = True
    n_init: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    tol: float = 1e-4
    seed: int = 0
    max_size: str | int | None = None

    def __post_init__(self) -> None:
        k, heat, weight = self.n_clusters, self.temperature, self.dilation
        if isinstance(k, str):
            expected = "a number of clusters, auto, clear, or a range such as 5:300"
            _expect(k in CHOSEN or ":" in k, "n_clusters", k, expected)
        else:
            _expect(k >= 1, "n_clusters", k, "at least 1")
        for name in ("n_init", "epochs", "batch_size"):
            value = getattr(self, name)
            _expect(value is None or value >= 1, name, value, "at least 1")
        _expect_seed(self.seed)
        _expect_one(self.metric, "metric", METRICS)
        if self.metric == LEARNED and heat != "auto":
            raise UsageError(f"`metric` learned: goes with `temperature` auto, not {heat}")
        if self.init != GIVEN:
            _expect_one(self.init, "init", SEEDINGS)
        number = isinstance(heat, (int, float)) and (heat == 0 or heat >= LEAST_TEMPERATURE)
        expected = f"auto, inf, 0, or a number of at least {LEAST_TEMPERATURE}"
        _expect(heat == "auto" or number, "temperature", heat, expected)
        fine = weight is None or 0 <= weight <= _LARGEST_DILATION
        _expect(fine, "dilation", weight, f"a number from 0 to {_LARGEST_DILATION:.0e}")
        if self.max_size is not None:
            most_rows(self.max_size, 1, 1)
            if heat not in ("auto", 0):
                raise UsageError(f"`max_size` goes with `temperature` auto or 0, not with {heat}")
        _expect(0 <= self.tol < 1, "tol", self.tol, "a number from 0 to below 1")

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON: an infinite temperature becomes the string "inf"."""
        return {k: "inf" if v == math.inf else v for k, v in asdict(self).items()}

    def check_rows(self, n_rows: int, source: str) -> None:
        """Raises UsageError when there are more clusters than rows, or too small ones for them."""
        if self.max_size is not None:
            most_rows(self.max_size, n_rows, self.k)
        if self.k > n_rows:
            raise UsageError(
                f"`n_clusters` {self.k}: more clusters than the {n_rows} rows of {source}"
            )

    @property
    def k(self) -> int:
        """K, once it is chosen."""
        return int(self.n_clusters)

    @property
    def literal(self) -> bool:
        return self.temperature == math.inf

    @property
    def dilation_weight(self) -> float:
        return float(self.literal) if self.dilation is None else self.dilation


@dataclass(frozen=True)
class AssignOptions:
    """What is computed of each row: arguments of ``dinkcli.assign``, and also the ``top`` M
    clusters with their probabilities, and the ``distance`` to the nearest centre."""

    soft: bool = False
    top: int | None = None
    distance: bool = False
    temperature: float | None = None
    probability_type: str = "float32"
    min_prob: float | None = None
    max_distance: float | None = None
    max_size: str | int | None = None

    def __post_init__(self) -> None:
        if self.max_size is not None:
            most_rows(self.max_size, 1, 1)
            if self.needs_probabilities or self.marks_outliers:
                raise UsageError(
                    "`max_size` gives rows a cluster that need not be the nearest one; leave out "
                    "`soft`, `top`, `min_prob` and `max_distance`"
                )
        if self.soft and self.top is not None:
            raise UsageError("`soft` gives all probabilities, `top` only some: choose one of them")
        top, heat, least, most = self.top, self.temperature, self.min_prob, self.max_distance
        _expect(top is None or top >= 1, "top", top, "at least 1")
        fine = heat is None or LEAST_TEMPERATURE <= heat < math.inf
        _expect(fine, "temperature", heat, f"a number above 0, and at least {LEAST_TEMPERATURE}")
        _expect_one(self.probability_type, "probability_type", PROBABILITY_TYPES)
        _expect(least is None or 0 <= least <= 1, "min_prob", least, "a number from 0 to 1")
        _expect(most is None or most >= 0, "max_distance", most, "at least 0")

    def check_clusters(self, n_clusters: int) -> None:
        """Raises UsageError when more clusters are asked for than there are."""
        if self.top is not None and self.top > n_clusters:
            raise UsageError(f"`top` {self.top}: the model has {n_clusters} clusters")

    @property
    def needs_probabilities(self) -> bool:
        return self.soft or self.top is not None or self.min_prob is not None

    @property
    def labels_alone(self) -> bool:
        """Whether nothing but the nearest centre counts."""
        return not (self.distance or self.marks_outliers or self.needs_probabilities)

    @property
    def marks_outliers(self) -> bool:
        return self.min_prob is not None or self.max_distance is not None


HARD = AssignOptions()


@dataclass(frozen=True)
class UpdateOptions:
    """How new rows change a model. Raises UsageError for numbers out of range."""

    freeze: bool = False  # no centre moves; what comes is counted all the same
    # What a new cluster must lower the inertia by, in mean squared distances of rows to their
    # centre; infinite for no new clusters.
    birth_price: float = 5.0
    min_size: int = 5  # rows that a new cluster has at least
    # Updates after which what was there counts half. A cluster below the weight of one row retires.
    half_life: float | None = None
    max_size: str | int | None = None  # as for ``AssignOptions``
    again: bool = False  # count rows once more that were taken in before

    def __post_init__(self) -> None:
        life = self.half_life
        _expect(self.birth_price > 0, "birth_price", self.birth_price, "a positive number")
        _expect(self.min_size >= 2, "min_size", self.min_size, "2 or more")
        fine = life is None or 0 < life < math.inf
        _expect(fine, "half_life", life, "a positive number of updates")


@dataclass(frozen=True)
class DedupOptions:
    """Which rows are near-duplicates, and which of them stays, as for ``dinkcli.dedup``."""

    max_distance: float | None = None
    keep: str = "nearest"

    def __post_init__(self) -> None:
        fine = self.max_distance is None or 0 <= self.max_distance < math.inf
        _expect(fine, "max_distance", self.max_distance, "a number of at least 0")

    @property
    def column(self) -> str | None:
        return None if self.keep in ("nearest", "farthest", "first") else self.keep


@dataclass(frozen=True)
class SampleOptions:
    """What sample is wanted: arguments of ``dinkcli.sample``, with a file as ``quota``, and whether
    rows are ``weighted``."""

    number: int | None = None
    by: str = "balanced"
    quota: str | None = None
    levels: tuple[int, ...] = ()
    weighted: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.number is None) == (self.quota is None):
            raise UsageError("give the rows (`number`), or a file of them by cluster (`quota`)")
        _expect(self.number is None or self.number >= 1, "number", self.number, "at least 1")
        _expect_seed(self.seed)
        _expect_one(self.by, "by", SAMPLES)
        if self.levels and (self.quota is not None or self.by == "proportional"):
            raise UsageError("`levels` shares equally: leave out `quota` and `by` proportional")
        ascending = list(self.levels) == sorted({*self.levels}) and min(self.levels, default=1) > 0
        _expect(ascending, "levels", self.levels, "ascending numbers such as 10,100")
        if self.weighted and self.by in ("prototypes", "diverse"):
            raise UsageError(f"`by` {self.by} draws nothing: leave out `sample_weight`")
