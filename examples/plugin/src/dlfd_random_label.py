"""Random labels: the forget set is trained on with labels that are not its own.

Source: Graves, Nagisetty and Ganesh, Amnesiac Machine Learning, AAAI 2021 (their first method).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlfd_dist.config import MethodConfig
from dlfd_dist.errors import ConfigError
from dlfd_dist.methods import StepBatch, UnlearningMethod, Updater, plugin, set_training_mode
from dlfd_dist.models import ModelOutput, task_loss
from dlfd_dist.runtime.seeding import purpose_key, torch_seed


@dataclass(frozen=True)
class RandomLabelConfig(MethodConfig):
    """Random labels (Graves et al. 2021): forget images with other labels beside retain images."""

    name: str = "random_label"
    forget_weight: float = 1.0
    """Weight of the loss on the forget images, above 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.forget_weight > 0:
            raise ConfigError(
                f"method.forget_weight={self.forget_weight} is not allowed: it must be above 0."
            )


@plugin(RandomLabelConfig)
class RandomLabel(UnlearningMethod):
    """Lower the loss on retain images and on forget images with labels drawn from the others."""

    def step(self, batch: StepBatch, updater: Updater, *, stop: bool) -> dict[str, float]:
        cfg, num_retain = self.context.config.method, len(batch.images)
        assert isinstance(cfg, RandomLabelConfig)
        labels = self.other_labels(batch)

        def objective(output: ModelOutput) -> dict[str, Tensor]:
            retain, forget = output.logits[:num_retain], output.logits[num_retain:]
            kept = task_loss(retain, batch.labels, "sum") / max(1, batch.total)
            lost = task_loss(forget, labels, "sum") / max(1, batch.forget_total)
            return {"loss": kept + cfg.forget_weight * lost}

        set_training_mode(self.context, batch, batch.total, batch.forget_total)
        return updater.step(batch.both, objective, stop=stop)

    def other_labels(self, batch: StepBatch) -> Tensor:
        """Return for every forget image of this rank a label that is not its own.

        The draw is that of the whole batch, so that the number of ranks plays no part in it.
        """
        own = batch.forget_labels
        if own.ndim == 2:
            return 1 - own
        count, rows = self.context.num_outputs, self.context.collectives.shard(batch.forget_total)
        with torch_seed(
            purpose_key("random label") ^ (self.context.config.seed << 20) ^ batch.index
        ):
            shifts = torch.randint(1, count, (batch.forget_total,))
        return (own + shifts[rows].to(own.device)) % count
