"""What `--device cuda` does on this machine: is it right, and how near to what the card can do?

    PYTHONPATH=. python benchmarks/gpu.py [--device cuda] [--small] [--json gpu.json]

One command for a bare machine with torch, dink's requirements and no network; about five minutes at
most. Labels are held against float64 and the CPU, on data that is hard to tell apart too; two runs
must give the same bytes; memory that is short must be survived. Times are medians in milliseconds,
beside what this card takes for the bare product and a copy, and for 25 iterations of plain chunked
torch (addmm, argmin, index_add). `--device cpu --small` runs anywhere in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

import dinkcli
from dinkcli.data.array import ArrayReader
from dinkcli.data.dataset import DataSet
from dinkcli.nearest.hardware import has_low_precision, products
from dinkcli.nearest.index import CenterIndex
from dinkcli.nearest.sums import tempered_statistics
from dinkcli.processes.device import is_out_of_memory
from dinkcli.training import rows as training_rows
from dinkcli.training.rows import RowSource

SHAPES = (10**6, 128, 1000), (10**6, 384, 1000), (200_000, 768, 4096), (10**7, 64, 100)
SMALL = ((2_000, 16, 10), (1_000, 24, 30))
WAYS = {
    "as it comes": {},
    "without TF32": {"DINK_LOW_PRECISION": "0"},
}
KERNEL_GAINS = 1.3  # times as fast, or the kernel is not worth its lines
LIMIT = 300  # seconds after which no further shape is begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny shapes, for a test")
    parser.add_argument("--json", default="gpu.json", help="file for all results")
    args = parser.parse_args()
    device, started = torch.device(args.device), time.perf_counter()
    found: dict[str, Any] = {"machine": machine(device), "small": args.small}
    print(json.dumps(found["machine"], indent=1))
    steps: list[tuple[str, Callable[[], Any]]] = [
        ("labels", lambda: labels_are_right(device)),
        ("same bytes", lambda: same_bytes(device)),
        ("memory", lambda: memory_trial(device)),
    ]
    for shape in SMALL if args.small else SHAPES:
        steps.append((f"times {shape}", lambda shape=shape: times(device, *shape)))
        steps.append((f"kernel {shape}", lambda shape=shape: kernel(device, *shape)))
    rows, features, clusters = SMALL[0] if args.small else SHAPES[0]
    steps.append(("end to end", lambda: end_to_end(device, rows, features, clusters)))
    steps.append(("streamed", lambda: streamed(device, rows, features, clusters)))
    steps.append(("profile", lambda: profile(device, rows, features, clusters)))
    if device.type == "cuda" and not args.small:
        steps.append(("tests", cuda_tests))
    for name, step in steps:
        if time.perf_counter() - started > LIMIT:
            found[name] = "left out: no time"
        else:
            try:
                found[name] = step()
            except Exception as error:  # one that fails must not hide the others
                short = name.startswith("times") and is_out_of_memory(error)
                how = "left out: does not fit" if short else "FAILED"
                found[name] = f"{how} {type(error).__name__}: {error}"
            if device.type == "cuda":
                torch.cuda.empty_cache()
        print(f"{name}: {json.dumps(found[name])}", flush=True)
        Path(args.json).write_text(json.dumps(found, indent=1))
    failed = [name for name, value in found.items() if str(value).startswith("FAILED")]
    print(f"{len(failed)} failed: {', '.join(failed)}" if failed else "nothing failed")
    sys.exit(1 if failed else 0)


def machine(device: torch.device) -> dict[str, Any]:
    is_cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if is_cuda else str(device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "low precision": has_low_precision(device, torch.float32),
    }


def rows_of(n: int, d: int, k: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows around K centres, and K of the rows, the centres of the search."""
    generator = torch.Generator(device).manual_seed(0)
    middles = torch.randn(k, d, generator=generator, device=device)
    which = torch.randint(k, (n,), generator=generator, device=device)
    z = torch.randn(n, d, generator=generator, device=device).add_(middles[which])
    return z, z[:k].clone()


def ms(work: Callable[[], Any], device: torch.device, repeats: int = 5) -> float:
    work()
    taken = []
    for _ in range(repeats):
        wait(device)
        begun = time.perf_counter()
        work()
        wait(device)
        taken.append(time.perf_counter() - begun)
    return round(1000 * median(taken), 3)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def nasty() -> dict[str, tuple[Tensor, Tensor]]:
    # Large enough for products of low precision, which are the ones that may be wrong.
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(1500, 96, generator=generator)
    centers = torch.randn(400, 96, generator=generator)
    pick = torch.randint(400, (2, 1500), generator=generator)
    between = (centers[pick[0]] + centers[pick[1]]) / 2
    return {
        "plain": (z, centers),
        "far from the origin": (z + 1000, centers + 1000),
        "between two centres": (between, centers),
        "centres twice": (z, torch.cat([centers, centers])),
        "centres nearly twice": (z, torch.cat([centers, centers * (1 + 1e-6)])),
        "tiny": (z * 1e-12, centers * 1e-12),
        "few centres": (z, centers[:3]),
        "one feature": (z[:, :1].contiguous(), centers[:, :1].contiguous()),
    }


