"""UNSIR: images of noise that the model is most wrong about; impair with them, then repair.

Source: Tarun et al., Fast Yet Effective Machine Unlearning, TNNLS 2023. Theirs forgets a class and
learns a batch of noise for it; ours forgets people and learns one batch of noise whose labels are
those of the first forget batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import MethodConfig, UNSIRConfig
from ..models import ModelOutput, task_loss
from ..runtime.seeding import derive_seed, purpose_key, torch_seed
from ..synthesis import frozen
from .base import MethodContext, Phase, StepBatch, UnlearningMethod, methods, set_training_mode
from .update import Updater


@methods.register("unsir")
class UNSIR(UnlearningMethod):
    """Train on error-maximising noise beside the retain set, then on the retain set alone."""

    def __init__(self, context: MethodContext):
        super().__init__(context)
        assert isinstance(context.config.method, UNSIRConfig)
        self.cfg: UNSIRConfig = context.config.method
        self.noise: dict[str, Tensor] = {}

    @classmethod
    def phases(cls, cfg: MethodConfig) -> list[Phase]:
        assert isinstance(cfg, UNSIRConfig)
        share, impair, repair = cfg.retain_fraction, None, None
        if cfg.steps is not None:
            # Shared out as the epochs are.
            impair = -(-cfg.steps * cfg.epochs // (cfg.epochs + cfg.repair_epochs))
            repair = cfg.steps - impair
        return [
            Phase("impair", epochs=cfg.epochs, retain_fraction=share, steps=impair),
            Phase(
                "repair", epochs=cfg.repair_epochs, lr=cfg.repair_lr, retain_fraction=share,
                steps=repair, optimizer="repair",
            ),
        ]  # fmt: skip

    def step(self, batch: StepBatch, updater: Updater, *, stop: bool) -> dict[str, float]:
        if batch.phase == "repair":
            set_training_mode(self.context, batch)
            return updater.classify(batch.images, batch.labels, total=batch.total, stop=stop)
        if not self.noise:
            self.noise = self._learn_noise(batch)
        return self._impair(batch, updater, stop)

    def tensors(self) -> dict[str, Tensor]:
        return self.noise

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        self.noise = {k: v.to(self.context.collectives.device) for k, v in tensors.items()}

    def _impair(self, batch: StepBatch, updater: Updater, stop: bool) -> dict[str, float]:
        noise_total = len(self.noise["images"])
        total = batch.total + noise_total
        rows = self.context.collectives.shard(noise_total)
        images, labels = self.noise["images"][rows], self.noise["labels"][rows]

        def objective(output: ModelOutput) -> dict[str, Tensor]:
            own = len(batch.images)
            retain = task_loss(output.logits[:own], batch.labels, "sum")
            noise = task_loss(output.logits[own:], labels, "sum")
            return {
                "loss": (retain + noise) / total,
                "retain_loss": retain / batch.total,
                "noise_loss": noise / noise_total,
            }

        set_training_mode(self.context, batch, batch.total, noise_total)
        return updater.step(torch.cat([batch.images, images]), objective, stop=stop)

    def _learn_noise(self, batch: StepBatch) -> dict[str, Tensor]:
        """Return noise images and their labels of a whole global batch, the same on every rank."""
        model, collectives, total = self.context.model, self.context.collectives, batch.forget_total
        with torch_seed(derive_seed(self.context.config.seed, purpose_key("noise"))):
            start = torch.randn(total, *batch.forget_images.shape[1:])
        noise = start[collectives.shard(total)].to(batch.forget_images).requires_grad_(True)
        adam = torch.optim.Adam([noise], lr=self.cfg.noise_lr)
        with frozen(model):
            for _ in range(self.cfg.noise_steps):
                error = task_loss(model(noise).logits, batch.forget_labels, "sum")
                loss = (self.cfg.noise_penalty * noise.square().sum() - error) / total
                (noise.grad,) = torch.autograd.grad(loss, noise)
                adam.step()
        return {
            "images": collectives.gather_rows(noise, total),
            "labels": collectives.gather_rows(batch.forget_labels, total),
        }
