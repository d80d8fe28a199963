"""A classifier as a row of blocks, from the images to the head: what "the last k layers" means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import ModelError
from ..libraries import blocks
from ..registry import near_match
from .classifier import Classifier, Network


def model_blocks(model: Classifier, names: Sequence[str] = ()) -> list[nn.ModuleList]:
    """Return the blocks in forward order; the head is the last, and counts as one.

    A block is a child of the backbone that is no plain container: a residual block, a dense block,
    a convolution with the normalisation that follows it. Parameters that belong to the backbone
    itself (class token, position embedding) are in none. timm's networks say themselves which
    layers make a block. The blocks of a module that somebody else made are in the order in which it
    made them.

    Parameters
    ----------
    names : the layers that are the blocks instead, in forward order
    """
    if names:
        return [nn.ModuleList([_layer(model, name)]) for name in names]
    if said := blocks(model.module):
        return [nn.ModuleList([model.module.get_submodule(n) for n in group]) for group in said]
    if not isinstance(model.module, Network):
        return _grouped(model.module)
    return [*_grouped(model.module.backbone), nn.ModuleList([model.module.head])]


def knows_blocks(model: Classifier) -> bool:
    """Return whether the blocks are known without anybody naming them."""
    ours = isinstance(model.module, Network)
    return ours or model.library is not None or bool(blocks(model.module))


def _layer(model: Classifier, name: str) -> nn.Module:
    known = [known for known, _ in model.module.named_modules() if known]
    if name not in known:
        raise ModelError(
            f"method.blocks: '{name}' is no layer of the model, which has {', '.join(known[:12])}."
            + near_match(name, known)
        )
    return model.module.get_submodule(name)


def _grouped(module: nn.Module) -> list[nn.ModuleList]:
    blocks: list[nn.ModuleList] = []
    for unit in _units(module):
        if isinstance(unit, _BatchNorm | nn.LayerNorm) and blocks:
            blocks[-1].append(unit)
        else:
            blocks.append(nn.ModuleList([unit]))
    return blocks


def _units(module: nn.Module) -> Iterator[nn.Module]:
    from torchvision.models.vision_transformer import Encoder

    for child in module.children():
        if type(child) in (nn.Sequential, nn.ModuleList, Encoder):
            yield from _units(child)
        elif next(child.parameters(), None) is not None:
            yield child
