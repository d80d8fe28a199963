"""A backbone of two convolutions, `two_convs`, for tests that take many exact steps."""

from __future__ import annotations

from torch import nn

from dlfd_dist.config import ModelConfig
from dlfd_dist.models import Classifier, Network, backbones, build_model

TWO_CONVS = "model.name=two_convs"


@backbones.register("two_convs")
def two_convs(cfg: ModelConfig, image_size: int) -> tuple[nn.Module, int]:
    """Return two blocks with BatchNorm; tanh, so that no gradient is exactly zero."""
    layers = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(6), nn.Tanh(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
    )  # fmt: skip
    return layers, 8


def of_parts(backbone: nn.Module, head: nn.Sequential) -> Classifier:
    """Return a classifier of a backbone and a head whose last layer is linear."""
    network = Network(backbone, head)
    return Classifier(network, network.reader)


def small_classifier(num_outputs: int = 3, *, seed: int = 0, head: str = "linear") -> Classifier:
    """Return a float64 classifier of three blocks, its head the last."""
    cfg = ModelConfig(name="two_convs", head=head)
    return build_model(cfg, image_size=8, num_outputs=num_outputs, seed=seed).double()
