"""NegGrad: gradient ascent on the forget set.

Source: Golatkar et al., CVPR 2020 (as a baseline). It never looks at the retain set, so nothing
holds the features of a class together: the collapse that DLFD was made against.
"""

from __future__ import annotations

from torch import Tensor

from ..config import MethodConfig
from ..models import ModelOutput, task_loss
from .base import Phase, StepBatch, UnlearningMethod, methods, set_training_mode
from .update import Updater


@methods.register("neggrad")
class NegGrad(UnlearningMethod):
    """Raise the classification loss of the forget set."""

    @classmethod
    def phases(cls, cfg: MethodConfig) -> list[Phase]:
        return [Phase("ascend", over="forget", epochs=cfg.epochs)]

    def step(self, batch: StepBatch, updater: Updater, *, stop: bool) -> dict[str, float]:
        def objective(output: ModelOutput) -> dict[str, Tensor]:
            forget = task_loss(output.logits, batch.forget_labels, "sum") / batch.forget_total
            return {"loss": -forget, "forget_loss": forget}

        set_training_mode(self.context, batch, batch.forget_total)
        return updater.step(batch.forget_images, objective, stop=stop)
