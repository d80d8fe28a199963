"""NegGrad+: descent on the retain set and ascent on the forget set in one step.

Source: Kurmanji et al., NeurIPS 2023, baseline "NegGrad+".
"""

from __future__ import annotations

from torch import Tensor

from ..config import NegGradPlusConfig
from ..models import ModelOutput, task_loss
from .base import MethodContext, StepBatch, UnlearningMethod, methods, set_training_mode
from .update import Updater


@methods.register("neggrad_plus")
class NegGradPlus(UnlearningMethod):
    """Lower alpha * CE(retain) - (1 - alpha) * CE(forget)."""

    def __init__(self, context: MethodContext):
        super().__init__(context)
        assert isinstance(context.config.method, NegGradPlusConfig)
        self.alpha = context.config.method.alpha

    def step(self, batch: StepBatch, updater: Updater, *, stop: bool) -> dict[str, float]:
        def objective(output: ModelOutput) -> dict[str, Tensor]:
            own = len(batch.images)
            retain = task_loss(output.logits[:own], batch.labels, "sum") / batch.total
            forget = task_loss(output.logits[own:], batch.forget_labels, "sum") / batch.forget_total
            loss = self.alpha * retain - (1 - self.alpha) * forget
            return {"loss": loss, "retain_loss": retain, "forget_loss": forget}

        set_training_mode(self.context, batch, batch.total, batch.forget_total)
        return updater.step(batch.both, objective, stop=stop)
