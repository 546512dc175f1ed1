"""A folder of parts: each is a whole file of its own, so that a stopped run can go on.

Part i holds the rows [i R, (i + 1) R) of the input, whatever was left out of them. A manifest
names the run; a run goes on only where model, options and input are the same.
"""

from __future__ import annotations

import glob
import json
import os
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from dinkcli.atomic import atomic_path
from dinkcli.errors import OutputError, UsageError
from dinkcli.writers.base import Layout, Writer
from dinkcli.writers.files import open_writer
from dinkcli.writers.formats import Encoding

if TYPE_CHECKING:
    from dinkcli.assigner import Assignments

MANIFEST = "_dink.json"


class PartsWriter:
    """A context manager that writes parts of R rows into a folder, each when it is complete.

    Args:
        folder: made when it is not there.
        rows_per_file: R.
        run: plain JSON that says what the parts depend on.
        resume: go on after the last part of a stopped run, if there is one.

    Attributes:
        first: number of the first row still to be written.
        complete: a run before has written everything.

    Raises:
        UsageError: the folder holds something else, or another run.
        OutputError: the folder cannot be written, or its manifest not be read.
    """

    def __init__(
        self,
        folder: str,
        layout: Layout,
        encoding: Encoding,
        rows_per_file: int,
        run: dict[str, Any],
        resume: bool = False,
    ):
        if rows_per_file < 1:
            raise UsageError(f"--rows-per-file {rows_per_file}: expected at least 1")
        self.folder = folder
        self.complete = False
        self._layout, self._encoding, self._size = layout, encoding, rows_per_file
        self._run = {**run, "format": encoding.format, "compression": encoding.compression}
        self._run |= {"csv_safe": encoding.csv_safe, "rows_per_file": rows_per_file}
        self._run = json.loads(json.dumps(self._run))  # as it will be read again
        self._stack = ExitStack()
        self._writer: Writer | None = None
        self._makes = not os.path.isdir(folder)
        self._fresh = self._makes or not os.listdir(folder)
        self._done = 0
        if not self._fresh:
            self._check_folder(resume)
        self.first = self._done * rows_per_file

    @property
    def n_parts(self) -> int:
        """Parts that are complete."""
        return self._done

    def path(self, index: int) -> str:
        return os.path.join(self.folder, f"part-{index:05d}.{self._encoding.suffix}")

    def __enter__(self) -> PartsWriter:
        if self._makes:
            parent = os.path.dirname(os.path.abspath(self.folder))
            if not os.path.isdir(parent):
                raise UsageError(f"{self.folder}: no such folder: {parent}; make it first")
            try:
                os.mkdir(self.folder)
            except OSError as error:
                raise OutputError(f"{self.folder}: {error.strerror}") from error
        for left in glob.glob(".part-*.tmp", root_dir=self.folder):
            os.unlink(os.path.join(self.folder, left))  # of a run that was killed
        if not self.complete:
            self._save_manifest(False)
        return self

    def write(self, rows: Assignments) -> None:
        while len(rows):
            index = int(rows.rows[0]) // self._size
            while self._done < index:
                self._commit()  # the part before, even if all of its rows were left out
            stop = int(np.searchsorted(rows.rows, (index + 1) * self._size))
            self._open().write(rows[:stop])
            if rows.rows[stop - 1] == (index + 1) * self._size - 1:
                self._commit()
            rows = rows[stop:]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            if self._writer is not None or self._done == 0:
                self._commit()
            self._save_manifest(True)
            return
        try:
            self._stack.__exit__(kind, error, trace)  # the part at hand is not kept
        finally:
            if self._fresh and self._done == 0:
                os.unlink(os.path.join(self.folder, MANIFEST))
                if self._makes:
                    os.rmdir(self.folder)

    def _open(self) -> Writer:
        if self._writer is None:
            n_rows = self._layout.n_rows
            if n_rows is not None:
                n_rows = max(0, min(self._size, n_rows - self._done * self._size))
            self._writer = self._stack.enter_context(
                open_writer(self.path(self._done), self._layout.with_rows(n_rows), self._encoding)
            )
        return self._writer

    def _commit(self) -> None:
        self._open()  # a part can be without rows
        self._stack.close()
        self._writer = None
        self._done += 1

    def _save_manifest(self, complete: bool) -> None:
        with (
            atomic_path(os.path.join(self.folder, MANIFEST)) as path,
            open(path, "w", encoding="utf-8") as file,
        ):
            json.dump({"complete": complete, "run": self._run}, file, indent=1)
            file.write("\n")

    def _check_folder(self, resume: bool) -> None:
        path = os.path.join(self.folder, MANIFEST)
        if not os.path.exists(path):
            raise UsageError(f"{self.folder}: not empty, and not a folder of parts; choose another")
        if not resume:
            raise UsageError(
                f"{self.folder}: holds the parts of a run; go on with it by --resume, or choose "
                "another folder"
            )
        try:
            with open(path, encoding="utf-8") as file:
                manifest = json.load(file)
            run, self.complete = manifest["run"], manifest["complete"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(f"{path}: cannot be read ({error}); start in a new folder") from error
        for name in sorted({*run, *self._run}):
            if run.get(name) != self._run.get(name):
                raise UsageError(
                    f"--resume {self.folder}: another run: {name} was {run.get(name)!r}, now it is "
                    f"{self._run.get(name)!r}; give the same, or choose another folder"
                )
        while os.path.exists(self.path(self._done)):
            self._done += 1
