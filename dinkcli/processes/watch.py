"""Signs of life of the processes of one job: each counts up a number in the launcher's store and
looks at those of the others. A collective operation cannot be left once it waits, so what is found
out here ends the process.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

BEAT_SECONDS = 1.0
SILENT_SECONDS = 16.0
# When a connection broke, somebody has gone just now: a few beats tell who.
_SUSPECT_SECONDS = 3.5
_TOLD = "told"


class Watch:
    """Shows this process to the others and watches them, on a thread.

    Args:
        store: of the launcher; only ``add``, ``set``, ``get`` and ``check`` are used.
        on_loss: called on the thread with one line for the user, or None when another process
            tells it. It has to end the process.
    """

    def __init__(self, store: Any, rank: int, size: int, on_loss: Callable[[str | None], object]):
        self._store, self._rank, self._size, self._on_loss = store, rank, size, on_loss
        self._stop = threading.Event()
        self._mine = False
        self._held_by_launcher = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        store.set(f"host/{rank}", socket.gethostname())
        self._thread = threading.Thread(target=self._run, name="dink-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=2 * BEAT_SECONDS)

    def claim(self) -> bool:
        """Whether this process is the one that tells the user why the job ends; one of them is. The
        others end as soon as they notice."""
        if not self._mine:
            try:
                self._mine = self._store.add(_TOLD, 1) == 1
            except RuntimeError:  # the store is gone with the process that held it
                self._mine = self._rank == (0 if self._held_by_launcher else 1)
        return self._mine

    def broken(self) -> str | None:
        """Who is gone, after a connection broke, in words; None when everybody is still there."""
        before = self._look()
        time.sleep(_SUSPECT_SECONDS)
        now = self._look()
        if before is None or now is None:
            return self._store_is_gone()
        lost = [r for r in range(self._size) if r != self._rank and now[r] == before[r]]
        return self._sentence(lost, "its connection broke") if lost else None

    def _run(self) -> None:
        last = time.monotonic()
        counts, since = [0] * self._size, [last] * self._size
        while not self._stop.wait(BEAT_SECONDS):
            now = time.monotonic()
            if now - last > SILENT_SECONDS / 2:  # this process itself was stopped
                since = [now] * self._size
            last, before, counts = now, counts, self._look() or []
            if self._stop.is_set() or self._mine:
                continue
            if not counts:
                self._end(self._store_is_gone())
            elif self._store.check([_TOLD]):
                self._stop.wait(BEAT_SECONDS)  # its line comes first
                self._end(None)
            else:
                beats = zip(counts, before, since, strict=True)
                since = [then if count == old else now for count, old, then in beats]
                lost = [r for r in range(self._size) if now - since[r] > SILENT_SECONDS]
                if lost:
                    self._end(self._sentence(lost, f"no sign of life for {SILENT_SECONDS:.0f} s"))

    def _look(self) -> list[int] | None:
        """Counts this process up; the numbers of all. None when the store does not answer."""
        try:
            return [
                self._store.add(f"beat/{rank}", int(rank == self._rank))
                for rank in range(self._size)
            ]
        except RuntimeError:
            return None

    def _sentence(self, lost: list[int], why: str) -> str:
        names = ", ".join(f"{rank} on {self._host(rank)}" for rank in lost[:3])
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        return f"rank {names}{more} of {self._size} {'are' if lost[1:] else 'is'} gone ({why})"

    def _host(self, rank: int) -> str:
        try:
            if self._store.check([f"host/{rank}"]):
                return self._store.get(f"host/{rank}").decode()
        except RuntimeError:
            pass
        return "a machine unknown"

    def _store_is_gone(self) -> str:
        if self._held_by_launcher:
            return "the launcher of this job is gone"
        return f"rank 0 of {self._size} is gone (its store does not answer)"

    def _end(self, sentence: str | None) -> None:
        self._on_loss(sentence if sentence is not None and self.claim() else None)
