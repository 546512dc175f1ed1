"""Every error that dink raises on purpose.

A message says what was found, what was expected, where (file, column, row), and what to do next.
"""

from __future__ import annotations

# What libraries say of a device, or a machine, without memory left.
FULL_DEVICE = ("out of memory", "ALLOC_FAILED")


class DinkError(Exception):
    """Base of all errors dink raises on purpose."""

    exit_code = 1


class StoppedError(DinkError):
    """Training was told to stop between two steps."""

    def __init__(self, checkpoint: str | None):
        self.checkpoint = checkpoint  # path of what was saved, if it could be written
        super().__init__(f"stopped; checkpoint: {checkpoint or 'none'}")


class UsageError(DinkError, ValueError):
    """The call has to change: an option, a path, a column name."""

    exit_code = 2


class RunError(DinkError):
    """The call is fine, and the run failed all the same."""


class InputError(RunError, ValueError):
    """The data cannot be used as they are: unreadable, of a wrong shape, not finite."""


class TextsError(InputError):
    """The data are texts without vectors: a ``column``, or lines of a file where that is None."""

    def __init__(self, message: str, path: str, column: str | None = None):
        super().__init__(message)
        self.path, self.column = path, column


class ModelError(RunError, ValueError):
    """The model file cannot be used, or does not fit the data."""


class OutputError(RunError, OSError):
    """The result could not be written."""


class LostError(RunError):
    """Another process of the job is gone."""


class ExtraError(RunError, ImportError):
    """A package is missing that only some formats need."""
