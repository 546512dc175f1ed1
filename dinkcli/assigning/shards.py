"""Shares of an assignment, for processes that do not talk to each other.

The parts of the output folder are numbered over all rows; a share is a run of whole parts. What
is done shows in the folder alone: whoever finds all parts in it says that it is complete.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dinkcli.errors import UsageError
from dinkcli.processes.group import world

if TYPE_CHECKING:
    from dinkcli.data.dataset import DataSet

_MOST_ROWS = 1 << 20


@dataclass(frozen=True)
class Shard:
    """Share ``number`` of ``count``, from 1."""

    number: int
    count: int
    local_rank: int = 0  # among the processes of this machine, where a launcher says it
    launched: bool = False  # by one, which has started the processes of the other shares

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, total: int) -> tuple[int, int]:
        """First and last + 1 of this share of ``total`` things; shares differ by one at most."""
        first = total * (self.number - 1) // self.count
        return first, total * self.number // self.count

    def rows_of(self, n_rows: int, part_rows: int) -> int:
        """Rows of the input in this share, in parts of ``part_rows``."""
        first, stop = self.of(-(-n_rows // part_rows))
        return min(n_rows, stop * part_rows) - min(n_rows, first * part_rows)

    def check(self, data: DataSet) -> None:
        """Raises UsageError for inputs whose rows cannot be counted before they are read."""
        for reader in data.readers:
            if reader.n_rows is None or reader.comes_once:
                raise UsageError(
                    f"{reader.path}: {reader.format} without a known number of rows, or that can "
                    f"be read only once, has no share {self}; give files of npy, parquet, Arrow "
                    "or safetensors"
                )


def parse_shard(text: str) -> Shard:
    """The share that a text such as 2/3 names."""
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip(), re.ASCII)
    if match is None or int(match[2]) == 0:
        raise UsageError(f"`shard` {text}: expected one of N shares, such as 1/3, 2/3 or 3/3")
    number, count = int(match[1]), int(match[2])
    if not 1 <= number <= count:
        raise UsageError(
            f"`shard` {text}: shares are counted from 1, here 1/{count} to {count}/{count}; "
            f"a Slurm array that fits is --array=1-{count}"
        )
    return Shard(number, count)


def launched(environment: Mapping[str, str] = os.environ) -> Shard | None:
    """The share of a process that a launcher has started as one of several: RANK and WORLD_SIZE say
    which. They do not talk, so that no address is needed."""
    rank = environment.get("RANK", "")
    here = world({"LOCAL_RANK": rank, "MASTER_ADDR": "", **environment})
    if here.size == 1:
        return None
    return Shard(here.rank + 1, here.size, here.local_rank, launched=True)


def usual_part_rows(n_rows: int, count: int) -> int:
    """Rows of a part where nobody says it: one part a share, or about a million rows."""
    return max(1, min(_MOST_ROWS, -(-n_rows // count)))
