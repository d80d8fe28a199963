"""Passes of a network, captured as CUDA graphs and replayed.

An eager pass launches each of its kernels from the host, and few images wait for the launches. A
graph is launched at once: one for the forward pass, one for the backward pass, to the images of a
network that stands still or to the weights of one that is trained. What a graph reads lies where it
lay when it was captured, so the weights must be written in place.
"""

from __future__ import annotations

import gc
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
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
"""Shapes that are captured for each place of the weights, with a backward pass or without: each
graph holds the memory of its activations."""
MAX_PLACES = 2
"""Of the weights, for which graphs are kept: those of two dtypes."""

_broken_off: list[CaptureError] = []
"""The capture that broke off in this process: its allocator takes the capture to go on."""

Passes = Callable[..., tuple[Tensor, Tensor]]
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
        if "capture_error_mode" not in signature(torch.cuda.make_graphed_callables).parameters:
            # Threads that solve plans and read images would break a capture off.
            self._give_up(f"torch {torch.__version__} cannot capture while other threads work")
            return None
        sample = images.detach().clone().requires_grad_(images.requires_grad)
        # In the place of the weights, whose own gradients belong to no stream of a capture.
        places = [weight.detach().requires_grad_(True) for weight in eager.weights.values()]
        moved = [tensor for tensor in (sample, *places) if tensor.requires_grad]
        with torch.autocast(eager.device, enabled=False):
            try:
                with _no_waiting():
                    outputs = [o for o in eager(sample, *places) if o.requires_grad]
                    if with_gradient:
                        torch.autograd.grad(outputs, moved, list(map(torch.empty_like, outputs)))
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as err:
                self._give_up(f"a pass cannot be captured ({_one_line(err)})")
                return None
            del outputs
            return _graphed(eager, (sample, *places))

    def _give_up(self, reason: str) -> None:
        self.why_not = reason
        self._by_place, self._graphs = {}, {}
        logger.info("%s run without CUDA graphs: %s", self.what, reason)


class _Reading(nn.Module):
    def __init__(self, read: Reader, module: nn.Module):
        super().__init__()
        self.read, self.module = read, module

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.read(self.module, images)


class _Eager:
    """The pass that is captured: of images, and of what stands in the place of the weights.

    Parameters
    ----------
    weights : those that have gradients, by name
    """

    def __init__(
        self, read: Reader, module: nn.Module, device: str, *,
        in_bfloat16: bool, weights: Mapping[str, Tensor] | None = None,
    ):  # fmt: skip
        self.reading = _Reading(read, module)
        self.device, self.in_bfloat16 = device, in_bfloat16
        self.weights = weights or {}

    def __call__(self, images: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        names = (f"module.{name}" for name in self.weights)
        with torch.autocast(
            self.device, torch.bfloat16, enabled=self.in_bfloat16, cache_enabled=False
        ):
            given = dict(zip(names, weights, strict=True))
            return functional_call(self.reading, given, (images,))


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
        in_bfloat16 = torch.is_autocast_enabled(device)
        eager = _Eager(self.read, module, device, in_bfloat16=in_bfloat16)
        return self._passes(eager, images, images.requires_grad and torch.is_grad_enabled())


class CapturedModel(_Captured):
    """Forwards a classifier whose weights are moved, from graphs of the pass and of its backward.

    A replay moves the statistics of BatchNorm as a pass does. What it returns is the caller's own.
    A weight that the loss does not reach has a gradient of zeros, and not none.
    """

    what = "updates"

    def __init__(self, model: Classifier):
        super().__init__()
        self.model = model
        draws = any(isinstance(m, _DropoutNd) and m.p > 0 for m in model.modules())
        if model.seeded or draws:
            self._give_up("the model draws at random, and a graph would draw the same every time")

    def __call__(self, images: Tensor) -> ModelOutput:
        # Of a single image the gradients of two biases of one sum may be one tensor.
        if self.why_not or len(images) == 1 or not torch.is_grad_enabled():
            return self.model(images)
        model, module = self.model, self.model.module
        weights = {n: weight for n, weight in module.named_parameters() if weight.requires_grad}
        # Not by Classifier.forward, within which the time of a phase may be taken.
        eager = _Eager(
            model.read, module, images.device.type,
            in_bfloat16=model.in_bfloat16, weights=weights,
        )  # fmt: skip
        self.renew(module)
        modes = (layer.training for layer in module.modules())
        passes = self._passes(eager, images, True, *modes, *weights)
        if passes is None:
            return model(images)
        with phase("forward"):
            features, logits = passes(images, *weights.values())
            # In its own dtype, and no view of where the next replay writes.
            return ModelOutput(*(t.to(images.dtype, copy=True) for t in (features, logits)))

    def _captured(self, eager: _Eager, images: Tensor, with_gradient: bool) -> Passes | None:
        statistics = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        try:
            return super()._captured(eager, images, with_gradient)
        finally:
            # What is tried and what warms up counts in the statistics of BatchNorm.
            for buffer, value in statistics:
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


def _graphed(passes: _Eager, samples: tuple[Tensor, ...]) -> Passes:
    """Return passes that replay; CaptureError where the capture breaks off all the same."""
    # Graphs that were dropped are in cycles, and hold their memory until these are collected.
    gc.collect()
    make = torch.cuda.make_graphed_callables
    try:
        return cast("Passes", make(passes, samples, capture_error_mode="thread_local"))
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
