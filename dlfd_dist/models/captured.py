"""Passes of a network, captured as CUDA graphs and replayed.

An eager pass launches each of its kernels from the host, and few images wait for the launches. A
graph is launched at once: one for the forward pass, one for the backward pass, to the images of a
network that stands still or to the weights of one that is trained. What a graph reads lies where it
lay when it was captured, so the weights must be written in place.
"""

from __future__ import annotations

import gc
import inspect
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from ..errors import CaptureError
from ..runtime.phases import phase
from .classifier import Classifier, ModelOutput
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


class _Captured:
    """Passes by the shape of their images and the place of the weights.

    The first images of a shape are not captured, the next ones are: many a last batch comes once.
    Where a rehearsal shows that a pass cannot be captured, the log says why, and all of them run as
    they are from there on.

    Attributes
    ----------
    why_not : why nothing is captured any more; None where graphs can be
    """

    what = ""
    """Whose passes they are, for the log."""

    def __init__(self) -> None:
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

    def _passes(
        self, eager: _Eager, images: Tensor, with_gradient: bool, *kind: Any
    ) -> Passes | None:
        """Return the graphs of a pass for images of this shape; None: it is to run as it is.

        Parameters
        ----------
        with_gradient : whether there is a backward pass
        kind : what else tells passes from each other
        """
        num_pixels = math.prod(images.shape) // images.shape[1]
        if self.why_not or not 0 < num_pixels < MANY_PIXELS:
            return None
        how = images.shape, images.stride(), images.dtype, eager.in_bfloat16
        shape = (with_gradient, *how, *kind)
        if shape in self._graphs:
            return self._graphs[shape]
        if shape not in self._seen:
            self._seen.add(shape)
            return None
        if sum(other[0] == with_gradient for other in self._graphs) >= MAX_SHAPES[with_gradient]:
            return None
        passes = self._captured(eager, images, with_gradient)
        if passes is not None:
            self._graphs[shape] = passes
        return passes

    def _captured(self, eager: _Eager, images: Tensor, with_gradient: bool) -> Passes | None:
        if eager.device not in DEVICES:
            self._give_up(f"there are none on a {eager.device} device")
            return None
        sample = images.detach().clone().requires_grad_(images.requires_grad)
        moved = [tensor for tensor in (sample, *eager.parameters()) if tensor.requires_grad]
        with torch.autocast(eager.device, enabled=False):
            try:
                with _no_waiting():
                    outputs = [output for output in eager(sample) if output.requires_grad]
                    if with_gradient:
                        torch.autograd.grad(outputs, moved, list(map(torch.empty_like, outputs)))
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as err:
                self._give_up(f"a pass cannot be captured ({_one_line(err)})")
                return None
            del outputs
            return _graphed(eager, sample)

    def _give_up(self, reason: str) -> None:
        self.why_not = reason
        self._by_place, self._graphs = {}, {}
        logger.info("%s run without CUDA graphs: %s", self.what, reason)


class _Eager(nn.Module):
    """The pass that is captured.

    Parameters
    ----------
    trained : the network, where its weights have gradients
    """

    def __init__(
        self, read: Passes, device: str, *, in_bfloat16: bool, trained: nn.Module | None = None
    ):
        super().__init__()
        self.read, self.device, self.in_bfloat16 = read, device, in_bfloat16
        self.trained = trained

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(
            self.device, torch.bfloat16, enabled=self.in_bfloat16, cache_enabled=False
        ):
            return self.read(images)


class CapturedReader(_Captured):
    """Reads features and logits of a network that stands still, from graphs or as `read` does.

    What it returns is the caller's own.
    """

    what = "syntheses and probes"

    def __init__(self, read: Reader):
        super().__init__()
        self.read = read

    def __call__(self, module: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        passes = None if module.training else self._of(module, images)
        if passes is None:
            return self.read(module, images)
        features, logits = passes(images)
        # The next replay writes where these lie.
        return features.clone(), logits.clone()

    def _of(self, module: nn.Module, images: Tensor) -> Passes | None:
        device = images.device.type
        eager = _Eager(
            partial(self.read, module), device, in_bfloat16=torch.is_autocast_enabled(device)
        )
        return self._passes(eager, images, images.requires_grad and torch.is_grad_enabled())


class CapturedModel(_Captured):
    """Forwards a classifier that is trained, from graphs of its pass and of that to its weights.

    A replay moves the statistics of BatchNorm as a pass does. What it returns is the caller's own.
    """

    what = "updates"

    def __init__(self, model: Classifier):
        super().__init__()
        self.model = model
        draws = any(isinstance(m, _DropoutNd) and m.p > 0 for m in model.modules())
        if model.seeded or draws:
            self._give_up("the model draws at random, and a graph would draw the same every time")

    def __call__(self, images: Tensor) -> ModelOutput:
        passes = self._of(images) if self.model.training and torch.is_grad_enabled() else None
        if passes is None:
            return self.model(images)
        with phase("forward"):
            features, logits = passes(images)
            # In its own dtype, and no view of where the next replay writes.
            return ModelOutput(*(t.to(images.dtype, copy=True) for t in (features, logits)))

    def _of(self, images: Tensor) -> Passes | None:
        module = self.model.module
        self.renew(module)
        # Not by Classifier.forward, within which the time of a phase may be taken.
        eager = _Eager(
            partial(self.model.read, module), images.device.type,
            in_bfloat16=self.model.in_bfloat16, trained=module,
        )  # fmt: skip
        modes = (layer.training for layer in module.modules())
        trained = (weights.requires_grad for weights in module.parameters())
        return self._passes(eager, images, True, *modes, *trained)

    def _captured(self, eager: _Eager, images: Tensor, with_gradient: bool) -> Passes | None:
        kept = [buffer.clone() for buffer in eager.buffers()]
        try:
            return super()._captured(eager, images, with_gradient)
        finally:
            # What is tried and what warms up counts in the statistics of BatchNorm.
            for buffer, value in zip(eager.buffers(), kept, strict=True):
                buffer.copy_(value)


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
