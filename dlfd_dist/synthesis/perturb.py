"""Retain images whose features lie far from the forget set's: projected gradient steps.

Source: Choi and Na, AAAI 2025, section on distribution-level feature distancing; the projection is
that of Madry et al. 2018, with the range of real pixels as a second constraint.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import SynthesisConfig, TransportConfig
from ..models import ModelOutput, task_loss
from ..runtime.collectives import Collectives
from ..runtime.phases import phase
from ..transport import SCOPES, LaggedSolve, Potentials, solve


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Parameters without gradient and layers in evaluation mode: no statistics, no dropout."""
    modes = [(module, module.training) for module in model.modules()]
    trainable = [p for p in model.parameters() if p.requires_grad]
    model.eval()
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode


class SynthesisLoss(NamedTuple):
    """This rank's parts of the global values; their sums over ranks are the values.

    total : what the synthesis raises; ot_cost : <P, C>; classification : mean CE of the batch
    """

    total: Tensor
    ot_cost: Tensor
    classification: Tensor


class Objective:
    """forget_weight * OT(phi(x), phi(z)) - retain_weight * CE(h(phi(x)), y) of a global batch.

    Parameters
    ----------
    forget_features : (m, d) features of the global forget batch, without gradient
    labels : (n_local,) or (n_local, L) labels of this rank's images
    total : images over all ranks
    """

    def __init__(
        self,
        forget_features: Tensor,
        labels: Tensor,
        *,
        total: int,
        forget_weight: float,
        retain_weight: float,
        layer: str,
        ot: TransportConfig,
        collectives: Collectives,
    ):
        self.forget_features = forget_features
        self.labels = labels
        self.total = total
        self.forget_weight = forget_weight
        self.retain_weight = retain_weight
        self.layer = layer
        self.ot = ot
        self.collectives = collectives
        self.potentials: Potentials | None = None
        """of the last entropic plan: the next iteration's is near it"""
        self.solve = LaggedSolve() if ot.lag else solve

    def __call__(self, output: ModelOutput) -> SynthesisLoss:
        ot_cost = self._ot_cost(output) if self.forget_weight else output.logits.new_zeros(())
        classification = task_loss(output.logits, self.labels, "sum") / self.total
        total = self.forget_weight * ot_cost - self.retain_weight * classification
        return SynthesisLoss(total, ot_cost, classification)

    def _ot_cost(self, output: ModelOutput) -> Tensor:
        solved = SCOPES[self.ot.scope](
            output.features if self.layer == "features" else output.logits,
            self.forget_features,
            total=self.total, collectives=self.collectives, cost=self.ot.cost,
            solver=self.ot.solver, reg=self.ot.reg, max_iter=self.ot.max_iter,
            start=self.potentials, solve=self.solve,
        )  # fmt: skip
        self.potentials = solved.potentials
        return solved.value


class Synthesised(NamedTuple):
    """Perturbed images, and the objective before the first and at the last iteration."""

    images: Tensor
    first: SynthesisLoss
    last: SynthesisLoss

    def report(self) -> dict[str, Tensor]:
        """Return what a step logs of its synthesis, this rank's parts."""
        return {
            "ot_cost": self.last.ot_cost,
            "ot_cost_first": self.first.ot_cost,
            "classification_loss": self.last.classification,
        }


def perturb(
    model: nn.Module,
    images: Tensor,
    objective: Callable[[ModelOutput], SynthesisLoss],
    *,
    cfg: SynthesisConfig,
    pixel_range: tuple[Tensor, Tensor],
) -> Synthesised:
    """Return images moved `cfg.steps` sign-gradient steps up the objective.

    Each iteration costs one forward pass and one backward pass with respect to the images: the
    parameters never require a gradient. After each step the images are projected onto the
    infinity ball of cfg.pgd_radius around the originals and onto the range of real pixels, so the
    gradient is never cut off at the border of that range.

    Parameters
    ----------
    images : (n, 3, S, S) normalised
    pixel_range : lowest and highest normalised value per channel
    """
    lowest, highest = pixel_range
    if cfg.pgd_radius is not None:
        lowest = torch.maximum(images - cfg.pgd_radius, lowest)
        highest = torch.minimum(images + cfg.pgd_radius, highest)
    # One limit per channel takes five times as long to clamp to where channels come last.
    lowest, highest = (torch.empty_like(images).copy_(limit) for limit in (lowest, highest))
    current, losses = images.detach(), []
    with frozen(model):
        for _ in range(cfg.steps):
            current.requires_grad_(True)
            loss = objective(model(current))
            with phase("backward"):
                (gradient,) = torch.autograd.grad(loss.total, current)
            with torch.no_grad():
                current = (current + cfg.step_size * gradient.sign()).clamp(lowest, highest)
            losses.append(SynthesisLoss(*(value.detach() for value in loss)))
    return Synthesised(current, losses[0], losses[-1])


@torch.no_grad()
def layer_output(model: nn.Module, images: Tensor, layer: str) -> Tensor:
    """Return features or logits of images, without gradient and in evaluation mode."""
    with frozen(model):
        output = model(images)
    return output.features if layer == "features" else output.logits
