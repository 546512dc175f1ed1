"""Rows on their way to a device, while it computes with those before.

To a GPU they go by pinned memory, a pair of buffers that are filled in turn, and a stream of their
own: ``send`` on a thread that reads ahead, ``receive`` on the one that computes. On a CPU both do
nothing.

Shapes: B rows of a block, D features.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

_BUFFERS = 2


class Sent(NamedTuple):
    """Rows (B, D) and what says when they have arrived, or None."""

    rows: Tensor
    event: Any = None


class Copies:
    """Sends blocks of rows to a device in their own type; one at a time, from one thread.

    Args:
        device: where they go.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._streams = _streams(device)
        self._buffers: list[Tensor] = []
        self._events: list[Any] = []
        self._turn = 0

    @property
    def overlaps(self) -> bool:
        """Whether rows travel beside computation; otherwise nothing is won on another thread."""
        return self._streams is not None

    def send(self, rows: Tensor) -> Sent:
        """Begins to copy ``rows`` (B, D) from the CPU, whose memory may be used again after."""
        if self._streams is None:
            return Sent(rows)
        event, rows = self._streams.send(self._pinned(rows))
        self._events[self._turn] = event
        self._turn = (self._turn + 1) % _BUFFERS
        return Sent(rows, event)

    def receive(self, sent: Sent) -> Tensor:
        """The rows on the device; the host does not wait for them."""
        if self._streams is None:
            return sent.rows.to(self._device)
        self._streams.receive(sent.rows, sent.event)
        return sent.rows

    def _pinned(self, rows: Tensor) -> Tensor:
        """A copy in the buffer whose turn it is, when what was in it has left."""
        turn = self._turn
        if len(self._buffers) == turn:
            self._buffers.append(self._streams.pinned(0, rows.dtype))
            self._events.append(None)
        if self._events[turn] is not None:
            self._events[turn].synchronize()
        buffer = self._buffers[turn]
        if len(buffer) < rows.numel() or buffer.dtype != rows.dtype:
            buffer = self._buffers[turn] = self._streams.pinned(rows.numel(), rows.dtype)
        return buffer[: rows.numel()].view(rows.shape).copy_(rows)


class CudaStreams:
    """What is asked of CUDA."""

    def __init__(self, device: torch.device):
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def pinned(self, size: int, dtype: torch.dtype) -> Tensor:
        """Memory that a GPU reads by itself, or plain memory where no more can be pinned."""
        try:
            return torch.empty(size, dtype=dtype, pin_memory=True)
        except RuntimeError:
            return torch.empty(size, dtype=dtype)

    def send(self, rows: Tensor) -> tuple[Any, Tensor]:
        """What says when they are there, and the ``rows`` there."""
        with torch.cuda.stream(self._stream):
            sent = torch.empty(rows.shape, dtype=rows.dtype, device=self._device)
            sent.copy_(rows, non_blocking=True)
            event = torch.cuda.Event()
            event.record(self._stream)
        return event, sent

    def receive(self, sent: Tensor, event: Any) -> None:
        """What is told the device from here on comes after their arrival; and their memory is not
        given to later ones before that is done."""
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(event)
        sent.record_stream(stream)


def _streams(device: torch.device) -> Any:
    return CudaStreams(device) if device.type == "cuda" else None
