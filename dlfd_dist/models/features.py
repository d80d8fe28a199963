"""Where the features of a module are: what its last linear layer reads, or what one asks for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..factories import named
from ..registry import near_match

Reader = Callable[[nn.Module, Tensor], tuple[Tensor, Tensor]]
"""Gives features and logits of images in one pass of a module."""

ADVICE = "give features='NAME' of the layer whose output they are (model.features)"


class InputOf:
    """Reads what a linear layer is given; of no name, the linear layer that is called last.

    That layer is found in the first pass and stays.
    """

    def __init__(self, name: str | None = None):
        self.name = name

    def __call__(self, module: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []
        if self.name is None:
            self.name = _last_linear(module, images)
        layer = module.get_submodule(self.name)
        with layer.register_forward_pre_hook(lambda _, args: seen.append(args[0])):
            logits = module(images)
        return torch.flatten(seen[-1], 1), logits


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode for the block; each layer is put back into its own."""
    modes = {layer: layer.training for layer in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for layer, mode in modes.items():
            layer.training = mode


def _last_linear(module: nn.Module, images: Tensor) -> str:
    called: list[str] = []
    with contextlib.ExitStack() as stack, torch.no_grad():
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Linear):
                hook = layer.register_forward_pre_hook(lambda *_, name=name: called.append(name))
                stack.enter_context(hook)
        stack.enter_context(evaluating(module))
        module(images)
    if not called:
        raise ModelError(f"The model calls no linear layer that could read features: {ADVICE}.")
    return called[-1]


class OutputOf:
    """Reads what a layer gives; maps and tokens are averaged over their places."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self, module: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        seen: list[Any] = []
        layer = _layer(module, self.name)
        with layer.register_forward_hook(lambda _layer, _args, output: seen.append(output)):
            logits = module(images)
        if not seen or not isinstance(seen[-1], Tensor):
            what = "is not called" if not seen else "gives no tensor"
            raise ModelError(f"features={self.name} {what} in the model's forward pass: {ADVICE}.")
        return _pooled(seen[-1]), logits


def _layer(module: nn.Module, name: str) -> nn.Module:
    names = [n for n, _ in module.named_modules() if n]
    if name not in names:
        shown = ", ".join(names[:12])
        raise ModelError(
            f"features={name} is no layer of the model, which has {shown or 'none'}."
            + near_match(name, names)
        )
    return module.get_submodule(name)


def _pooled(output: Tensor) -> Tensor:
    if output.ndim == 3:
        return output.mean(1)
    return output.flatten(2).mean(2) if output.ndim > 3 else output


def reader(features: str | None) -> Reader:
    """Return how the features are read that a setting names: none, a layer, or module:function.

    Such a function takes the module and images, and returns features and logits.
    """
    if features is None:
        return InputOf()
    return named("model.features", features) if ":" in features else OutputOf(features)
