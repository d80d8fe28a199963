"""GLI: its guide and what it trains on, beside wrong versions."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dlfd_dist.methods import StepBatch
from dlfd_dist.methods import gli as gli_module
from dlfd_dist.methods.gli import GLI
from dlfd_dist.models import task_loss
from tests.fakes.method_lab import OUTPUTS, Lab, depends_on_forget, lab

FREE = (torch.tensor(-100.0), torch.tensor(100.0))
"""A range of pixels that is never left."""


def guided(
    monkeypatch: pytest.MonkeyPatch, build: type[GLI] = GLI, **settings
) -> tuple[Lab, StepBatch, Tensor, dict[str, float]]:
    """Take the first step; return its batch, the images it trained on and what it logged."""
    found = lab("gli", build, **settings)
    found.method.context = replace(found.method.context, pixel_range=FREE)
    batch, made, plain = found.batch(next(found.course.turns(0))), [], gli_module.perturb

    def recorded(*args, **kwargs):
        made.append(plain(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(gli_module, "perturb", recorded)
    model = copy.deepcopy(found.model).eval()
    numbers = found.method.step(batch, found.updater, stop=False)
    found.model.load_state_dict(model.state_dict())
    return found, batch, made[0].images, numbers


class TowardsForget(GLI):
    """Wrong: the guide leads retain images to forget images."""

    def step(self, batch, updater, *, stop):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gli_module.F, "mse_loss", lambda a, b, reduction: -((a - b) ** 2).sum())
            return super().step(batch, updater, stop=stop)


def distances(found: Lab, batch: StepBatch, images: Tensor) -> tuple[float, float]:
    """Return the squared distance of logits from those of forget, of retain images and guided."""
    model = copy.deepcopy(found.model).eval()
    with torch.no_grad():
        forget = model(batch.forget_images).logits
        rows = torch.arange(batch.total) % batch.forget_total
        both = [F.mse_loss(model(x).logits, forget[rows]) for x in (batch.images, images)]
    return float(both[0]), float(both[1])


@pytest.mark.parametrize(("build", "holds"), [(GLI, True), (TowardsForget, False)])
@pytest.mark.parametrize("task", OUTPUTS)
def test_the_guide_leads_retain_images_away_from_forget_images(task, build, holds, monkeypatch):
    weights = {"initial_retain_weight": 0.0, "final_retain_weight": 0.0}
    found, batch, images, _ = guided(monkeypatch, build, task=task, guide_steps=5, **weights)
    before, after = distances(found, batch, images)
    assert (after > before) is holds
    assert float((images - batch.images).abs().max()) <= 5 * 0.02 + 1e-12


@pytest.mark.parametrize("task", OUTPUTS)
def test_a_guide_with_a_large_weight_keeps_the_class(task, monkeypatch):
    """Their guidance: beside the distance, the image becomes a better one of its class."""
    found, batch, images, numbers = guided(monkeypatch, task=task, guide_steps=5)
    model = copy.deepcopy(found.model).eval()
    with torch.no_grad():
        before, after = (
            float(task_loss(model(x).logits, batch.labels)) for x in (batch.images, images)
        )
    assert after < before
    assert numbers["retain_weight"] == 200.0


def test_the_weight_of_the_guide_runs_over_the_steps():
    found = lab("gli", epochs=2)
    weights = [numbers["retain_weight"] for numbers in found.run()]
    assert weights == pytest.approx([200, 360, 520, 680, 840, 1000])


def test_the_model_learns_the_guided_images_under_their_own_labels(monkeypatch):
    found, batch, images, numbers = guided(monkeypatch)
    model = copy.deepcopy(found.model).eval()
    with torch.no_grad():
        expected = float(F.cross_entropy(model(images).logits, batch.labels))
    assert numbers["loss"] == pytest.approx(expected, rel=1e-10)


def test_no_step_is_passed_over_where_fewer_images_are_forgotten_than_a_batch_has():
    found = lab("gli", global_batch_size=11)
    assert len(found.run()) == 1
    assert depends_on_forget(lab("gli", guide_steps=5, initial_retain_weight=0.0))
