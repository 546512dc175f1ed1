"""What the hardware wants: how much at once, which products, and rows that are there in time.

A CPU wants chunks that stay in its caches. A GPU takes some 5 microseconds to be told anything, and
100 for an answer, so chunks there are as large as memory allows, and the host asks at the end.

Matrix units multiply bfloat16 (CPUs) or TF32 numbers (GPUs) several times faster than float32 ones;
what is wanted better than that is looked at again. ``DINK_LOW_PRECISION=0`` does without them, to
test and measure what machines do that have none.

Shapes: N rows, B rows of a block, K clusters, D features.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dinkcli.nearest import small

# Numbers of a matrix on a GPU, 256 MB in float32: a product of 1000 centres in 128 dimensions with
# as many rows takes 50 times as long as its launch. Two or three such matrices are there at once.
_DEVICE_NUMBERS = 1 << 26
_DEVICE_SHARE = 1 / 64  # and at most this part of a small card's memory
_LEAST_ROWS = 64
_MATRICES = 8  # that a block takes to compute with, at most
_SENT_NUMBERS = 1 << 24
_BLOCK_ROWS = 1 << 16
_DEVICE_BLOCK_ROWS = 1 << 19  # of a block that is on the device already
_BUFFERS = 2
CPU = torch.device("cpu")
_WITHOUT_FLOAT64 = {"mps"}


def has_float64(device: torch.device) -> bool:
    return device.type not in _WITHOUT_FLOAT64


def accumulator_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on a device (MPS) that has no float64."""
    return torch.float64 if has_float64(device) else torch.float32


def chunk_rows(n_clusters: int, n_features: int, *, device: torch.device = CPU) -> int:
    """Rows (of D features) whose scores against K centres are computed at once."""
    if device.type != "cpu":
        return max(_LEAST_ROWS, numbers_at_once(device) // max(n_clusters, n_features))
    return small.chunk_rows(n_clusters, n_features)


def numbers_at_once(device: torch.device, on_cpu: int = _DEVICE_NUMBERS) -> int:
    """Numbers of the largest matrix that is made; ``on_cpu`` there, where caches decide."""
    if device.type == "cpu":
        return on_cpu
    if device.type != "cuda":
        return _DEVICE_NUMBERS
    memory = torch.cuda.get_device_properties(device).total_memory
    return min(_DEVICE_NUMBERS, int(memory * _DEVICE_SHARE) // 4)


def keeps(n_bytes: int, device: torch.device) -> bool:
    """Whether a device has room for that beside what is computed with it."""
    needed = n_bytes + _MATRICES * 4 * numbers_at_once(device)
    return device.type != "cuda" or needed <= torch.cuda.mem_get_info(device)[0]


def sent_rows(n_features: int) -> int:
    """Rows of a block that is read for a device while it computes: copies that take much longer
    than their start, two or three of which are in memory at once."""
    return max(1, _SENT_NUMBERS // n_features)


def block_rows(n_features: int, device: torch.device) -> int:
    """Rows of a block of rows in memory. Sums of its rows may be taken in float32, and float64
    takes in one block after the other: few enough that neither counts nor sums lose digits."""
    if device.type == "cpu":
        return _BLOCK_ROWS
    return max(_BLOCK_ROWS, min(_DEVICE_BLOCK_ROWS, numbers_at_once(device) // n_features))


def _settings(device: torch.device) -> Any:
    """Where torch keeps the precision of float32 products on such a device, if it has one."""
    backends = {"cpu": torch.backends.mkldnn, "cuda": torch.backends.cuda}
    return getattr(backends.get(device.type), "matmul", None)


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The dtype that numbers of ``dtype`` are computed with."""
    return torch.promote_types(dtype, torch.float32)


def has_low_precision(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this machine has them for matrices of ``dtype``."""
    if dtype != torch.float32 or _switched_off():
        return False
    return _cpu_has("_is_amx_tile_supported") if device.type == "cpu" else _has_tf32(device)


def _has_tf32(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices faster than float32 ones."""
    return _cpu_has("_is_amx_tile_supported", "_is_avx512_bf16_supported")


def _cpu_has(*units: str) -> bool:
    """Whether this CPU has one of the units that torch tells by these names, and torch uses it."""
    has_unit = any(getattr(torch.cpu, name)() for name in units)
    return has_unit and torch.backends.mkldnn.is_available() and not _switched_off()


def _switched_off() -> bool:
    return os.environ.get("DINK_LOW_PRECISION") == "0"


@contextmanager
def products(device: torch.device, low_precision: bool = False) -> Iterator[None]:
    """Inside, products of float32 tensors are exact to float32, or of low precision.

    The setting is global in torch, so whatever the program around has chosen comes back after; and
    what it, or a container's environment, has chosen may be TF32, so no product goes without this.
    Threads that work side by side need one such block around them all, and none of low precision.
    """
    settings = _settings(device)
    wanted = ("bf16" if device.type == "cpu" else "tf32") if low_precision else "ieee"
    if settings is None or (before := settings.fp32_precision) == wanted:
        yield
        return
    settings.fp32_precision = wanted
    try:
        yield
    finally:
        settings.fp32_precision = before


class Sent(NamedTuple):
    """Rows (B, D) and what says when they have arrived, or None."""

    rows: Tensor
    event: Any = None


class Copies:
    """Sends blocks of rows to a device in their own type; one at a time, from one thread. To a CPU
    there is nothing to send."""

    def __init__(self, device: torch.device):
        self._device = device
        self._streams = _streams(device)
        # Whether rows travel beside computation; otherwise nothing is won on another thread.
        self.overlaps = self._streams is not None
        self._buffers: deque[tuple[Tensor, Any]] = deque([(torch.empty(0), None)] * _BUFFERS)

    def send(self, rows: Tensor) -> Sent:
        """Begins to copy ``rows`` (B, D) from the CPU, whose memory may be used again after."""
        if self._streams is None:
            return Sent(rows)
        buffer, left = self._buffers.popleft()
        if left is not None:  # what was in the buffer has to be on its way first
            left.synchronize()
        if buffer.dtype != rows.dtype or buffer.numel() < rows.numel():
            buffer = self._streams.pinned(rows.numel(), rows.dtype)
        event, sent = self._streams.send(buffer[: rows.numel()].view(rows.shape).copy_(rows))
        self._buffers.append((buffer, event))
        return Sent(sent, event)

    def receive(self, sent: Sent) -> Tensor:
        """The rows on the device; the host does not wait for them."""
        if self._streams is None:
            return sent.rows.to(self._device)
        self._streams.receive(sent.rows, sent.event)
        return sent.rows


class CudaStreams:
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
        """What the device is told from now on comes after their arrival."""
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(event)
        sent.record_stream(stream)  # later rows do not get their memory before that is done


def _streams(device: torch.device) -> Any:
    return CudaStreams(device) if device.type == "cuda" else None
