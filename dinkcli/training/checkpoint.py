"""Where a training stands, and checkpoints: model files that also hold that. A run that goes on
from one ends with the same model, byte for byte on the same machine, as one never interrupted.

Shapes: K clusters, D features.
"""

from __future__ import annotations

import json
import time
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dinkcli.errors import ModelError, OutputError, StoppedError, UsageError
from dinkcli.models.file import load
from dinkcli.models.model import Model, TrainingState, checkpoint_path
from dinkcli.nearest.hardware import accumulator_dtype, has_bfloat16
from dinkcli.nearest.sums import Statistics
from dinkcli.processes.group import SINGLE, Group
from dinkcli.training.refine import Refining

if TYPE_CHECKING:
    from dinkcli.training.trainer import Trainer

_FORMAT = 2  # of a state; one of another format counts as damaged
_CHECKED_ELEMENTS = 1 << 24
# What a checkpoint must share with the run that goes on from it, come what may.
_NEVER_FORCED = ("n_clusters", "metric", "temperature", "features")


@dataclass
class SearchState:
    """With the rows, the options and the random generator, all that the next step depends on."""

    centers: Tensor  # (K, D) as of the last update
    counts: Tensor  # (K,) weight of each cluster, an estimate until all rows have been passed over
    cluster_inertia: Tensor  # (K,) the part of each in the inertia; zeros until then
    start: int = 1  # which of the ``n_init`` starts
    best: Tensor | None = None  # (K, D) of the starts before
    best_inertia: float = 0.0
    refining: Refining | None = None  # the refinement under way
    passes: int | None = None  # finished ones over all rows, or epochs; None before the first
    blocks: int = 0  # of the pass under way that are summed
    statistics: Statistics | None = None  # of these
    objective: float | None = None  # of the pass before; None at first and after a re-seeding
    adam: Tensor | None = None  # (3, K, D) the parameter of the descent, and its two moments
    updates: int = 0  # of the descent


_PARTS = {"refining": Refining, "statistics": Statistics}


def capture(trainer: Trainer) -> dict[str, Any]:
    """What the next step depends on, besides data and options: tensors and numbers by name, those
    of a part by dotted name; what is None is left out."""
    packed = dict(vars(trainer.state))
    for part in _PARTS:
        values = packed.pop(part)
        if values is not None:
            packed |= {f"{part}.{name}": value for name, value in vars(values).items()}
    packed |= {"generator": trainer.generator.get_state(), "shift": trainer.rows.shift}
    if trainer.rows.map is not None:
        packed["map"] = trainer.rows.map.matrix.float()
    return {name: value for name, value in packed.items() if value is not None}


class Checkpoints:
    """Writes the checkpoints of one run to one path, each replacing the one before.

    Args:
        every: seconds between two of them, at least.
        notify: told when one could not be written; training goes on then.
        group: the processes that train together, of which the first one writes.
    """

    def __init__(
        self,
        path: str,
        every: float = 300.0,
        notify: Callable[[str], object] = warnings.warn,
        group: Group = SINGLE,
    ):
        self.path, self.every, self.notify, self.group = path, every, notify, group
        self.written = False
        self._begun = self._stop = False
        self._time = time.monotonic()  # of the last one

    def ask_to_stop(self) -> bool:
        """Ends the training, of all processes, with a checkpoint where it can stop next. Safe in a
        signal handler. False when nothing has been trained yet, or it was asked before."""
        useful = self._begun and not self._stop
        self._stop = True
        return useful

    def rest(self, trainer: Trainer, checksums: dict[str, int], new: bool) -> None:
        """Called wherever the training can rest or, unless it stands where it is ``new``, stop.

        Raises:
            StoppedError: as asked. The checkpoint is written, unless that failed.
        """
        self._begun = True
        due = new and time.monotonic() - self._time >= self.every
        stop, due = (flag > 0 for flag in self.group.largest(self._stop, due))
        if not (stop or due):
            return
        self._time = time.monotonic()
        if self.group.rank == 0:
            try:
                checkpoint_of(trainer, checksums).save(self.path)
                self.written = True
            except (OutputError, UsageError) as error:
                self.notify(f"no checkpoint: {error}")
        if stop:
            written = self.group.any(self.written)  # waits for the one that writes
            raise StoppedError(self.path if written else None)

    def discard(self) -> None:
        """Removes the checkpoint of a run that is over."""
        try:
            Path(self.path).unlink(missing_ok=True)
        except OSError as error:
            self.notify(f"{self.path}: cannot be removed: {error.strerror}")


def checkpoint_of(trainer: Trainer, checksums: dict[str, int]) -> Model:
    """The model so far with all that the training needs to go on; the checksums tell its rows."""
    model = trainer.model()
    model.training["history"] = trainer.history[: trainer.n_saved]
    saved = trainer.saved
    values = {name: value for name, value in saved.items() if not isinstance(value, Tensor)}
    tensors = {
        name: value.detach().cpu().numpy().copy()
        for name, value in saved.items()
        if isinstance(value, Tensor)
    }
    values["digest"] = _digest(tensors, values)
    state = {"progress": values, "checksums": checksums, "environment": environment(trainer)}
    model.state = TrainingState(tensors, state)
    return model


