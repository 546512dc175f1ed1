"""What ``dink train`` shows: how far it is, what it found, and how that differs from before."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from dinkcli.cli.console import printable, say, say_bad_rows
from dinkcli.cli.progress import ProgressLines
from dinkcli.training.step import PHASES

if TYPE_CHECKING:
    from dinkcli.data.dataset import DataSet
    from dinkcli.models.matching import Drift, Matching
    from dinkcli.models.model import Model
    from dinkcli.training.step import Step

# Where each phase lies in one start, by the time that it takes on the sets of docs/benchmarks.md.
_IN_START = {"anneal": (0.0, 0.7), "refine": (0.7, 1.0)}
_USUAL_PASSES = 4
_WORTH_SAYING = 5e-4  # of the inertia
_MOST_LINES = 20  # of clusters that moved


@dataclass
class TrainProgress:
    """Shows the steps that it is called with.

    Attributes:
        n_rows: rows of the data.
        verbose: also show each step with the figures of the algorithm.
    """

    lines: ProgressLines
    n_rows: int
    verbose: bool
    _started: float = field(default_factory=time.monotonic)
    _rows: int = 0
    _search: float = 0.0  # part of the starts in the whole
    _at: tuple[str, int] = ("", 0)
    _first: float = 0.0
    _furthest: float = 0.0

    def __call__(self, step: Step) -> None:
        at = step.phase, step.start
        if at != self._at:
            self._at, self._first = at, step.inertia
        several = step.starts > 1 and step.phase in _IN_START
        what = f"start {step.start}/{step.starts}, " if several else ""
        better = 1 - step.inertia / self._first if self._first > 0 else 0.0
        # While cooling, the inertia is that of a warm objective: no figure to compare.
        told = step.phase != "anneal" and better > _WORTH_SAYING
        found = f"inertia down {better:.1%}" if told else ""
        words = PHASES[step.phase]
        if self.verbose:
            self.lines.details(self._details(step))
        # Moving centres goes back a little when larger moves become worth trying again.
        self._furthest = max(self._furthest, self._share(step))
        self.lines.update_share(what + words, self._furthest, found)

    def _share(self, step: Step) -> float:
        """How much of the training is behind us, measured in rows that are worked on."""
        position = step.done / max(1, step.total)
        if step.phase in _IN_START:
            low, high = _IN_START[step.phase]
            if not self._search:
                rows = step.rows / max(position, 1e-9) if step.phase == "anneal" else self.n_rows
                work = step.starts * rows / _IN_START["anneal"][1]
                self._search = work / (work + _USUAL_PASSES * self.n_rows)
            done = (step.start - 1 + low + (high - low) * position) / step.starts
            return self._search * done
        literal = step.temperature == float("inf")
        expected = step.total if literal else min(step.total, max(_USUAL_PASSES, step.done + 1))
        return self._search + (1 - self._search) * step.done / expected

    def _details(self, step: Step) -> str:
        self._rows += step.rows
        rate = self._rows / max(1e-9, time.monotonic() - self._started)
        return (
            f"{step.phase} {step.done}/{step.total}  inertia {step.inertia:.6g}  "
            f"T {step.temperature:.3g}  dilation {step.dilation_loss:.4g}  "
            f"shrink {step.shrink_loss:.4g}  clusters {step.smallest:.2%}..{step.largest:.2%}  "
            f"{rate:,.0f} rows/s"
        )


def summary(model: Model, target: str, seconds: float, verbose: bool) -> dict[str, Any]:
    """The summary as plain JSON; the history, which can be long, only when ``verbose``."""
    found = {
        "model": printable(target),
        "n_clusters": model.n_clusters,
        "n_features": model.n_features,
        "rows": model.training["input"]["rows"],
        "bad_rows": model.training["input"]["bad_rows"],
        **model.training["metrics"],
        "explained_variance": explained_variance(model),
        "cluster_sizes": model.cluster_sizes.tolist(),
        "seconds": round(seconds, 3),
    }
    return found | ({"history": model.training["history"]} if verbose else {})


def explained_variance(model: Model) -> float | None:
    """The share of the variance of the rows that lies between clusters and not inside of them.

    None where centres are not the means of their rows: with the cosine metric, whose centres have
    norm 1, and at a temperature above 0.
    """
    options, sizes = model.training["options"], model.cluster_sizes
    if options["metric"] != "euclidean" or options["temperature"] not in ("auto", 0):
        return None
    centers = model.cluster_centers.astype(float)
    mean = sizes @ centers / sizes.sum()
    between = float(sizes @ ((centers - mean) ** 2).sum(1))
    whole = between + model.training["metrics"]["inertia"]
    return between / whole if whole > 0 else None


def show_summary(model: Model, data: DataSet, seconds: float, verbose: bool) -> None:
    """The summary for people."""
    metrics, options = model.training["metrics"], model.training["options"]
    sizes = sorted(model.cluster_sizes.tolist())
    dtypes = ", ".join(model.training["input"]["dtype"])
    say(f"{data.name}: {data.n_rows} rows x {data.n_features} features ({dtypes})")
    say_bad_rows(model.training["input"]["bad_rows"], False)
    explained = explained_variance(model)
    more = "" if explained is None else f"; they explain {explained:.1%} of the variance"
    say(
        f"{model.n_clusters} clusters in {seconds:.1f} s, inertia {metrics['inertia']:.6g} "
        f"({metrics['inertia'] / sum(sizes):.4g} per row){more}"
    )
    middle = sizes[len(sizes) // 2]
    say(f"cluster sizes: smallest {sizes[0]:g}, median {middle:g}, largest {sizes[-1]:g}")
    if "free_inertia" in metrics:
        free = metrics["free_inertia"]
        more = f"{metrics['inertia'] / free - 1:.2%} more than" if free > 0 else "as without:"
        say(
            f"no cluster has more rows than --max-size {options['max_size']} allows; the inertia "
            f"is {more} the {free:.6g} of nearest centres before"
        )
    reseeded = sum(step["reseeded"] for step in model.training["history"])
    if reseeded:
        say(f"empty clusters given new centres: {reseeded}")
    if verbose or options["temperature"] == "inf":
        say(
            f"paper losses: dilation {metrics['dilation_loss']:.6g} (Eq. 5), "
            f"shrink {metrics['shrink_loss']:.6g} (Eq. 6)"
        )


def show_drift(matching: Matching, old_path: str) -> None:
    """Says how many ids were kept, split, vanished and are new, and lists what moved most."""
    counts = matching.counts()
    moved = [d.moved for d in matching.drift if d.fate in ("kept", "split") and d.moved is not None]
    line = ", ".join(f"{count} {fate}" for fate, count in counts.items())
    if moved:
        line += f"; moved {median(moved):.3g} in the median, {max(moved):.3g} at most"
    say(f"ids of {old_path}: {line}")
    news = sorted((d for d in matching.drift if d.fate != "kept"), key=lambda d: (d.fate, d.id))
    kept = [d for d in matching.drift if d.fate == "kept" and d.moved]
    kept.sort(key=lambda d: -(d.relative or 0))
    shown = [*news, *kept][:_MOST_LINES]
    if not shown:
        return
    say("   id  fate         moved  of gap  continued by")
    for drift in shown:
        say(_line(drift))
    if len(news) + len(kept) > len(shown):
        say(f"and {len(news) + len(kept) - len(shown)} more; --json lists all")


def _line(drift: Drift) -> str:
    moved = "-" if drift.moved is None else f"{drift.moved:.3g}"
    relative = "-" if drift.relative is None else f"{drift.relative:.0%}"
    parts = ", ".join(map(str, drift.parts)) or "-"
    return f"{drift.id:>5}  {drift.fate:<8}  {moved:>8}  {relative:>6}  {parts}"
