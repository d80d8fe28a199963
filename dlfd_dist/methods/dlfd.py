"""DLFD: distribution-level feature distancing (Choi and Na, AAAI 2025), as published.

Three components, each switchable: distancing (optimal transport moves retain features away from
the forget set's), classification (a growing loss keeps the task in the synthesised images) and the
dynamic strategy (synthesis rests while the forgetting score is low enough).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..config import DLFDConfig
from ..models import computed_in
from ..synthesis import Album, Objective, Synthesised, layer_output, linear_weight, perturb
from .base import (
    MethodContext,
    Probe,
    StepBatch,
    UnlearningMethod,
    methods,
    set_training_mode,
)
from .update import Updater


@methods.register("dlfd")
class DLFD(UnlearningMethod):
    """Synthesise retain images far from the forget set, then fine-tune on them."""

    def __init__(self, context: MethodContext):
        super().__init__(context)
        assert isinstance(context.config.method, DLFDConfig)
        self.cfg: DLFDConfig = context.config.method
        self.synthesising = True
        self.album = Album(context.synthesis_dir, context.config.synthesis.save)

    def step(self, batch: StepBatch, updater: Updater, *, stop: bool) -> dict[str, float]:
        images, report = batch.images, {}
        if self.synthesising:
            made = synthesise(
                self.context, batch,
                forget_weight=self.cfg.forget_weight if self.cfg.distancing else 0.0,
                retain_weight=self._retain_weight(batch.index),
            )  # fmt: skip
            images = made.images
            report = made.report()
            self._keep(batch, images)
        set_training_mode(self.context, batch)
        numbers = updater.classify(
            images, batch.labels, total=batch.total, stop=stop, report=report
        )
        extra = {"retain_weight": self._retain_weight(batch.index)} if self.synthesising else {}
        return numbers | extra | {"synthesised": self.synthesising}

    def observe(self, probe: Probe) -> dict[str, Any]:
        if self.cfg.dynamic:
            self.synthesising = probe.forgetting_score > self.cfg.forget_threshold
        return {"synthesis": self.synthesising}

    def state_dict(self) -> dict[str, Any]:
        return {"synthesising": self.synthesising, "num_kept": len(self.album.ids)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.synthesising = state["synthesising"]
        self.album.restore(state["num_kept"])

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
    with computed_in(context.model, bfloat16=cfg.runtime.synthesis_in_bfloat16):
        objective = synthesis_objective(
            context, batch, forget_weight=forget_weight, retain_weight=retain_weight
        )
        return perturb(
            context.model, batch.images, objective,
            cfg=cfg.synthesis, pixel_range=context.pixel_range,
        )  # fmt: skip


def synthesis_objective(
    context: MethodContext, batch: StepBatch, *, forget_weight: float, retain_weight: float
) -> Objective:
    """Return what the synthesis of a step raises; the forget batch is forwarded here, once."""
    cfg = context.config
    forget = layer_output(context.model, batch.forget_images, cfg.synthesis.layer)
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
