"""The loop that the authors of DLFD published, step for step (method=dlfd_official).

It is here so that published numbers can be explained; method=dlfd is the method of the paper.
Where the two differ, this file does what the authors' code does:

- the transport is that of the unperturbed logits, so its gradient never reaches the noise, and
  method.forget_weight changes no image; `ot_cost` is logged because computing it costs time
- normalised images are clamped to 0..1, which is not the range of real pixels
- dropout and BatchNorm are in training mode until the first evaluation, in evaluation mode after it
- a step whose retain and forget batches differ in size is passed over, its evaluation too

train_mode and ot.* are not read. On CUDA, seed=42 draws the dropout masks of the authors' run.

Source: train_dlfd in unlearn/dlfd.py of github.com/Dasol-Choi/DLFD (MIT licence) at 4ac0aa6.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models import computed_in, task_loss
from ..runtime.phases import phase
from ..synthesis import Synthesised, SynthesisLoss
from .base import MethodContext, Probe, StepBatch, methods
from .dlfd import DLFD
from .update import Updater

SINKHORN_THRESHOLD = 0.1
"""Sum of the changes of u below which the authors' Sinkhorn stops; in units of the cost."""
SINKHORN_FLOOR = 1e-6
"""What they add under the logarithm: their "log-sum-exp" is not shifted by its largest term."""


@methods.register("dlfd_official")
class DLFDOfficial(DLFD):
    """The authors' published loop; probes and selection are those of its YAML file."""

    shuffle = False
    initial_probe = False
    equal_batches = True

    def __init__(self, context: MethodContext):
        super().__init__(context)
        self.evaluated = False

    def step(self, batch: StepBatch, updater: Updater, *, stop: bool) -> dict[str, float]:
        first = not self.evaluated
        if first:
            # Their set_seed. Every step is followed by an evaluation, after which nothing is drawn:
            # a resumed run needs no generator state.
            torch.manual_seed(self.context.config.seed)
        self.context.model.train(first)
        images, report, extra = batch.images, {}, {}
        if self.synthesising:
            made = self._synthesise(batch)
            images = made.images
            report = made.report()
            extra = {"retain_weight": self._retain_weight(batch.index)}
            self._keep(batch, images)
        numbers = updater.classify(
            images, batch.labels, total=batch.total, stop=stop, report=report
        )
        return numbers | extra | {"synthesised": self.synthesising}

    def observe(self, probe: Probe) -> dict[str, Any]:
        self.evaluated = True
        if self.cfg.dynamic:
            self.synthesising = probe.forgetting_score >= self.cfg.forget_threshold
        return {"synthesis": self.synthesising}

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"evaluated": self.evaluated}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.evaluated = state["evaluated"]

    def _synthesise(self, batch: StepBatch) -> Synthesised:
        model, config = self.context.model, self.context.config
        with computed_in(model, bfloat16=config.runtime.synthesis_in_bfloat16):
            return _perturb(
                model, batch.images, batch.labels, batch.forget_images,
                steps=config.synthesis.steps, strength=config.synthesis.step_size,
                forget_weight=self.cfg.forget_weight if self.cfg.distancing else 0.0,
                retain_weight=self._retain_weight(batch.index),
            )  # fmt: skip


def official_perturb(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    forget_images: Tensor,
    *,
    steps: int,
    strength: float,
    forget_weight: float,
    retain_weight: float,
) -> Tensor:
    """Return images perturbed as the authors' code does it, at its cost.

    Each iteration takes three forward passes and a backward pass through all of them, weights
    included; only the classification loss of the perturbed images reaches the noise.

    Parameters
    ----------
    model : returns a ModelOutput; its mode is left as it is, so in training mode BatchNorm
        statistics move and dropout draws from torch's global generator
    images, forget_images : (n, 3, S, S), (m, 3, S, S) normalised
    strength : step of one iteration, in units of the normalised image
    """
    made = _perturb(
        model, images, labels, forget_images,
        steps=steps, strength=strength, forget_weight=forget_weight, retain_weight=retain_weight,
    )  # fmt: skip
    return made.images


def _perturb(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    forget_images: Tensor,
    *,
    steps: int,
    strength: float,
    forget_weight: float,
    retain_weight: float,
) -> Synthesised:
    noise, losses = torch.zeros_like(images, requires_grad=True), []
    for _ in range(steps):
        # In this order: it is the order in which dropout draws its masks.
        perturbed = model(torch.clamp(images + noise, 0, 1)).logits
        forget = model(forget_images).logits
        retain = model(images).logits
        ot_cost = _ot_cost(retain, forget)
        classification = task_loss(perturbed, labels)
        total = -classification * retain_weight + ot_cost * forget_weight
        model.zero_grad(set_to_none=True)
        with phase("backward"):
            total.backward()
        assert noise.grad is not None
        noise.data += strength * torch.sign(noise.grad)
        noise.grad.zero_()
        losses.append(SynthesisLoss(*(v.detach() for v in (total, ot_cost, classification))))
    model.zero_grad(set_to_none=True)
    return Synthesised(torch.clamp(images + noise, 0, 1).detach(), losses[0], losses[-1])


def _ot_cost(retain: Tensor, forget: Tensor) -> Tensor:
    """Return <P, C>, C being the cosine cost of logits; the gradient passes through P as well."""
    cosine = F.cosine_similarity(retain.unsqueeze(1), forget.unsqueeze(0), dim=2, eps=1e-6)
    cost = torch.clamp(1 - cosine, min=0)
    return torch.sum(official_sinkhorn(cost) * cost)


def official_sinkhorn(cost: Tensor, epsilon: float = 0.01, niter: int = 50) -> Tensor:
    """Return the authors' entropic plan (n, m), differentiable with respect to the cost.

    Its marginals are only roughly uniform: it stops early (SINKHORN_THRESHOLD), after `niter`
    iterations at the latest, and rows of exponentials that underflow count as SINKHORN_FLOOR.

    Parameters
    ----------
    cost : C (n, m)
    epsilon : entropic regularisation in units of the cost
    """
    log_mu, log_nu = (
        torch.full((size,), 1 / size, dtype=cost.dtype, device=cost.device).log()
        for size in cost.shape
    )
    u, v = torch.zeros_like(log_mu), torch.zeros_like(log_nu)

    def scaled() -> Tensor:
        return (-cost + u.unsqueeze(1) + v.unsqueeze(0)) / epsilon

    def log_sum(exponents: Tensor) -> Tensor:
        return torch.log(torch.exp(exponents).sum(1) + SINKHORN_FLOOR)

    for _ in range(niter):
        before = u
        u = epsilon * (log_mu - log_sum(scaled())) + u
        v = epsilon * (log_nu - log_sum(scaled().t())) + v
        if (u - before).abs().sum().item() < SINKHORN_THRESHOLD:
            break
    return torch.exp(scaled())
