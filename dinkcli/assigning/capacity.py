"""Labels under a limit of the size of clusters, which depend on all rows at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from dinkcli.assigning.assigner import Assigner, usable
from dinkcli.assigning.torch_backend import prepared
from dinkcli.data.dataset import DataSet
from dinkcli.data.spool import is_stream
from dinkcli.errors import UsageError
from dinkcli.nearest.capacity import labels_within
from dinkcli.options import most_rows


class _Rows:
    """The good rows of a data set, prepared, as often as they are iterated over.

    Attributes:
        good: (N,) bool, known after the first time.
    """

    def __init__(self, assigner: Assigner, data: DataSet):
        self._assigner, self._data = assigner, data.whole
        self.good = np.empty(0, bool)

    def __iter__(self) -> Iterator[Tensor]:
        good = []
        for block in self._assigner.blocks(self._data):
            good.append(usable(block))
            vectors = block.vectors if good[-1].all() else block.vectors[good[-1]]
            yield prepared(vectors, self._assigner.model, self._assigner.device)
        self.good = np.concatenate(good)


def labels_of_all(assigner: Assigner, data: DataSet) -> np.ndarray:
    """(N,) int32: the labels of least inertia of which none is there more often than the assigner's
    ``max_size`` allows; -1 for bad rows.

    Raises:
        UsageError: an input that can be read only once, or a limit that is too low.
    """
    for reader in data.readers:
        if is_stream(reader):
            raise UsageError(
                f"{reader.path}: a stream is read once, and `max_size` looks at all rows before "
                "the first of them gets a cluster; write the stream to a file first"
            )
    if assigner.model.parts is not None:
        raise UsageError("max_size: clusters of an edited model have no size that could be limited")
    rows = _Rows(assigner, data)
    n_rows = sum(len(z) for z in rows)
    labels = np.full(len(rows.good), -1, np.int32)
    max_size = assigner.options.max_size
    if n_rows and max_size is not None:
        limit = most_rows(max_size, n_rows, assigner.model.n_clusters)
        centers = torch.from_numpy(assigner.model.cluster_centers).to(assigner.device)
        labels[rows.good] = labels_within(lambda: rows, centers, limit)
    return labels
