"""GLI: train on retain images that were led away from forget images without losing their class.

Each retain image takes sign-gradient steps that raise the squared distance of its logits from those
of a forget image and lower its own classification loss; the model then learns these images.

Source: Choi et al., Towards Efficient Machine Unlearning with Data Augmentation: Guided
Loss-Increasing (GLI) to Prevent the Catastrophic Model Utility Drop, CVPR workshops 2024. Their
code passes over the steps whose retain and forget batches differ in size, which with few forget
images are all; here forget images are paired again and again. Theirs has no gradient at the border
of the range of pixels; here images are projected onto it.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F

from ..config import GLIConfig, SynthesisConfig
from ..models import Classifier, ModelOutput, task_loss
from ..synthesis import SynthesisLoss, layer_output, linear_weight, perturb
from .base import MethodContext, StepBatch, UnlearningMethod, methods, set_training_mode
from .update import Updater


@methods.register("gli")
class GLI(UnlearningMethod):
    """Lower CE of guided retain images."""

    # Their notebooks evaluate after every batch and never go back to training mode.
    authors_train_mode: ClassVar[str] = "frozen"

    def __init__(self, context: MethodContext):
        super().__init__(context)
        assert isinstance(context.config.method, GLIConfig)
        self.cfg: GLIConfig = context.config.method

    def step(self, batch: StepBatch, updater: Updater, *, stop: bool) -> dict[str, float]:
        weight = linear_weight(
            batch.index, self.context.num_steps,
            self.cfg.initial_retain_weight, self.cfg.final_retain_weight,
        )  # fmt: skip
        bfloat16 = self.context.config.runtime.synthesis_in_bfloat16

        def objective(output: ModelOutput) -> SynthesisLoss:
            distance = F.mse_loss(output.logits, targets, reduction="sum")
            distance = distance / (batch.total * targets.shape[1])
            loss = task_loss(output.logits, batch.labels, "sum") / batch.total
            return SynthesisLoss(distance - weight * loss, distance, loss)

        guide = SynthesisConfig(steps=self.cfg.guide_steps, step_size=self.cfg.guide_step_size)
        with self.context.folded.computed_in(batch.images.shape, bfloat16=bfloat16) as model:
            targets = self._targets(model, batch)
            made = perturb(
                model, batch.images, objective, cfg=guide, pixel_range=self.context.pixel_range
            )
        report = {
            "distance": made.last.ot_cost,
            "distance_first": made.first.ot_cost,
            "classification_loss": made.last.classification,
        }
        set_training_mode(self.context, batch)
        numbers = updater.classify(
            made.images, batch.labels, total=batch.total, stop=stop, report=report
        )
        return numbers | {"retain_weight": weight}

    def _targets(self, model: Classifier, batch: StepBatch) -> torch.Tensor:
        """Return for each retain image of this rank the logits of its forget image."""
        collectives = self.context.collectives
        own = layer_output(model, batch.forget_images, "logits")
        logits = collectives.gather_rows(own, batch.forget_total)
        rows = torch.arange(batch.total)[collectives.shard(batch.total)]
        return logits[(rows % batch.forget_total).to(logits.device)]
