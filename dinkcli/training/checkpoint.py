"""Checkpoints: model files that also hold the state of their training.

A run that goes on from one ends with the same model, byte for byte on the same machine, as a run
that nobody interrupted.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dinkcli.errors import ModelError, OutputError, StoppedError, UsageError
from dinkcli.models.file import load
from dinkcli.models.model import Model, TrainingState, checkpoint_path
from dinkcli.nearest.device import accumulator_dtype
from dinkcli.nearest.tempered import arithmetic
from dinkcli.options import Interval
from dinkcli.processes.device import full_name
from dinkcli.processes.group import SINGLE, Group
from dinkcli.training.progress import Progress
from dinkcli.training.step import Step
from dinkcli.training.trainer import Trainer

EVERY = Interval(300.0)
_RESTS = 8  # of them, processes that train together rest at one
_GENERATOR = "generator"
_SHIFT = "shift"
_MAP = "map"
_CHECKED_ELEMENTS = 1 << 24
_HASHED_ROWS = 1 << 12
_MODULUS = 1 << 32
# Odd numbers of 64 bits with about as many ones as zeros.
_FACTORS = (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xC2B2AE3D27D4EB4F)
# What a checkpoint must share with the run that goes on from it, come what may.
_NEVER_FORCED = ("n_clusters", "metric", "temperature", "features")


def load_checkpoint(path: str) -> Model:
    """The checkpoint at ``path``, or that of the model ``path``.

    Raises:
        UsageError: there is none.
        ModelError: it is damaged.
    """
    beside = checkpoint_path(path)
    if os.path.isfile(beside):
        return load(beside)
    model = load(path)
    if model.state is None:
        raise UsageError(
            f"{path}: a finished model, and there is no checkpoint {beside}; "
            f"to start from its centres use --init {path}"
        )
    return model


class Checkpoints:
    """Writes the checkpoints of one run to one path, each replacing the one before.

    Args:
        path: of the checkpoint.
        every: how often.
        notify: told when one could not be written; training goes on then.
        group: the processes that train together, of which the first one writes.
    """

    def __init__(
        self,
        path: str,
        every: Interval = EVERY,
        notify: Callable[[str], object] = warnings.warn,
        group: Group = SINGLE,
    ):
        self.group = group
        self.path = path
        self.every = every
        self.notify = notify
        self.written = False
        self._begun = False
        self._rests = 0
        self._stop = False
        self._since = {"steps": 0.0, "epochs": 0.0}
        self._last = time.monotonic()

    def ask_to_stop(self) -> bool:
        """Ends the training with a checkpoint where it can rest next: that of all processes, if
        any is asked. Safe in a signal handler.

        Returns:
            False when that is of no use: nothing has been trained yet, or it was asked before.
        """
        useful = self._begun and not self._stop
        self._stop = True
        return useful

    def after(self, step: Step | None, n_rows: int, make: Callable[[], Model]) -> None:
        """Called wherever the training can rest; ``make`` gives the model as it stands.

        Raises:
            StoppedError: as asked. The checkpoint is written, unless that failed.
        """
        self._begun = True
        if step is not None:
            self._since["steps"] += 1
            self._since["epochs"] += step.rows / n_rows
        elif not self.group.alone:
            # To agree takes a message: not after every update.
            self._rests = (self._rests + 1) % _RESTS
            if self._rests:
                return
        passed = self._since.get(self.every.unit, time.monotonic() - self._last)
        due = passed >= self.every.amount
        stop, due = (flag > 0 for flag in self.group.largest(self._stop, due))
        if not (stop or due):
            return
        self._since = dict.fromkeys(self._since, 0.0)
        self._last = time.monotonic()
        if self.group.rank == 0:
            self._write(make())
        if stop:
            written = self.group.any(self.written)  # waits for the one that writes
            raise StoppedError(self.path if written else None)

    def _write(self, model: Model) -> None:
        try:
            model.save(self.path)
            self.written = True
        except (OutputError, UsageError) as error:
            self.notify(f"no checkpoint: {error}")

    def discard(self) -> None:
        """Removes the checkpoint of a run that is over."""
        if self.group.rank > 0:
            return
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            self.notify(f"{self.path}: cannot be removed: {error.strerror}")


def capture(trainer: Trainer, checksums: dict[str, int]) -> TrainingState:
    """All that the next step of ``trainer`` depends on, besides the data and the options."""
    tensors, values = trainer.to_save.pack()
    tensors |= {_GENERATOR: trainer.generator.get_state(), _SHIFT: trainer.rows.shift}
    if trainer.rows.map is not None:
        tensors[_MAP] = trainer.rows.map.matrix.float()
    return TrainingState(
        {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()},
        {"progress": values, "checksums": checksums, "environment": environment(trainer)},
    )


def shift_of(model: Model, n_features: int) -> torch.Tensor | None:
    """(D,) what was subtracted from the rows of the run that wrote this checkpoint.

    None where it does not fit: ``restore`` says what is wrong.
    """
    shift = None if model.state is None else model.state.tensors.get(_SHIFT)
    if shift is None or shift.shape != (n_features,) or shift.dtype != np.float32:
        return None
    return torch.tensor(shift)


def restore(
    trainer: Trainer, model: Model, checksums: dict[str, int], path: str, force: bool
) -> list[str]:
    """Puts ``trainer`` where the run that wrote ``model`` was.

    Args:
        checksums: of ``trainer``, which has drawn its sample for them.

    Returns:
        What is different on this machine, so that the last bits of the result may be.

    Raises:
        UsageError: data or options differ, all of them named; with ``force`` only those that
            make it impossible to go on.
        ModelError: a state that no run can have written.
    """
    assert model.state is not None
    changed = _differences(model, trainer, checksums)
    fatal = [name for name in changed if name in _NEVER_FORCED]
    if fatal or (changed and not force):
        advice = "start again" if fatal else "make them the same, or use --force to go on anyway"
        raise UsageError(
            f"{path}: this run is not the one that wrote the checkpoint: "
            f"{'; '.join(changed[name] for name in fatal or changed)}; {advice}"
        )
    tensors = dict(model.state.tensors)
    try:
        trainer.generator.set_state(torch.tensor(tensors.pop(_GENERATOR)))
        del tensors[_SHIFT]
        device = trainer.rows.device
        if _MAP in tensors:
            trainer.rows.learn(_square(tensors.pop(_MAP), trainer.rows.n_features).to(device))
        trainer.at = Progress.unpack(
            {name: _on(device, torch.tensor(values)) for name, values in tensors.items()},
            model.state.values["progress"],
        )
        if trainer.at.centers.shape != model.cluster_centers.shape:
            raise ValueError("its centres are not those of the model")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: the checkpoint is damaged: {error}; start again") from error
    there = {"processes": 1, **model.state.values.get("environment", {})}
    here = environment(trainer)
    different = [f"{k} {here[k]} (then {there.get(k)})" for k in here if here[k] != there.get(k)]
    if changed or different:
        trainer.at.restart_pass()
    return different


def _on(device: torch.device, values: torch.Tensor) -> torch.Tensor:
    return values.to(
        accumulator_dtype(device) if values.dtype == torch.float64 else values.dtype
    ).to(device)


def _square(matrix: np.ndarray, n_features: int) -> torch.Tensor:
    if matrix.shape != (n_features, n_features) or not np.isfinite(matrix).all():
        raise ValueError(f"its map is not finite numbers of shape {(n_features, n_features)}")
    return torch.tensor(matrix)


def environment(trainer: Trainer) -> dict[str, Any]:
    """What the last bits of a result depend on, besides data, options and seed."""
    return {
        "torch": str(torch.__version__),
        "device": full_name(trainer.rows.device),
        "threads": torch.get_num_threads(),
        **arithmetic(),
        "rows in memory": trainer.rows.in_memory,
        "processes": trainer.rows.group.size,
    }


def checksums(trainer: Trainer) -> dict[str, int]:
    """Of what the options name but do not hold: rows, weights, first centres.

    Of the rows, those of the sample, up to 64 MB: all of a small data set, a random part of a
    large one. The same for any number of processes.
    """
    rows, sample = trainer.rows, trainer.sample
    part = sample[: max(1, _CHECKED_ELEMENTS // rows.n_features)]
    places = torch.arange(len(part.z)) if part.positions is None else part.positions
    found = {"rows": _checksum(part.z, places)}
    if rows.weights is not None:
        first = rows.group.before(len(rows.weights))
        places = torch.arange(first, first + len(rows.weights))
        found["sample weights"] = _checksum(rows.weights[:, None], places)
    found = {name: int(rows.group.total(value)[0]) % _MODULUS for name, value in found.items()}
    if trainer.initial is not None:
        found["first centres"] = _checksum(trainer.initial, torch.arange(len(trainer.initial)))
    return found


def _checksum(rows: torch.Tensor, places: torch.Tensor) -> int:
    """Of the bits of the rows (N, D) float32 and of their places (N,): the sum of that of each row
    alone, modulo 2^32, so that parts can be added up in any order."""
    factors = np.arange(1, 2 * rows.shape[1], 2, dtype=np.uint64) * np.uint64(_FACTORS[0])
    total = 0
    for part, place in zip(rows.split(_HASHED_ROWS), places.split(_HASHED_ROWS), strict=True):
        bits = part.cpu().contiguous().numpy().view(np.uint32)
        hashed = (bits * factors).sum(1, dtype=np.uint64)
        hashed += place.cpu().numpy().astype(np.uint64) * np.uint64(_FACTORS[1])
        for shift, factor in ((29, _FACTORS[2]), (32, _FACTORS[1])):
            hashed ^= hashed >> np.uint64(shift)
            hashed *= np.uint64(factor)
        total += int((hashed >> np.uint64(32)).sum())
    return total % _MODULUS


def _differences(model: Model, trainer: Trainer, checksums: dict[str, int]) -> dict[str, str]:
    """What differs by name, each with a description of both values."""
    assert model.state is not None
    found: dict[str, str] = {}
    pairs = (
        (model.training.get("options", {}), trainer.options.as_dict(), "--"),
        (model.training.get("input", {}), trainer.rows.data.fingerprint(), "input "),
    )
    for there, here, prefix in pairs:
        for name, value in here.items():
            if value != there.get(name):
                shown = prefix + name.replace("_", "-")
                found[name] = f"{shown} {value} (then {there.get(name)})"
    if not found:
        there = model.state.values.get("checksums", {})
        for name in sorted(checksums.keys() | there.keys()):
            if checksums.get(name) != there.get(name):
                found[name] = f"the {name} have other values"
    return found
