"""dink: learnable clustering of embedding files.

The public names below import what they need on first use, so that ``import dinkcli`` and
``dink --help`` stay fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "1.0.0rc1"

if TYPE_CHECKING:
    from dinkcli.api import assign as assign
    from dinkcli.api import split as split
    from dinkcli.api import sweep as sweep
    from dinkcli.api import train as train
    from dinkcli.assigning.dedup import dedup as dedup
    from dinkcli.assigning.sample import sample as sample
    from dinkcli.assigning.update import join as join
    from dinkcli.errors import DinkError as DinkError
    from dinkcli.estimator import DinkClustering as DinkClustering
    from dinkcli.head.head import DinkClusterHead as DinkClusterHead
    from dinkcli.insight.evaluate import evaluate as evaluate
    from dinkcli.insight.info import info as info
    from dinkcli.insight.inspect import inspect as inspect
    from dinkcli.insight.naming import name as name
    from dinkcli.insight.naming import update as update
    from dinkcli.insight.report import report as report
    from dinkcli.models.edit import drop as drop
    from dinkcli.models.edit import merge as merge
    from dinkcli.models.edit import rename as rename
    from dinkcli.models.export import export as export
    from dinkcli.models.file import load as load
    from dinkcli.models.model import Model as Model
    from dinkcli.planning import plan as plan

_NAMES = {
    "api": "assign split sweep train",
    "assigning.dedup": "dedup",
    "assigning.sample": "sample",
    "assigning.update": "join",
    "errors": "DinkError",
    "estimator": "DinkClustering",
    "head.head": "DinkClusterHead",
    "insight.evaluate": "evaluate",
    "insight.info": "info",
    "insight.inspect": "inspect",
    "insight.naming": "name update",
    "insight.report": "report",
    "models.edit": "drop merge rename",
    "models.export": "export",
    "models.file": "load",
    "models.model": "Model",
    "planning": "plan",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"dinkcli.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
