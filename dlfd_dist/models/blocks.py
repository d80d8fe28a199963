"""A classifier as a row of blocks, from the images to the head: what "the last k layers" means."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .classifier import Classifier


def model_blocks(model: Classifier) -> list[nn.ModuleList]:
    """Return the blocks in forward order; the head is the last, and counts as one.

    A block is a child of the backbone that is no plain container: a residual block, a dense block,
    a convolution with the normalisation that follows it. Parameters that belong to the backbone
    itself (class token, position embedding) are in none.
    """
    blocks: list[nn.ModuleList] = []
    for module in _units(model.backbone):
        if isinstance(module, _BatchNorm | nn.LayerNorm) and blocks:
            blocks[-1].append(module)
        else:
            blocks.append(nn.ModuleList([module]))
    return [*blocks, nn.ModuleList([model.head])]


def _units(module: nn.Module) -> Iterator[nn.Module]:
    from torchvision.models.vision_transformer import Encoder

    for child in module.children():
        if type(child) in (nn.Sequential, nn.ModuleList, Encoder):
            yield from _units(child)
        elif next(child.parameters(), None) is not None:
            yield child
