"""A second device that is none: it holds CPU memory, and says that it is elsewhere.

Tensors there refuse to be mixed with those of the CPU, as on a GPU, but for copies from one to the
other and for numbers. Operations are counted, and so is what makes the host wait for a device: a
number that Python looks at, a copy to the CPU, a result whose size depends on values.

What a GPU adds up in any order is refused, and where the program around has chosen TF32, so are no
products: their factors then lose their last 13 bits, as on tensor cores.

``with simulated() as device`` gives the counts; ``device.name`` is what ``torch.device`` takes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "elsewhere"
K, D = 6, 8  # of `clustered_rows`
aten = torch.ops.aten

# Both sides meet in these.
_COPIES = {aten._to_copy.default, aten.copy_.default}
# The size of what they give is known when they are done, so the host waits.
_SIZED_BY_VALUES = {
    "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount",
}  # fmt: skip


# Their factors, the last two arguments, may be short.
_PRODUCTS = {"mm", "bmm", "addmm", "addmm_", "baddbmm"}
# Of floats a GPU gives other last bits every time.
_ANY_ORDER = {"index_add", "index_add_", "scatter_add", "scatter_add_", "put_", "histc"}


class Elsewhere(torch.Tensor):
    """Says that it is on the second device; ``held`` is the CPU tensor."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        made.held = held
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Elsewhere({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, None)


class Counts(TorchDispatchMode):
    """Counts what happens on the second device.

    Attributes:
        operations: by name.
        reads: what made the host wait, by name.
        memory: numbers that one tensor there may have; a larger one is out of memory.
        has_float64: without it, tensors of float64 are refused, as on MPS.
        fp32_precision: "ieee", or "tf32" for short products of float32.
    """

    name = NAME

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.reads: Counter[str] = Counter()
        self.memory: int | None = None
        self.has_float64 = True
        self.fp32_precision = "ieee"

    @property
    def n_operations(self) -> int:
        return self.operations.total()

    @property
    def n_reads(self) -> int:
        return self.reads.total()

    def restart(self) -> None:
        self.operations.clear()
        self.reads.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, self)


class _Functions(TorchFunctionMode):
    """What torch does in C++ before anything can be dispatched."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.tensor and _is_there(kwargs.get("device")):
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func is torch.Tensor.tolist and isinstance(args[0], Elsewhere):
            return args[0].cpu().tolist()
        return func(*args, **kwargs)


def _is_there(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _run(func: Any, args: Any, kwargs: dict[str, Any], counts: Counts | None) -> Any:
    tensors: list[torch.Tensor] = []
    held_args = _held(args, tensors)
    held_kwargs = {name: _held(each, tensors) for name, each in kwargs.items()}
    there = [each for each in tensors if isinstance(each, Elsewhere)]
    to = kwargs.get("device")
    if not there and not _is_there(to):
        return func(*args, **kwargs)
    name = func.overloadpacket.__name__
    if func not in _COPIES and any(e.ndim and not isinstance(e, Elsewhere) for e in tensors):
        raise RuntimeError(f"{name}: expected all tensors on one device, found {NAME} and cpu")
    if func is aten.copy_.default:
        to_cpu = not isinstance(args[0], Elsewhere)
    else:
        to_cpu = func is aten._to_copy.default and to is not None and not _is_there(to)
    if counts is not None:
        _count(counts, func, name, args, to_cpu)
    _refuse_any_order(name, args, kwargs)
    if counts is not None and counts.fp32_precision == "tf32" and name in _PRODUCTS:
        held_args = [*held_args[:-2], *map(_short, held_args[-2:])]
    if _is_there(to):
        held_kwargs["device"] = torch.device("cpu")
    found = func(*held_args, **held_kwargs)
    if to_cpu:
        return found
    # What is done in place, or written to ``out``, comes back as the tensor that went in.
    wrappers = {id(each.held): each for each in there}

    def wrapped(each: Any) -> Any:
        if isinstance(each, torch.Tensor):
            if counts is not None and not counts.has_float64 and each.dtype == torch.float64:
                raise TypeError(f"{NAME} has no float64 ({name})")
            if counts is not None and counts.memory is not None and each.numel() > counts.memory:
                raise torch.cuda.OutOfMemoryError(f"{NAME}: out of memory, {each.numel()} numbers")
            return wrappers[id(each)] if id(each) in wrappers else Elsewhere(each)
        if isinstance(each, (list, tuple)):
            return type(each)(map(wrapped, each))
        return each

    return wrapped(found)


def _refuse_any_order(name: str, args: Any, kwargs: dict[str, Any]) -> None:
    values = next((each for each in args if isinstance(each, torch.Tensor)), None)
    if values is None or not values.is_floating_point():
        return
    refused = name in _ANY_ORDER
    # A line; lines of a matrix are added up one by one.
    refused |= name in ("cumsum", "cumsum_") and values.numel() == values.shape[args[1]] > 1
    refused |= name == "index_put_" and len(args) > 3 and args[3]
    refused |= name.startswith("scatter_reduce") and args[4] not in ("amin", "amax")
    if refused:
        raise RuntimeError(f"{name}: on a GPU the last bits of this differ from run to run")


def _short(factor: torch.Tensor) -> torch.Tensor:
    """Cut off to the 10 bits behind the point of TF32, the worst that tensor cores do."""
    if factor.dtype != torch.float32:
        return factor
    return (factor.contiguous().view(torch.int32) & -(1 << 13)).view(torch.float32)


def _held(value: Any, tensors: list[torch.Tensor]) -> Any:
    """An argument as the CPU wants it; the tensors in it go to ``tensors``."""
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return value.held if isinstance(value, Elsewhere) else value
    if isinstance(value, (list, tuple)):
        return [_held(each, tensors) for each in value]
    return value


def _count(counts: Counts, func: Any, name: str, args: Any, to_cpu: bool) -> None:
    if not func.is_view:
        counts.operations[name] += 1
    if name == "_local_scalar_dense" or name in _SIZED_BY_VALUES or to_cpu:
        counts.reads[name] += 1
    if name in ("index", "index_put", "index_put_") and any(
        each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1]
    ):
        counts.reads["index by a mask"] += 1
    if name == "repeat_interleave":
        counts.reads[name] += 1


@cache
def register() -> None:
    """Tells torch of the device. Before anything else uses autograd, which counts devices once."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME)


@contextmanager
def simulated() -> Iterator[Counts]:
    """The second device, for the time of the block."""
    register()
    with _Functions(), Counts() as counts:
        yield counts


def clustered_rows() -> np.ndarray:
    """900 rows (900, D) float32 of K clusters, away from the origin."""
    rng = np.random.default_rng(1)
    centers = 3 * rng.normal(size=(K, D))
    z = centers[rng.integers(K, size=900)] + rng.normal(size=(900, D)) + 5
    return z.astype(np.float32)


def known_to_commands(monkeypatch: Any) -> None:
    """``--device elsewhere`` and ``device="elsewhere"`` mean it."""
    from dinkcli.processes import device as devices

    monkeypatch.setattr(devices, "_NAME", re.compile(f"{NAME}|{devices._NAME.pattern}"))
    monkeypatch.setattr(devices, "_present", lambda: [NAME, "cpu"])
