"""Copies beside computation, by streams that are as late as they may be.

A copy is made when somebody waits for it and no sooner; until then its target is no numbers. So a
buffer that is filled again too soon, or rows that are used before they have come, make results
wrong.
"""

import threading
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import nearest_float64
from simulated import NAME, Elsewhere, known_to_commands, simulated

import dinkcli
from dinkcli.nearest import hardware as sizes

D = 8


class LateStreams:
    """In place of ``CudaStreams``; counts bytes."""

    made: list["LateStreams"] = []  # noqa: RUF012

    def __init__(self, device):
        self.pending, self.lock = [], threading.Lock()
        self.pinned_bytes = self.sent_bytes = self.largest_pending = 0
        self.dtypes, self.threads = set(), set()
        self.made.append(self)

    def pinned(self, size, dtype):
        found = torch.empty(size, dtype=dtype)
        self.pinned_bytes += found.nbytes
        return found

    def send(self, rows):
        held = torch.full_like(rows, torch.nan) if rows.is_floating_point() else rows.clone() * 0
        with self.lock:
            event = Event(self, len(self.pending) + 1)
            self.pending.append((held, rows))
        self.sent_bytes += rows.nbytes
        self.dtypes.add(rows.dtype)
        self.threads.add(threading.current_thread().name)
        waiting = sum(1 for each in self.pending if each is not None)
        self.largest_pending = max(self.largest_pending, waiting)
        return event, Elsewhere(held)

    def receive(self, sent, event):
        event.synchronize()


class Event:
    def __init__(self, streams, number):
        self.streams, self.number = streams, number

    def synchronize(self):
        with self.streams.lock:
            for at, each in enumerate(self.streams.pending[: self.number]):
                if each is not None:
                    each[0].copy_(each[1])
                    self.streams.pending[at] = None


@pytest.fixture
def there(monkeypatch):
    known_to_commands(monkeypatch)
    monkeypatch.setattr(LateStreams, "made", [])
    monkeypatch.setattr(
        sizes, "_streams", lambda device: LateStreams(device) if device.type == NAME else None
    )
    monkeypatch.setattr(sizes, "_SENT_NUMBERS", 100 * D)  # many blocks
    with simulated() as found:
        yield found


@pytest.fixture
def rows():
    rng = np.random.default_rng(4)
    centers = 4 * rng.normal(size=(5, D))
    return (centers[rng.integers(5, size=950)] + rng.normal(size=(950, D)) + 3).astype(np.float16)


def test_late_copies_arrive_whole_and_in_order(there):
    ways = sizes.Copies(torch.device(NAME))
    blocks = [torch.full((3, 2), float(n)) for n in range(7)]
    sent = []
    for block in blocks:
        own = block.clone()
        sent.append(ways.send(own))
        own.zero_()  # whose memory may be used again
    for block, each in zip(blocks, sent, strict=True):
        assert torch.equal(ways.receive(each).cpu(), block)
    (streams,) = LateStreams.made
    assert streams.pinned_bytes == 2 * 6 * 4
    assert streams.largest_pending <= 2


@pytest.mark.parametrize("kept", [True, False], ids=["kept there", "sent each time"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_training_from_memory(there, rows, monkeypatch, kept, metric):
    """Rows stay as short as they are stored, on the way and there."""
    monkeypatch.setattr("dinkcli.training.rows.keeps", lambda n_bytes, device: kept)
    monkeypatch.setattr(sizes, "_DEVICE_BLOCK_ROWS", 200)
    monkeypatch.setattr(sizes, "_BLOCK_ROWS", 200)
    options = {"temperature": 0.0, "metric": metric, "epochs": 4}
    found = dinkcli.train(rows, 5, device=NAME, **options)
    expected = dinkcli.train(rows, 5, device="cpu", **options)
    np.testing.assert_allclose(found.cluster_centers, expected.cluster_centers, atol=2e-5)
    sent = sum(each.sent_bytes for each in LateStreams.made)
    assert sent == rows.nbytes if kept else sent >= 3 * rows.nbytes
    assert {torch.float16} == set().union(*(each.dtypes for each in LateStreams.made))
    assert all("read-ahead" in name for each in LateStreams.made for name in each.threads)


@pytest.mark.parametrize("dtype", ["float16", "int8", "float32"])
def test_training_from_disk(there, rows, invoke, tmp_path, dtype):
    """With bad rows and weights; blocks travel in the type of the file."""
    stored = rows.astype(dtype)
    if dtype != "int8":
        stored[[3, 500]] = np.nan
    np.save(tmp_path / "x.npy", stored)
    np.save(tmp_path / "w.npy", np.linspace(0.5, 2, len(rows)).astype(np.float32))
    options = "--bad-rows", "skip", "--sample-weight", "w.npy", "--temperature", 0
    for device in (NAME, "cpu"):
        invoke(
            *("train", "x.npy", "-k", 5, "-o", f"{device}.safetensors", "--device", device),
            *(*options, "--memory", "4KB"),
        )
    found, expected = (dinkcli.load(tmp_path / f"{name}.safetensors") for name in (NAME, "cpu"))
    np.testing.assert_allclose(found.cluster_centers, expected.cluster_centers, atol=1e-4)
    np.testing.assert_allclose(found.cluster_sizes, expected.cluster_sizes, rtol=1e-6)
    assert {getattr(torch, dtype)} == set().union(*(each.dtypes for each in LateStreams.made))
    assert max(each.pinned_bytes for each in LateStreams.made) == 2 * 100 * stored[0].nbytes


def test_assign(there, rows, invoke, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", rows)
    model = dinkcli.train(rows, 5, temperature=0.0, metric="cosine", device="cpu")
    model.save(tmp_path / "m.safetensors")
    monkeypatch.setattr("dinkcli.assigning.assigner._BLOCK_ELEMENTS", {"cpu": 1})
    monkeypatch.setattr("dinkcli.assigning.assigner.chunk_rows", lambda *arguments: 100)
    there.memory = 150 * D  # a block fits, and what is made of it only in pieces
    invoke("assign", "m.safetensors", "x.npy", "-o", "y.parquet", "--soft", "--device", NAME)
    labels = pq.read_table(tmp_path / "y.parquet")["cluster"].to_numpy()
    wide = rows.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    np.testing.assert_array_equal(labels, nearest_float64(wide, model.cluster_centers))
    (streams,) = LateStreams.made
    assert streams.dtypes == {torch.float16}
    assert streams.sent_bytes == rows.nbytes


def test_what_cuda_is_asked(monkeypatch):
    """Its calls in the right order, by stand-ins: the copy and its event go to the stream of their
    own; the stream that computes waits for the event and is noted with the memory."""
    calls = []

    @contextmanager
    def stream(which):
        calls.append(f"in {which}")
        yield
        calls.append("out")

    compute = SimpleNamespace(wait_event=lambda event: calls.append("wait"))
    record = SimpleNamespace(record=lambda which: calls.append(f"record in {which}"))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: "side")
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "Event", lambda: record)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: compute)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, which: calls.append("keep"))
    streams = sizes.CudaStreams(torch.device("cpu"))
    rows = torch.arange(6.0).view(3, 2)
    event, sent = streams.send(rows)
    streams.receive(sent, event)
    assert torch.equal(sent, rows)
    assert sent.data_ptr() != rows.data_ptr()
    assert calls == ["in side", "record in side", "out", "wait", "keep"]
    assert len(streams.pinned(5, torch.float16)) == 5  # without CUDA nothing can be pinned
