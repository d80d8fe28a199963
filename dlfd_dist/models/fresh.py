"""A module that somebody else made: a copy of our own, and new weights for it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from ..errors import ModelError

STD = 0.02
"""Of parameters that belong to no layer which draws its own, such as tokens and positions."""


def require_module(module: Any, where: str) -> nn.Module:
    """Return a module with weights; ModelError of anything else.

    where : begins the message, as "The model is"
    """
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"{where} an object of the type {type(module).__name__}: it must be "
            "a torch.nn.Module that gives logits."
        )
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in module.parameters()):
        raise ModelError(
            f"{where} a module with lazy layers, whose weights have no shape "
            "yet: pass an image through it first."
        )
    if not any(True for _ in module.parameters()):
        raise ModelError(f"{where} a module without weights.")
    return module


def own_copy(module: Any, name: str) -> nn.Module:
    """Return a copy of a module in float32 whose weights are all trained; ModelError of others."""
    module = require_module(module, f"model.factory={name} returned")
    try:
        return copy.deepcopy(module).float().requires_grad_(True)
    # A stranger's module may hold what cannot be copied: files, locks, tensors of a graph.
    except Exception as err:
        raise ModelError(f"model.factory={name}: the module cannot be copied ({err}).") from err


@torch.no_grad()
def draw_weights(module: nn.Module) -> None:
    """Draw every weight anew from torch's generator, layer by layer in the module's own order.

    A layer that has `reset_parameters`, as all of torch's have, draws its own.
    """
    for layer in module.modules():
        reset = getattr(layer, "reset_parameters", None) or getattr(
            layer, "_reset_parameters", None
        )
        if callable(reset):
            cast(Callable[[], None], reset)()
        else:
            for parameter in layer.parameters(recurse=False):
                parameter.normal_(0, STD)
