"""Every error that dink raises on purpose.

    DinkError            one clear line for the user; never a traceback
    ├── StoppedError     training was told to stop, and did
    ├── UsageError       the call has to change: an option, a path, a column name (exit 2)
    └── RunError         the call is fine, the run failed (exit 1)
        ├── InputError   the data: unreadable, wrong shape, not finite
        │   └── TextsError   texts, of which there are no vectors yet
        ├── ModelError   the model file: not one, damaged, does not fit the data
        ├── OutputError  the result could not be written
        ├── LostError    another process of the job is gone
        └── ExtraError   a package is missing that only some formats need

A message says what was found, what was expected, where (file, column, row), and what to do next.
"""

from __future__ import annotations

# What libraries say of a device, or a machine, without memory left.
FULL_DEVICE = ("out of memory", "ALLOC_FAILED")


class DinkError(Exception):
    """Base of all errors dink raises on purpose."""

    exit_code = 1


class StoppedError(DinkError):
    """Training was told to stop between two steps.

    Attributes:
        checkpoint: path of what was saved, or None when it could not be written.
    """

    def __init__(self, checkpoint: str | None):
        self.checkpoint = checkpoint
        super().__init__(f"stopped; checkpoint: {checkpoint or 'none'}")


class UsageError(DinkError, ValueError):
    """The command line (or the call) has to change."""

    exit_code = 2


class RunError(DinkError):
    """The command line is fine, and the run failed all the same."""


class InputError(RunError, ValueError):
    """The data cannot be used as they are."""


class TextsError(InputError):
    """The data are texts, of which there are no vectors yet.

    Attributes:
        path: of the file.
        column: of the texts, or None where each line is one.
    """

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
