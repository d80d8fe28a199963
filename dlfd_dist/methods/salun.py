"""SalUn: random labels for the forget set, learned only by the weights that matter to it.

Source: Fan et al., SalUn: Empowering Machine Unlearning via Gradient-based Weight Saliency, ICLR
2024. In their code weight decay still moves the other weights; here they stay bit-equal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import MethodConfig, SalUnConfig
from ..runtime.seeding import purpose_key, sample_keys
from .base import MethodContext, Phase, StepBatch, UnlearningMethod, methods, set_training_mode
from .update import Updater, classification


@methods.register("salun")
class SalUn(UnlearningMethod):
    """A pass for the saliency; then passes of random labels on forget, of the task on retain."""

    def __init__(self, context: MethodContext):
        super().__init__(context)
        assert isinstance(context.config.method, SalUnConfig)
        self.sparsity = context.config.method.sparsity
        self.parameters = dict(context.model.named_parameters())
        self.original = {k: p.detach().clone() for k, p in self.parameters.items()}
        self.gradients = {k: torch.zeros_like(p) for k, p in self.original.items()}
        self.masks: dict[str, Tensor] = {}

    @classmethod
    def phases(cls, cfg: MethodConfig) -> list[Phase]:
        phases = [Phase("saliency", over="forget", selectable=False, updates=False)]
        for epoch in range(cfg.epochs):
            phases.append(Phase("relabel", over="forget", first_epoch=epoch))
            phases.append(Phase("repair", over="retain", first_epoch=epoch))
        return phases

    def step(self, batch: StepBatch, updater: Updater, *, stop: bool) -> dict[str, float]:
        if batch.phase == "saliency":
            return self._add_gradients(batch, updater, stop)
        if not self.masks:
            self.masks = salient(self.gradients, self.sparsity)
        images, labels, total = batch.images, batch.labels, batch.total
        if batch.phase == "relabel":
            images, total = batch.forget_images, batch.forget_total
            labels = self._random_labels(batch)
        set_training_mode(self.context, batch, total)
        numbers = updater.step(
            images, classification(labels, total), stop=stop, edit_gradients=self._mask_gradients
        )
        self._put_back()
        return numbers

    def tensors(self) -> dict[str, Tensor]:
        groups = {"mask": self.masks} if self.masks else {"gradient": self.gradients}
        return {f"{kind}.{k}": v for kind, group in groups.items() for k, v in group.items()}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        for name, value in tensors.items():
            kind, key = name.split(".", 1)
            group = {"mask": self.masks, "gradient": self.gradients}[kind]
            group[key] = value.to(self.original[key].device)

    def _add_gradients(self, batch: StepBatch, updater: Updater, stop: bool) -> dict[str, float]:
        self.context.model.eval()
        objective = classification(batch.forget_labels, batch.forget_total)
        numbers, gradients = updater.gradients(batch.forget_images, objective, stop=stop)
        for total, gradient in zip(self.gradients.values(), gradients, strict=True):
            total += batch.forget_total * gradient
        return numbers

    def _random_labels(self, batch: StepBatch) -> Tensor:
        """Return labels drawn once for every sample, any of them as likely, the true one too."""
        rows = self.context.collectives.shard(batch.forget_total)
        ids, seed = batch.forget_ids[rows].numpy(), self.context.config.seed

        def draw(count: int, label: int) -> Tensor:
            keys = sample_keys(ids, seed, purpose_key("random labels"), label)
            return torch.from_numpy((keys % count).astype("int64"))

        if batch.forget_labels.ndim == 1:
            drawn = draw(self.context.num_outputs, 0)
        else:
            drawn = torch.stack([draw(2, n) for n in range(self.context.num_outputs)], 1)
        return drawn.to(batch.forget_labels)

    def _mask_gradients(self) -> None:
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                parameter.grad *= self.masks[name]

    @torch.no_grad()
    def _put_back(self) -> None:
        """Undo what weight decay did to the weights outside the masks."""
        for name, parameter in self.parameters.items():
            parameter.copy_(torch.where(self.masks[name], parameter, self.original[name]))


def salient(gradients: dict[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Return masks of the weights whose gradient is among the 1 - sparsity largest of all."""
    sizes = torch.cat([g.abs().flatten() for g in gradients.values()])
    count = int(sparsity * len(sizes))
    threshold = sizes.kthvalue(count).values if count else sizes.new_tensor(-1.0)
    return {name: g.abs() > threshold for name, g in gradients.items()}
