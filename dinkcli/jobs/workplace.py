"""A folder beside the output for what a job has finished, so that a killed run goes on there."""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np

from dinkcli.data.atomic import atomic_path
from dinkcli.errors import OutputError, UsageError

_MANIFEST = "_dink.json"


class Workplace:
    """A context manager: the folder goes when the block ends well, and stays for ``--resume`` else.

    Args:
        folder: made when it is not there.
        run: plain JSON that says what the work depends on.
        resume: go on with what is there of a stopped run.

    Raises:
        UsageError: the folder holds another run, or a stopped one and ``resume`` is not asked for.
        OutputError: the folder cannot be made, or its manifest not be read.
    """

    def __init__(self, folder: str, run: dict[str, Any], resume: bool):
        self.folder = folder
        self._run = json.loads(json.dumps(run))
        self._resume = resume

    def __enter__(self) -> Workplace:
        manifest = self.path(_MANIFEST)
        if os.path.exists(manifest):
            self._check(manifest)
            for left in glob.glob(".*.tmp", root_dir=self.folder):  # of a run that was killed
                os.unlink(self.path(left))
            return self
        try:
            os.makedirs(self.folder, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be made: {error.strerror}") from error
        if set(os.listdir(self.folder)) - {_MANIFEST}:
            raise UsageError(f"{self.folder}: not empty, and not left by a run; move it away")
        with atomic_path(manifest) as path, open(path, "w", encoding="utf-8") as file:
            json.dump(self._run, file, indent=1)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or not self.holds_work:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def holds_work(self) -> bool:
        """Whether there is something to go on from."""
        return any(not name.startswith((".", _MANIFEST)) for name in os.listdir(self.folder))

    def _check(self, manifest: str) -> None:
        if not self._resume:
            raise UsageError(
                f"{self.folder}: holds a run that was stopped; go on with it by --resume, or "
                "remove the folder"
            )
        try:
            with open(manifest, encoding="utf-8") as file:
                run = json.load(file)
        except (OSError, ValueError) as error:
            raise OutputError(
                f"{manifest}: cannot be read ({error}); remove the folder and start again"
            ) from error
        for name in sorted({*run, *self._run}):
            if run.get(name) != self._run.get(name):
                raise UsageError(
                    f"--resume {self.folder}: another run: {name} was {run.get(name)!r}, now it "
                    f"is {self._run.get(name)!r}; give the same, or remove the folder"
                )

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def arrays(self, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """What ``make`` gives, from the file of an earlier run where there is one."""
        path = self.path(f"{name}.npz")
        if not os.path.exists(path):
            found = make()
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, **found)  # type: ignore[arg-type]
            return found
        with np.load(path, allow_pickle=False) as saved:
            return {key: saved[key] for key in saved.files}

    def file(self, name: str, make: Callable[[str], None]) -> str:
        """The path of a file that ``make`` writes to the path it is given, whole or not at all."""
        path = self.path(name)
        if not os.path.exists(path):
            with atomic_path(path) as temporary:
                make(temporary)
        return path
