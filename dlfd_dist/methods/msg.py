"""MSG: draw the convolution weights with the smallest gradients anew, then train on the retain set.

The gradient is that of CE(retain) - CE(forget) on as many retain as forget images. While the model
is trained, the gradients of the convolution weights that stayed are shrunk.

Source: Cadet et al., Deep Unlearn: Benchmarking Machine Unlearning, 2024, "Masked Small Gradients",
an entry of the NeurIPS 2023 unlearning challenge. Theirs adds up the gradients of batches of either
set; here those of the single images, which differ by the size of a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import MethodConfig, MSGConfig
from ..errors import ConfigError
from ..models import Classifier, ModelOutput, task_loss
from ..runtime.seeding import derive_seed, purpose_key, torch_seed
from .base import MethodContext, Phase, StepBatch, UnlearningMethod, methods, set_training_mode
from .ct import convolutions
from .update import Updater


@methods.register("msg")
class MSG(UnlearningMethod):
    """A pass for the gradients; then CE(retain) from convolutions that are partly new."""

    def __init__(self, context: MethodContext):
        super().__init__(context)
        assert isinstance(context.config.method, MSGConfig)
        self.cfg: MSGConfig = context.config.method
        self.weights = {name: layer.weight for name, layer in convolutions(context.model).items()}
        self.gradients = {name: torch.zeros_like(w) for name, w in self.weights.items()}
        self.masks: dict[str, Tensor] = {}
        """which weights were drawn anew"""

    @classmethod
    def phases(cls, cfg: MethodConfig) -> list[Phase]:
        return [
            Phase("gradients", over="mixed", retain_fraction=None, selectable=False),
            Phase("repair", epochs=cfg.epochs),
        ]

    @classmethod
    def check(cls, cfg: MethodConfig, model: Classifier) -> None:
        if not convolutions(model):
            raise ConfigError(
                "method=msg draws weights of convolutions anew, and this model has none: take "
                "another method."
            )

    def step(self, batch: StepBatch, updater: Updater, *, stop: bool) -> dict[str, float]:
        if batch.phase == "gradients":
            return self._add_gradients(batch, updater, stop)
        if not self.masks:
            self.masks = smallest(self.gradients, self.cfg.reinit_share)
            self._draw_anew()
        set_training_mode(self.context, batch)
        return updater.step(
            batch.images,
            lambda output: {"loss": task_loss(output.logits, batch.labels, "sum") / batch.total},
            stop=stop,
            edit_gradients=self._shrink_gradients,
        )

    def tensors(self) -> dict[str, Tensor]:
        kept = {"mask": self.masks} if self.masks else {"gradient": self.gradients}
        return {f"{kind}.{name}": t for kind, group in kept.items() for name, t in group.items()}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        groups = {"mask": self.masks, "gradient": self.gradients}
        for name, value in tensors.items():
            kind, key = name.split(".", 1)
            groups[kind][key] = value.to(self.weights[key].device)

    def _add_gradients(self, batch: StepBatch, updater: Updater, stop: bool) -> dict[str, float]:
        def objective(output: ModelOutput) -> dict[str, Tensor]:
            own = len(batch.images)
            retain = task_loss(output.logits[:own], batch.labels, "sum")
            forget = task_loss(output.logits[own:], batch.forget_labels, "sum")
            return {"loss": retain - forget}

        self.context.model.eval()
        numbers, gradients = updater.gradients(batch.both, objective, stop=stop)
        names = (name for name, _ in self.context.model.named_parameters())
        for name, gradient in zip(names, gradients, strict=True):
            if name in self.gradients:
                self.gradients[name] += gradient
        return numbers

    @torch.no_grad()
    def _draw_anew(self) -> None:
        seed = derive_seed(self.context.config.seed, purpose_key("small gradients"))
        with torch_seed(seed):
            for name, weight in self.weights.items():
                drawn = torch.empty(weight.shape, dtype=weight.dtype)
                nn.init.kaiming_normal_(drawn, mode="fan_out", nonlinearity="relu")
                weight.copy_(torch.where(self.masks[name], drawn.to(weight.device), weight))

    def _shrink_gradients(self) -> None:
        for name, weight in self.weights.items():
            if weight.grad is not None:
                shrunk = self.cfg.kept_gradient * weight.grad
                weight.grad.copy_(torch.where(self.masks[name], weight.grad, shrunk))


def smallest(gradients: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return masks of the given share of each tensor, of its smallest gradients, at least one."""
    masks = {}
    for name, gradient in gradients.items():
        count = max(1, round(share * gradient.numel()))
        # Stable: of equal gradients every rank takes the same.
        chosen = gradient.abs().flatten().sort(stable=True).indices[:count]
        mask = torch.zeros(gradient.numel(), dtype=torch.bool, device=gradient.device)
        mask[chosen] = True
        masks[name] = mask.view_as(gradient)
    return masks
