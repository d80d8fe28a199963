"""SSD: shrink the weights that matter much more to the forget set than to all the data.

One pass over retain and forget samples, no training. The importance of a weight is the mean over
samples of its squared gradient, the diagonal of the empirical Fisher information; the authors' code
squares the gradient of a batch instead, which depends on the batch size.

Source: Foster et al., Fast Machine Unlearning without Retraining through Selective Synaptic
Dampening, AAAI 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import MethodConfig, SSDConfig
from ..models import task_loss
from .base import MethodContext, Phase, StepBatch, UnlearningMethod, methods
from .update import Updater


@methods.register("ssd")
class SSD(UnlearningMethod):
    """Collect importances over the training set; after the last step dampen once."""

    def __init__(self, context: MethodContext):
        super().__init__(context)
        assert isinstance(context.config.method, SSDConfig)
        self.cfg: SSDConfig = context.config.method
        self.parameters = list(context.model.parameters())
        # Sums of squared gradients, and how many samples are in them.
        self.retain = [torch.zeros_like(p) for p in self.parameters]
        self.forget = [torch.zeros_like(p) for p in self.parameters]
        self.num_retain = 0
        self.num_forget = 0

    @classmethod
    def phases(cls, cfg: MethodConfig) -> list[Phase]:
        return [Phase("importance", over="mixed", selectable=False, updates=False)]

    def step(self, batch: StepBatch, updater: Updater, *, stop: bool) -> dict[str, float]:
        self.context.model.eval()
        retain_loss, retain = self._squared_gradients(batch.images, batch.labels)
        forget_loss, forget = self._squared_gradients(batch.forget_images, batch.forget_labels)
        loss = (retain_loss + forget_loss) / (batch.total + batch.forget_total)
        numbers, squares = updater.add_up({"loss": loss}, [*retain, *forget], stop=stop)
        for total, more in zip([*self.retain, *self.forget], squares, strict=True):
            total += more
        self.num_retain += batch.total
        self.num_forget += batch.forget_total
        if batch.index + 1 == self.context.num_steps and self.num_forget:
            numbers["dampened"] = self._dampen()
        return numbers

    def state_dict(self) -> dict[str, int]:
        return {"num_retain": self.num_retain, "num_forget": self.num_forget}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.num_retain, self.num_forget = state["num_retain"], state["num_forget"]

    def tensors(self) -> dict[str, Tensor]:
        sums = {"retain": self.retain, "forget": self.forget}
        return {f"{part}.{n}": t for part, tensors in sums.items() for n, t in enumerate(tensors)}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        for name, own in self.tensors().items():
            own.copy_(tensors[name])

    def _squared_gradients(self, images: Tensor, labels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the sums over samples of the loss and of the squared gradients."""
        total, squares = images.new_zeros(()), [torch.zeros_like(p) for p in self.parameters]
        for image, label in zip(images, labels, strict=True):
            loss = task_loss(self.context.model(image[None]).logits, label[None], "sum")
            gradients = torch.autograd.grad(loss, self.parameters)
            for square, gradient in zip(squares, gradients, strict=True):
                square.addcmul_(gradient, gradient)
            total += loss.detach()
        return total, squares

    @torch.no_grad()
    def _dampen(self) -> float:
        """Shrink the selected weights; return their share of all weights."""
        num_selected, num_weights = 0, 0
        for parameter, retain, forget in zip(
            self.parameters, self.retain, self.forget, strict=True
        ):
            to_all = (retain + forget) / (self.num_retain + self.num_forget)
            to_forget = forget / self.num_forget
            selected = to_forget > self.cfg.selection * to_all
            factor = (self.cfg.dampening * to_all / to_forget).clamp(max=1)
            parameter.copy_(torch.where(selected, parameter * factor, parameter))
            num_selected += int(selected.sum())
            num_weights += parameter.numel()
        return num_selected / num_weights
