"""CT: transpose the kernels of all convolutions, then train on the retain set.

Source: Cadet et al., Deep Unlearn: Benchmarking Machine Unlearning, 2024, "Convolution Transpose",
an entry of the NeurIPS 2023 unlearning challenge. A kernel of one pixel is its own transpose.
"""

from __future__ import annotations

import torch
from torch import nn

from ..config import MethodConfig
from ..errors import ConfigError
from ..models import Classifier
from .base import MethodContext, methods
from .finetune import FineTune


@methods.register("ct")
class CT(FineTune):
    """Swap height and width of every kernel; then CE(retain)."""

    def __init__(self, context: MethodContext):
        super().__init__(context)
        with torch.no_grad():
            for layer in convolutions(context.model).values():
                layer.weight.copy_(layer.weight.transpose(2, 3).clone())

    @classmethod
    def check(cls, cfg: MethodConfig, model: Classifier) -> None:
        sizes = {layer.kernel_size for layer in convolutions(model).values()}
        if not any(height == width > 1 for height, width in sizes):
            raise ConfigError(
                "method=ct transposes the kernels of convolutions, and this model has none of more "
                "than one pixel: take another method."
            )


def convolutions(model: nn.Module) -> dict[str, nn.Conv2d]:
    """Return the convolutions of a model by the names of their weights."""
    modules = model.named_modules()
    return {f"{name}.weight": m for name, m in modules if isinstance(m, nn.Conv2d)}
