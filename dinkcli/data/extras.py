"""Packages that only some formats need, imported when they are."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from dinkcli.errors import ExtraError, UsageError


def install_line(extra: str) -> str:
    """The command that installs what an extra of dink asks for."""
    return f"pip install 'dinkcli[{extra}]'"


def require(module: str, extra: str, purpose: str) -> Any:
    """The module of that name.

    Args:
        extra: of dink, which installs it.
        purpose: what needs it.

    Raises:
        ExtraError: it is not installed; the message says how to.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ExtraError(
            f"{purpose} needs the package {error.name}: {install_line(extra)}"
        ) from error


def check_installed(module: str, extra: str, purpose: str) -> None:
    """Raises UsageError, without the time that an import takes, where a module is missing."""
    try:
        missing = find_spec(module) is None
    except ValueError:  # set to None in sys.modules
        missing = True
    if missing:
        raise UsageError(f"{purpose} needs the package {module}: {install_line(extra)}")
