"""The head against float64 loops written straight from Eq. 5 and 6."""

import copy
import math
import pickle
import re

import numpy as np
import pytest
import torch

from dinkcli import DinkClusterHead
from dinkcli.head.objective import dilation_loss, shrink_loss, tempered_shrink_loss


def literal_dilation(centers):
    k = len(centers)
    pairs = [(i, j) for i in range(k) for j in range(k) if i != j]
    total = sum(((centers[i] - centers[j]) ** 2).sum() for i, j in pairs)
    return -total / ((k - 1) * k) if k > 1 else 0.0


def literal_shrink(z, centers):
    return sum(((row - c) ** 2).sum() for row in z for c in centers) / (len(z) * len(centers))


def literal_tempered(z, centers, temperature):
    total = 0.0
    for row in z:
        d = ((centers - row) ** 2).sum(1)
        weights = np.exp(-(d - d.min()) / temperature)
        total += (weights / weights.sum() * d).sum()
    return total / len(z)


def make(b, k, d, offset=0.0, seed=0):
    rng = np.random.default_rng(seed)
    z = (rng.normal(size=(b, d)) + offset).astype(np.float32)
    centers = (rng.normal(size=(k, d)) + offset).astype(np.float32)
    head = DinkClusterHead(k, d)
    head.reset_cluster_centers(torch.from_numpy(centers))
    return z, centers, head


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize(("b", "k", "d"), [(7, 5, 3), (1, 4, 2), (6, 1, 3), (1, 1, 1), (40, 9, 33)])
def test_losses_equal_the_literal_loops(b, k, d, offset):
    z, centers, head = make(b, k, d, offset)
    dilation, shrink = head(torch.from_numpy(z))
    z64, c64 = z.astype(np.float64), centers.astype(np.float64)
    assert dilation.item() == pytest.approx(literal_dilation(c64), rel=1e-5, abs=1e-12)
    assert shrink.item() == pytest.approx(literal_shrink(z64, c64), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.3, 2.0, 50.0])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_tempered_loss_equals_the_literal_loop(temperature, offset):
    z, centers, head = make(20, 6, 4, offset)
    expected = literal_tempered(z.astype(np.float64), centers.astype(np.float64), temperature)
    assert head(torch.from_numpy(z), temperature)[1].item() == pytest.approx(expected, rel=2e-5)


def test_tempered_loss_has_both_limits():
    z, _, head = make(30, 6, 4)
    z = torch.from_numpy(z)
    assert head(z, 1e9)[1].item() == pytest.approx(head(z)[1].item(), rel=1e-6)
    nearest = torch.cdist(z.double(), head.cluster_centers.double()).min(1).values.square().mean()
    assert head(z, 0.0)[1].item() == pytest.approx(nearest.item(), rel=1e-5)
    assert head(z, 1e-6)[1].item() == pytest.approx(nearest.item(), rel=1e-5)


def test_gradients_pass_gradcheck():
    generator = torch.Generator().manual_seed(0)
    for b, k, d in [(5, 4, 3), (1, 3, 2), (4, 1, 3)]:
        z = torch.randn(b, d, dtype=torch.float64, generator=generator, requires_grad=True)
        c = torch.randn(k, d, dtype=torch.float64, generator=generator, requires_grad=True)
        assert torch.autograd.gradcheck(shrink_loss, (z, c))
        assert torch.autograd.gradcheck(dilation_loss, (c,))


def test_tempered_gradient_is_that_of_the_free_energy():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(12, 3, dtype=torch.float64, generator=generator)
    c = torch.randn(4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    (found,) = torch.autograd.grad(tempered_shrink_loss(z, c, 0.7), c)
    distances = (z[:, None] - c[None]).square().sum(2)
    free_energy = -0.7 * torch.logsumexp(-distances / 0.7, dim=1).mean()
    (expected,) = torch.autograd.grad(free_energy, c)
    torch.testing.assert_close(found, expected)


def test_hard_clusters_are_the_nearest_centres():
    z, centers, head = make(500, 20, 8, offset=100.0)
    d = ((z[:, None].astype(np.float64) - centers[None].astype(np.float64)) ** 2).sum(2)
    labels = head.cluster(torch.from_numpy(z))
    assert labels.dtype == torch.int64
    assert not labels.requires_grad
    np.testing.assert_array_equal(labels.numpy(), d.argmin(1))
    assert torch.equal(head.predict(torch.from_numpy(z)), labels)


def test_soft_clusters_are_a_softmax_of_minus_the_distance():
    z, centers, head = make(50, 6, 8)
    d = np.sqrt(((z[:, None].astype(np.float64) - centers[None].astype(np.float64)) ** 2).sum(2))
    weights = np.exp(-d + d.min(1, keepdims=True))
    expected = weights / weights.sum(1, keepdims=True)
    found = head.cluster(torch.from_numpy(z), soft=True)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)


