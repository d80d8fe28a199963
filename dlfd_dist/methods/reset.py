"""Reset: shrink every weight towards a fresh one, then train on the retain set.

Source: as methods/start.py; taken as an unlearning method of its own. BatchNorm statistics are
learned again by the retain epochs.
"""

from __future__ import annotations

from ..config import ResetConfig
from .base import MethodContext, methods
from .finetune import FineTune
from .start import shrink_towards


@methods.register("reset")
class Reset(FineTune):
    """Weights become shrink * original + (1 - shrink) * fresh; then CE(retain)."""

    def __init__(self, context: MethodContext):
        super().__init__(context)
        assert isinstance(context.config.method, ResetConfig)
        shrink_towards(context.model, context.fresh_model(), context.config.method.shrink)
