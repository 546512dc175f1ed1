"""Packages that only some formats need, imported when they are."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from dinkcli.errors import ExtraError


def require(module: str, extra: str, purpose: str) -> Any:
    """The module of that name.

    Args:
        extra: of dink, which installs it.
        purpose: what needs it.

    Raises:
        ExtraError: it is not installed; the message names the extra.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ExtraError(
            f"{purpose} needs the package {error.name}: pip install 'dinkcli[{extra}]'"
        ) from error
