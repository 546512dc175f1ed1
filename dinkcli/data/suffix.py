"""Formats by the suffix of a path."""

from __future__ import annotations

import os
from collections.abc import Mapping

from dinkcli.errors import UsageError


def by_suffix(path: str, formats: Mapping[str, str]) -> str:
    """The format that the suffix of ``path`` stands for.

    Args:
        formats: names of formats by suffix, without the dot.

    Raises:
        UsageError: an unknown suffix.
    """
    suffix = os.path.splitext(path)[1].removeprefix(".").lower()
    if suffix not in formats:
        found = f"suffix .{suffix}" if suffix else "no suffix"
        expected = f".{', .'.join(formats)}"
        raise UsageError(f"{path}: {found}, expected one of {expected}; or name a --format")
    return formats[suffix]
