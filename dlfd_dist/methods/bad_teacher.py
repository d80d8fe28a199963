"""Bad Teacher: forget samples follow a teacher that knows nothing, retain samples the original.

Source: Chundawat et al., Can Bad Teaching Induce Forgetting?, AAAI 2023.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from ..config import BadTeacherConfig, MethodConfig
from ..models import Classifier, ModelOutput, task_divergence
from .base import MethodContext, Phase, StepBatch, UnlearningMethod, methods, set_training_mode
from .update import Updater


@methods.register("bad_teacher")
class BadTeacher(UnlearningMethod):
    """Lower KL(competent || model) on retain and KL(incompetent || model) on forget samples."""

    def __init__(self, context: MethodContext):
        super().__init__(context)
        assert isinstance(context.config.method, BadTeacherConfig)
        self.temperature = context.config.method.temperature
        self.competent = as_teacher(copy.deepcopy(context.model))
        self.incompetent = as_teacher(context.fresh_model())

    @classmethod
    def phases(cls, cfg: MethodConfig) -> list[Phase]:
        assert isinstance(cfg, BadTeacherConfig)
        share = cfg.retain_fraction
        return [Phase("distill", over="mixed", epochs=cfg.epochs, retain_fraction=share)]

    def step(self, batch: StepBatch, updater: Updater, *, stop: bool) -> dict[str, float]:
        targets = torch.cat(
            [self.competent(batch.images).logits, self.incompetent(batch.forget_images).logits]
        )
        labels = torch.cat([batch.labels, batch.forget_labels])

        def objective(output: ModelOutput) -> dict[str, Tensor]:
            each = task_divergence(output.logits, targets, labels, temperature=self.temperature)
            return {"loss": each.sum() / (batch.total + batch.forget_total)}

        set_training_mode(self.context, batch, batch.total, batch.forget_total)
        return updater.step(batch.both, objective, stop=stop)


def as_teacher(model: Classifier) -> Classifier:
    """Return the model in evaluation mode and without gradients: nothing of it moves."""
    return model.eval().requires_grad_(False)
