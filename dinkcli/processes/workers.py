"""Independent work side by side, on threads that give torch one thread each, or few: threads that
share small products wait for each other after every one, and for whoever has no core just then.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from dinkcli.processes.cores import usable_cores

# Multiplications of a pass over the data. With half as many a second thread saves a fifth on a
# quiet machine; beside busy processes it costs ten times as long (docs/LOG.md).
_WORTH_A_THREAD = 1 << 30


@contextmanager
def threads_for(multiplications: int) -> Iterator[None]:
    """Inside, torch has no more threads than work of that size is worth."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, usable_cores(), multiplications // _WORTH_A_THREAD)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Workers:
    """Threads that work off what is submitted, in that order. Leaving the ``with`` block by an
    exception, Ctrl-C too, ends what they are at after its current operation.

    Args:
        most: threads, where so many cores are usable; with 0 all is done where it is submitted.
        share: of torch's threads, for each.
    """

    def __init__(self, most: int, share: int = 1):
        self._most, self._share = min(most, max(1, usable_cores())), share
        self._busy: set[int] = set()

    def __enter__(self) -> Workers:
        import torch

        self._before = torch.get_num_threads()
        if self._most:
            set_share = partial(torch.set_num_threads, self._share)
            self._pool = ThreadPoolExecutor(self._most, "dink", set_share)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        import torch

        if self._most:
            self._pool.shutdown(wait=False, cancel_futures=kind is not None)
            for thread in list(self._busy) if kind is not None else ():
                stop = ctypes.py_object(SystemExit)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), stop)
            self._pool.shutdown()
        torch.set_num_threads(self._before)  # a worker's number counts for threads to come, too

    def submit(self, work: Callable[..., Any], *args: Any) -> Future[Any]:
        """What ``work(*args)`` will return or raise; futures among the ``args``, which were
        submitted before, stand for their results."""

        def run() -> Any:
            self._busy.add(threading.get_ident())
            try:
                return work(*(arg.result() if isinstance(arg, Future) else arg for arg in args))
            finally:
                self._busy.discard(threading.get_ident())

        if self._most:
            # In order: whatever it waits for is done, or another thread is at it.
            return self._pool.submit(run)
        future: Future[Any] = Future()
        try:
            future.set_result(run())
        except Exception as error:  # belongs to who asks for the result
            future.set_exception(error)
        return future
