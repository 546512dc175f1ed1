"""Scores of rows against centres, the lowest of them, and how far off they can be.

The score of a centre is half its squared distance from the row, less half the row's squared norm
unless the product is one of bfloat16 numbers. On CPUs scores are made integers whose lowest bits
are the number of the centre, so that one plain minimum finds both; a minimum that carries indices
takes several times as long.

Shapes: B rows of a chunk, K clusters, D features. Scores are (K, B): reductions over centres then
take many rows at once.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from dinkcli.nearest.hardware import at_least_float32, has_bfloat16, has_low_precision, products
from dinkcli.nearest.prepare import RowMap

_MOST_NUMBER_BITS = 14  # more leave too few to a score
# Fewer, and what the shift leaves would have bits of the large number added before it.
_LEAST_NUMBER_BITS = 10
# Scores beyond are left as they are: one more power of two, and they would not be normal numbers.
_USUAL_SCORES = 1e-30, 1e36
_LARGEST_KEY = 2**31 - 1
_BFLOAT16_BITS = 16
# With less, conversion costs more than the faster product wins.
_MANY_CLUSTERS, _MANY_NUMBERS = 48, 1 << 15
# Centres are shifted when their mean is this many times as far from the origin as they are from it.
_FAR = 0.5
_BFLOAT16_ROUNDOFF = 2.0**-8
_TF32_ROUNDOFF = 2.0**-10  # TF32 keeps 11 bits, and some units cut off the rest
_MOST_REACH = 64.0  # times the usual size: scores up to that leave the usual ones digits enough
_SQUARINGS = 3

_scratch = threading.local()


def scratch(name: str, like: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Memory that chunks use one after the other: fresh pages cost more than what is written to
    them. On CPUs each thread keeps its own; elsewhere torch does."""
    if like.device.type != "cpu":
        return like.new_empty(shape, dtype=dtype)
    size, key = math.prod(shape), f"{name} {dtype}"
    buffer = getattr(_scratch, key, None)
    if buffer is None or len(buffer) < size:
        buffer = torch.empty(size, dtype=dtype)
        setattr(_scratch, key, buffer)
    return buffer[:size].view(*shape)


class TwoBest(NamedTuple):
    """The two best scores of each row of a chunk (B,), with the numbers of their centres; and,
    unless they are bfloat16 ones, the ``scores`` (K, B) in units of ``quantum``, shifted by
    ``bits``, the best ones the largest."""

    best: Tensor
    labels: Tensor
    second: Tensor
    seconds: Tensor
    scores: Tensor | None = None
    quantum: float = 0.0
    bits: int = 0

    def of(self, rows: Tensor) -> Tensor:
        """Scores (M, K) of some of the rows; not those of the best."""
        assert self.scores is not None
        some = self.scores.index_select(1, rows).T.contiguous()
        return (some >> self.bits) * self.quantum if self.quantum else some

    def limit(self, error: Tensor, roundoff: float = 0.0) -> Tensor:
        """What a score of the nearest centre can be at most (B,): scores are off by ``error``, then
        by the share ``roundoff`` of themselves, then by a quantum."""
        limit = self.best + (2 * error + 2 * self.quantum)
        if roundoff:
            limit += (self.best.abs() + 2 * error).mul_(2.1 * roundoff)
        return limit


