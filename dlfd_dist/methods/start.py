"""A start that forgets: weights of Original that go towards fresh ones before the first step.

Source: the warm start of Ash and Adams, On Warm-Starting Neural Network Training, NeurIPS 2020.
They shrink and add small noise; here the rest is a whole fresh model, so that the sum is as large
as a weight of either.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..config import MethodConfig
from ..errors import ConfigError
from ..models import Classifier, knows_blocks, model_blocks


@torch.no_grad()
def shrink_towards(own: nn.Module, fresh: nn.Module, kept: float) -> None:
    """Make every weight of `own` kept * itself + (1 - kept) * that of `fresh`, in place."""
    for old, new in zip(own.parameters(), fresh.parameters(), strict=True):
        old.mul_(kept).add_(new, alpha=1 - kept)


def reset_weights(model: Classifier, fresh: Classifier, cfg: MethodConfig) -> None:
    """Reset the weights of a model as method.reset says; buffers stay as they are."""
    parts = list(zip(_parts(model, cfg), _parts(fresh, cfg), strict=True))
    for (old, new), strength in zip(parts, strengths(cfg, len(parts)), strict=True):
        shrink_towards(old, new, 1 - strength)


def strengths(cfg: MethodConfig, count: int) -> list[float]:
    """Return the strength of each of `count` parts in forward order, as reset_profile says."""
    steps = range(1, count + 1)
    shares = {
        "even": [1.0] * count,
        "rising": [step / count for step in steps],
        "falling": [step / count for step in reversed(steps)],
    }
    return [cfg.reset_strength * share for share in shares[cfg.reset_profile]]


def _parts(model: Classifier, cfg: MethodConfig) -> Sequence[nn.Module]:
    """Return what is reset, in forward order; parameters in no block go with the first block."""
    if cfg.reset == "layers":
        return model_blocks(model)[-cfg.reset_blocks :]
    if cfg.reset_profile == "even":
        return [model]
    first, *others = model_blocks(model)
    in_blocks = {id(p) for block in (first, *others) for p in block.parameters()}
    outside = nn.ParameterList(p for p in model.parameters() if id(p) not in in_blocks)
    return [nn.ModuleList([outside, first]), *others]


def reads_blocks(cfg: MethodConfig) -> bool:
    """Return whether the reset needs to know the blocks of the model."""
    return cfg.reset == "layers" or cfg.reset_profile != "even"


def check_reset(cfg: MethodConfig, model: Classifier) -> None:
    """Raise ConfigError where the model has not the blocks that the reset names."""
    if not knows_blocks(model):
        wish = "reset=layers" if cfg.reset == "layers" else f"reset_profile={cfg.reset_profile}"
        raise ConfigError(
            f"method.{wish} resets block by block, and the blocks of this model are not known: "
            "set method.reset=shrink and method.reset_profile=even."
        )
    if cfg.reset == "layers" and cfg.reset_blocks > (count := len(model_blocks(model))):
        raise ConfigError(
            f"method.reset_blocks={cfg.reset_blocks} is larger than the model: it has {count} "
            f"blocks with its head. Set method.reset_blocks={count} or less."
        )
