"""The classifier: features and logits of any module from one forward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import huggingface, libraries
from ..config import ModelConfig
from ..factories import called, named
from ..runtime.phases import phase
from ..runtime.seeding import derive_seed, purpose_key, torch_seed
from ..runtime.sync_bn import use_global_batch_norm
from .backbones import backbones, check_backbone
from .features import InputOf, Reader, reader
from .fresh import draw_weights, own_copy
from .heads import HEADS, use_row_dropout


class ModelOutput(NamedTuple):
    """features (n, d): what the last linear layer reads; logits (n, C)."""

    features: Tensor
    logits: Tensor


class Network(nn.Module):
    """A backbone, then a head whose last layer is linear: what the models of the registry are."""

    def __init__(self, backbone: nn.Module, head: nn.Sequential):
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        return self.head(torch.flatten(self.backbone(images), 1))

    @property
    def reader(self) -> InputOf:
        return InputOf(f"head.{len(self.head) - 1}")


class Classifier(nn.Module):
    """A module that gives logits, and how its features are read.

    It is computed in bfloat16 where that is asked for, and always answers in its own dtype. The
    names of its state are those of the module.
    """

    def __init__(
        self,
        module: nn.Module,
        read: Reader,
        *,
        bfloat16: bool = False,
        seeded: bool = False,
        library: str | None = None,
    ):
        super().__init__()
        self.module = module
        self.read = read
        self.in_bfloat16 = bfloat16
        self.seeded = seeded
        """whether torch's generator is to be seeded before a training pass: a stranger's module may
        draw from it, and a run that goes on must draw the same"""
        self.library = library
        """timm, torchvision or huggingface, where the module is a network of one of them"""

    def forward(self, images: Tensor) -> ModelOutput:
        """Return features and logits of images as the module takes them, (n, channels, H, W)."""
        with (
            phase("forward"),
            torch.autocast(images.device.type, torch.bfloat16, enabled=self.in_bfloat16),
        ):
            features, logits = self.read(self.module, images)
        return ModelOutput(features.to(images.dtype), logits.to(images.dtype))

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.module.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        return self.module.load_state_dict(state_dict, *args, **kwargs)


@contextlib.contextmanager
def computed_in(model: Classifier, *, bfloat16: bool) -> Iterator[None]:
    """Compute the forward passes of the block in bfloat16, or in the model's own dtype."""
    before, model.in_bfloat16 = model.in_bfloat16, bfloat16
    try:
        yield
    finally:
        model.in_bfloat16 = before


def check_model(cfg: ModelConfig, image_size: int) -> None:
    """Raise ConfigError for a model that is not known or does not take images of this size."""
    if cfg.library == huggingface.LIBRARY:
        assert cfg.folder is not None
        huggingface.check_folder(cfg.folder)
    elif cfg.library is not None:
        libraries.check_name(cfg.library, cfg.name)
    elif cfg.factory is not None:
        named("model.factory", cfg.factory)
    else:
        check_backbone(cfg, image_size)


def build_model(
    cfg: ModelConfig,
    *,
    image_size: int,
    num_outputs: int,
    seed: int,
    bfloat16: bool = False,
    channels: int = 3,
) -> Classifier:
    """Return a classifier with weights drawn from the seed, in float32 on the CPU.

    Parameters
    ----------
    bfloat16 : compute forward passes under autocast; weights stay in their dtype
    channels : of the images; a network of a library is made for as many
    """
    check_model(cfg, image_size)
    with torch_seed(derive_seed(seed, purpose_key("weights"))):
        if cfg.library is not None:
            module = libraries.build(
                cfg, image_size=image_size, channels=channels, num_outputs=num_outputs
            )
            use_row_dropout(module)
            named_layer = libraries.classifier_layer(module)
            read: Reader = InputOf(named_layer) if cfg.features is None else reader(cfg.features)
        elif cfg.factory is None:
            backbone, width = backbones.get(cfg.name)(cfg, image_size)
            module = Network(backbone, HEADS[cfg.head](width, num_outputs, cfg.dropout))
            read = module.reader
        else:
            module = _made(cfg)
            read = reader(cfg.features)
    use_global_batch_norm(module)
    return Classifier(module, read, bfloat16=bfloat16, seeded=not cfg.is_ours, library=cfg.library)


def outline(
    cfg: ModelConfig, *, image_size: int, num_outputs: int, channels: int = 3
) -> Classifier:
    """Return the model without values, which takes a tenth of the time of one with them.

    One that is not ours has values: what makes it may compute with them.
    """
    with torch.device("meta") if cfg.is_ours else contextlib.nullcontext():
        return build_model(
            cfg, image_size=image_size, num_outputs=num_outputs, channels=channels, seed=0
        )


def _made(cfg: ModelConfig) -> nn.Module:
    """Return a copy of what model.factory returns, with new weights, all of them trained."""
    assert cfg.factory is not None
    module = own_copy(called("model.factory", cfg.factory, cfg.args), cfg.factory)
    draw_weights(module)
    use_row_dropout(module)
    return module
