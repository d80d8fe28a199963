"""Passes of a network that stands still, captured as CUDA graphs and replayed.

An eager pass launches each of its kernels from the host, and small images wait for the launches. A
graph is launched at once: one for the forward pass, one for the backward pass to the images. What
a graph reads lies where it lay when it was captured, so the weights must be written in place.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from .features import Reader

logger = logging.getLogger(__name__)

DEVICES = ("cuda",)
MAX_SHAPES, MAX_PLACES = 4, 2
"""Graphs that are kept, for each place of the weights, and places: each graph holds the memory of
its activations. Two places are folded weights of two dtypes."""

Passes = Callable[[Tensor], tuple[Tensor, Tensor]]
Shape = tuple[object, ...]


class CapturedReader:
    """Reads features and logits as `read` does, from CUDA graphs where they were captured.

    The first images of a shape are read as they are, the next ones are captured: many a last batch
    comes once. What it returns is the caller's own. Where a graph cannot be captured, the log says
    why, and everything is read as it is from there on.

    Attributes
    ----------
    why_not : why nothing is captured any more; None where graphs can be
    """

    def __init__(self, read: Reader):
        self.read = read
        self.why_not: str | None = None
        self._by_place: dict[tuple[int, ...], dict[Shape, Passes | None]] = {}
        self._graphs: dict[Shape, Passes | None] = {}

    def renew(self, module: nn.Module) -> None:
        """Take the graphs of the place where the weights lie now; the oldest places are dropped."""
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
        if self.why_not or module.training:
            return None
        shape = (
            images.shape, images.stride(), images.dtype,
            images.requires_grad and torch.is_grad_enabled(),
            torch.is_autocast_enabled(images.device.type),
        )  # fmt: skip
        if shape not in self._graphs:
            if len(self._graphs) < MAX_SHAPES:
                self._graphs[shape] = None
            return None
        if self._graphs[shape] is None:
            self._graphs[shape] = self._captured(module, images)
        return self._graphs[shape]

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
        try:
            # A capture that fails may leave another stream behind than the one it found.
            with (
                torch.cuda.stream(torch.cuda.current_stream()),
                torch.autocast(device, enabled=False),
            ):
                graphed = torch.cuda.make_graphed_callables(passes, (sample,))
        except RuntimeError as err:
            self._give_up(str(err).partition("\n")[0])
            return None
        return cast("Passes", graphed)

    def _give_up(self, reason: str) -> None:
        self.why_not = reason
        self._by_place, self._graphs = {}, {}
        logger.info("syntheses and probes run without CUDA graphs: %s", reason)