class Scorer:
    """Centres made ready for products with rows, norms at hand.

    Centres far from the origin, and the rows with them, are shifted to the mean centre, which
    keeps float32 digits. Half precision is computed in float32.

    With a map, rows are those before it, and the map goes into the centres: for rows under it,
    y = (z - o) W, half the squared distance to a centre c, less half the squared norm of y, is
    ||c||^2 / 2 - <z - o, W c>. That is for ``two`` alone.

    Attributes:
        centers: (K, D) in the ``dtype`` of the products, or (K, Q) among rows under the map.
        largest: norm of the longest centre, after the shift.
        low_precision_pays: whether products of low precision find the nearest centre faster.
        bfloat16_serves: whether there are some on a CPU, however few the centres.
    """

    def __init__(self, cluster_centers: Tensor, row_map: RowMap | None = None):
        centers = cluster_centers.detach()
        self.dtype = at_least_float32(centers.dtype)
        self.centers = centers.to(self.dtype)
        self._folded = row_map is not None
        if row_map is None:
            self._shift_centers()
        else:
            self._fold(row_map)
        self._on_cpu = centers.device.type == "cpu"
        bits = (len(centers) - 1).bit_length()
        self._bits = max(_LEAST_NUMBER_BITS, bits)
        numbers = torch.arange(len(centers), dtype=torch.int32, device=centers.device)
        self._numbers = numbers[:, None]
        single = self.dtype == torch.float32
        # Numbers fit beside scores; where they do not, or on a GPU, a minimum with indices serves.
        self._numbered = self._on_cpu and single and bits <= _MOST_NUMBER_BITS
        self.bfloat16_serves = self._on_cpu and single and bits <= _BFLOAT16_BITS and has_bfloat16()
        large = len(centers) >= _MANY_CLUSTERS and centers.numel() >= _MANY_NUMBERS
        on_device = not self._on_cpu and has_low_precision(centers.device, self.dtype)
        self.low_precision_pays = large and (self.bfloat16_serves or on_device)

    def _shift_centers(self) -> None:
        mean = self.centers.mean(0)
        spread = torch.linalg.vector_norm(self.centers - mean, dim=1).max()
        far = bool(torch.linalg.vector_norm(mean) > _FAR * spread)
        self._shift = mean if far else None
        self._factors = self.centers - mean if far else self.centers
        self._half_norms = self._factors.square().sum(1) / 2
        self._norms = (2 * self._half_norms).sqrt()
        self.largest = self._largest_factor = self._norms.max()
        self._stretch = torch.ones_like(self.largest)

    def _fold(self, row_map: RowMap) -> None:
        origin, matrix = row_map.origin, row_map.matrix
        centers = self.centers.to(matrix)
        with products(matrix.device):
            factors, stretch = centers @ matrix.T, _stretch(matrix)
        half_norms = centers.square().sum(1) / 2
        norms = (2 * half_norms).sqrt()
        # Rows are shifted where that keeps digits; else the shift is in the scores too.
        offset = torch.linalg.vector_norm(origin)
        far = bool(offset > norms.median())
        self._shift = origin.to(self.dtype) if far else None
        self._factors = factors.to(self.dtype)
        self._half_norms = (half_norms if far else half_norms + factors @ origin).to(self.dtype)
        self._norms, self.largest = norms.to(self.dtype), norms.max().to(self.dtype)
        self._largest_factor = torch.linalg.vector_norm(self._factors, dim=1).max()
        self._stretch = stretch.to(self.dtype)
        self._offset = torch.zeros_like(self._stretch) if far else offset.to(self.dtype)

    def shifted(self, z: Tensor) -> Tensor:
        """Rows (B, D) as the other methods want them."""
        z = z.to(self.dtype)
        if self._shift is None:
            return z
        return torch.sub(z, self._shift, out=scratch("shifted", z, z.shape, self.dtype))

    def two(self, rows: Tensor, low_precision: bool = False) -> tuple[TwoBest, Tensor]:
        """The two best centres of each row, and what the score of the nearest is at most (B,). Away
        from the CPU nothing makes the host wait."""
        norms = torch.linalg.vector_norm(rows, dim=1)
        if not self._on_cpu:
            near = self._two(self._scores(rows, low_precision), math.inf)
            error = self._error(norms, near.labels)
            if low_precision:
                error += self._lost(norms, self._longest(norms, near.labels), _rounding_error(rows))
            return near, near.limit(error)
        if low_precision:
            return self._bfloat16_two(rows, norms, *self._bfloat16_keys(rows, norms))
        # Twice the largest score, or more; and that of the nearest centre, of all rows but a few.
        reach = usual = float((self._mapped_norm(norms.max()) + self.largest).square())
        if reach < math.inf:
            norm = norms.kthvalue(1 + (len(norms) - 1) * 63 // 64).values
            usual = float(4 * (self._mapped_norm(norm) + self._norms.min()).square())
        scores = self._scores(rows)
        if reach <= _MOST_REACH * usual:
            near = self._two(scores, reach)
            return near, near.limit(self._error(norms, near.labels))
        # One far row or centre must not take the digits of all others: what it is not for is cut
        # off, and far rows are looked at again.
        near = self._two(scores.clamp_(-usual / 2, usual / 2), usual)
        limit = near.limit(self._error(norms, near.labels))
        return near, limit.masked_fill_(4 * self._mapped_norm(norms).square() > usual, torch.inf)

    def few(self, rows: Tensor, number: int, approximate: bool) -> Tensor:
        """The ``number`` nearest centres (M, B), the nearest first, but for rounding: of bfloat16
        products with ``approximate``, where they serve, else by the share 2**-13 or so of each
        distance; the same ones whatever the other rows."""
        if approximate and self.bfloat16_serves:
            keys, _ = self._bfloat16_keys(rows, torch.linalg.vector_norm(rows, dim=1))
            bits = _BFLOAT16_BITS
        else:
            scores = self._scores(rows)
            if not self._numbered:
                return scores.topk(number, dim=0, largest=False).indices
            # Bits of numbers that are not negative ascend as they do, a negative one is about 0.
            keys = scores.add_(torch.linalg.vecdot(rows, rows).div_(2)).view(torch.int32)
            keys.bitwise_and_(-1 << self._bits).bitwise_or_(self._numbers)
            bits = self._bits
        return torch.stack([_take_lowest(keys, bits)[1] for _ in range(number)])

    def bfloat16_nearest(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The nearest centre of each row and its squared distance, from bfloat16 scores
        on a CPU alone; and below which such a distance may as well be 0; each (B,)."""
        norms = torch.linalg.vector_norm(rows, dim=1)
        best, labels = _lowest(self._bfloat16_keys(rows, norms)[0], _BFLOAT16_BITS)
        squares = 2 * (best << _BFLOAT16_BITS).view(torch.float32)
        return labels, squares, norms.square_().mul_(4 * _BFLOAT16_ROUNDOFF)

    def squared_distances(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """||z_i - c_j||^2, (B, K), in one piece, never negative; and the squared norms of the rows
        as they are computed with, (B,)."""
        rows = self.shifted(z)
        squares = torch.linalg.vecdot(rows, rows)
        with products(rows.device):
            scores = torch.addmm(self._half_norms, rows, self._factors.T, alpha=-1)
        return scores.mul_(2).add_(squares[:, None]).clamp_(min=0), squares

    def squared_distances_to(self, rows: Tensor, labels: Tensor) -> Tensor:
        """From ``rows`` (B, D) to the centres ``labels`` (B,), from the coordinates as they came:
        no digits are lost to cancellation, as in scores they can be, nor to a shift."""
        chosen = scratch("rows", rows, rows.shape, self.dtype)
        torch.index_select(self.centers, 0, labels, out=chosen)
        return torch.linalg.vector_norm(chosen.sub_(rows), dim=1).square_()

    def _scores(self, rows: Tensor, low_precision: bool = False) -> Tensor:
        out = scratch("scores", rows, (len(self.centers), len(rows)), self.dtype)
        with products(rows.device, low_precision):
            half_norms = self._half_norms[:, None]
            return torch.addmm(half_norms, self._factors, rows.T, alpha=-1, out=out)

    def _two(self, scores: Tensor, reach: float) -> TwoBest:
        """Of ``scores`` (K, B), in their memory; ``reach`` is twice the largest one at least."""
        if not (self._numbered and _USUAL_SCORES[0] < reach < _USUAL_SCORES[1]):
            best, labels = scores.min(0)
            second, second_labels = scores.scatter_(0, labels[None], torch.inf).min(0)
            return TwoBest(best, labels, second, second_labels, scores)
        # A large number added leaves a multiple of the quantum in the mantissa; the shift drops
        # exponent and large number, and makes room for the numbers of the centres.
        bits = self._bits
        quantum = 2.0 ** (math.frexp(reach)[1] + bits - 32)
        keys = scores.add_(1.5 * 2.0**23 * quantum).view(torch.int32)
        torch.add(self._numbers, keys, alpha=1 << bits, out=keys)
        best, labels = _take_lowest(keys, bits)
        second, seconds = _lowest(keys, bits)
        seconds.clamp_(max=len(self.centers) - 1)
        return TwoBest(best * quantum, labels, second * quantum, seconds, keys, quantum, bits)

    def _bfloat16_two(
        self, rows: Tensor, norms: Tensor, keys: Tensor, factors: Tensor
    ) -> tuple[TwoBest, Tensor]:
        """``two`` by bfloat16 scores, of rows with ``norms`` (B,)."""
        best, labels = _take_lowest(keys, _BFLOAT16_BITS)
        second, seconds = _lowest(keys, _BFLOAT16_BITS)
        if self._folded:
            best, second = (bits ^ ((bits >> 31) & 0x7FFF) for bits in (best, second))
        best, second = ((bits << _BFLOAT16_BITS).view(torch.float32) for bits in (best, second))
        near = TwoBest(best, labels, second, seconds)
        rounded = scratch("rows", rows, rows.shape, self.dtype).copy_(factors[:, : rows.shape[1]])
        rows_lost = torch.linalg.vector_norm(rounded.sub_(rows), dim=1)
        longest = self._longest(norms, labels)
        # Two columns hold a norm to 2**-16.
        eps = torch.finfo(self.dtype).eps * (rows.shape[1] + 6) + _BFLOAT16_ROUNDOFF**2
        magnitude = (self._mapped_norm(norms) + longest).square_()
        error = self._lost(norms, longest, rows_lost).add_(magnitude.mul_(eps))
        return near, near.limit(error, _BFLOAT16_ROUNDOFF)

    def _mapped_norm(self, norms: Tensor) -> Tensor:
        """The norms that rows with ``norms`` have among the centres at most."""
        return (norms + self._offset) * self._stretch if self._folded else norms

    def _longest(self, norms: Tensor, labels: Tensor) -> Tensor:
        """The norm that the nearest centre has at most (B,), being no farther from the row, and so
        from the origin, than the one of ``labels``, which is about as near."""
        return (2 * self._mapped_norm(norms) + self._norms[labels]).clamp_(max=self.largest)

    def _error(self, norms: Tensor, labels: Tensor) -> Tensor:
        """Bound (B,) of the error of the score of the nearest centre, and of that of ``labels``:
        D + 2 additions of products |z| |c| at most, and 2 for the rounding of mapped rows."""
        eps = torch.finfo(self.dtype).eps * (self._factors.shape[1] + 4)
        longest = self._longest(norms, labels)
        return (self._mapped_norm(norms) + longest).mul_(longest).mul_(eps)

    def _lost(self, norms: Tensor, longest: Tensor, rows_lost: Tensor) -> Tensor:
        """Bound (B,) of what low precision takes from products of rows, which it takes the norm
        ``rows_lost`` (B,) from, and centres no longer than ``longest``."""
        factor = (longest * self._stretch).clamp_(max=self._largest_factor)
        lost = torch.minimum(factor * _BFLOAT16_ROUNDOFF, self._centers_lost)
        # 1.01: the rounded factor may be longer than the factor.
        return rows_lost.mul_(1.01 * factor).add_(norms * lost)

    def _bfloat16_keys(self, rows: Tensor, norms: Tensor) -> tuple[Tensor, Tensor]:
        """The bits of bfloat16 scores (K, B), which ascend as they do, and below them the numbers;
        and the factor (B, D + 4) that went in for the rows.

        Half the squared norms go in as two more columns each, so that a score is half the squared
        distance: near centres, for which it is small, lose least by the last rounding. Only a map
        lets scores be negative, but for rounding.
        """
        n_rows, n_features = rows.shape
        factors = scratch("factors", rows, (n_rows, n_features + 4), torch.bfloat16)
        factors[:, :n_features].copy_(rows)
        half = torch.zeros_like(norms) if self._folded else norms.square().div_(2)
        factors[:, n_features] = half
        factors[:, n_features + 1] = half - factors[:, n_features]
        factors[:, n_features + 2 :] = 1.0
        product = scratch("product", rows, (len(self.centers), n_rows), torch.bfloat16)
        bits = torch.mm(self._bfloat16_centers, factors.T, out=product).view(torch.int16)
        if self._folded:  # bits of negative numbers, turned, ascend as these do
            signs = scratch("signs", bits, bits.shape, torch.int16)
            torch.bitwise_right_shift(bits, 15, out=signs)
            bits.bitwise_xor_(signs.bitwise_and_(0x7FFF))
        keys = scratch("keys", bits, bits.shape, torch.int32).copy_(bits)
        return torch.add(self._numbers, keys, alpha=1 << _BFLOAT16_BITS, out=keys), factors

    @cached_property
    def _centers_lost(self) -> Tensor:
        """The norm of what a centre loses in a product of low precision, at most."""
        return _rounding_error(self._factors).max()

    @cached_property
    def _bfloat16_centers(self) -> Tensor:
        """(K, D + 4)"""
        high = self._half_norms.bfloat16()
        one = torch.ones_like(high)
        columns = one, one, high, (self._half_norms - high).bfloat16()
        return torch.cat([-self._factors.bfloat16(), torch.stack(columns, dim=1)], dim=1)


def _lowest(keys: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The lowest of the ``keys`` (K, B): what is above its ``bits`` of the number, and that."""
    best = keys.amin(0)
    return best >> bits, best.bitwise_and((1 << bits) - 1).long()


def _take_lowest(keys: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The same; then it is hidden."""
    best, labels = _lowest(keys, bits)
    keys.scatter_(0, labels[None], _LARGEST_KEY)
    return best, labels


def _rounding_error(z: Tensor) -> Tensor:
    """Bound (N,) of the norm that each row of ``z`` (N, D) loses in a product of low precision."""
    if z.device.type == "cpu":
        return torch.linalg.vector_norm(z - z.bfloat16().float(), dim=1)
    return torch.linalg.vector_norm(z, dim=1) * _TF32_ROUNDOFF


def _stretch(matrix: Tensor) -> Tensor:
    """The factor by which rows get longer under the map (D, Q) at most, and no more than a few
    tenths above that: the root of a high power's Frobenius norm. float32 holds that to a
    hundredth."""
    size = torch.linalg.matrix_norm(matrix)
    unit = (matrix / size).float()
    power = unit.T @ unit
    for _ in range(_SQUARINGS):
        power = power @ power
    return 1.01 * size * torch.linalg.matrix_norm(power) ** (0.5 ** (_SQUARINGS + 1))
