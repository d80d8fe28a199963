"""A start that forgets: weights of Original that go towards fresh ones before the first step.

Source: the warm start of Ash and Adams, On Warm-Starting Neural Network Training, NeurIPS 2020.
They shrink and add small noise; here the rest is a whole fresh model, so that the sum is as large
as a weight of either.
"""

from __future__ import annotations

from collections.abc import Iterable

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
    for old, new in zip(_parts(model, cfg), _parts(fresh, cfg), strict=True):
        shrink_towards(old, new, 1 - cfg.reset_strength)


def _parts(model: Classifier, cfg: MethodConfig) -> Iterable[nn.Module]:
    return model_blocks(model)[-cfg.reset_blocks :] if cfg.reset == "layers" else [model]


def check_reset(cfg: MethodConfig, model: Classifier) -> None:
    """Raise ConfigError where the model has not the blocks that method.reset=layers names."""
    if not knows_blocks(model):
        raise ConfigError(
            "method.reset=layers resets the last blocks, and the blocks of this model are not "
            "known: set method.reset=shrink."
        )
    if cfg.reset_blocks > (count := len(model_blocks(model))):
        raise ConfigError(
            f"method.reset_blocks={cfg.reset_blocks} is larger than the model: it has {count} "
            f"blocks with its head. Set method.reset_blocks={count} or less."
        )
