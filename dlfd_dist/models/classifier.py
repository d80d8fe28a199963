"""The classifier: features and logits from one forward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..runtime.phases import phase
from ..runtime.seeding import derive_seed, purpose_key, torch_seed
from ..runtime.sync_bn import use_global_batch_norm
from .backbones import backbones, check_backbone
from .heads import HEADS, Head


class ModelOutput(NamedTuple):
    """features (n, d): what the last linear layer reads; logits (n, C)."""

    features: Tensor
    logits: Tensor


class Classifier(nn.Module):
    """Backbone, then head; optionally computed in bfloat16, always answering in its own dtype."""

    def __init__(self, backbone: nn.Module, head: Head, *, bfloat16: bool = False):
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.in_bfloat16 = bfloat16

    def forward(self, images: Tensor) -> ModelOutput:
        """Return features and logits of normalised images (n, 3, S, S)."""
        with (
            phase("forward"),
            torch.autocast(images.device.type, torch.bfloat16, enabled=self.in_bfloat16),
        ):
            features, logits = self.head.split_forward(torch.flatten(self.backbone(images), 1))
        return ModelOutput(features.to(images.dtype), logits.to(images.dtype))


@contextlib.contextmanager
def computed_in(model: Classifier, *, bfloat16: bool) -> Iterator[None]:
    """Compute the forward passes of the block in bfloat16, or in the model's own dtype."""
    before, model.in_bfloat16 = model.in_bfloat16, bfloat16
    try:
        yield
    finally:
        model.in_bfloat16 = before


def build_model(
    cfg: ModelConfig, *, image_size: int, num_outputs: int, seed: int, bfloat16: bool = False
) -> Classifier:
    """Return a classifier with weights drawn from the seed, in float32 on the CPU.

    bfloat16 : compute forward passes under autocast; weights stay in their dtype
    """
    check_backbone(cfg, image_size)
    build = backbones.get(cfg.name)
    with torch_seed(derive_seed(seed, purpose_key("weights"))):
        backbone, width = build(cfg, image_size)
        head = HEADS[cfg.head](width, num_outputs, cfg.dropout)
        model = Classifier(backbone, head, bfloat16=bfloat16)
    use_global_batch_norm(model)
    return model
