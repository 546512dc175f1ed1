"""A folder of parts: each is a whole file of its own, so that a stopped run can go on.

Part i holds the rows [i R, (i + 1) R) of the input, whatever was left out of them. A manifest
names the run; a run goes on only where model, options and input are the same.

Several processes may write shares of one run into the folder. They have no lock and need none: a
part appears whole, under the name and with the bytes that any of them would give it, and the
manifest is made by whoever comes first. A process looks for missing parts after its own last part
has appeared. So whichever comes last sees all of them, and says that the run is complete; where
two do, they say the same.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, replace
from types import TracebackType
from typing import Any

import numpy as np

from dinkcli.assigning.writers.base import Layout, Rows, Writer
from dinkcli.assigning.writers.formats import Output, open_writer
from dinkcli.data.atomic import atomic_path
from dinkcli.errors import OutputError, UsageError

MANIFEST = "_dink.json"


class PartsWriter:
    """A context manager that writes parts of R rows into a folder, each when it is complete.

    Args:
        output: with R; its folder is made when it is not there. A share needs ``n_rows``.
        run: plain JSON that says what the parts depend on.
        n_rows: N of the input, bad rows included, or None where only the end of the input tells.

    Attributes:
        complete: the folder has all parts of the run.

    Raises:
        UsageError: the folder holds something else, or another run.
        OutputError: the folder cannot be written, or its manifest not be read.
    """

    def __init__(
        self, output: Output, layout: Layout, run: dict[str, Any], n_rows: int | None = None
    ):
        size = output.rows_per_file or 0
        if size < 1:
            raise UsageError(f"`rows_per_file` {size}: expected at least 1")
        folder, shard = output.path, output.shard
        self.folder = folder
        self.complete = False
        self._layout, self._encoding, self._size = layout, output.encoding, size
        self._run = run | asdict(output.encoding) | {"rows_per_file": size}
        self._run = json.loads(json.dumps(self._run))  # as it will be read again
        self._n_rows, self._shard, self._resume = n_rows, shard, output.resume
        self._total = None if n_rows is None else -(-n_rows // size)
        # Parts to be written: [_at, _end), without those that are there.
        self._at, self._end = 0, self._total
        if shard is not None and self._total is not None:
            self._at, self._end = shard.of(self._total)
        self._first = self._at
        self._stack = ExitStack()
        self._writer: Writer | None = None
        self._makes = not os.path.isdir(folder)
        self._manifest = os.path.join(folder, MANIFEST)
        self._fresh = self._makes or not self._holds_run()
        if not self._fresh:
            self._check_run()
        self._there = self._present()
        if shard is not None and self._there and not self._resume:
            raise UsageError(
                f"{folder}: holds parts of share {shard} already; go on with it by `resume`, or "
                "choose another folder"
            )
        self.rows_before = sum(self._rows_of(index) for index in self._there)
        self._at = self._next(self._at)

    @property
    def missing(self) -> list[tuple[int, int | None]]:
        """Rows [first, stop) of the parts to be written, in order; ``stop`` None is the end."""
        if self._end is None or self._n_rows is None:
            return [] if self.complete else [(self._at * self._size, None)]
        ranges: list[tuple[int, int | None]] = []
        for index in range(self._at, self._end):
            first, stop = index * self._size, min(self._n_rows, (index + 1) * self._size)
            if index in self._there:
                continue
            if ranges and ranges[-1][1] == first:
                first = ranges.pop()[0]
            ranges.append((first, stop))
        return ranges

    @property
    def n_parts(self) -> int:
        """Parts that are complete, of those that this writer is for."""
        return len(self._there)

    def path(self, index: int) -> str:
        return os.path.join(self.folder, self._name(index))

    def __enter__(self) -> PartsWriter:
        if self._makes:
            self._make_folder()
        for left in glob.glob(".part-*.tmp", root_dir=self.folder):
            # Of a run that was killed; those of other shares may be in use.
            if self._is_own(int(left.split(".")[1].removeprefix("part-"))):
                os.unlink(os.path.join(self.folder, left))
        if not self.complete:
            self._save_manifest(False)
            self._check_run(another_is_new=True)
        return self

    def write(self, rows: Rows) -> None:
        while len(rows):
            index = int(rows.rows[0]) // self._size
            while self._at < index:
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
            while self._writer is not None or self._is_short():
                self._commit()
            self._finish()
            return
        try:
            self._stack.__exit__(kind, error, trace)  # the part at hand is not kept
        finally:
            if self._fresh and self._shard is None and not self._there:
                os.unlink(self._manifest)
                if self._makes:
                    os.rmdir(self.folder)

    def _is_short(self) -> bool:
        """Whether parts are missing at the end, because all of their rows were left out."""
        return (
            not self._there and self._shard is None if self._end is None else self._at < self._end
        )

    def _finish(self) -> None:
        if not self.complete:
            names = set(os.listdir(self.folder))
            self.complete = all(self._name(index) in names for index in range(self._total or 0))
            if self.complete:
                self._save_manifest(True)

    def _open(self) -> Writer:
        if self._writer is None:
            n_rows = self._layout.n_rows
            if n_rows is not None:
                n_rows = max(0, min(self._size, n_rows - self._at * self._size))
            layout = replace(self._layout, n_rows=n_rows)
            writer = open_writer(self.path(self._at), layout, self._encoding)
            self._writer = self._stack.enter_context(writer)
        return self._writer

    def _commit(self) -> None:
        self._open()  # a part can be without rows
        self._stack.close()
        self._writer = None
        self._there.add(self._at)
        self._at = self._next(self._at)

    def _next(self, index: int) -> int:
        while index in self._there:
            index += 1
        return index

    def _name(self, index: int) -> str:
        return f"part-{index:05d}.{self._encoding.suffix}"

    def _is_own(self, index: int) -> bool:
        return self._first <= index and (self._end is None or index < self._end)

    def _rows_of(self, index: int) -> int:
        """Of the input, in the part of that number."""
        stop = (index + 1) * self._size
        return (stop if self._n_rows is None else min(stop, self._n_rows)) - index * self._size

    def _present(self) -> set[int]:
        """The parts that need not be written again."""
        if self._fresh:
            return set()
        if self._end is not None:
            return {i for i in range(self._first, self._end) if os.path.exists(self.path(i))}
        index = 0
        while os.path.exists(self.path(index)):
            index += 1
        return set(range(index))

    def _make_folder(self) -> None:
        parent = os.path.dirname(os.path.abspath(self.folder))
        if not os.path.isdir(parent):
            raise UsageError(f"{self.folder}: no such folder: {parent}; make it first")
        try:
            os.makedirs(self.folder, exist_ok=self._shard is not None)
        except OSError as error:
            raise OutputError(f"{self.folder}: {error.strerror}") from error

    def _holds_run(self) -> bool:
        """Whether there is a manifest; without one the folder has to be empty."""
        # Another share may be about to put its manifest here.
        names = [n for n in os.listdir(self.folder) if not n.startswith(f".{MANIFEST}.")]
        if not names:
            return False
        if not os.path.exists(self._manifest):
            raise UsageError(f"{self.folder}: not empty, and not a folder of parts; choose another")
        return True

    def _save_manifest(self, complete: bool) -> None:
        with (
            atomic_path(self._manifest, replace=complete) as path,
            open(path, "w", encoding="utf-8") as file,
        ):
            json.dump({"complete": complete, "run": self._run}, file, indent=1)
            file.write("\n")

    def _check_run(self, another_is_new: bool = False) -> None:
        """Compares the run with that of the manifest, which another share may have just made."""
        if not self._resume and self._shard is None and not another_is_new:
            raise UsageError(
                f"{self.folder}: holds the parts of a run; go on with it by `resume`, or choose "
                "another folder"
            )
        manifest = read_manifest(self._manifest, ("run", "complete"), "start in a new folder")
        option = "`resume` " if self._resume else ""
        where = f"{option}{self.folder}"
        refuse_another(manifest["run"], self._run, where, "choose another folder")
        self.complete = manifest["complete"]


def read_manifest(path: str, keys: Iterable[str], advice: str) -> dict[str, Any]:
    """The JSON object in a file that a run keeps.

    Raises:
        OutputError: it cannot be read, or one of the ``keys`` is missing.
    """
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        return found | {key: found[key] for key in keys}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path}: cannot be read ({error}); {advice}") from error


def refuse_another(run: dict[str, Any], wanted: dict[str, Any], where: str, advice: str) -> None:
    """Raises UsageError for a run that is not the wanted one."""
    for name in sorted({*run, *wanted}):
        if run.get(name) != wanted.get(name):
            raise UsageError(
                f"{where}: another run: {name} was {run.get(name)!r}, now it is "
                f"{wanted.get(name)!r}; give the same, or {advice}"
            )
