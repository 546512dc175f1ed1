"""The rows being clustered: in memory, or read block by block."""

from __future__ import annotations

import torch
from torch import Tensor

from dinkcli.data.dataset import DataSet
from dinkcli.data.memory import default_memory, in_memory
from dinkcli.data.offset import around_usual_row
from dinkcli.data.sidefiles import read_weights
from dinkcli.data.spool import repeatable
from dinkcli.processes.group import SINGLE, Group
from dinkcli.training.held import HeldRows
from dinkcli.training.source import RowSource, share_of
from dinkcli.training.streamed import StreamedRows


def open_rows(
    data: DataSet,
    metric: str,
    device: torch.device,
    memory: int | None = None,
    shift: Tensor | None = None,
    group: Group = SINGLE,
    offset: bool = True,
) -> RowSource:
    """The rows of a data set and their weights (see ``RowSource``), held when all processes can
    hold theirs.

    Args:
        memory: bytes that rows may take on this machine, a quarter of its memory by default.
        offset: look whether rows lie so far from zero that they need one (see ``data.offset``).

    Raises:
        InputError, UsageError: as ``RowSource``.
    """
    data = repeatable(data)
    weights = read_weights(data, nonzero=metric == "cosine")
    data = around_usual_row(data, metric) if offset else data
    # The processes of one machine share its memory.
    memory = (default_memory() if memory is None else memory) // group.world.local_size
    streams = group.any(not in_memory(share_of(data, group), memory))
    kind = StreamedRows if streams else HeldRows
    return kind(data, metric, device, weights, memory, shift, group)
