"""Numbers of clusters to try, as text. Needs no torch, so that usage errors are quick."""

from __future__ import annotations

import sys

from dinkcli.errors import UsageError

_GRID = 16
USUAL = "2:100"


def parse_numbers(text: str, n_rows: int | None = None) -> tuple[list[int], bool]:
    """(numbers of clusters, whether to look between them) of "5,10,20", "5:100" or "5:100:5".

    "5:100" stands for 16 numbers in equal ratios, and then those around the best. A range ends,
    and a list leaves numbers out, where there would be fewer than two rows for each cluster.

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
            ratio = part[1] / part[0]
            numbers.update(round(part[0] * ratio ** (i / (_GRID - 1))) for i in range(_GRID))
        else:
            numbers.update(range(part[0], part[1] + 1, part[2]))
    if not numbers:
        raise UsageError(
            f"-k {text}: a sweep needs at least 2 rows for each cluster, and there are {n_rows}"
        )
    return sorted(numbers), len(parts) == 1 and len(parts[0]) == 2


def usual_numbers(n_rows: int) -> list[int]:
    """What ``-k auto`` tries first, before the numbers around the best."""
    if n_rows < 6:
        raise UsageError(f"-k auto: {n_rows} rows are too few to choose from; give a number")
    return parse_numbers(USUAL, n_rows)[0]
