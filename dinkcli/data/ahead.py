"""Reading ahead: the next items of an iterator are made on a thread while one is used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


def read_ahead(items: Iterator[Item], depth: int = 2) -> Iterator[Item]:
    """The same items in the same order, ``depth`` of them made in advance on a thread.

    An exception of ``items`` is raised here, after the items before it. The thread ends when
    this generator does: exhausted, closed, or by an exception of its consumer.
    """
    ready: queue.Queue[object] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: object) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(_END)
        except BaseException as error:  # whatever it is belongs to the consumer
            put(error)

    thread = threading.Thread(target=work, name="dink-read-ahead", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item  # type: ignore[misc]
    finally:
        stop.set()
        thread.join(timeout=1)  # a read from a stalled pipe may never return
