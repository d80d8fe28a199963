"""What a synthesis iteration cannot cost less than, and how it is measured against that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .perturb import frozen

PEAK_SIZE = {"cpu": 1024, "cuda": 8192}
"""Rows of a matrix whose product keeps a device busy, and takes it no second."""
PEAK_REPEATS = 5


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


def _seconds(call: Callable[[], object], device: torch.device, clock: Callable[[], float]) -> float:
    _settled(device)
    start = clock()
    call()
    _settled(device)
    return clock() - start


def _settled(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
