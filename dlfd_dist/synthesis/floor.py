"""What a synthesis iteration cannot cost less than, and how it is measured against that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from .perturb import frozen

PEAK_SIZE = {"cpu": 1024, "cuda": 8192}
"""Rows of a matrix whose product keeps a device busy, and takes it no second."""
COPY_BYTES = {"cpu": 2**27, "cuda": 2**30}
"""Of a tensor that is larger than the caches."""
PEAK_REPEATS = 5
NO_TRAFFIC = {
    "aten::_unsafe_view", "aten::empty", "aten::empty_like", "aten::empty_strided",
    "aten::new_empty", "aten::new_empty_strided",
}  # fmt: skip
"""Operations that return a tensor whose values they neither read nor write."""


def floor_iterations(model: nn.Module, images: Tensor, steps: int) -> None:
    """Do `steps` times one forward pass and one backward pass with respect to the input."""
    with frozen(model):
        for _ in range(steps):
            x = images.detach().requires_grad_(True)
            torch.autograd.grad(model(x).logits.sum(), x)


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    repeats: int,
    device: torch.device,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[dict[str, float]]:
    """Yield the seconds of every call, `repeats` times, in turn, so that a ratio of one repeat is
    that of one state of the machine. What a first call does once is not timed.
    """
    for call in calls.values():
        call()
    for _ in range(repeats):
        yield {name: _seconds(call, device, clock) for name, call in calls.items()}


def floor_flops(model: nn.Module, images: Tensor) -> int:
    """Return the floating point operations of the products and convolutions in one of them."""
    with frozen(model), FlopCounterMode(display=False) as counter:
        # Its hooks on modules do not know of autograd.grad.
        model(images.detach().requires_grad_(True)).logits.sum().backward()
    return counter.get_total_flops()


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Return what the device does of them in a second, at best: in a product of large matrices."""
    size = PEAK_SIZE[device.type]
    left, right = torch.rand(2, size, size, device=device).to(dtype)
    calls = {"product": lambda: left @ right}
    fastest = min(row["product"] for row in interleaved(calls, PEAK_REPEATS, device))
    return 2 * size**3 / fastest


class Traffic(TorchDispatchMode):
    """Counts the bytes of what operations are given and return, every tensor once an operation.

    That is the traffic of a device without caches, whose operations read all that they are given.
    Views cost nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if not _is_view(func) and func._schema.name not in NO_TRAFFIC:
            used = pytree.tree_leaves((args, kwargs, made))
            self.bytes += sum(t.nbytes for t in used if isinstance(t, Tensor))
        return made


def _is_view(func: torch._ops.OpOverload) -> bool:
    aliases = [value.alias_info for value in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def traffic_bytes(call: Callable[[], object]) -> int:
    """Return the bytes that the operations of a call are given and return."""
    with Traffic() as traffic:
        call()
    return traffic.bytes


def peak_bandwidth(device: torch.device) -> float:
    """Return the bytes that the device reads and writes in a second, at best: in a large copy."""
    source, target = torch.zeros(2, COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    calls = {"copy": lambda: target.copy_(source)}
    fastest = min(row["copy"] for row in interleaved(calls, PEAK_REPEATS, device))
    return 2 * source.nbytes / fastest


def _seconds(call: Callable[[], object], device: torch.device, clock: Callable[[], float]) -> float:
    _settled(device)
    start = clock()
    call()
    _settled(device)
    return clock() - start


def _settled(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
