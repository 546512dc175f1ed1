"""What a real card, or the program around, does otherwise than a CPU; see ``tests/simulated.py``.

TF32 that somebody else has switched on, sums whose order is nobody's, several ways to say that
memory is full, no float64.
"""

from itertools import chain

import numpy as np
import pytest
import torch
from simulated import NAME, known_to_commands, simulated

import dinkcli
from dinkcli.nearest import hardware as products
from dinkcli.nearest import hardware as sizes
from dinkcli.nearest.index import CenterIndex
from dinkcli.nearest.probabilities import Probabilities
from dinkcli.nearest.sums import running_sums
from dinkcli.processes import device as devices
from dinkcli.processes.collective import join


@pytest.fixture
def there(monkeypatch):
    """The simulated device, which has TF32; products switch it on and off as on a GPU."""
    settings = products._settings
    with simulated() as found:
        known_to_commands(monkeypatch)
        monkeypatch.setattr(products, "_has_tf32", lambda device: device.type == NAME)
        monkeypatch.setattr(
            products, "_settings", lambda device: found if device.type == NAME else settings(device)
        )
        yield found


def rows_and_centers(n=3000, k=300, d=128, seed=0):
    rng = torch.Generator().manual_seed(seed)
    centers = torch.randn(k, d, generator=rng)
    pick = torch.randint(k, (2, n), generator=rng)
    # Some midway between two centres, some nearly so.
    share = torch.rand(n, 1, generator=rng) * 1e-3 + 0.4995
    share[: n // 10] = 0.5
    z = centers[pick[0]] * share + centers[pick[1]] * (1 - share)
    return z + 0.3 * torch.randn(n, d, generator=rng), centers


def exact(z, centers):
    found = [
        (part.double()[:, None] - centers.double()).square().sum(2).argmin(1)
        for part in z.split(50)
    ]
    return torch.cat(found)


def test_labels_by_tf32_are_those_of_float64(there):
    z, centers = rows_and_centers()
    index = CenterIndex(centers.to(NAME))
    assert index.scorer.low_precision_pays
    expected = exact(z, centers)
    assert torch.equal(index.labels(z.to(NAME)).cpu(), expected)
    # Without the second look TF32 is wrong about some of them: the simulation bites.
    there.fp32_precision = "tf32"
    rough = (centers.square().sum(1) / 2).to(NAME) - z.to(NAME) @ centers.T.to(NAME)
    assert (rough.argmin(1).cpu() != expected).any()


@pytest.mark.slow
def test_tf32_of_the_program_around_changes_nothing(there):
    """Containers of a vendor switch it on in the environment; so do many programs."""
    z, centers = rows_and_centers(d=24)  # too small for short products of dink's own
    weights = torch.rand(len(z), generator=torch.Generator().manual_seed(3))
    found = []
    for precision in ("ieee", "tf32"):
        there.fp32_precision = precision
        index = CenterIndex(centers.to(NAME))
        far = z.to(NAME)
        near = index.nearest_two(far)
        soften = Probabilities(index, 0.5)
        model = dinkcli.train(
            z.numpy(), 8, sample_weight=weights.numpy(), device=NAME, epochs=2, temperature=3.0
        )
        auto = dinkcli.train(z.numpy()[:800], 4, device=NAME, n_init=1)
        found.append(
            [
                near.labels.cpu().numpy(),
                near.squared_distances.cpu().numpy(),
                soften(far[:200], near.labels[:200]).cpu().numpy(),
                model.cluster_centers,
                auto.cluster_centers,
            ]
        )
        assert there.fp32_precision == precision
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("n", [1, 2, 1024, 1025, 5000])
def test_running_sums_in_a_fixed_order(there, n):
    values = torch.rand(n, generator=torch.Generator().manual_seed(n))
    found = running_sums(values.to(NAME)).cpu()
    np.testing.assert_allclose(found, np.cumsum(values.double().numpy()), rtol=1e-14)
    with pytest.raises(RuntimeError, match="from run to run"):
        torch.ones(9, device=NAME).cumsum(0)


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)",
        "Triton Error [CUDA]: out of memory",
        "MPS backend out of memory (MPS allocated: 9 GB)",
    ],
)
def test_a_full_device_has_many_words(words):
    tried = []

    def work(where):
        tried.append(where.stop - where.start)
        if tried[-1] > 200:
            raise RuntimeError(words)
        return range(where.start, where.stop)

    assert list(chain(*devices.in_pieces(work, 700))) == list(range(700))
    assert tried[:3] == [700, 350, 175]

    def fails(where):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal"):
        list(devices.in_pieces(fails, 10))


def test_labels_without_float64_are_exact_all_the_same(there, monkeypatch):
    monkeypatch.setattr(sizes, "_WITHOUT_FLOAT64", {NAME})
    there.has_float64 = False
    z, centers = rows_and_centers()
    centers[200:] = centers[:100]
    index = CenterIndex(centers.to(NAME))
    assert torch.equal(index.labels(z.to(NAME)).cpu(), exact(z, centers))
    with pytest.raises(TypeError, match="float64"):
        torch.zeros(2, device=NAME).double()


def test_devices_that_are_not_to_be_had_say_why(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(devices, "_present", lambda: ["cpu"])
    with pytest.raises(dinkcli.DinkError, match="built without CUDA"):
        devices.resolve_device("cuda")
    launcher = {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1"}
    for name, value in launcher.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(dinkcli.DinkError, match="2 processes cannot share one GPU") as found:
        join("cuda:1", print)
    assert found.value.exit_code == 2
