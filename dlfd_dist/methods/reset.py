"""Reset: shrink every weight towards a fresh one, then train on the retain set.

Source: the warm start of Ash and Adams, On Warm-Starting Neural Network Training, NeurIPS 2020,
taken as an unlearning method. They shrink and add small noise; here the rest is a whole fresh
model, so that the sum is as large as a weight of either. BatchNorm statistics are learned again by
the retain epochs.
"""

from __future__ import annotations

import torch

from ..config import ResetConfig
from .base import MethodContext, methods
from .finetune import FineTune


@methods.register("reset")
class Reset(FineTune):
    """Weights become shrink * original + (1 - shrink) * fresh; then CE(retain)."""

    def __init__(self, context: MethodContext):
        super().__init__(context)
        assert isinstance(context.config.method, ResetConfig)
        shrink, fresh = context.config.method.shrink, context.fresh_model()
        with torch.no_grad():
            for own, new in zip(context.model.parameters(), fresh.parameters(), strict=True):
                own.mul_(shrink).add_(new, alpha=1 - shrink)
