"""What ``dink train`` shows: a line for each step, and the summary at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dinkcli.cli.console import ProgressLines, printable, say

if TYPE_CHECKING:
    from dinkcli.data.dataset import DataSet
    from dinkcli.models.model import Model
    from dinkcli.training.trainer import Step


class Rate:
    """Rows per second since the first call."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._rows = 0

    def __call__(self, rows: int) -> float:
        self._rows += rows
        return self._rows / max(1e-9, time.monotonic() - self._started)


@contextmanager
def train_progress(quiet: bool) -> Iterator[Callable[[Step], None]]:
    """Shows the steps that the function it yields is called with."""
    with ProgressLines(quiet) as progress:
        rate = Rate()

        def show(step: Step) -> None:
            progress.update(step.phase, step.done, step.total, detail(step, rate(step.rows)))

        yield show


def detail(step: Step, rate: float) -> str:
    return (
        f"inertia {step.inertia:.6g}  T {step.temperature:.3g}  "
        f"dilation {step.dilation_loss:.4g}  shrink {step.shrink_loss:.4g}  "
        f"clusters {step.smallest:.2%}..{step.largest:.2%}  {rate:,.0f} rows/s"
    )


def summary(model: Model, target: str, seconds: float) -> dict[str, Any]:
    return {
        "model": printable(target),
        "n_clusters": model.n_clusters,
        "n_features": model.n_features,
        "rows": model.training["input"]["rows"],
        "bad_rows": model.training["input"]["bad_rows"],
        **model.training["metrics"],
        "cluster_sizes": model.cluster_sizes.tolist(),
        "seconds": round(seconds, 3),
        "history": model.training["history"],
    }


def show_summary(model: Model, data: DataSet, seconds: float) -> None:
    metrics = model.training["metrics"]
    sizes = sorted(model.cluster_sizes.tolist())
    dtypes = ", ".join(model.training["input"]["dtype"])
    say(f"{data.name}: {data.n_rows} rows x {data.n_features} features ({dtypes})")
    if n_bad := model.training["input"]["bad_rows"]:
        say(f"bad rows left out: {n_bad}")
    say(
        f"{model.n_clusters} clusters in {seconds:.1f} s, inertia {metrics['inertia']:.6g} "
        f"({metrics['inertia'] / sum(sizes):.4g} per row)"
    )
    middle = sizes[len(sizes) // 2]
    say(f"cluster sizes: smallest {sizes[0]:g}, median {middle:g}, largest {sizes[-1]:g}")
    reseeded = sum(step["reseeded"] for step in model.training["history"])
    if reseeded:
        say(f"empty clusters given new centres: {reseeded}")
    say(
        f"paper losses: dilation {metrics['dilation_loss']:.6g} (Eq. 5), "
        f"shrink {metrics['shrink_loss']:.6g} (Eq. 6)"
    )
