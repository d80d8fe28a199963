"""Classifiers of every backbone, images for them, and the comparison of weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from dlfd_dist.config import ModelConfig
from dlfd_dist.models import Classifier, build_model

TORCHVISION = {"resnet18": 512, "densenet121": 1024, "efficientnet_b0": 1280, "vit_b_16": 768}


def build(name: str = "resnet18", *, num_outputs: int = 3, seed: int = 0, **values) -> Classifier:
    return build_model(
        ModelConfig(name=name, **values), image_size=64, num_outputs=num_outputs, seed=seed
    )


def blank(model: Classifier) -> Classifier:
    """Return a copy with zeros for weights, in a tenth of the time of drawing new ones."""
    copied = copy.deepcopy(model)
    for tensor in copied.state_dict().values():
        tensor.zero_()
    return copied


def images(n: int = 2, size: int = 64) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    torch.testing.assert_close(other.state_dict(), one.state_dict(), rtol=0, atol=0)
