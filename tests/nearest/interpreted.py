"""Runs the fused kernel in Triton's interpreter over many shapes; a process of its own, since the
interpreter is chosen when Triton is loaded. Prints how many shapes it has compared."""

import os
import random

os.environ["TRITON_INTERPRET"] = "1"

import torch

from dinkcli.nearest import fused
from dinkcli.nearest.index import CenterIndex


def compared(n: int, k: int, d: int, tile: int, kind: int, generator: torch.Generator) -> None:
    z, centers = (torch.randn(size, d, generator=generator) for size in (n, k))
    if kind == 1:  # copies: the lower index wins
        centers[(k + 1) // 2 :] = centers[: k // 2]
    if kind == 2:  # all scores positive: a padded centre at 0 would win
        z -= 3
        centers += 3
    if kind == 3:  # rows between two centres
        pick = torch.randint(k, (2, n), generator=generator)
        z = (centers[pick[0]] + centers[pick[1]]) / 2
    fused._State.tile = tile
    half_norms = centers.square().sum(1) / 2
    fused_two = fused.fused_two(z, centers, half_norms, low_precision=bool(n % 2))
    assert fused_two is not None, fused._State.failure
    best, labels, second, seconds = fused_two
    scores = half_norms.double() - z.double() @ centers.double().T
    size = torch.linalg.vector_norm(z, dim=1) * torch.linalg.vector_norm(centers, dim=1).max()
    error = 1e-6 * (size + half_norms.max())
    expected = scores.topk(min(2, k), dim=1, largest=False).values
    pairs = ((best, labels), (second, seconds))
    for place, (score, label) in enumerate(pairs[: min(2, k)]):
        assert ((score - expected[:, place]).abs() <= error).all()
        assert ((scores.gather(1, label[:, None])[:, 0] - score).abs() <= error).all()
    if k == 1:
        assert second.isinf().all()
        assert not seconds.any()
    else:
        assert (labels != seconds).all()
    if kind == 1:
        assert (labels < max(1, (k + 1) // 2)).all()
    # With near-ties looked at again, labels are those of the CPU.
    index = CenterIndex(centers)
    error = index.scorer._error(torch.linalg.vector_norm(z, dim=1), labels)
    clear = second > best + 2 * error
    assert torch.equal(labels[clear], index.labels(z)[clear])


def no_numbers() -> None:
    """Labels of rows that are not numbers can be used as indices all the same."""
    z, centers = torch.full((3, 8), torch.nan), torch.ones(5, 8)
    found = fused.fused_two(z, centers, centers[:, 0], False)
    assert found is not None
    assert torch.cat([found[1], found[3]]).lt(5).all()


def main() -> None:
    assert fused.why_not(torch.device("cpu"), torch.float32) is None
    assert fused._State.tile == 0
    no_numbers()
    generator = torch.Generator().manual_seed(0)
    chance = random.Random(0)
    shapes = [(1, 1, 1), (1, 2, 3), (129, 129, 33), (64, 5, 200), (7, 300, 16), (128, 128, 32)]
    while len(shapes) < 100:
        shapes.append((chance.randint(1, 150), chance.randint(1, 160), chance.randint(1, 80)))
    for number, (n, k, d) in enumerate(shapes):
        compared(n, k, d, number % len(fused._TILES), number // 3 % 4, generator)
    print(len(shapes))


if __name__ == "__main__":
    main()
