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
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, replace
from itertools import count, takewhile
from typing import Any

import numpy as np

from dinkcli.assigning.layout import Layout, Rows
from dinkcli.assigning.writers import (
    FORMATS,
    Output,
    Writer,
    check_parent,
    open_writer,
    partition_writer,
    stream_writer,
)
from dinkcli.data.atomic import atomic_path
from dinkcli.errors import OutputError, UsageError

MANIFEST = "_dink.json"


def open_output(
    output: Output, layout: Layout, run: dict[str, Any] | None = None, n_rows: int | None = None
) -> AbstractContextManager[Writer | PartsWriter]:
    """The writer of an output; ``run`` and ``n_rows`` are those of ``PartsWriter``."""
    if output.by_cluster:
        return partition_writer(output.path, layout)
    if output.stream is not None:
        return stream_writer(output.stream, layout, output.encoding)
    if output.rows_per_file is None:
        return open_writer(output.path, layout, output.encoding)
    return PartsWriter(output, layout, run or {}, n_rows)


class PartsWriter:
    """A context manager that writes parts of R rows into a folder, each when it is complete.

    Args:
        output: with R; its folder is made when it is not there. A share needs ``n_rows``.
        run: plain JSON that says what the parts depend on.
        n_rows: N of the input, bad rows included, or None where only the end of the input tells.

    Attributes:
        complete: the folder has all parts of the run.
        there: numbers of the complete parts, of those that this writer is for.
        rows_before: of the input, in the parts that were there already.
    """

    def __init__(
        self, output: Output, layout: Layout, run: dict[str, Any], n_rows: int | None = None
    ):
        size = output.rows_per_file or 0
        if size < 1:
            raise UsageError(f"`rows_per_file` {size}: expected at least 1")
        folder, shard = output.path, output.shard
        self.folder, self.complete = folder, False
        self._output, self._layout, self._size, self._n_rows = output, layout, size, n_rows
        run = run | asdict(output.encoding) | {"rows_per_file": size}
        self._run = json.loads(json.dumps(run))  # as it will be read again
        # Parts that this writer is for: [first, end).
        self._first, self._end = 0, None if n_rows is None else -(-n_rows // size)
        self._total = self._end
        if shard is not None and self._total is not None:
            self._first, self._end = shard.of(self._total)
        self._stack = ExitStack()
        self._writer: Writer | None = None
        self._makes = not os.path.isdir(folder)
        self._manifest = os.path.join(folder, MANIFEST)
        self._fresh = self._makes or not self._holds_run()
        self.there: set[int] = set()
        if not self._fresh:
            self._check_run()
            if self._end is None:
                self.there.update(takewhile(self._exists, count()))
            else:
                self.there.update(filter(self._exists, range(self._first, self._end)))
        if shard is not None and self.there and not output.resume:
            raise UsageError(
                f"{folder}: holds parts of share {shard} already; go on with it by `resume`, or "
                "choose another folder"
            )
        limits = ((i * size, (i + 1) * size) for i in self.there)
        self.rows_before = sum(min(stop, n_rows or stop) - first for first, stop in limits)
        self._at = self._next(self._first)

    @property
    def missing(self) -> list[tuple[int, int | None]]:
        """Rows [first, stop) of the parts to be written, in order; ``stop`` None is the end."""
        if self._end is None or self._n_rows is None:
            return [] if self.complete else [(self._at * self._size, None)]
        ranges: list[tuple[int, int | None]] = []
        for index in range(self._first, self._end):
            first, stop = index * self._size, min(self._n_rows, (index + 1) * self._size)
            if index not in self.there:
                if ranges and ranges[-1][1] == first:
                    first = ranges.pop()[0]
                ranges.append((first, stop))
        return ranges

    def __enter__(self) -> PartsWriter:
        if self._makes:
            check_parent(self.folder)
            try:
                os.makedirs(self.folder, exist_ok=self._output.shard is not None)
            except OSError as error:
                raise OutputError(f"{self.folder}: {error.strerror}") from error
        for left in glob.glob(".part-*.tmp", root_dir=self.folder):
            # Of a run that was killed; those of other shares may be in use.
            index = int(left.split(".")[1].removeprefix("part-"))
            if self._first <= index and (self._end is None or index < self._end):
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

    def __exit__(self, *error: Any) -> None:
        shared = self._output.shard is not None
        if error[0] is None:
            # Parts at the end are missing where all of their rows were left out.
            one_at_least = self._end is None and not self.there and not shared
            while self._writer is not None or one_at_least or self._at < (self._end or 0):
                self._commit()
                one_at_least = False
            if not self.complete:
                self.complete = all(map(self._exists, range(self._total or 0)))
                if self.complete:
                    self._save_manifest(True)
            return
        try:
            self._stack.__exit__(*error)  # the part at hand is not kept
        finally:
            if self._fresh and not shared and not self.there:
                os.unlink(self._manifest)
                if self._makes:
                    os.rmdir(self.folder)

    def _open(self) -> Writer:
        if self._writer is None:
            n_rows = self._layout.n_rows
            if n_rows is not None:
                n_rows = max(0, min(self._size, n_rows - self._at * self._size))
            layout = replace(self._layout, n_rows=n_rows)
            path = os.path.join(self.folder, self._name(self._at))
            writer = open_writer(path, layout, self._output.encoding)
            self._writer = self._stack.enter_context(writer)
        return self._writer

    def _commit(self) -> None:
        self._open()  # a part can be without rows
        self._stack.close()
        self._writer = None
        self.there.add(self._at)
        self._at = self._next(self._at)

    def _next(self, index: int) -> int:
        while index in self.there:
            index += 1
        return index

    def _name(self, index: int) -> str:
        return f"part-{index:05d}.{FORMATS[self._output.encoding.format].suffixes[0]}"

    def _exists(self, index: int) -> bool:
        return os.path.exists(os.path.join(self.folder, self._name(index)))

    def _holds_run(self) -> bool:
        """Whether there is a manifest; without one the folder has to be empty."""
        # Another share may be about to put its manifest here.
        names = [n for n in os.listdir(self.folder) if not n.startswith(f".{MANIFEST}.")]
        if names and not os.path.exists(self._manifest):
            raise UsageError(f"{self.folder}: not empty, and not a folder of parts; choose another")
        return bool(names)

    def _save_manifest(self, complete: bool) -> None:
        with (
            atomic_path(self._manifest, replace=complete) as path,
            open(path, "w", encoding="utf-8") as file,
        ):
            json.dump({"complete": complete, "run": self._run}, file, indent=1)
            file.write("\n")

    def _check_run(self, another_is_new: bool = False) -> None:
        """Compares the run with that of the manifest, which another share may have just made."""
        resume = self._output.resume
        if not resume and self._output.shard is None and not another_is_new:
            raise UsageError(
                f"{self.folder}: holds the parts of a run; go on with it by `resume`, or choose "
                "another folder"
            )
        try:
            with open(self._manifest, encoding="utf-8") as file:
                manifest = json.load(file)
            run, self.complete = manifest["run"], manifest["complete"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"{self._manifest}: cannot be read ({error}); start in a new folder"
            ) from error
        for name in sorted({*run, *self._run}):
            before, now = run.get(name), self._run.get(name)
            if before != now:
                raise UsageError(
                    f"{'`resume` ' * resume}{self.folder}: another run: {name} was {before!r}, now "
                    f"it is {now!r}; give the same, or choose another folder"
                )
