"""Independent work side by side, on threads that give torch one thread each, or few.

Several threads that share small products wait for each other after every one of them, and beside
other programs for whoever has no core just then. Work that depends on nothing else has nothing to
wait for. Needs no torch before it starts.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
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
    """Threads that work off what is submitted, in that order, as soon as what it needs is there.

    Leaving the ``with`` block by an exception, Ctrl-C too, ends what they are at after its current
    operation.

    Args:
        most: threads, where so many cores are usable; with 0 all is done where it is submitted.
        share: of torch's threads, for each.
    """

    def __init__(self, most: int, share: int = 1):
        self._share = share
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        number = min(most, max(1, usable_cores()))
        self._threads = [threading.Thread(target=self._work) for _ in range(number)]

    def __enter__(self) -> Workers:
        import torch

        self._before = torch.get_num_threads()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        import torch

        for thread in self._threads:
            self._queue.put(None)
            if kind is not None:
                stop = ctypes.py_object(SystemExit)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), stop)
        for thread in self._threads:
            thread.join()
        torch.set_num_threads(self._before)  # a worker's number counts for threads to come, too

    def submit(self, work: Callable[..., Any], *args: Any) -> Future[Any]:
        """What ``work(*args)`` will return or raise; futures among the ``args`` stand for their
        results, and it waits for them without a thread."""
        future: Future[Any] = Future()
        needed = {arg for arg in args if isinstance(arg, Future)}
        left, lock = [len(needed)], threading.Lock()

        def run() -> Any:
            return work(*(arg.result() if isinstance(arg, Future) else arg for arg in args))

        if not self._threads:
            self._finish(future, run)
            return future

        def one_more(_: object) -> None:
            with lock:
                left[0] -= 1
                ready = left[0] == 0
            if ready:
                self._queue.put((future, run))

        if not needed:
            self._queue.put((future, run))
        for each in needed:
            each.add_done_callback(one_more)
        return future

    def _work(self) -> None:
        import torch

        torch.set_num_threads(self._share)
        try:
            while (item := self._queue.get()) is not None:
                self._finish(*item)
        except SystemExit:  # of ``__exit__``
            pass

    @staticmethod
    def _finish(future: Future[Any], run: Callable[[], Any]) -> None:
        try:
            future.set_result(run())
        except Exception as error:  # belongs to who asks for the result
            future.set_exception(error)
