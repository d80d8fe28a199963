"""torchvision backbones without their classifier, each with a stem for small images.

torchvision takes as long to load as torch, so it is imported by what builds a model, not by a plan.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from ..config import ModelConfig
from ..errors import ConfigError
from ..registry import Registry

backbones: Registry[Callable[[ModelConfig, int], tuple[nn.Module, int]]] = Registry("model")
"""Name -> function of (config, image_size) that returns the backbone and the width it ends with."""


def _thin_stem(conv: nn.Conv2d) -> nn.Conv2d:
    """Return a 3x3 convolution of stride 1 in place of a stem that shrinks the image."""
    return nn.Conv2d(conv.in_channels, conv.out_channels, 3, stride=1, padding=1, bias=False)


def _patch_size(cfg: ModelConfig) -> int:
    return 8 if cfg.small_stem else 16


def check_backbone(cfg: ModelConfig, image_size: int) -> None:
    """Raise ConfigError for a backbone that is not known or does not take images of this size."""
    backbones.get(cfg.name)
    if cfg.name == "vit_b_16" and image_size % (patch := _patch_size(cfg)):
        raise ConfigError(
            f"data.image_size={image_size} does not divide into the {patch}-pixel patches of "
            f"model=vit_b_16: take a multiple of {patch}."
        )


@backbones.register("small")
def small(cfg: ModelConfig, image_size: int) -> tuple[nn.Module, int]:
    """Residual network of three blocks, 16, 32 and 48 channels wide; about 56,000 parameters.

    For trying things and for tests, on images of 16 to 64 pixels: a step takes an eighth of
    ResNet18's time and a checkpoint 0.2 MB. Published figures are not to be expected of it.
    """
    from torchvision.models.resnet import BasicBlock

    stem = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
    blocks = [_basic_block(BasicBlock, *shape) for shape in ((16, 16, 1), (16, 32, 2), (32, 48, 2))]
    layers = OrderedDict(
        conv1=_thin_stem(stem) if cfg.small_stem else stem,
        bn1=nn.BatchNorm2d(16),
        relu=nn.ReLU(inplace=True),
        **{f"layer{number}": block for number, block in enumerate(blocks, 1)},
        avgpool=nn.AdaptiveAvgPool2d(1),
    )
    return nn.Sequential(layers), 48


def _basic_block(block: Callable[..., nn.Module], before: int, after: int, stride: int):
    """Return torchvision's residual block; where its shape changes, a 1x1 convolution goes past."""
    past = None
    if before != after or stride != 1:
        past = nn.Sequential(
            nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
        )
    return block(before, after, stride, past)


@backbones.register("resnet18")
def resnet18(cfg: ModelConfig, image_size: int) -> tuple[nn.Module, int]:
    """ResNet18 of torchvision; 11 million parameters."""
    import torchvision.models as tv

    model = tv.resnet18(weights=None)
    width, model.fc = model.fc.in_features, nn.Identity()  # type: ignore[assignment]
    if cfg.small_stem:
        model.conv1, model.maxpool = _thin_stem(model.conv1), nn.Identity()  # type: ignore[assignment]
    return model, width


@backbones.register("densenet121")
def densenet121(cfg: ModelConfig, image_size: int) -> tuple[nn.Module, int]:
    """DenseNet121 of torchvision; 7 million parameters."""
    import torchvision.models as tv

    model = tv.densenet121(weights=None)
    width, model.classifier = model.classifier.in_features, nn.Identity()  # type: ignore[assignment]
    if cfg.small_stem:
        model.features.conv0 = _thin_stem(model.features.conv0)  # type: ignore[arg-type]
        model.features.pool0 = nn.Identity()
    return model, width


@backbones.register("efficientnet_b0")
def efficientnet_b0(cfg: ModelConfig, image_size: int) -> tuple[nn.Module, int]:
    """EfficientNet-B0 of torchvision without stochastic depth; 4 million parameters."""
    import torchvision.models as tv

    # Stochastic depth draws per call, so a sample's fate would depend on its rank: it is off.
    model = tv.efficientnet_b0(weights=None, stochastic_depth_prob=0.0)
    width = model.classifier[1].in_features
    model.classifier = nn.Identity()  # type: ignore[assignment]
    if cfg.small_stem:
        model.features[0][0] = _thin_stem(model.features[0][0])  # type: ignore[index,arg-type]
    return model, width  # type: ignore[return-value]


@backbones.register("vit_b_16")
def vit_b_16(cfg: ModelConfig, image_size: int) -> tuple[nn.Module, int]:
    """ViT-B with patches of 16 pixels, or of 8 with the small stem."""
    import torchvision.models as tv

    patch = _patch_size(cfg)
    model = tv.VisionTransformer(
        image_size=image_size,
        patch_size=patch,
        num_layers=12,
        num_heads=12,
        hidden_dim=768,
        mlp_dim=3072,
    )
    model.heads = nn.Identity()  # type: ignore[assignment]
    return model, 768
