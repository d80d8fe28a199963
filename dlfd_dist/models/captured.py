"""Passes of a network that stands still, captured as CUDA graphs and replayed.

An eager pass launches each of its kernels from the host, and few images wait for the launches. A
graph is launched at once: one for the forward pass, one for the backward pass to the images. What
a graph reads lies where it lay when it was captured, so the weights must be written in place.
"""

from __future__ import annotations

import gc
import inspect
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..errors import CaptureError
from .features import Reader

logger = logging.getLogger(__name__)

DEVICES = ("cuda",)
MANY_PIXELS = 2**22
"""Pixels of a batch from which a pass lasts as long as its launches, which it then does not wait
for (an H100, ResNet18: 4 ms, and 18,000 images of 224 pixels a second)."""
MAX_SHAPES = {True: 2, False: 4}
"""Shapes that are captured for each place of the weights, with a gradient to the images or
without: each graph holds the memory of its activations."""
MAX_PLACES = 2
"""Of the weights, for which graphs are kept: those of two dtypes."""

_broken_off: list[CaptureError] = []
"""The capture that broke off in this process: its allocator takes the capture to go on."""

Passes = Callable[[Tensor], tuple[Tensor, Tensor]]
Shape = tuple[Any, ...]


class CapturedReader:
    """Reads features and logits as `read` does, from CUDA graphs where they were captured.

    The first images of a shape are read as they are, the next ones are captured: many a last batch
    comes once. What it returns is the caller's own. Where a rehearsal shows that a pass cannot be
    captured, the log says why, and everything is read as it is from there on.

    Attributes
    ----------
    why_not : why nothing is captured any more; None where graphs can be
    """

    def __init__(self, read: Reader):
        self.read = read
        self.why_not: str | None = None
        self._seen: set[Shape] = set()
        self._by_place: dict[tuple[int, ...], dict[Shape, Passes]] = {}
        self._graphs: dict[Shape, Passes] = {}

    def renew(self, module: nn.Module) -> None:
        """Take the graphs of the place where the weights lie now; the oldest places are dropped.

        Raises CaptureError in a process where a capture broke off before.
        """
        if _broken_off:
            raise _broken_off[0]
        tensors = (*module.parameters(), *module.buffers())
        place = tuple(tensor.data_ptr() for tensor in tensors)
        self._graphs = self._by_place.pop(place, {})
        self._by_place[place] = self._graphs
        while len(self._by_place) > MAX_PLACES:
            del self._by_place[next(iter(self._by_place))]

    def __call__(self, module: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        passes = self._passes(module, images)
        if passes is None:
            return self.read(module, images)
        features, logits = passes(images)
        # The next replay writes where these lie.
        return features.clone(), logits.clone()

    def _passes(self, module: nn.Module, images: Tensor) -> Passes | None:
        num_pixels = math.prod(images.shape) // images.shape[1]
        if self.why_not or module.training or not 0 < num_pixels < MANY_PIXELS:
            return None
        with_gradient = images.requires_grad and torch.is_grad_enabled()
        shape = (
            with_gradient, images.shape, images.stride(), images.dtype,
            torch.is_autocast_enabled(images.device.type),
        )  # fmt: skip
        if shape in self._graphs:
            return self._graphs[shape]
        if shape not in self._seen:
            self._seen.add(shape)
            return None
        if sum(other[0] == with_gradient for other in self._graphs) >= MAX_SHAPES[with_gradient]:
            return None
        passes = self._captured(module, images)
        if passes is not None:
            self._graphs[shape] = passes
        return passes

    def _captured(self, module: nn.Module, images: Tensor) -> Passes | None:
        device = images.device.type
        if device not in DEVICES:
            self._give_up(f"there are none on a {device} device")
            return None
        in_bfloat16 = torch.is_autocast_enabled(device)

        def passes(images: Tensor) -> tuple[Tensor, Tensor]:
            with torch.autocast(device, torch.bfloat16, enabled=in_bfloat16, cache_enabled=False):
                return self.read(module, images)

        sample = images.detach().clone().requires_grad_(images.requires_grad)
        with torch.autocast(device, enabled=False):
            try:
                with _no_waiting():
                    outputs = passes(sample)
                    if sample.requires_grad and torch.is_grad_enabled():
                        torch.autograd.grad(outputs, sample, list(map(torch.empty_like, outputs)))
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as err:
                self._give_up(f"a pass cannot be captured ({_one_line(err)})")
                return None
            del outputs
            return _graphed(passes, sample)

    def _give_up(self, reason: str) -> None:
        self.why_not = reason
        self._by_place, self._graphs = {}, {}
        logger.info("syntheses and probes run without CUDA graphs: %s", reason)


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Let what torch sees to wait for the device raise RuntimeError: it would end a capture."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _graphed(passes: Passes, sample: Tensor) -> Passes:
    """Return passes that replay; CaptureError where the capture breaks off all the same."""
    # Graphs that were dropped are in cycles, and hold their memory until these are collected.
    gc.collect()
    make = torch.cuda.make_graphed_callables
    # Other threads may go on: the one that solves a late plan frees memory. Older torch: global.
    has_mode = "capture_error_mode" in inspect.signature(make).parameters
    mode: dict[str, Any] = {"capture_error_mode": "thread_local"} if has_mode else {}
    try:
        return cast("Passes", make(passes, (sample,), **mode))
    except RuntimeError as err:
        while isinstance(err.__context__, RuntimeError):
            err = err.__context__  # noqa: PLW2901 - the first one is the cause
        broken_off = CaptureError(
            f"A pass could not be captured as a CUDA graph ({_one_line(err)}): give "
            "runtime.cuda_graphs=false, and the run goes on from its last checkpoint."
        )
        _broken_off.append(broken_off)
        raise broken_off from err


def _one_line(err: Exception) -> str:
    return str(err).partition("\n")[0]
