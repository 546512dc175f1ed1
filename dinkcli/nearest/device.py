"""How much to give a device at once: the one place that knows caches, memory and launch costs.

A CPU wants chunks that stay in its caches. A GPU takes some 5 microseconds to be told anything, and
100 for an answer, so chunks there are as large as memory allows, and nobody asks before the end.

Shapes: K clusters, D features.
"""

from __future__ import annotations

import torch

from dinkcli.nearest import common

# Numbers of a matrix on a GPU, 256 MB in float32: a product of 1000 centres in 128 dimensions with
# as many rows takes 50 times as long as its launch. Two or three such matrices are there at once.
_DEVICE_NUMBERS = 1 << 26
# And at most this part of a small card's memory.
_DEVICE_SHARE = 1 / 64
_LEAST_ROWS = 64
# On a CPU, for its caches.
_CACHED_PAIRS = 1 << 22
_CACHED_GATHERED = 1 << 20
_MATRICES = 8  # that a block takes to compute with, at most
_SENT_NUMBERS = 1 << 24
# Rows of a block that is on the device already.
_BLOCK_ROWS = 1 << 16
_DEVICE_BLOCK_ROWS = 1 << 19
CPU = torch.device("cpu")
_WITHOUT_FLOAT64 = {"mps"}


def has_float64(device: torch.device) -> bool:
    return device.type not in _WITHOUT_FLOAT64


def wide(device: torch.device) -> torch.dtype:
    """float64, or float32 on a device (MPS) that has no float64."""
    return torch.float64 if has_float64(device) else torch.float32


def chunk_rows(n_clusters: int, n_features: int, *, device: torch.device = CPU) -> int:
    """Rows (of D features) whose scores against K centres are computed at once."""
    if device.type != "cpu":
        return max(_LEAST_ROWS, numbers_at_once(device) // max(n_clusters, n_features))
    return common.chunk_rows(n_clusters, n_features)


def scores_at_once(device: torch.device) -> int:
    """Scores of doubtful rows that are kept until they are settled."""
    return common.CHUNK_SCORES if device.type == "cpu" else numbers_at_once(device)


def pairs_at_once(device: torch.device) -> int:
    """Coordinates of pairs of a row and a centre that are looked at together in float64."""
    return _CACHED_PAIRS if device.type == "cpu" else numbers_at_once(device) // 4


def gathered_at_once(device: torch.device) -> int:
    """Coordinates of centres that are gathered for rows at once."""
    return _CACHED_GATHERED if device.type == "cpu" else numbers_at_once(device)


def numbers_at_once(device: torch.device) -> int:
    """Numbers of the largest matrix made on a device other than the CPU."""
    if device.type != "cuda":
        return _DEVICE_NUMBERS
    memory = torch.cuda.get_device_properties(device).total_memory
    return min(_DEVICE_NUMBERS, int(memory * _DEVICE_SHARE) // 4)


def keeps(n_bytes: int, device: torch.device) -> bool:
    """Whether a device has room for that beside what is computed with it."""
    free = _free_bytes(device)
    return free is None or n_bytes + _MATRICES * 4 * numbers_at_once(device) <= free


def _free_bytes(device: torch.device) -> int | None:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def sent_rows(n_features: int) -> int:
    """Rows of a block that is read for a device while it computes: copies as long as their start
    takes nothing of them, and two or three of them are in memory at once."""
    return max(1, _SENT_NUMBERS // n_features)


def block_rows(n_features: int, device: torch.device) -> int:
    """Rows of a block of rows in memory. Sums of its rows may be taken in float32, and float64
    takes in one block after the other: few enough that neither counts nor sums lose digits."""
    if device.type == "cpu":
        return _BLOCK_ROWS
    return max(_BLOCK_ROWS, min(_DEVICE_BLOCK_ROWS, numbers_at_once(device) // n_features))
