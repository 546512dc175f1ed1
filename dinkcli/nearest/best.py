"""The best of many scores, and the memory that scores live in.

On CPUs scores are made integers whose lowest bits are the number of the centre, so that one plain
minimum finds both; a minimum that carries indices takes several times as long.

Shapes: B rows of a chunk, K clusters.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from math import frexp, prod
from typing import NamedTuple

import torch
from torch import Tensor

# More bits than this leave too few to a score.
_MOST_NUMBER_BITS = 14
# Fewer, and what the shift leaves would have bits of the large number added before it.
_LEAST_NUMBER_BITS = 10
# Scores beyond are left as they are: one more power of two, and they would not be normal numbers.
_USUAL_SCORES = 1e-30, 1e36
_LARGEST_KEY = 2**31 - 1
_SHORT_BITS = 16
_MOST_SHORT_NUMBERS = 1 << _SHORT_BITS


class _Kept(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[tuple[str, torch.dtype], Tensor] = {}


_kept = _Kept()


def scratch(name: str, like: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Memory on the device of ``like`` that chunks use one after the other: fresh pages cost more
    than what is written to them. On CPUs each thread keeps its own; elsewhere torch does."""
    if like.device.type != "cpu":
        return like.new_empty(shape, dtype=dtype)
    size, buffers = prod(shape), _kept.buffers
    if (name, dtype) not in buffers or len(buffers[name, dtype]) < size:
        buffers[name, dtype] = torch.empty(size, dtype=dtype)
    return buffers[name, dtype][:size].view(*shape)


class Two(NamedTuple):
    """The two best scores of each row of a chunk (B,), with the numbers of their centres; and the
    ``scores`` (K, B) in units of ``quantum``, shifted by ``bits``, the best ones the largest (of
    short scores, which nobody asks for: as they were numbered)."""

    best: Tensor
    labels: Tensor
    second: Tensor
    seconds: Tensor
    scores: Tensor
    quantum: float = 0.0
    bits: int = 0

    def of(self, rows: Tensor) -> Tensor:
        """Scores (M, K) of some of the rows; not those of the best."""
        some = self.scores.index_select(1, rows).T.contiguous()
        return (some >> self.bits) * self.quantum if self.quantum else some


