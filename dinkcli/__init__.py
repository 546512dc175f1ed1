"""dink: learnable clustering of embedding files.

The public names below import what they need on first use, so that ``import dinkcli`` and
``dink --help`` stay fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "1.0.0rc1"

if TYPE_CHECKING:
    from dinkcli.api import assign, split, sweep, train
    from dinkcli.assigning.dedup import dedup
    from dinkcli.assigning.sample import sample
    from dinkcli.assigning.update import join
    from dinkcli.errors import DinkError
    from dinkcli.estimator import DinkClustering
    from dinkcli.head.head import DinkClusterHead
    from dinkcli.insight.evaluate import evaluate
    from dinkcli.insight.info import info
    from dinkcli.insight.inspect import inspect
    from dinkcli.insight.naming import name, update
    from dinkcli.insight.report import report
    from dinkcli.models.edit import drop, merge, rename
    from dinkcli.models.export import export
    from dinkcli.models.file import load
    from dinkcli.models.model import Model
    from dinkcli.planning import plan

_HOME = {
    "DinkClusterHead": "dinkcli.head.head",
    "DinkClustering": "dinkcli.estimator",
    "DinkError": "dinkcli.errors",
    "Model": "dinkcli.models.model",
    "assign": "dinkcli.api",
    "dedup": "dinkcli.assigning.dedup",
    "drop": "dinkcli.models.edit",
    "evaluate": "dinkcli.insight.evaluate",
    "export": "dinkcli.models.export",
    "info": "dinkcli.insight.info",
    "inspect": "dinkcli.insight.inspect",
    "join": "dinkcli.assigning.update",
    "load": "dinkcli.models.file",
    "merge": "dinkcli.models.edit",
    "name": "dinkcli.insight.naming",
    "plan": "dinkcli.planning",
    "rename": "dinkcli.models.edit",
    "report": "dinkcli.insight.report",
    "sample": "dinkcli.assigning.sample",
    "split": "dinkcli.api",
    "sweep": "dinkcli.api",
    "train": "dinkcli.api",
    "update": "dinkcli.insight.naming",
}

__all__ = [
    "DinkClusterHead",
    "DinkClustering",
    "DinkError",
    "Model",
    "assign",
    "dedup",
    "drop",
    "evaluate",
    "export",
    "info",
    "inspect",
    "join",
    "load",
    "merge",
    "name",
    "plan",
    "rename",
    "report",
    "sample",
    "split",
    "sweep",
    "train",
    "update",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
