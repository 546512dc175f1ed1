"""Models and outputs by name."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from dinkcli.cli.console import warn
from dinkcli.errors import UsageError

if TYPE_CHECKING:
    from dinkcli.data.dataset import DataSet
    from dinkcli.models.model import Model


def default_model_path(first_input: str) -> str:
    """``<stem of the first input>.dink.safetensors`` in the working folder."""
    from dinkcli.models.model import SUFFIX

    if first_input == "-":
        return "stdin" + SUFFIX
    path = first_input.partition("?")[0] if "://" in first_input else first_input
    stem = os.path.splitext(os.path.basename(os.path.abspath(path)))[0]
    # A pattern is no name that shells like.
    return re.sub(r"[*?\[\]]", "_", stem) + SUFFIX


def warn_if_unfinished(model: Model, path: str) -> None:
    """Says so when a model is a checkpoint."""
    if model.state is not None:
        warn(f"{path}: the training of this model is not finished; dink train --resume goes on")


def refuse_overwriting(target: str, data: DataSet, *others: str) -> None:
    """Raises UsageError when the output is one of the inputs."""
    for path in (*(reader.path for reader in data.readers), *others):
        if os.path.exists(target) and os.path.exists(path) and os.path.samefile(target, path):
            raise UsageError(f"{target}: is an input of this run; choose another output")
