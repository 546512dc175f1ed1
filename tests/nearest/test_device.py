"""Everything that computes, on a device that is not the CPU; see ``tests/simulated.py``.

Where one tensor stays behind, an operation refuses. Budgets hold how often the host waits and how
much it launches: on a GPU that is what small work takes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import inertia_float64
from simulated import NAME, D, K, clustered_rows, known_to_commands, simulated

import dinkcli
from dinkcli.head.head import DinkClusterHead
from dinkcli.nearest import sums
from dinkcli.nearest.index import CenterIndex
from dinkcli.nearest.sums import largest_in_segments, segment_sums, tempered_statistics
from dinkcli.processes import device as devices
from dinkcli.training.sample import Averages, Sample, center_projection


@pytest.fixture
def there(monkeypatch):
    """The simulated device, that ``--device elsewhere`` and ``device="elsewhere"`` mean."""
    known_to_commands(monkeypatch)
    with simulated() as found:
        yield found


@pytest.fixture(scope="module")
def rows():
    return clustered_rows()


@pytest.fixture
def files(rows, tmp_path):
    """Rows, weights and true labels in files, and a model of the rows."""
    np.save(tmp_path / "x.npy", rows)
    np.save(tmp_path / "w.npy", np.linspace(0.5, 2, len(rows)).astype(np.float32))
    model = dinkcli.train(rows, K, temperature=0.0, device="cpu")
    model.save(tmp_path / "m.safetensors")
    np.save(tmp_path / "y.npy", dinkcli.assign(model, rows, device="cpu"))
    return model


def tensors(n, k, d, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=rng), torch.randn(k, d, generator=rng)


def test_two_devices_do_not_mix(there):
    z = torch.ones(3, device=NAME)
    with pytest.raises(RuntimeError, match="all tensors on one device"):
        z + torch.ones(3)
    assert (z + 1).cpu().tolist() == [2, 2, 2]
    assert there.reads == {"_to_copy": 1}
    assert torch.tensor([4, 5], device=NAME).tolist() == [4, 5]


def test_head(there):
    z, centers = tensors(70, K, D)
    here, head = DinkClusterHead(K, D), DinkClusterHead(K, D)
    here.reset_cluster_centers(centers)
    head.reset_cluster_centers(centers)
    head.cluster_centers = torch.nn.Parameter(head.cluster_centers.data.to(NAME), False)
    far = z.to(NAME)
    for temperature in (float("inf"), 0.7, 0.0):
        for found, expected in zip(
            head(far, temperature=temperature), here(z, temperature=temperature), strict=True
        ):
            torch.testing.assert_close(found.cpu(), expected.detach())
    assert torch.equal(head.cluster(far).cpu(), here.cluster(z))
    torch.testing.assert_close(head.cluster(far, soft=True).cpu(), here.cluster(z, soft=True))


@pytest.mark.slow
def test_float16_rows_stay_short_on_the_device(there, rows):
    short = rows.astype(np.float16)
    found = dinkcli.train(short, K, device=NAME, temperature=0.0)
    expected = dinkcli.train(short, K, device="cpu", temperature=0.0)
    np.testing.assert_allclose(found.cluster_centers, expected.cluster_centers, atol=2e-5)


@pytest.mark.slow
def test_commands(there, files, invoke, tmp_path):
    on = "--device", NAME
    invoke("train", "x.npy", "-k", K, "--temperature", 0, "--sample-weight", "w.npy", *on)
    ratings = [
        json.loads(invoke("evaluate", "m.safetensors", "x.npy", "--json", *device).stdout)
        for device in ((), on)
    ]
    flat = [list(_numbers(each)) for each in ratings]
    np.testing.assert_allclose(flat[1], flat[0], rtol=1e-4, atol=1e-6)
    seen = [
        invoke("inspect", "m.safetensors", "x.npy", "--json", *device).stdout for device in ((), on)
    ]
    np.testing.assert_allclose(
        list(_numbers(json.loads(seen[1]))), list(_numbers(json.loads(seen[0]))), rtol=1e-4
    )
    invoke("report", "m.safetensors", "x.npy", "-o", "r.html", *on)
    assert (tmp_path / "r.html").stat().st_size > 10_000


def _numbers(value):
    if isinstance(value, dict):
        value = [each for name, each in value.items() if "second" not in name]
    if isinstance(value, list):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, (int, float)):
        yield value


ASSIGNMENTS = [
    [],
    ["--distance"],
    ["--soft"],
    ["--top", "3", "--distance"],
    ["--min-prob", "0.4", "--temperature", "0.5"],
    ["--max-distance", "3"],
    ["--match", "other.safetensors", "--top", "2"],
]


@pytest.mark.parametrize("options", ASSIGNMENTS, ids=" ".join)
def test_assign(there, files, invoke, tmp_path, options):
    if "--match" in options:
        turned = dinkcli.Model(files.cluster_centers[::-1].copy(), files.cluster_sizes[::-1].copy())
        turned.save(tmp_path / "other.safetensors")
    for device in (NAME, "cpu"):
        command = ["assign", "m.safetensors", "x.npy", "-o", f"{device}.parquet"]
        invoke(*command, *options, "--device", device)
    found, expected = (pq.read_table(tmp_path / f"{name}.parquet") for name in (NAME, "cpu"))
    assert there.n_operations
    assert found.schema.equals(expected.schema)
    for name in found.column_names:
        one, other = (np.array(table[name].to_pylist()) for table in (found, expected))
        if one.dtype.kind == "f":
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
        else:
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n", [1, 2, 900, 3000])
@pytest.mark.parametrize("few", [0, 40 * 1000 * D])
def test_sums_are_those_of_float64(there, monkeypatch, dtype, weighted, n, few):
    monkeypatch.setattr(sums, "_FEW_MULTIPLICATIONS", few)
    z, _ = tensors(n, 1, D)
    z = z.to(dtype)
    labels = torch.randint(40, (n,), generator=torch.Generator().manual_seed(2))
    labels[labels == 7] = 8  # an empty cluster
    labels[n // 2 :] = 3  # and a large one
    weights = torch.rand(n, dtype=dtype) if weighted else None
    expected = np.zeros((40, D))
    scale = np.ones(n) if weights is None else weights.double().numpy()
    np.add.at(expected, labels.numpy(), z.double().numpy() * scale[:, None])
    far = None if weights is None else weights.to(NAME)
    found = segment_sums(z.to(NAME), labels.to(NAME), 40, far)
    np.testing.assert_allclose(found.cpu().numpy(), expected, rtol=1e-5, atol=1e-5)
    line = segment_sums(z[:, 0].to(NAME), labels.to(NAME), 40, far)
    np.testing.assert_allclose(line.cpu().numpy(), expected[:, 0], rtol=1e-5, atol=1e-5)
    largest = largest_in_segments(z[:, 0].to(NAME), labels.to(NAME), 40).cpu()
    assert torch.equal(largest, largest_in_segments(z[:, 0], labels, 40))


def test_labels_of_ties_and_copies(there):
    """Rows midway between centres, centres twice, data far away: float64 decides, lowest first."""
    z, centers = tensors(400, 30, D)
    centers[20:] = centers[:10]
    z[:100] = (centers[:10].repeat(10, 1) + centers[10:20].repeat(10, 1)) / 2
    z, centers = z + 1e4, centers + 1e4
    index = CenterIndex(centers)
    found = CenterIndex(centers.to(NAME)).nearest_two(z.to(NAME))
    assert torch.equal(found.labels.cpu(), index.labels(z))
    exact = torch.cdist(z.double(), centers.double())
    assert torch.equal(found.labels.cpu(), exact.argmin(1))


def work_of(there, task):
    there.restart()
    task()
    return there.n_operations, there.n_reads


@pytest.mark.parametrize("n", [20_000, 80_000])
def test_budget_of_a_search(there, n):
    """Neither launches nor waits grow with the rows of a block, and the host waits once."""
    z, centers = (each.to(NAME) for each in tensors(n, 300, 16))
    index = CenterIndex(centers)
    operations, reads = work_of(there, lambda: index.labels(z))
    # Rows so near to two centres that float32 cannot tell: a few, settled together.
    assert reads <= 5
    assert operations <= 100
    apart = z * 0 + torch.arange(300, device=NAME)[torch.arange(n, device=NAME) % 300, None]
    index = CenterIndex(apart[:300].clone())
    operations, reads = work_of(there, lambda: index.labels(apart))
    assert reads == 1
    assert operations <= 25


@pytest.mark.parametrize("n", [20_000, 80_000])
def test_budget_of_a_pass(there, n):
    z, centers = (each.to(NAME) for each in tensors(n, 300, 16))
    index = CenterIndex(centers)
    operations, reads = work_of(there, lambda: tempered_statistics(z, None, index, 0.0))
    assert operations <= 200
    assert reads <= 5


@pytest.mark.slow
@pytest.mark.parametrize(
    "n, d, k, operations, waits", [(3200, 16, 8, 16_000, 500), (60_000, 64, 300, 9_000, 330)]
)
def test_budget_of_a_training(there, n, d, k, operations, waits):
    """A few waits for each round of moves, none for an update."""
    rng = np.random.default_rng(0)
    centers = 2 * rng.normal(size=(k, d))
    z = (centers[rng.integers(k, size=n)] + rng.normal(size=(n, d))).astype(np.float32)
    model = dinkcli.train(z, k, device=NAME)
    assert there.n_operations <= operations
    assert there.n_reads <= waits
    assert inertia_float64(z[:2000], model.cluster_centers) <= inertia_float64(z[:2000], centers)


@pytest.mark.parametrize("weighted", [False, True])
def test_an_update_is_nine_operations(there, weighted):
    """And gives what those of a CPU add up to, batch after batch; one more with weights."""
    z, centers = tensors(600, K, D)
    weights = torch.rand(600, generator=torch.Generator().manual_seed(5)) if weighted else None
    found = []
    for device in (NAME, "cpu"):
        w = None if weights is None else weights.to(device)
        sample = Sample(z.to(device), w, center_projection("euclidean"))
        moving = centers.to(device)
        averages = Averages(sample, moving, 256, approximate=False)
        for number in range(48):
            there.restart()
            temperature, step_size = 4.0 * 0.95**number, 0.94**number
            averages.update(256 * (number % 2), moving, temperature, step_size)
            moving = averages.means(moving, 0.0)
            if device == NAME and number:
                assert there.n_operations <= 9 + weighted
                assert there.n_reads == 0
        found.append([moving.cpu(), averages.shares.cpu(), averages.sums.cpu()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_device_that_is_full_takes_smaller_pieces(there, files, rows, invoke):
    expected = dinkcli.assign(files, rows, device="cpu")
    there.memory = 3000
    found = dinkcli.assign(files, rows, device=NAME)
    np.testing.assert_array_equal(found, expected)
    there.memory = 40
    result = invoke("assign", "m.safetensors", "x.npy", "--device", NAME, code=1)
    assert "out of memory" in result.stderr
    assert result.stdout in ("", "row,cluster\n")


@pytest.mark.slow
def test_the_benchmark_runs_without_a_gpu(tmp_path):
    """As on a bare machine: dink is not installed there, PYTHONPATH finds it."""
    home = Path(dinkcli.__file__).parent.parent
    command = [sys.executable, home / "benchmarks" / "gpu.py", "--device", "cpu", "--small"]
    done = subprocess.run(
        [*command, "--json", tmp_path / "gpu.json"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(home)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("nothing failed\n")
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert not any(found["labels"].values())
    assert found["end to end"].keys() == {"train", "assign"}
    assert found["streamed"].keys() == {"pass", "copy"}


def test_a_card_that_cannot_compute_is_refused_in_one_line(monkeypatch):
    """Stands in for a driver that is too old: the card is counted, and fails when it is used."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    def fails(*arguments, **options):
        raise RuntimeError("CUDA error: no kernel image is available\nCompile with ...")

    monkeypatch.setattr(torch, "ones", fails)
    for name in ("cuda", "cuda:1", "auto"):
        with pytest.raises(
            dinkcli.DinkError, match=r"no kernel image is available\); use"
        ) as found:
            devices.resolve_device(name)
        assert found.value.exit_code == 2
    with pytest.raises(dinkcli.DinkError, match=r"process 2 .* finds 2 GPUs"):
        devices.resolve_device("auto", 2)


def test_devices_by_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "ones", lambda *size, device: 1.0)  # there is none to compute on
    assert devices.resolve_device("cuda:1") == torch.device("cuda:1")
    assert devices.resolve_device("cuda", 1) == torch.device("cuda:1")
    assert devices.resolve_device("auto", 1) == torch.device("cuda:1")
    with pytest.raises(dinkcli.DinkError, match="not on this machine"):
        devices.resolve_device("cuda:2")