def test_rows_on_duplicated_centres_have_finite_probabilities():
    # Rounding makes some of these squared distances negative without the clamp.
    rng = np.random.default_rng(3)
    row = rng.normal(size=(1, 64)).astype(np.float32) * 100
    head = DinkClusterHead(4, 64)
    head.reset_cluster_centers(torch.from_numpy(np.repeat(row, 4, 0)))
    soft = head.cluster(torch.from_numpy(np.repeat(row, 3, 0)), soft=True)
    assert torch.isfinite(soft).all()
    torch.testing.assert_close(soft.sum(1), torch.ones(3))
    assert head.cluster(torch.from_numpy(row)).tolist() == [0]


def test_cluster_takes_no_rows():
    _, _, head = make(2, 3, 4)
    assert head.cluster(torch.empty(0, 4)).shape == (0,)
    assert head.cluster(torch.empty(0, 4), soft=True).shape == (0, 3)


@pytest.mark.parametrize("shape", [(5,), (5, 3), (2, 5, 4)])
def test_wrong_shapes_name_both(shape):
    head = DinkClusterHead(2, 4)
    message = re.escape(str(shape)) + r".*\(2, 4\)"
    with pytest.raises(ValueError, match=message):
        head(torch.zeros(shape))
    with pytest.raises(ValueError, match=message):
        head.cluster(torch.zeros(shape))


def test_other_misuse_is_refused():
    head = DinkClusterHead(2, 4)
    with pytest.raises(ValueError, match=r"\(4, 2\), expected \(2, 4\)"):
        head.reset_cluster_centers(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="no rows"):
        head(torch.zeros(0, 4))
    for temperature in (-1.0, math.nan, 1e-31):
        with pytest.raises(ValueError, match="temperature must be 0 or at least 1e-30"):
            head(torch.zeros(1, 4), temperature)
    with pytest.raises(ValueError, match="at least 1, got 0 and 4"):
        DinkClusterHead(0, 4)


def test_reset_without_centres_is_xavier_uniform():
    torch.manual_seed(0)
    head = DinkClusterHead(300, 200)
    bound = math.sqrt(6 / 500)
    values = head.cluster_centers.detach()
    assert values.abs().max() <= bound
    assert values.abs().max() > 0.99 * bound
    assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)


def test_it_is_a_whole_module():
    z, _, head = make(8, 3, 4)
    z = torch.from_numpy(z)
    expected = [loss.item() for loss in head(z)]
    assert list(head.state_dict()) == ["cluster_centers"]
    assert "n_clusters=3, n_features=4" in repr(head)
    other = DinkClusterHead(3, 4)
    other.load_state_dict(head.state_dict())
    pickled = pickle.loads(pickle.dumps(head))
    for copied in (other, copy.deepcopy(head), pickled, head.to("cpu")):
        assert [loss.item() for loss in copied(z)] == expected
    double = copy.deepcopy(head).double()
    assert double(z.double())[1].dtype == torch.float64
    assert double(z.double())[1].item() == pytest.approx(expected[1], rel=1e-6)
    half = copy.deepcopy(head).half()
    assert half(z.half())[1].item() == pytest.approx(expected[1], rel=1e-2)
    assert half.cluster(z.half(), soft=True).sum(1).tolist() == pytest.approx([1.0] * 8, abs=1e-3)


def test_half_precision_does_not_overflow():
    z, _, head = make(4096, 4, 256, offset=0.0)
    expected = head(torch.from_numpy(z) * 60)[1].item()
    assert head.half()(torch.from_numpy(z).half() * 60)[1].item() == pytest.approx(
        expected, rel=1e-2
    )


def test_centres_learn_behind_an_encoder():
    z, _, head = make(16, 3, 4)
    encoder = torch.nn.Linear(4, 4)
    dilation, shrink = head(encoder(torch.from_numpy(z)))
    (shrink + 0.1 * dilation).backward()
    assert encoder.weight.grad.abs().sum() > 0
    assert head.cluster_centers.grad.abs().sum() > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_head_gives_the_same_losses():
    z, _, head = make(16, 3, 4)
    z = torch.from_numpy(z)
    compiled = torch.compile(head, backend="aot_eager")
    for found, expected in zip(compiled(z), head(z), strict=True):
        torch.testing.assert_close(found, expected)
    for found, expected in zip(compiled(z, 0.5), head(z, 0.5), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu():
    z, _, head = make(5000, 50, 32)
    z = torch.from_numpy(z)
    on_gpu = copy.deepcopy(head).cuda()
    for found, expected in zip(on_gpu(z.cuda()), head(z), strict=True):
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(on_gpu.cluster(z.cuda()).cpu(), head.cluster(z))
