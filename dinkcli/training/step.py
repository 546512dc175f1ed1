"""What there is to report of a training."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

PHASES = {
    "anneal": "looking for clusters",
    "refine": "moving centres",
    "pass": "settling on all rows",
    "limit": "limiting sizes",
}


@dataclass(frozen=True)
class Step:
    """What is known after one update of the centres.

    Attributes:
        phase: of PHASES; "pass" is one over all rows, "limit" one under a limit of the sizes of
            clusters, whose inertia is that of its partition.
        done, total: position in the phase; ``total`` is a bound for refine and pass.
        rows: rows that this step read.
        temperature: that the step was made at.
        inertia: sum of squared distances to the nearest centre, scaled to all N rows; on main axes
            what lies outside counts in full.
        dilation_loss, shrink_loss: the paper's Eq. 5 and 6 (Eq. 6 on the rows of the step).
        smallest, largest: share of rows in the smallest and largest cluster.
        start, starts: which of how many starts, from 1.
        reseeded: empty clusters that this step gave new centres.
    """

    phase: str
    done: int
    total: int
    rows: int
    temperature: float
    inertia: float
    dilation_loss: float
    shrink_loss: float
    smallest: float
    largest: float
    start: int = 1
    reseeded: int = 0
    starts: int = 1

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON for the history: an infinite temperature becomes the string "inf", and
        what is the same in all steps is left out."""
        values = {k: "inf" if v == math.inf else v for k, v in asdict(self).items()}
        del values["starts"]
        return values
