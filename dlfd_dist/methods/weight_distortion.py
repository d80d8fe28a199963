"""Weight Distortion and Weight Dist Reg: leave the neighbourhood of the original weights.

Weight Distortion adds noise to every weight once; Weight Dist Reg rewards the distance from the
original while it trains. Both train on the retain set alone and read no forget image.

Source: Siddiqui et al., From Dormant to Deleted: Tamper-Resistant Unlearning Through Weight-Space
Regularization, 2025.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import WeightDistortionConfig, WeightDistRegConfig
from ..models import ModelOutput, task_loss
from ..runtime.seeding import derive_seed, purpose_key, torch_seed
from .base import MethodContext, StepBatch, UnlearningMethod, methods, set_training_mode
from .finetune import FineTune
from .update import Updater

MIN_SQUARE = 1e-8
"""Added to the mean square of what the weights moved, whose root has no gradient at zero."""


@methods.register("weight_distortion")
class WeightDistortion(FineTune):
    """Add normal noise to every weight; then CE(retain)."""

    def __init__(self, context: MethodContext):
        super().__init__(context)
        assert isinstance(context.config.method, WeightDistortionConfig)
        std = context.config.method.noise_std
        seed = derive_seed(context.config.seed, purpose_key("weight noise"))
        with torch.no_grad(), torch_seed(seed):
            for parameter in context.model.parameters():
                noise = torch.randn(parameter.shape, dtype=parameter.dtype)
                parameter.add_(noise.to(parameter.device), alpha=std)


@methods.register("weight_dist_reg")
class WeightDistReg(UnlearningMethod):
    """Lower CE(retain) - distance_weight * RMS(weights - original weights)."""

    def __init__(self, context: MethodContext):
        super().__init__(context)
        assert isinstance(context.config.method, WeightDistRegConfig)
        self.weight = context.config.method.distance_weight
        self.original = [p.detach().clone() for p in context.model.parameters()]

    def step(self, batch: StepBatch, updater: Updater, *, stop: bool) -> dict[str, float]:
        def objective(output: ModelOutput) -> dict[str, Tensor]:
            retain = task_loss(output.logits, batch.labels, "sum") / batch.total
            # Every rank has all the weights: its part of their distance is a share.
            distance = self._distance() / self.context.collectives.world_size
            loss = retain - self.weight * distance
            return {"loss": loss, "retain_loss": retain, "weight_distance": distance}

        set_training_mode(self.context, batch)
        return updater.step(batch.images, objective, stop=stop)

    def _distance(self) -> Tensor:
        pairs = list(zip(self.context.model.parameters(), self.original, strict=True))
        squares = torch.stack([(own - old).square().sum() for own, old in pairs]).sum()
        return (squares / sum(old.numel() for _, old in pairs) + MIN_SQUARE).sqrt()
