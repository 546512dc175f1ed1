"""SIGINT, SIGTERM and SIGHUP: what they do to a command."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
_NUMBERS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
NOTHING_WRITTEN = "Interrupted; nothing was written."


class Interrupted(KeyboardInterrupt):
    """A signal that ends the command at once.

    Attributes:
        exit_code: 128 and the number of the signal, as shells report it.
    """

    def __init__(self, number: int):
        self.exit_code = 128 + number
        super().__init__(number)


def exit_code(error: BaseException) -> int:
    """That of a command which ``error`` has interrupted; 130, as for Ctrl-C, unless it says."""
    return getattr(error, "exit_code", 130)


def ignore_signals() -> None:
    """From here on nothing interrupts the end of the command."""
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def interruptible(ask: Callable[[], bool] | None = None) -> Iterator[list[int]]:
    """Signals raise ``Interrupted`` inside the block.

    Args:
        ask: called first; when it returns True the block will end by itself, soon.

    Yields:
        The numbers of the signals that arrived.
    """
    received: list[int] = []

    def handle(number: int, _: object) -> None:
        received.append(number)
        if _torch_is_loading():
            os.write(2, f"{NOTHING_WRITTEN}\n".encode())
            os._exit(128 + number)
        if ask is None or not ask():
            raise Interrupted(number)

    # A signal that is ignored (SIGHUP under nohup) stays so. Only the main thread may ask for it.
    before = {n: signal.getsignal(n) for n in _NUMBERS if signal.getsignal(n) is not signal.SIG_IGN}
    if threading.current_thread() is not threading.main_thread():
        before = {}
    for number in before:
        signal.signal(number, handle)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _torch_is_loading() -> bool:
    """Then nothing has been written, and an exception could meet C++ that aborts on it."""
    spec = getattr(sys.modules.get("torch"), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))
