"""Sums of the rows of a batch under their responsibilities at a temperature, for annealing.

On CPUs they are exact: rows and responsibilities are rounded to so few bits that float64 holds the
sums of their products, which are then the same in whatever order, and however rows are shared
between processes. Centres that divide as they cool grow differences from the last bits of a sum.

Shapes: B rows of a batch, K clusters, D features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import repeat

import torch
from torch import Tensor

from dinkcli.nearest.hardware import accumulator_dtype, chunk_rows, has_low_precision, products
from dinkcli.nearest.index import CenterIndex

_LEAST_EXPONENT = -60.0  # far below, exponentials are denormal: products take ten times as long
_ALIGNED = 4  # numbers, which matrix units want to begin with
# Sums of the few centres that have a part in a row cost a tenth of a product in float64 with all,
# and inertia ends the same to 0.05 %.
_MANY_CLUSTERS = 160
_KEPT = 4
_LEAST_KEPT = 1e-3  # responsibilities below count as none
_WIDEST = 1024.0  # times the usual size
_EXPONENTS = 20.0  # errors of products may move exponents 2 <z, c> / T by a tenth
# Where the mean squared distance is this share of the mean squared norm, what bfloat16 products are
# off by does not matter: 2**-7 of the norm at most, and in 30 dimensions a tenth of that for
# differences of squared distances.
OVERLAP = 2.0**-5


def low_precision_temperature(z: Tensor, centers: Tensor) -> float:
    """The temperature from which on products of low precision serve for such rows (B, D) and
    centres (K, D)."""
    if not has_low_precision(z.device, z.dtype):
        return math.inf
    with products(z.device, low_precision=True):
        approximate = z @ centers.T
    with products(z.device):
        return _EXPONENTS * float((approximate - z @ centers.T).square().mean().sqrt())


class TemperedSums:
    """Weights and sums of batches of rows under responsibilities.

    Args:
        like: (K, D) centres, for device and size.
        batch_size: rows of a batch, over all processes.
        largest, usual: magnitude of the largest and of a usual coordinate, and of a weight. A few
            huge numbers would leave the others no digits; they then are not rounded.
    """

    def __init__(
        self, like: Tensor, batch_size: int, largest: Sequence[float], usual: Sequence[float]
    ):
        self._on_cpu = like.device.type == "cpu"
        # Fresh pages for the sums would cost as much as they do. Many GPUs have next to no float64.
        self._room = torch.empty_like(like, dtype=torch.float64 if self._on_cpu else None)
        bits = (53 - batch_size.bit_length()) // 2
        # These round what they are added to in float32 and taken from again; 0 rounds nothing.
        self._row_grid, self._weight_grid = (
            1.5 * 2.0 ** (math.frexp(limit)[1] + 23 - bits) if limit <= _WIDEST * typical else 0.0
            for limit, typical in zip(largest, usual, strict=True)
        )

    def __call__(
        self,
        z: Tensor,
        weights: Tensor | None,
        centers: Tensor,
        temperature: float,
        low_precision: bool,
        approximate: bool,
    ) -> tuple[Tensor, Tensor]:
        """Weight (K,) and sum of weighted rows (K, D), valid until the next call.

        Args:
            z, weights: (B, D), and (B,) or None for all ones.
            low_precision: such products of low precision serve (see ``low_precision_temperature``).
            approximate: clusters overlap (see ``OVERLAP``).
        """
        sums = self._room.zero_()
        counts = torch.zeros_like(sums[:, 0])
        if self._on_cpu and len(centers) >= _MANY_CLUSTERS:
            labels, distances = CenterIndex(centers).nearest_few(z, _KEPT, approximate)
            self._add_few(counts, z, weights, labels, distances.T / -temperature)
            return counts, sums
        bias = centers.square().sum(1) / -temperature
        size = chunk_rows(*centers.shape, device=z.device)
        parts = repeat(None) if weights is None else weights[:, None].split(size)
        for rows, weight in zip(z.split(size), parts, strict=False):
            # ||z||^2 is the same for all centres of a row and drops out of the softmax.
            with products(rows.device, low_precision=low_precision):
                r = _softmax_(torch.addmm(bias, rows, centers.T, alpha=2 / temperature))
                if weight is not None:
                    r *= weight
                if self._on_cpu:
                    r.add_(self._weight_grid).sub_(self._weight_grid)
                    rows = rows.add(self._row_grid).sub_(self._row_grid)
                r, rows = r.to(sums), rows.to(sums)
                counts += r.sum(0)
                sums.addmm_(r.T, rows)
        return counts, sums

    def _add_few(
        self, counts: Tensor, z: Tensor, weights: Tensor | None, labels: Tensor, exponents: Tensor
    ) -> None:
        """Adds the largest responsibilities of each row, and the row times these; ``labels`` are
        (M, B), ``exponents`` (B, M)."""
        # Along rows in memory: otherwise the last bits would depend on where in the batch a row is.
        r = _softmax_(exponents.contiguous())
        r.mul_(r > _LEAST_KEPT)
        if weights is not None:
            r *= weights[:, None]
        r = r.add_(self._weight_grid).sub_(self._weight_grid).double().flatten()
        labels = labels.T.flatten()
        counts.index_add_(0, labels, r)
        used = r.nonzero()[:, 0]
        where = torch.stack([labels[used], used // _KEPT])
        shape = len(counts), len(z)
        parts = torch.sparse_coo_tensor(where, r[used], shape, check_invariants=False)
        rows = z.add(self._row_grid).sub_(self._row_grid).double()
        torch.addmm(self._room, parts, rows, out=self._room)


class RunningAverages:
    """Running averages ``shares`` (K,) and ``sums`` (K, D) of such weights and sums away from the
    CPU, where what takes time is to be told of an operation. Rows carry a one beside their
    features, so weights and sums come from one product, which takes the averages in as well.

    Args:
        z, weights: (S, D), and (S,) or None, all rows of the sample.
        shares, sums: to go on from.
        batch_size: rows of an update; each begins at a multiple of it.
    """

    def __init__(
        self, z: Tensor, weights: Tensor | None, shares: Tensor, sums: Tensor, batch_size: int
    ):
        n_features = z.shape[1]
        width = -(-(n_features + 1) // _ALIGNED) * _ALIGNED
        self._rows = z.new_zeros((len(z), width))
        self._rows[:, :n_features], self._rows[:, n_features] = z, 1
        self._averages = sums.new_zeros((len(sums), width))
        self.shares, self.sums = self._averages[:, n_features], self._averages[:, :n_features]
        self.shares.copy_(shares)
        self.sums.copy_(sums)
        self._weights, self._size = weights, batch_size
        self._totals = [float(batch_size)] * (len(z) // batch_size)
        if weights is not None:
            parts = weights[: len(self._totals) * batch_size].view(-1, batch_size)
            self._totals = parts.sum(1, dtype=accumulator_dtype(z.device)).tolist()

    def update(
        self, start: int, centers: Tensor, temperature: float, low_precision: bool, step_size: float
    ) -> None:
        """Takes in the batch from row ``start`` on, with the weight ``step_size``."""
        norms = torch.linalg.vecdot(centers, centers)
        kept = 1 - step_size
        alpha = step_size / max(self._totals[start // self._size], 1e-30)
        rows = self._rows[start : start + self._size]
        for part in rows.split(chunk_rows(*centers.shape, device=rows.device)):
            with products(rows.device, low_precision=low_precision):
                z = part[:, : centers.shape[1]]
                r = torch.addmm(
                    norms, z, centers.T, beta=-1 / temperature, alpha=2 / temperature
                ).softmax(1)
                if self._weights is not None:
                    r *= self._weights[start : start + len(part), None]
                self._averages.addmm_(r.T, part, beta=kept, alpha=alpha)
            start, kept = start + len(part), 1.0


def _softmax_(scores: Tensor) -> Tensor:
    """Responsibilities (B, M), in other memory."""
    scores.sub_(scores.amax(1, keepdim=True)).clamp_(min=_LEAST_EXPONENT)
    return scores.softmax(1)
