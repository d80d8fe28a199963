"""What a synthesis iteration cannot cost less than, and how it is measured against that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from .perturb import frozen


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


def _seconds(call: Callable[[], object], device: torch.device, clock: Callable[[], float]) -> float:
    _settled(device)
    start = clock()
    call()
    _settled(device)
    return clock() - start


def _settled(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
