"""How much memory a training takes at its largest, counted from its arrays.

Shapes: N rows, S rows of the sample, K clusters, D features; all of one process.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dinkcli.data.dataset import BLOCK_BYTES
from dinkcli.nearest.device import chunk_rows
from dinkcli.planning.work import Work
from dinkcli.training.schedule import sample_size
from dinkcli.training.split import JUDGES

# What libraries allocate when they begin to work: threads, kernels, workspaces.
_WORKING = 20 << 20
_BLOCKS = 6  # of float32 rows that are read ahead, used, and on their way
_CHUNKS = 3  # of (rows, K) scores at once
_LABELS = 48  # bytes a row: two labels and two distances of two states
_PAIRS = 24  # bytes a row while pairs of clusters are counted
_COPIES = 11  # of (K, D) float32: centres, sums of them in float64, and steps in between


@dataclass(frozen=True)
class Footprint:
    """Bytes of one process.

    Attributes:
        work: of this process.
        libraries: resident before any row is read.
        reading: resident for reading, besides the rows read.
        on_device: whether rows and centres live on a GPU.
    """

    work: Work
    libraries: int
    reading: int
    on_device: bool = False

    @property
    def host(self) -> int:
        """Resident at the largest."""
        if self.on_device:
            return self._base + max(self.work.held_bytes, self.work.sample_bytes)
        return self._base + self.device

    @property
    def device(self) -> int:
        """Of rows, sample and centres, wherever they live."""
        return self.work.held_bytes + self.centers + self._scratch + self._on_sample

    @property
    def assigning(self) -> int:
        return self._base + self._scratch + 4 * self.work.center_bytes

    @property
    def centers(self) -> int:
        return _COPIES * self.work.center_bytes

    @property
    def if_held(self) -> int:
        return replace(self, work=replace(self.work, held=True)).host

    def if_streamed(self, memory: int) -> int:
        """With rows that may take ``memory`` bytes, which is less than they do."""
        work = self.work
        sample = sample_size(work.rows, work.clusters, work.features, memory)
        return replace(self, work=replace(work, held=False, sample=sample)).host

    @property
    def _base(self) -> int:
        blocks = 1 if self.work.held else _BLOCKS
        queued = blocks * min(BLOCK_BYTES, self._row * self.work.rows)
        return self.libraries + _WORKING + self.reading + queued

    @property
    def _row(self) -> int:
        return 4 * self.work.features

    @property
    def _scratch(self) -> int:
        rows = min(self.work.rows, chunk_rows(self.work.clusters, self.work.features))
        return _CHUNKS * 4 * rows * self.work.clusters

    @property
    def _on_sample(self) -> int:
        """The sample, and the most that one step makes beside it."""
        work = self.work
        judged = min(work.sample, JUDGES * max(64, work.clusters // 2))
        steps = (
            # The squares of all its numbers, or the numbers in float64 for their mean.
            work.sample_bytes * (1 if work.held else 2),
            2 * self._row * work.seeding,  # differences to centres
            2 * 4 * work.axes * judged + (_LABELS + _PAIRS) * work.sample,  # splits
        )
        return work.sample_bytes + work.on_axes_bytes + max(steps)


def resident_bytes() -> int:
    """Of this process, now."""
    import psutil

    return psutil.Process().memory_info().rss
