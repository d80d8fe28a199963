"""Fine-tune: go on training on the retain set alone, and let the rest fade."""

from __future__ import annotations

from .base import StepBatch, UnlearningMethod, methods, set_training_mode
from .update import Updater


@methods.register("finetune")
class FineTune(UnlearningMethod):
    """Classification loss on the retain set. The forget set is never read."""

    def step(self, batch: StepBatch, updater: Updater, *, stop: bool) -> dict[str, float]:
        set_training_mode(self.context, batch)
        return updater.classify(batch.images, batch.labels, total=batch.total, stop=stop)
