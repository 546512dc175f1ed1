"""Numbers of clusters to try, as text. Needs no torch, so that usage errors are quick."""

from __future__ import annotations

import sys

from dinkcli.errors import UsageError

_IN_AN_OCTAVE = 3
USUAL = "2:100"


def grid(first: int, last: int) -> list[int]:
    """Both, and the numbers between them of a grid that is the same for every range."""
    steps = range(_IN_AN_OCTAVE * last.bit_length())
    inner = {round(2 * 2 ** (step / _IN_AN_OCTAVE)) for step in steps}
    return sorted({first, last} | {k for k in inner if first < k < last})


def parse_numbers(text: str, n_rows: int | None = None) -> tuple[list[int], bool]:
    """(numbers of clusters, whether they may grow) of "5,10,20", "5:100" or "5:100:5".

    "5:100" stands for three numbers an octave, and then those around the best and beyond. A range
    ends, and a list leaves numbers out, where there would be fewer than two rows for each cluster.

    Args:
        n_rows: of the data, where it is known.

    Raises:
        UsageError: another form, a number below 2, or too few rows for any of the numbers.
    """
    most = sys.maxsize if n_rows is None else n_rows // 2
    wrong = UsageError(
        f"-k {text}: expected numbers of at least 2 such as 5,10,20, a range such as 5:100, "
        "or one with a step such as 5:100:5"
    )
    try:
        parts = [[int(number) for number in part.split(":")] for part in text.split(",")]
    except ValueError:
        raise wrong from None
    numbers: set[int] = set()
    for part in parts:
        if len(part) > 3 or min(part) < (2 if len(part) < 3 else 1) or part[0] < 2:
            raise wrong
        if len(part) > 1 and part[1] < part[0]:
            raise wrong
        if part[0] > most:
            continue
        part[1:2] = [min(part[1], most)] if len(part) > 1 else []
        if len(part) == 1:
            numbers.add(part[0])
        elif len(part) == 2:
            numbers.update(grid(*part))
        else:
            numbers.update(range(part[0], part[1] + 1, part[2]))
    if not numbers:
        raise UsageError(
            f"-k {text}: a sweep needs at least 2 rows for each cluster, and there are {n_rows}"
        )
    return sorted(numbers), len(parts) == 1 and len(parts[0]) == 2
