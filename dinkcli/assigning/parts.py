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
import sys
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, replace
from itertools import groupby, takewhile
from typing import Any

import numpy as np

from dinkcli.assigning.layout import Layout, Rows
from dinkcli.assigning.writers import (
    FORMATS,
    Output,
    Writer,
    open_writer,
    partition_writer,
    stream_writer,
)
from dinkcli.data.atomic import atomic_path, check_target
from dinkcli.data.dataset import DataSet
from dinkcli.errors import OutputError, UsageError
from dinkcli.processes.group import ALONE, World

MANIFEST = "_dink.json"
_MOST_ROWS = 1 << 20  # of a part of a share where nobody says it


def rows_of_parts(data: DataSet, share: World, rows: int | None = None) -> int:
    """The ``rows`` of a part, by default one part a share, or about a million rows; raises
    UsageError for inputs whose rows cannot be counted before they are read."""
    for reader in data.readers:
        if reader.n_rows is None or reader.comes_once:
            raise UsageError(
                f"{reader.path}: {reader.format} without a known number of rows, or that can "
                f"be read only once, has no share {share}; give files of npy, parquet, Arrow "
                "or safetensors"
            )
    return rows or max(1, min(_MOST_ROWS, -(-data.known_rows // share.size)))


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
    """A context manager that writes parts of R rows into a folder, each when it is complete. The
    ``run`` is plain JSON that says what they depend on, ``n_rows`` N of the input, bad rows
    included, or None where only the end of the input tells, which shares cannot do with.

    Attributes:
        n_rows: of the input, in the parts that this writer is for; None where N is.
        there: numbers of the complete ones of these parts.
        rows_before: of the input, in the parts that were there already.
        missing: rows [first, stop) of the others, in order; ``stop`` None is the end.
        complete: the folder has all parts of the run.
    """

    def __init__(self, output: Output, layout: Layout, run: dict[str, Any], n_rows: int | None):
        size = output.rows_per_file or 0
        if size < 1:
            raise UsageError(f"`rows_per_file` {size}: expected at least 1")
        self._output, self._layout, self._size = output, layout, size
        self._n_rows = n_rows
        run = run | asdict(output.encoding) | {"rows_per_file": size}
        self._run = json.loads(json.dumps(run))  # as it will be read again
        self._manifest = os.path.join(output.path, MANIFEST)
        self._total = -(-(n_rows or 0) // size)
        self._parts, self.n_rows = range(sys.maxsize), None
        if n_rows is not None:
            first, stop = (output.shard or ALONE).share(self._total)
            self._parts = range(first, stop)
            self.n_rows = min(n_rows, stop * size) - min(n_rows, first * size)
        self.there: set[int] = set()
        self.rows_before, self.complete = 0, False
        self.missing: list[tuple[int, int | None]] = []
        self._stack = ExitStack()
        self._writer: Writer | None = None

    def __enter__(self) -> PartsWriter:
        self._claim()
        self._check_run()
        folder, size, shard = self._output.path, self._size, self._output.shard
        if self._n_rows is None:
            self.there.update(takewhile(self._exists, self._parts))
            self.rows_before = len(self.there) * size
            self.missing = [] if self.complete else [(self.rows_before, None)]
        else:
            self.there.update(filter(self._exists, self._parts))
            self.rows_before = sum(min(size, self._n_rows - i * size) for i in self.there)
            runs = groupby(self._parts, self.there.__contains__)
            gaps = [list(run) for is_there, run in runs if not is_there]
            ends = [min(self._n_rows, (gap[-1] + 1) * size) for gap in gaps]
            self.missing = [(gap[0] * size, end) for gap, end in zip(gaps, ends, strict=True)]
        if shard is not None and self.there and not self._output.resume:
            raise UsageError(
                f"{folder}: holds parts of share {shard} already; go on with it by `resume`, or "
                "choose another folder"
            )
        for left in glob.glob(".part-*.tmp", root_dir=folder):
            # Of a run that was killed; those of other shares may be in use.
            if int(left.split(".")[1].removeprefix("part-")) in self._parts:
                os.unlink(os.path.join(folder, left))
        self._todo = (i for i in self._parts if i not in self.there)
        self._at = next(self._todo, self._parts.stop)
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
        if error[0] is None:
            # Parts at the end are missing where all of their rows were left out.
            end = self._parts.stop
            if self._n_rows is None:
                end = max(1, self._at + (self._writer is not None))
            while self._at < end:
                self._commit()
            if not self.complete and all(map(self._exists, range(self._total))):
                self.complete = True
                self._save_manifest(True)
            return
        try:
            self._stack.__exit__(*error)  # the part at hand is not kept
        finally:
            if self._fresh and self._output.shard is None and not self.there:
                os.unlink(self._manifest)
                if self._makes:
                    os.rmdir(self._output.path)

    def _open(self) -> Writer:
        if self._writer is None:
            layout = self._layout
            if layout.n_rows is not None:
                n_rows = min(self._size, layout.n_rows - self._at * self._size)
                layout = replace(layout, n_rows=n_rows)
            writer = open_writer(self._path(self._at), layout, self._output.encoding)
            self._writer = self._stack.enter_context(writer)
        return self._writer

    def _commit(self) -> None:
        self._open()  # a part can be without rows
        self._stack.close()
        self._writer = None
        self.there.add(self._at)
        self._at = next(self._todo, self._parts.stop)

    def _path(self, index: int) -> str:
        name = f"part-{index:05d}.{FORMATS[self._output.encoding.format].suffixes[0]}"
        return os.path.join(self._output.path, name)

    def _exists(self, index: int) -> bool:
        return os.path.exists(self._path(index))

    def _claim(self) -> None:
        """Makes the folder and its manifest, where they are not there."""
        folder, shared = self._output.path, self._output.shard is not None
        self._makes = not os.path.isdir(folder)
        if self._makes:
            check_target(folder)
            try:
                os.makedirs(folder, exist_ok=shared)
            except OSError as error:
                raise OutputError(f"{folder}: {error.strerror}") from error
        # Another share may be about to put its manifest here.
        self._fresh = all(name.startswith(f".{MANIFEST}.") for name in os.listdir(folder))
        if self._fresh:
            self._save_manifest(False)
        elif not os.path.exists(self._manifest):
            raise UsageError(f"{folder}: not empty, and not a folder of parts; choose another")
        elif not (shared or self._output.resume):
            raise UsageError(
                f"{folder}: holds the parts of a run; go on with it by `resume`, or choose "
                "another folder"
            )

    def _save_manifest(self, complete: bool) -> None:
        with (
            atomic_path(self._manifest, replace=complete) as path,
            open(path, "w", encoding="utf-8") as file,
        ):
            json.dump({"complete": complete, "run": self._run}, file, indent=1)
            file.write("\n")

    def _check_run(self) -> None:
        """Compares the run with that of the manifest, which another share may have just made."""
        resumed = "`resume` " * self._output.resume
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
                    f"{resumed}{self._output.path}: another run: {name} was {before!r}, now it is "
                    f"{now!r}; give the same, or choose another folder"
                )