class Best:
    """Finds the lowest of the scores of K centres.

    Args:
        n_clusters: K.
        dtype: of the scores.
    """

    def __init__(self, n_clusters: int, dtype: torch.dtype, device: torch.device):
        self.n_clusters = n_clusters
        self._bits = max(_LEAST_NUMBER_BITS, (n_clusters - 1).bit_length())
        self._numbers = torch.arange(n_clusters, dtype=torch.int32, device=device)[:, None]
        # Numbers fit beside scores; where they do not, or on a GPU, a minimum with indices serves.
        few = self._bits <= _MOST_NUMBER_BITS
        self._numbered = device.type == "cpu" and dtype == torch.float32 and few

    def two(self, scores: Tensor, reach: float) -> Two:
        """Of ``scores`` (K, B), in their memory; ``reach`` is twice the largest one at least."""
        if not self._fits(reach):
            best, labels = scores.min(0)
            second, second_labels = scores.scatter_(0, labels[None], torch.inf).min(0)
            return Two(best, labels, second, second_labels, scores)
        keys, quantum = self._keys(scores, reach)
        bits = self._bits
        best, labels = _take_lowest(keys, bits)
        second, seconds = _lowest(keys, bits)
        seconds.clamp_(max=self.n_clusters - 1)
        return Two(best * quantum, labels, second * quantum, seconds, keys, quantum, bits)

    def short_two(self, product: Tensor, signed: bool = False) -> Two:
        """``two`` of bfloat16 scores (K, B), in their memory where they are ``signed``; else they
        are not negative but for rounding."""
        if self.n_clusters > _MOST_SHORT_NUMBERS:
            return self.two(product.float(), torch.inf)
        if signed:
            _turn_negative(product.view(torch.int16))
        keys = self._short_keys(product)
        best, labels = _take_lowest(keys, _SHORT_BITS)
        second, seconds = _lowest(keys, _SHORT_BITS)
        if signed:
            best, second = (bits ^ ((bits >> 31) & 0x7FFF) for bits in (best, second))
        return Two(_from_bits(best), labels, _from_bits(second), seconds, keys)

    def few(self, scores: Tensor, half_norms: Tensor, number: int) -> Tensor:
        """The ``number`` M lowest of ``scores`` (K, B), in their memory, the lowest first; centres
        (M, B). ``half_norms`` (B,) are half the squared ones of the rows.

        Each is rounded by the share 2**-13 or so of its distance, whatever the other rows.
        """
        if not self._numbered:
            return scores.topk(number, dim=0, largest=False).indices
        # Bits of numbers that are not negative ascend as they do, and a negative one is about 0.
        keys = scores.add_(half_norms).view(torch.int32)
        keys.bitwise_and_(-1 << self._bits).bitwise_or_(self._numbers)
        return torch.stack([_take_lowest(keys, self._bits)[1] for _ in range(number)])

    def short_few(self, product: Tensor, number: int) -> Tensor:
        """The ``number`` M lowest of such scores, the lowest first; centres (M, B)."""
        if self.n_clusters > _MOST_SHORT_NUMBERS:
            return product.topk(number, dim=0, largest=False).indices
        keys = self._short_keys(product)
        return torch.stack([_take_lowest(keys, _SHORT_BITS)[1] for _ in range(number)])

    def _fits(self, reach: float) -> bool:
        return self._numbered and _USUAL_SCORES[0] < reach < _USUAL_SCORES[1]

    def _keys(self, scores: Tensor, reach: float) -> tuple[Tensor, float]:
        """Scores in units of a quantum, and below them the numbers of the centres."""
        # A large number added leaves a multiple of the quantum in the mantissa; the shift drops
        # exponent and large number, and makes room.
        quantum = 2.0 ** (frexp(reach)[1] + self._bits - 32)
        keys = scores.add_(1.5 * 2.0**23 * quantum).view(torch.int32)
        return torch.add(self._numbers, keys, alpha=1 << self._bits, out=keys), quantum

    def _short_keys(self, product: Tensor) -> Tensor:
        """The bits of the scores, which ascend as they do, and below them the numbers."""
        keys = scratch("keys", product, product.shape, torch.int32)
        keys.copy_(product.view(torch.int16))
        return torch.add(self._numbers, keys, alpha=1 << _SHORT_BITS, out=keys)


def _lowest(keys: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The lowest of the ``keys`` (K, B): what is above its ``bits`` of the number, and that."""
    best = keys.amin(0)
    return best >> bits, best.bitwise_and((1 << bits) - 1).long()


def _take_lowest(keys: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The same; then it is hidden."""
    best, labels = _lowest(keys, bits)
    keys.scatter_(0, labels[None], _LARGEST_KEY)
    return best, labels


def _turn_negative(bits: Tensor) -> None:
    """Makes the bits (K, B) int16 of negative numbers ascend as these do, in place."""
    signs = scratch("signs", bits, bits.shape, torch.int16)
    torch.bitwise_right_shift(bits, 15, out=signs)
    bits.bitwise_xor_(signs.bitwise_and_(0x7FFF))


def _from_bits(bits: Tensor) -> Tensor:
    """The float32 numbers that begin with these 16 bits."""
    return (bits << 16).view(torch.float32)


def limit_of(near: Two, error: Tensor, roundoff: float = 0.0) -> Tensor:
    """What a score of the nearest centre can be at most (B,): scores are off by ``error``, then
    by the share ``roundoff`` of themselves, then by a quantum."""
    limit = near.best + (2 * error + 2 * near.quantum)
    return limit.add_((near.best.abs() + 2 * error).mul_(2.1 * roundoff)) if roundoff else limit


def ties_of(near: Two, limit: Tensor) -> Tensor:
    """The rows whose second centre may be the nearer one."""
    return (near.second <= limit).nonzero()[:, 0]
