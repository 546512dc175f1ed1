"""Numbered columns: dim_0, dim_1 and so on, one for each dimension."""

from __future__ import annotations

import re

import pyarrow as pa

from dinkcli.data.formats.places import Place
from dinkcli.data.formats.types import is_number


def groups_of(places: list[Place]) -> dict[str, list[str]]:
    """Numbered columns that may be dimensions, by prefix.

    Integers may stand among the dimensions: text files show no point in a column of zeros.
    """
    numbered = _numbered([place.path for place in places if is_number(place.type)])
    floats = {place.path for place in places if pa.types.is_floating(place.type)}
    mixed = {prefix: names for prefix, names in numbered.items() if set(names) & floats}
    return mixed or ({} if floats else numbered)


def _numbered(names: list[str]) -> dict[str, list[str]]:
    """Columns such as dim_0, dim_1, ... by prefix, each in the order of its numbers."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names, key=natural):
        if match := re.fullmatch(r"(.*?)\d+", name):
            groups.setdefault(match[1], []).append(name)
    return {prefix: group for prefix, group in groups.items() if len(group) > 1}


def natural(name: str) -> list[tuple[int, str | int]]:
    """Sorts dim_2 before dim_10."""
    return [(1, int(part)) if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]
