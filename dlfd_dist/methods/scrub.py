"""SCRUB: the student leaves the teacher on the forget set and stays with it on the retain set.

Source: Kurmanji et al., Towards Unbounded Machine Unlearning, NeurIPS 2023. method.select=rewind
makes it SCRUB+R: of the probes at the ends of the min passes the one is delivered whose forget
accuracy is nearest to the validation accuracy (after a max pass both may be those of a ruin).

Student and teacher begin as one model. What drives the first max pass is that the student has the
statistics of the batch where the teacher has those of training; without BatchNorm and dropout (a
ViT) the divergence has no gradient there, and the first max pass moves nothing.
"""

from __future__ import annotations

import copy

from torch import Tensor

from ..config import MethodConfig, SCRUBConfig
from ..models import ModelOutput, task_divergence, task_loss
from .bad_teacher import as_teacher
from .base import MethodContext, Phase, StepBatch, UnlearningMethod, methods, set_training_mode
from .update import Updater


@methods.register("scrub")
class SCRUB(UnlearningMethod):
    """Passes of max steps over the forget set, each before a pass of min steps over retain."""

    def __init__(self, context: MethodContext):
        super().__init__(context)
        assert isinstance(context.config.method, SCRUBConfig)
        self.cfg: SCRUBConfig = context.config.method
        self.teacher = as_teacher(copy.deepcopy(context.model))

    @classmethod
    def phases(cls, cfg: MethodConfig) -> list[Phase]:
        assert isinstance(cfg, SCRUBConfig)
        phases = []
        for epoch in range(cfg.epochs):
            if epoch < cfg.max_epochs:
                phases.append(
                    Phase(
                        "max", over="forget", first_epoch=epoch, selectable=False,
                        forget_batch=cfg.forget_batch_size,
                    )
                )  # fmt: skip
            phases.append(Phase("min", over="retain", first_epoch=epoch))
        return phases

    def step(self, batch: StepBatch, updater: Updater, *, stop: bool) -> dict[str, float]:
        step = self._leave if batch.phase == "max" else self._stay
        return step(batch, updater, stop)

    def _leave(self, batch: StepBatch, updater: Updater, stop: bool) -> dict[str, float]:
        target = self.teacher(batch.forget_images).logits

        def objective(output: ModelOutput) -> dict[str, Tensor]:
            divergence = self._divergence(output, target, batch.forget_labels) / batch.forget_total
            return {"loss": -divergence, "forget_divergence": divergence}

        set_training_mode(self.context, batch, batch.forget_total)
        return updater.step(batch.forget_images, objective, stop=stop)

    def _stay(self, batch: StepBatch, updater: Updater, stop: bool) -> dict[str, float]:
        target = self.teacher(batch.images).logits

        def objective(output: ModelOutput) -> dict[str, Tensor]:
            divergence = self._divergence(output, target, batch.labels) / batch.total
            task = task_loss(output.logits, batch.labels, "sum") / batch.total
            loss = self.cfg.distill_weight * divergence + self.cfg.task_weight * task
            return {"loss": loss, "retain_loss": task, "retain_divergence": divergence}

        set_training_mode(self.context, batch)
        return updater.step(batch.images, objective, stop=stop)

    def _divergence(self, output: ModelOutput, target: Tensor, labels: Tensor) -> Tensor:
        """Return the sum over samples, times temperature squared as in Hinton et al. 2015."""
        temperature = self.cfg.temperature
        each = task_divergence(output.logits, target, labels, temperature=temperature)
        return temperature**2 * each.sum()
