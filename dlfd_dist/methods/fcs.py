"""FCS: the forget set towards uniform answers, then rounds of a contrast and of repair in turn.

The contrast takes the products of the logits of forget images with those of retain images, and
makes each forget image resemble all of them alike.

Source: the winning entry of the NeurIPS 2023 unlearning challenge (age from faces), as in Cadet et
al., Deep Unlearn: Benchmarking Machine Unlearning, 2024. As there each of the three kinds of rounds
has an optimizer of its own: with one momentum for all, a repair at a higher rate would go on along
the contrast before it. The rate of the forget rounds falls with the epoch; theirs with the step.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..config import FCSConfig, MethodConfig
from ..models import ModelOutput, task_divergence
from .base import MethodContext, Phase, StepBatch, UnlearningMethod, methods, set_training_mode
from .update import Updater


@methods.register("fcs")
class FCS(UnlearningMethod):
    """A pass towards uniform answers on forget; then contrast on forget and CE on retain."""

    def __init__(self, context: MethodContext):
        super().__init__(context)
        assert isinstance(context.config.method, FCSConfig)
        self.temperature = context.config.method.temperature

    @classmethod
    def phases(cls, cfg: MethodConfig) -> list[Phase]:
        assert isinstance(cfg, FCSConfig)

        def forgets(name: str, **values: Any) -> Phase:
            return Phase(
                name, over="forget", optimizer=name, weight_decay=0.0, selectable=False, **values
            )

        phases = [forgets("uniform", lr=cfg.uniform_lr)]
        for epoch in range(cfg.epochs):
            lr = cfg.forget_lr * 0.5 * (1 + math.cos(math.pi * epoch / cfg.epochs))
            phases += [
                forgets("contrast", retain_rides=True, first_epoch=epoch, lr=lr),
                Phase("repair", over="retain", first_epoch=epoch),
            ]
        return phases

    def step(self, batch: StepBatch, updater: Updater, *, stop: bool) -> dict[str, float]:
        if batch.phase == "uniform":
            return self._towards_uniform(batch, updater, stop)
        if batch.phase == "contrast":
            return self._contrast(batch, updater, stop)
        set_training_mode(self.context, batch)
        return updater.classify(batch.images, batch.labels, total=batch.total, stop=stop)

    def _towards_uniform(self, batch: StepBatch, updater: Updater, stop: bool) -> dict[str, float]:
        def objective(output: ModelOutput) -> dict[str, Tensor]:
            # Logits of zero are a uniform answer, of classes and of several labels.
            uniform = torch.zeros_like(output.logits)
            each = task_divergence(output.logits, uniform, batch.forget_labels)
            return {"loss": each.sum() / batch.forget_total}

        set_training_mode(self.context, batch, batch.forget_total)
        return updater.step(batch.forget_images, objective, stop=stop)

    def _contrast(self, batch: StepBatch, updater: Updater, stop: bool) -> dict[str, float]:
        set_training_mode(self.context, batch)
        with torch.no_grad():
            own = self.context.model(batch.images).logits
        retain = self.context.collectives.gather_rows(own, batch.total)

        def objective(output: ModelOutput) -> dict[str, Tensor]:
            products = output.logits @ retain.T / self.temperature
            return {"loss": -products.log_softmax(1).sum() / (batch.forget_total * batch.total)}

        set_training_mode(self.context, batch, batch.forget_total)
        return updater.step(batch.forget_images, objective, stop=stop)
