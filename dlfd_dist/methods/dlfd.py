"""DLFD: distribution-level feature distancing (Choi and Na, AAAI 2025), as published.

Three components, each switchable: distancing (optimal transport moves retain features away from
the forget set's), classification (a growing loss keeps the task in the synthesised images) and the
dynamic strategy (synthesis rests while the forgetting score is low enough). Beyond the paper, and
off unless asked for: unperturbed images in every update (method.clean_share), distillation from
Original on them (method.kd_weight), and what it is that rests (method.rests).
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..config import DLFDConfig
from ..models import Classifier, ModelOutput, task_divergence, task_loss
from ..runtime.seeding import purpose_key, shuffled
from ..synthesis import Album, Objective, Synthesised, layer_output, linear_weight, perturb
from .bad_teacher import as_teacher
from .base import (
    MethodContext,
    Probe,
    StepBatch,
    UnlearningMethod,
    methods,
    set_training_mode,
)
from .update import Objective as UpdateObjective
from .update import Updater, classification

SLOW = 0.1
"""Share of the learning rate that is left with method.rests=rate."""


@methods.register("dlfd")
class DLFD(UnlearningMethod):
    """Synthesise retain images far from the forget set, then fine-tune on them."""

    # Their loop evaluates after every batch and never goes back to training mode.
    authors_train_mode: ClassVar[str] = "frozen"

    def __init__(self, context: MethodContext):
        super().__init__(context)
        assert isinstance(context.config.method, DLFDConfig)
        self.cfg: DLFDConfig = context.config.method
        self.synthesising = True
        self.first_score: float | None = None
        self.original = as_teacher(copy.deepcopy(context.model)) if self.cfg.kd_weight else None
        self.album = Album(context.synthesis_dir, context.config.synthesis.save)

    def step(self, batch: StepBatch, updater: Updater, *, stop: bool) -> dict[str, float]:
        if not self.synthesising and self.cfg.rests == "update":
            return self._stand_still(batch, stop)
        clean = self._clean(batch)
        images, report = batch.images, {}
        if self.synthesising:
            made = synthesise(
                self.context, batch,
                forget_weight=self.cfg.forget_weight if self.cfg.distancing else 0.0,
                retain_weight=self._retain_weight(batch.index),
            )  # fmt: skip
            images = torch.where(clean[:, None, None, None], images, made.images)
            report = made.report()
            self._keep(batch, made.images)
        elif self.cfg.rests == "rate":
            for group in updater.optimizer.param_groups:
                group["lr"] *= SLOW
        set_training_mode(self.context, batch)
        numbers = updater.step(images, self._loss(batch, clean), stop=stop, report=report)
        extra = {"retain_weight": self._retain_weight(batch.index)} if self.synthesising else {}
        return numbers | extra | {"synthesised": self.synthesising}

    def observe(self, probe: Probe) -> dict[str, Any]:
        # The first step synthesises whatever was measured before it, as the authors' does.
        if probe.step == 0:
            self.first_score = probe.forgetting_score
        elif self.cfg.dynamic:
            self.synthesising = probe.forgetting_score > self._threshold()
        return {"synthesis": self.synthesising}

    def state_dict(self) -> dict[str, Any]:
        return {
            "synthesising": self.synthesising,
            "first_score": self.first_score,
            "num_kept": len(self.album.ids),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.synthesising = state["synthesising"]
        self.first_score = state["first_score"]
        self.album.restore(state["num_kept"])

    def _threshold(self) -> float:
        if self.cfg.forget_share is None or self.first_score is None:
            return self.cfg.forget_threshold
        return self.cfg.forget_share * self.first_score

    def _clean(self, batch: StepBatch) -> Tensor:
        """Return (n,) which of this rank's retain images an update sees as they are."""
        if not self.synthesising:
            return torch.ones_like(batch.labels.reshape(len(batch.labels), -1)[:, 0]).bool()
        number = round(self.cfg.clean_share * batch.total)
        key = (self.context.config.seed, purpose_key("clean images"), batch.index)
        chosen = shuffled(batch.ids.numpy(), *key)[:number]
        mask = torch.isin(batch.ids, torch.as_tensor(chosen, dtype=batch.ids.dtype))
        return mask[self.context.collectives.shard(batch.total)].to(batch.images.device)

    def _loss(self, batch: StepBatch, clean: Tensor) -> UpdateObjective:
        """Return what an update lowers: classification, and distillation on unperturbed images."""
        if self.original is None:
            return classification(batch.labels, batch.total)
        target = self.original(batch.images[clean]).logits
        total = round(self.cfg.clean_share * batch.total) if self.synthesising else batch.total

        def objective(output: ModelOutput) -> dict[str, Tensor]:
            task = task_loss(output.logits, batch.labels, "sum") / batch.total
            apart = task_divergence(output.logits[clean], target, batch.labels[clean]).sum()
            divergence = apart / max(total, 1)
            return {
                "loss": task + self.cfg.kd_weight * divergence,
                "retain_divergence": divergence,
            }

        return objective

    def _stand_still(self, batch: StepBatch, stop: bool) -> dict[str, float]:
        """Take a step that moves nothing: all ranks only agree on whether to stop."""
        asked = torch.tensor([float(stop)], device=batch.images.device)
        summed = float(self.context.collectives.all_reduce_sum(asked))
        return {"loss": 0.0, "grad_norm": 0.0, "stop": summed, "synthesised": False}

    def _retain_weight(self, index: int) -> float:
        if not self.cfg.classification:
            return 0.0
        return linear_weight(
            index,
            self.context.num_steps,
            self.cfg.initial_retain_weight,
            self.cfg.final_retain_weight,
        )

    def _keep(self, batch: StepBatch, synthesised: Tensor) -> None:
        if self.album.full:
            return
        to_uint8, gather = self.context.to_uint8, self.context.collectives.gather_rows
        device = self.context.collectives.device
        original, made = (
            gather(to_uint8(images).to(device), batch.total).cpu()
            for images in (batch.images, synthesised)
        )
        self.album.add(torch.as_tensor(batch.ids), original, made)
        if self.context.collectives.is_main:
            self.album.write()


def synthesise(
    context: MethodContext, batch: StepBatch, *, forget_weight: float, retain_weight: float
) -> Synthesised:
    """Return retain images moved away from the forget batch."""
    cfg = context.config
    bfloat16 = cfg.runtime.synthesis_in_bfloat16
    with context.folded.computed_in(batch.images.shape, bfloat16=bfloat16) as model:
        objective = synthesis_objective(
            context, model, batch, forget_weight=forget_weight, retain_weight=retain_weight
        )
        return perturb(
            model, batch.images, objective, cfg=cfg.synthesis, pixel_range=context.pixel_range
        )


def synthesis_objective(
    context: MethodContext,
    model: Classifier,
    batch: StepBatch,
    *,
    forget_weight: float,
    retain_weight: float,
) -> Objective:
    """Return what the synthesis of a step raises; the forget batch is forwarded here, once."""
    cfg = context.config
    forget = layer_output(model, batch.forget_images, cfg.synthesis.layer)
    return Objective(
        context.collectives.gather_rows(forget, batch.forget_total),
        batch.labels,
        total=batch.total,
        forget_weight=forget_weight,
        retain_weight=retain_weight,
        layer=cfg.synthesis.layer,
        ot=cfg.ot,
        collectives=context.collectives,
    )
