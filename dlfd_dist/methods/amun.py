"""AMUN: train on the nearest adversarial example of each forget image, under its wrong label.

Source: Ebrahimpour-Boroojeny et al., Not All Wrong is Bad: Using Adversarial Examples for
Unlearning, ICML 2025. Their search doubles the radius forever; here it ends at the range of
pixels, and an image that is still classified correctly then has the label that is next. They guess
the first radius of most images from that of fifty; here it is the same for all.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..config import AMUNConfig, MethodConfig
from ..models import ModelOutput, task_loss, task_prediction
from ..synthesis import frozen
from .base import MethodContext, Phase, StepBatch, UnlearningMethod, methods, set_training_mode
from .update import Updater


@methods.register("amun")
class AMUN(UnlearningMethod):
    """A pass of attacks on forget; then CE of retain, adversarial and forget images."""

    def __init__(self, context: MethodContext):
        super().__init__(context)
        assert isinstance(context.config.method, AMUNConfig)
        self.cfg: AMUNConfig = context.config.method
        self.found: dict[str, Tensor] = {}
        """ids, images and labels of the adversarial examples, on the CPU"""

    @classmethod
    def phases(cls, cfg: MethodConfig) -> list[Phase]:
        return [
            Phase("attack", over="forget", selectable=False),
            Phase("unlearn", over="mixed", epochs=cfg.epochs),
        ]

    def step(self, batch: StepBatch, updater: Updater, *, stop: bool) -> dict[str, float]:
        if batch.phase == "attack":
            return self._attack(batch, updater, stop)
        ids = batch.forget_ids[self.context.collectives.shard(batch.forget_total)]
        adversarial = self._of(ids, batch)
        sets = [(batch.images, batch.labels, batch.total)]
        if self.cfg.forget_images:
            sets.append((batch.forget_images, batch.forget_labels, batch.forget_total))
        sets.append((*adversarial, batch.forget_total))
        images, labels, totals = zip(*sets, strict=True)

        def objective(output: ModelOutput) -> dict[str, Tensor]:
            return {"loss": task_loss(output.logits, torch.cat(labels), "sum") / sum(totals)}

        set_training_mode(self.context, batch, *totals)
        return updater.step(torch.cat(images), objective, stop=stop)

    def tensors(self) -> dict[str, Tensor]:
        return self.found

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        self.found = dict(tensors)

    def _attack(self, batch: StepBatch, updater: Updater, stop: bool) -> dict[str, float]:
        context, gather = self.context, self.context.collectives.gather_rows
        bfloat16 = context.config.runtime.synthesis_in_bfloat16
        with context.folded.computed_in(batch.forget_images.shape, bfloat16=bfloat16) as model:
            images, labels = adversarial(
                model, batch.forget_images, batch.forget_labels,
                steps=self.cfg.attack_steps, radius=self.cfg.attack_radius,
                pixel_range=context.pixel_range,
            )  # fmt: skip
            with torch.no_grad(), frozen(model):
                logits = model(images).logits
        loss = task_loss(logits, batch.forget_labels, "sum") / batch.forget_total
        more = {
            "ids": batch.forget_ids,
            "images": gather(images, batch.forget_total).cpu(),
            "labels": gather(labels, batch.forget_total).cpu(),
        }
        self.found = {k: torch.cat([self.found.get(k, v[:0]), v]) for k, v in more.items()}
        return updater.add_up({"loss": loss}, [], stop=stop)[0]

    def _of(self, ids: Tensor, batch: StepBatch) -> tuple[Tensor, Tensor]:
        """Return the adversarial examples of forget images and their labels."""
        order = self.found["ids"].argsort()
        rows = order[torch.searchsorted(self.found["ids"][order], ids)]
        images, labels = self.found["images"][rows], self.found["labels"][rows]
        return images.to(batch.images), labels.to(batch.labels)


def adversarial(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    radius: float,
    pixel_range: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Return images that the model classifies wrongly, near the given ones, and their wrong labels.

    Projected gradient steps up the loss within an l2 ball around the image, each a tenth of its
    radius long; an image that is still classified correctly after `steps` of them goes on from
    there in a ball of twice the radius. An image that is classified wrongly stays.

    Parameters
    ----------
    images : (n, 3, S, S) normalised
    labels : (n,) classes, or (n, L) zeros and ones
    radius : of the first ball, in units of pixels between 0 and 1
    pixel_range : lowest and highest normalised value per channel
    """
    scale = pixel_range[1] - pixel_range[0]
    current, largest = images.detach().clone(), math.sqrt(math.prod(images.shape[1:]))
    left = torch.arange(len(images), device=images.device)
    with frozen(model):
        while len(left) and radius / 2 < largest:
            for _ in range(steps):
                gradient, correct = _ascent(model, current[left], labels[left])
                left, gradient = left[correct], gradient[correct]
                if not len(left):
                    break
                moved = _moved(current[left], images[left], gradient, radius, scale)
                current[left] = moved.clamp(*pixel_range)
            radius *= 2
        with torch.no_grad():
            return current, _wrong_labels(model(current).logits, labels)


def _ascent(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of the loss, and which rows are classified correctly, every label."""
    images = images.requires_grad_(True)
    logits = model(images).logits
    (gradient,) = torch.autograd.grad(task_loss(logits, labels, "sum"), images)
    same = task_prediction(logits.detach(), labels) == labels
    return gradient, same.view(len(labels), -1).all(1)


def _moved(
    current: Tensor, start: Tensor, gradient: Tensor, radius: float, scale: Tensor
) -> Tensor:
    """Return images one step further up the gradient, within a ball around where they began."""
    gradient = gradient * scale
    offset = (current - start) / scale + radius / 10 * gradient / _norm(gradient)
    return start + scale * offset * (radius / _norm(offset)).clamp(max=1)


def _norm(rows: Tensor) -> Tensor:
    return rows.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)


def _wrong_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Return what the logits say; where that is right, the answer that lies next to it."""
    if labels.ndim == 1:
        return logits.scatter(1, labels[:, None], -torch.inf).argmax(1)
    said = task_prediction(logits, labels)
    right = (said == labels).all(1)
    nearest = logits.abs().argmin(1)
    said[right, nearest[right]] = 1 - said[right, nearest[right]]
    return said