def labels_are_right(device: torch.device) -> dict[str, int]:
    """How many labels are not those of float64; all must be 0. By all ways that there are."""
    wrong = {}
    for name, (z, centers) in nasty().items():
        exact = torch.cat([nearest_float64(part, centers) for part in z.split(100)])
        wrong[f"{name}, CPU"] = int((CenterIndex(centers).labels(z) != exact).sum())
        for way, switches in WAYS.items():
            with patch.dict(os.environ, switches):
                index = CenterIndex(centers.to(device))
                labels = torch.cat([index.labels(part.to(device)).cpu() for part in z.split(1024)])
            wrong[f"{name}, {way}"] = int((labels != exact).sum())
    if any(wrong.values()):
        raise AssertionError(f"labels differ: {wrong}")
    return wrong


def nearest_float64(z: Tensor, centers: Tensor) -> Tensor:
    return (z.double()[:, None] - centers.double()).square().sum(2).argmin(1)


def same_bytes(device: torch.device) -> str:
    z, _ = rows_of(20_000, 32, 50, device)
    rows = z.cpu().numpy()
    one, other = (dinkcli.train(rows, 50, device=str(device)).cluster_centers for _ in range(2))
    if one.tobytes() != other.tobytes():
        raise AssertionError(f"two runs differ by up to {np.abs(one - other).max():.3g}")
    return "two trainings gave the same bytes"


def memory_trial(device: torch.device) -> str:
    """Labels with nearly all of the card's memory taken."""
    if device.type != "cuda":
        return "only on CUDA"
    rows, centers = (each.cpu().numpy() for each in rows_of(400_000, 128, 2000, device))
    model = dinkcli.Model(centers, np.ones(len(centers)))
    before = dinkcli.assign(model, rows, device=str(device))
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info(device)[0]
    taken = torch.empty(free - (96 << 20), dtype=torch.uint8, device=device)
    after = dinkcli.assign(model, rows, device=str(device))
    del taken
    torch.cuda.empty_cache()
    if not np.array_equal(before, after):
        raise AssertionError("labels differ when memory is short")
    return "the same labels in 96 MB"


def times(device: torch.device, n: int, d: int, k: int) -> dict[str, float]:
    """Milliseconds; the ceiling is the product (TF32 where there is some), or reading the rows."""
    z, centers = rows_of(n, d, k, device)
    index = CenterIndex(centers)
    found = {
        "product": ms(lambda: product(z[:65536], centers), device) * n / min(n, 65536),
        "copy": ms(lambda: z.clone(), device),
    }
    found["labels"] = ms(lambda: index.labels(z), device)
    found["pass"] = ms(lambda: tempered_statistics(z, None, index, 0.0), device)
    found["25 plain iterations"] = ms(lambda: plain_lloyd(z, centers.clone()), device, repeats=1)
    ceiling = max(found["product"], found["copy"] / 2)
    found["labels / ceiling"] = found["labels"] / ceiling
    found["pass / ceiling"] = found["pass"] / ceiling
    rows = z.cpu().numpy()
    found["train"] = ms(lambda: dinkcli.train(rows, k, device=str(device)), device, repeats=1)
    return {name: round(value, 3) for name, value in found.items()}


def kernel(device: torch.device, n: int, d: int, k: int) -> dict[str, Any] | str:
    """Milliseconds of the two nearest centres by plain products with topk and by the kernel of
    ``fused.py``, in TF32 and float32; the kernel's scores are held against float64 first."""
    try:
        from fused import TILES, fused_two
    except ImportError as error:
        return f"left out: {error}"
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return "only on CUDA"
    z, centers = rows_of(n, d, k, device)
    found: dict[str, Any] = {}
    for short in (True, False):
        times: dict[str, Any] = {"plain": ms(partial(plain_two, z, centers, short), device)}
        gains = []
        for tile in TILES:
            try:
                two = fused_two(z[:4096], centers, short, tile)
                wrong = score_error(two, z[:4096], centers)
                if wrong > (1e-2 if short else 1e-5):
                    raise AssertionError(f"scores are off by the share {wrong:.1e} of the norms")
                times[str(tile)] = ms(partial(fused_two, z, centers, short, tile), device)
                gains.append(times["plain"] / times[str(tile)])
            except Exception as error:  # of the compiler: too much shared memory, an unknown card
                times[str(tile)] = f"{type(error).__name__}: {error}".splitlines()[0]
        times["gain"] = round(max(gains, default=0.0), 2)
        times["worth its lines"] = times["gain"] >= KERNEL_GAINS
        found["TF32" if short else "float32"] = times
    return found


