"""l1-sparse: fine-tune on the retain set with an l1 penalty that fades out over the epochs.

Source: Jia et al., Model Sparsity Can Simplify Machine Unlearning, NeurIPS 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import L1SparseConfig
from ..models import ModelOutput, task_loss
from .base import MethodContext, StepBatch, UnlearningMethod, methods, set_training_mode
from .update import Updater


@methods.register("l1_sparse")
class L1Sparse(UnlearningMethod):
    """Lower CE(retain) + l1_weight * (1 - epoch / epochs) * |weights|_1."""

    def __init__(self, context: MethodContext):
        super().__init__(context)
        assert isinstance(context.config.method, L1SparseConfig)
        self.cfg: L1SparseConfig = context.config.method

    def step(self, batch: StepBatch, updater: Updater, *, stop: bool) -> dict[str, float]:
        weight = self.cfg.l1_weight * (1 - batch.epoch / self.cfg.epochs)

        def objective(output: ModelOutput) -> dict[str, Tensor]:
            retain = task_loss(output.logits, batch.labels, "sum") / batch.total
            # Every rank has all the weights: its part of their sum is a share.
            norm = self._norm() / self.context.collectives.world_size
            return {"loss": retain + weight * norm, "retain_loss": retain, "l1_norm": norm}

        set_training_mode(self.context, batch)
        return updater.step(batch.images, objective, stop=stop)

    def _norm(self) -> Tensor:
        return torch.stack([p.abs().sum() for p in self.context.model.parameters()]).sum()
