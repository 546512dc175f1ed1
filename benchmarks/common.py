"""What the benchmarks share: the machine in words, medians, Markdown tables and marked sections."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from dinkcli.nearest.hardware import has_bfloat16, products

_PACKAGES = (
    "torch",
    "numpy",
    "pyarrow",
    "scikit-learn",
    "faiss-cpu",
    "superkmeans",
    "fastkmeans",
    "bkmeans",
)
_CPU = torch.device("cpu")
# Settings that make libraries leave instruction sets unused.
_LIMITS = ("ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")


def timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_turns(ways: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, all run in turns after one run of each that does not count."""
    for way in ways.values():
        way()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            times[name].append(timed(way))
    return times


def with_spread(values: list[float], digits: int = 2) -> str:
    """The median and, of several values, the least and the largest."""
    middle = f"{median(values):.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = ["| " + " | ".join(columns) + " |"]
    lines.append(re.sub(r"[^|]+", "---", lines[0]))
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines)


def machine() -> str:
    """CPU, cores, memory and versions of what is installed, on one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = []
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return (
        f"{date.today()}; {_cpu()[0]} ({_instruction_sets()}), "
        f"{os.cpu_count()} cores, {memory:.0f} GiB; {platform.system()}, "
        f"Python {platform.python_version()}, {', '.join(versions)}; "
        f"{torch.get_num_threads()} threads"
    )


def _instruction_sets() -> str:
    """Those that the CPU has, and what of them this process has used."""
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    has = [name for name in known if name in _cpu()[1]] or [platform.machine()]
    used = [f"torch {torch.backends.cpu.get_cpu_capability()}"]
    used += [f"{name}={os.environ[name]}" for name in _LIMITS if name in os.environ]
    used.append("bfloat16 products" if has_bfloat16() else "no bfloat16 products")
    return f"has {', '.join(has)}; used: {', '.join(used)}"


def _cpu() -> tuple[str, set[str]]:
    """Model and instruction sets, as far as the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or "unknown CPU", set()
    found = dict(re.findall(r"^(model name|flags)\s*: (.*)$", text, re.MULTILINE))
    return found.get("model name", "unknown CPU"), set(found.get("flags", "").split())


def ceilings() -> dict[str, float]:
    """What this machine can do, measured: multiply-adds a second of a large float32 product
    ("product") and, where it has such units, of one with bfloat16 factors ("short"); bytes a second
    read and written by a large copy ("copy"). A bfloat16 product without units takes a minute."""
    a, b = torch.randn(4096, 2048), torch.randn(2048, 2048)
    out = torch.empty(4096, 2048)
    source = torch.randn(1 << 26)
    target = torch.empty_like(source)

    def product() -> None:
        with products(_CPU):
            torch.mm(a, b, out=out)

    ways: dict[str, Callable[[], Any]] = {
        "product": product,
        "copy": lambda: target.copy_(source),
    }
    if has_bfloat16():
        short = a.bfloat16(), b.bfloat16()
        ways["short"] = lambda: torch.mm(*short)
    work = {"product": a.numel() * 2048, "short": a.numel() * 2048, "copy": 8 * source.numel()}
    return {name: work[name] / median(found) for name, found in in_turns(ways, 5).items()}


def ceilings_in_words(found: Mapping[str, float]) -> str:
    short = f"bfloat16 product {2 * found['short'] / 1e9:.0f} GFLOP/s, " if "short" in found else ""
    return (
        f"Ceilings: float32 product {2 * found['product'] / 1e9:.0f} GFLOP/s, {short}"
        f"copy {found['copy'] / 1e9:.1f} GB/s read and written."
    )


def write_section(path: Path, name: str, text: str) -> None:
    """Puts ``text`` between the markers of that name, or at the end of the file with markers."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    old = path.read_text() if path.exists() else ""
    section = "\n\n".join((begin, text.strip("\n"), end))
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if pattern.search(old):
        new = pattern.sub(lambda _: section, old, count=1)
    else:
        new = f"{old.rstrip()}\n\n{section}\n".lstrip()
    path.write_text(new)