def _digest(tensors: dict[str, np.ndarray], values: dict[str, Any]) -> int:
    """Of a state, by which one that is damaged is told."""
    digest = zlib.crc32(json.dumps(values, sort_keys=True).encode(), _FORMAT)
    for name in sorted(tensors):
        kind = f"{name} {tensors[name].dtype} {tensors[name].shape}".encode()
        digest = zlib.crc32(kind + tensors[name].tobytes(), digest)
    return digest


def load_checkpoint(path: str) -> Model:
    """The checkpoint at ``path``, or that of the model ``path``; a UsageError when there is none, a
    ModelError when it is damaged."""
    beside = checkpoint_path(path)
    model = load(beside if Path(beside).is_file() else path)
    if model.state is None:
        raise UsageError(
            f"{path}: a finished model, and there is no checkpoint {beside}; "
            f"to start from its centres use `init` {path}"
        )
    tensors, values = model.state.tensors, dict(model.state.values["progress"])
    if values.pop("digest", None) != _digest(tensors, values):
        raise ModelError(f"{path}: the checkpoint is damaged, or of an older dink; start again")
    return model


def shift_of(model: Model, n_features: int) -> Tensor | None:
    """(D,) what was subtracted from the rows of the run that wrote this checkpoint; None where it
    does not fit, and ``restore`` says what is wrong."""
    shift = model.state.tensors["shift"] if model.state else np.empty(0)
    return torch.tensor(shift) if shift.shape == (n_features,) else None


def restore(
    trainer: Trainer, model: Model, checksums: dict[str, int], path: str, force: bool
) -> list[str]:
    """Puts ``trainer``, which has drawn its sample for the ``checksums``, where the run that wrote
    ``model`` was; returns what is different on this machine, so that the last bits may be.

    Raises:
        UsageError: data or options differ, all of them named; with ``force`` only those that
            make it impossible to go on.
    """
    assert model.state is not None
    changed = _differences(model, trainer, checksums)
    fatal = [name for name in changed if name in _NEVER_FORCED]
    if fatal or (changed and not force):
        advice = "start again" if fatal else "make them the same, or use `force` to go on anyway"
        raise UsageError(
            f"{path}: this run is not the one that wrote the checkpoint: "
            f"{'; '.join(changed[name] for name in fatal or changed)}; {advice}"
        )
    rows = trainer.rows
    packed: dict[str, Any] = dict(model.state.values["progress"])
    wide = accumulator_dtype(rows.device)
    for name, array in model.state.tensors.items():
        tensor = torch.tensor(array)
        packed[name] = tensor.to(rows.device, wide if tensor.dtype == torch.float64 else None)
    del packed["digest"], packed["shift"]
    trainer.generator.set_state(packed.pop("generator").cpu())
    if "map" in packed:
        rows.learn(packed.pop("map"))
    for part, kind in _PARTS.items():
        names = [name for name in packed if name.startswith(f"{part}.")]
        values = {name.removeprefix(f"{part}."): packed.pop(name) for name in names}
        packed[part] = kind(**values) if values else None
    state = trainer.state = SearchState(**packed)
    trainer.history = list(model.training.get("history", []))
    now, then = environment(trainer), model.state.values["environment"]
    different = [f"{k} {now[k]} (then {then.get(k)})" for k in now if now[k] != then.get(k)]
    if changed or different:  # blocks of rows are no longer the same
        state.blocks, state.statistics = 0, None
    return different


def environment(trainer: Trainer) -> dict[str, Any]:
    """What the last bits of a result depend on, besides data, options and seed."""
    device = trainer.rows.device
    card = f" {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return {
        "torch": str(torch.__version__),
        "device": f"{device}{card}",
        "threads": torch.get_num_threads(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "bfloat16 products": has_bfloat16(),
        "rows in memory": trainer.rows.in_memory,
        "processes": trainer.rows.group.size,
    }


def checksums(trainer: Trainer) -> dict[str, int]:
    """Of up to 64 MB of the sample, and of first centres; the same for any number of processes."""
    part = trainer.sample[: max(1, _CHECKED_ELEMENTS // trainer.rows.n_features)].whole()
    checked = {"rows": part.z, "sample weights": part.weights, "first centres": trainer.initial}
    return {
        name: zlib.crc32(values.cpu().numpy().tobytes())
        for name, values in checked.items()
        if values is not None
    }


def _differences(model: Model, trainer: Trainer, checksums: dict[str, int]) -> dict[str, str]:
    """What differs by name, each with a description of both values."""
    assert model.state is not None
    differences: dict[str, str] = {}
    pairs = (
        (model.training.get("options", {}), trainer.options.as_dict(), "--"),
        (model.training.get("input", {}), trainer.rows.data.fingerprint(), "input "),
    )
    for then, now, prefix in pairs:
        for name, value in now.items():
            if value != then.get(name):
                shown = prefix + name.replace("_", "-")
                differences[name] = f"{shown} {value} (then {then.get(name)})"
    if not differences:
        then = model.state.values.get("checksums", {})
        for name in sorted(checksums.keys() | then.keys()):
            if checksums.get(name) != then.get(name):
                differences[name] = f"the {name} have other values"
    return differences