def plain_two(z: Tensor, centers: Tensor, low_precision: bool) -> None:
    half_norms = centers.square().sum(1) / 2
    with products(z.device, low_precision):
        for part in z.split(max(1, (1 << 26) // len(centers))):
            torch.addmm(half_norms, part, centers.T, alpha=-1).topk(2, largest=False)


def score_error(two: tuple[Tensor, ...], z: Tensor, centers: Tensor) -> float:
    """How far the two scores of rows, and those of the centres that are named with them, are from
    the lowest in float64, as a share of the largest norm's square."""
    least, labels, second, seconds = (values.cpu() for values in two)
    rows, centers = z.double().cpu(), centers.double().cpu()
    scores = centers.square().sum(1) / 2 - rows @ centers.T
    expected = scores.topk(2, largest=False).values
    named = scores.gather(1, torch.stack([labels, seconds], 1))
    off = torch.stack([torch.stack([least, second], 1) - expected, named - expected]).abs().max()
    return float(off / torch.cat([rows, centers]).square().sum(1).max())


def product(z: Tensor, centers: Tensor) -> None:
    with products(z.device, low_precision=has_low_precision(z.device, torch.float32)):
        torch.mm(z, centers.T)


def plain_lloyd(z: Tensor, centers: Tensor) -> None:
    for _ in range(25):
        squares, sums = centers.square().sum(1), torch.zeros_like(centers)
        counts = torch.zeros(len(centers), device=z.device)
        for part in z.split(max(1, (1 << 26) // len(centers))):
            labels = torch.addmm(squares, part, centers.T, alpha=-2).argmin(1)
            sums.index_add_(0, labels, part)
            counts.index_add_(0, labels, torch.ones_like(part[:, 0]))
        centers = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), centers)


def end_to_end(device: torch.device, n: int, d: int, k: int) -> dict[str, float]:
    """Seconds of the commands themselves, from an npy file on the disk; Python's start included."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/x.npy", rows_of(n, d, k, device)[0].cpu().numpy())
        on = ["--device", str(device), "--quiet"]
        dink = [sys.executable, "-m", "dinkcli"]
        train = [*dink, "train", f"{folder}/x.npy", "-k", str(k), "-o", f"{folder}/m", *on]
        assign = [*dink, "assign", f"{folder}/m", f"{folder}/x.npy", "-o", f"{folder}/y.npy", *on]
        taken = {}
        for name, command in (("train", train), ("assign", assign)):
            begun = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            taken[name] = round(time.perf_counter() - begun, 2)
        return taken


def streamed(device: torch.device, n: int, d: int, k: int) -> dict[str, float]:
    """GB/s of a pass over rows that stay in the CPU's memory, and of a bare copy of them."""
    z, centers = rows_of(n, d, k, device)
    rows = z.cpu()
    with patch.object(training_rows, "keeps", lambda *arguments: False):
        source = RowSource(DataSet([ArrayReader(rows.numpy())]), "euclidean", device)
    taken = {"pass": ms(lambda: source.full_pass(centers), device, repeats=2)}
    rows = rows.pin_memory() if device.type == "cuda" else rows
    taken["copy"] = ms(lambda: z.copy_(rows, non_blocking=True), device)
    return {name: round(rows.nbytes / 1e6 / max(value, 1e-3), 2) for name, value in taken.items()}


def profile(device: torch.device, n: int, d: int, k: int) -> list[str]:
    """The ten operations that take the most of a training."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recorded

    rows = rows_of(min(n, 100_000), d, min(k, 200), device)[0].cpu().numpy()
    kinds = [ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(ProfilerActivity.CUDA)
    with recorded(activities=kinds) as found:
        dinkcli.train(rows, min(k, 200), device=str(device))
    # Before torch 2.4 that of a GPU has another name.
    names = ["self_cpu_time_total"]
    if len(kinds) > 1:
        names = ["self_device_time_total", "self_cuda_time_total"]
    events = found.key_averages()
    name = next(each for each in names if hasattr(events[0], each))
    top = sorted(events, key=lambda event: -getattr(event, name))[:10]
    return [f"{e.key}: {getattr(e, name) / 1000:.1f} ms, {e.count} times" for e in top]


def cuda_tests() -> str:
    home = Path(__file__).parent.parent
    options = ["-m", "cuda", "-q", "-p", "no:cacheprovider", "tests"]
    command = [sys.executable, "-m", "pytest", *options]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=120)
    last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]
    if done.returncode:
        raise AssertionError(last)
    return last


if __name__ == "__main__":
    main()
