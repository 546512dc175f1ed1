"""A folder beside the output for what a job has finished, so that a killed run goes on there, and
several processes share the work without talking to each other.

Each piece of work is a file that is there whole or not at all, the same whoever makes it. Whoever
makes one holds a lock on it, which the system takes back from a process that is killed.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from dinkcli.assigning.shards import Shard
from dinkcli.assigning.writers.parts import read_manifest, refuse_another
from dinkcli.data.atomic import atomic_path
from dinkcli.errors import InputError, OutputError, UsageError

_MANIFEST = "_dink.json"
_IN_USE = ".in-use"  # locked by all that work here
Make = Callable[[], dict[str, np.ndarray]]


class Workplace:
    """A context manager: the folder goes when the block ends well, or by wrong input or options,
    and stays for ``--resume`` else, or for as long as other processes need it.

    Args:
        folder: made when it is not there.
        run: plain JSON that says what the work depends on.
        resume: go on with what is there of a stopped run.
        share: of this process in the work; None when it is alone.

    Attributes:
        complete: whether the output is, when the block ends well.

    Raises:
        UsageError: the folder holds another run, or a stopped one and ``resume`` is not asked for,
            or processes that this one is not to work with.
        OutputError: the folder cannot be made, or its manifest not be read.
    """

    def __init__(self, folder: str, run: dict[str, Any], resume: bool, share: Shard | None = None):
        self.folder = folder
        self.complete = True
        self._run = json.loads(json.dumps(run))
        self._resume = resume
        self._share = share
        self._in_use = -1

    def __enter__(self) -> Workplace:
        self._in_use, alone = self._enter()
        try:
            self._begin(alone)
        except BaseException:
            os.close(self._in_use)
            raise
        _lock(self._in_use, fcntl.LOCK_SH)
        return self

    def _enter(self) -> tuple[int, bool]:
        """The file that says who is here, locked, and whether no one else is."""
        while True:
            try:
                os.makedirs(self.folder, exist_ok=True)
                number = os.open(self.path(_IN_USE), os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:
                continue  # the last of others has just left and taken the folder along
            except OSError as error:
                raise OutputError(f"{self.folder}: cannot be made: {error.strerror}") from error
            alone = _lock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not alone:
                if self._share is None:
                    os.close(number)
                    raise UsageError(
                        f"{self.folder}: another process is at work there; wait for it, or name "
                        "another output with -o"
                    )
                _lock(number, fcntl.LOCK_SH)
            if self._is_here(number):
                return number, alone
            os.close(number)

    def _begin(self, alone: bool) -> None:
        manifest = self.path(_MANIFEST)
        if os.path.exists(manifest):
            self._check(manifest)
            if alone:
                for left in glob.glob(".*.tmp", root_dir=self.folder):  # of a run that was killed
                    os.unlink(self.path(left))
            return
        if set(os.listdir(self.folder)) - {_MANIFEST, _IN_USE}:
            os.unlink(self.path(_IN_USE))
            raise UsageError(f"{self.folder}: not empty, and not left by a run; move it away")
        with atomic_path(manifest) as path, open(path, "w", encoding="utf-8") as file:
            json.dump(self._run, file, indent=1)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        useless = kind is not None and issubclass(kind, (InputError, UsageError))
        done = kind is None and self.complete
        if done or useless or not (self.holds_work or kind is None):
            self._leave()
        os.close(self._in_use)

    def _leave(self) -> None:
        """Whoever is the last takes the folder along."""
        for trial in range(1 if self._share is None else 3):
            if trial:  # two that leave at the same time keep each other from it
                time.sleep(0.05 * (1 + self._share.number % 8) if self._share else 0)
            if _lock(self._in_use, fcntl.LOCK_EX | fcntl.LOCK_NB):
                if self._is_here(self._in_use):
                    shutil.rmtree(self.folder, ignore_errors=True)
                return

    def _is_here(self, number: int) -> bool:
        """Whether that open file is the one in the folder, and not one that has gone with it."""
        try:
            return os.path.samestat(os.fstat(number), os.stat(self.path(_IN_USE)))
        except FileNotFoundError:
            return False

    @property
    def holds_work(self) -> bool:
        """Whether there is something to go on from."""
        return any(not name.startswith((".", _MANIFEST)) for name in os.listdir(self.folder))

    def _check(self, manifest: str) -> None:
        if not self._resume and self._share is None:
            raise UsageError(
                f"{self.folder}: holds a run that was stopped; go on with it by --resume, or "
                "remove the folder"
            )
        run = read_manifest(manifest, (), "remove the folder and start again")
        refuse_another(run, self._run, f"--resume {self.folder}", "remove the folder")

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def all_arrays(self, makes: Mapping[str, Make]) -> list[dict[str, np.ndarray]]:
        """What each makes, from the file of an earlier run where there is one; other processes may
        make some."""
        paths = self.all_files({f"{name}.npz": _saving(make) for name, make in makes.items()})
        found = []
        for path in paths:
            with np.load(path, allow_pickle=False) as saved:
                found.append({key: saved[key] for key in saved.files})
        return found

    def all_files(self, makes: Mapping[str, Callable[[str], None]]) -> list[str]:
        """The same as ``file`` of several, of which other processes may make some."""
        names = list(makes)
        if self._share is not None:
            first, _ = self._share.of(len(names))
            for name in names[first:] + names[:first]:
                self.file(name, makes[name], wait=False)
        return [self.file(name, makes[name]) for name in names]

    def file(self, name: str, make: Callable[[str], None], wait: bool = True) -> str:
        """The path of a file that ``make`` writes to the path it is given, whole or not at all.

        ``wait``: for another process that is making it; without, the file may not be there yet.
        """
        path = self.path(name)
        if not os.path.exists(path):
            with self._held(name, wait) as held:
                if held and not os.path.exists(path):
                    with atomic_path(path) as temporary:
                        make(temporary)
        return path

    @contextmanager
    def _held(self, name: str, wait: bool) -> Iterator[bool]:
        """Whether this process may make a file, as no other one does for as long as it may."""
        number = os.open(self.path(f".{name}.lock"), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            yield _lock(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        finally:
            os.close(number)


def _lock(number: int, how: int) -> bool:
    """Locks an open file; False where another process has it. A file system without locks lets
    everyone in: files that two processes make are the same."""
    try:
        fcntl.flock(number, how)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _saving(make: Make) -> Callable[[str], None]:
    def save(path: str) -> None:
        with open(path, "wb") as file:
            np.savez(file, **make())  # type: ignore[arg-type]

    return save
