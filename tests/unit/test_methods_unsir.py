"""UNSIR: its noise, its impair and repair steps, beside wrong versions."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dlfd_dist.methods import unsir as unsir_module
from dlfd_dist.methods.unsir import UNSIR
from dlfd_dist.models import Classifier, task_loss
from tests.fakes.method_lab import (
    OUTPUTS,
    PLAIN,
    Lab,
    assert_step_is,
    depends_on_retain,
    equal,
    lab,
    moves,
)


class LowersTheError(UNSIR):
    """Wrong: the noise is what the model is most right about."""

    def _learn_noise(self, batch):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(unsir_module, "task_loss", lambda *args: -task_loss(*args))
            return super()._learn_noise(batch)


def error_of(found: Lab, noise: dict[str, Tensor]) -> float:
    model = copy.deepcopy(found.model).eval()
    with torch.no_grad():
        return float(task_loss(model(noise["images"]).logits, noise["labels"]))


@pytest.mark.parametrize(("build", "holds"), [(UNSIR, True), (LowersTheError, False)])
@pytest.mark.parametrize("task", OUTPUTS)
def test_the_noise_of_unsir_is_what_the_model_is_most_wrong_about(task, build, holds):
    losses = {}
    for steps in (1, 40):
        found = lab("unsir", build, task=task, noise_steps=steps, noise_penalty=0.0)
        batch = found.batch(next(found.course.turns(0)))
        model = copy.deepcopy(found.model)
        found.method.step(batch, found.updater, stop=False)
        found.model.load_state_dict(model.state_dict())
        noise = found.method.tensors()
        assert torch.equal(noise["labels"], batch.forget_labels)
        losses[steps] = error_of(found, noise)
    assert (losses[40] > losses[1] + 0.1) is holds


def test_the_penalty_keeps_the_noise_small():
    sizes = {}
    for penalty in (0.0, 1.0):
        found = lab("unsir", noise_penalty=penalty)
        next(found.walk())
        sizes[penalty] = float(found.method.tensors()["images"].norm())
    assert sizes[1.0] < 0.5 * sizes[0.0]


class LearnsEveryStep(UNSIR):
    """Wrong: new noise for every step, which is ascent on images, not UNSIR's one batch."""

    def step(self, batch, updater, *, stop):
        self.noise = {}
        return super().step(batch, updater, stop=stop)


@pytest.mark.parametrize(("build", "holds"), [(UNSIR, True), (LearnsEveryStep, False)])
def test_unsir_learns_its_noise_once(build, holds):
    found = lab("unsir", build, epochs=2)
    noises = [found.method.tensors() for batch, _ in found.walk() if batch.phase == "impair"]
    assert len(noises) == 6
    assert all(equal(noise, noises[0]) for noise in noises) is holds


@pytest.mark.parametrize("task", OUTPUTS)
def test_impairing_lowers_the_mean_loss_of_retain_images_and_noise(task):
    found = lab("unsir", task=task, **PLAIN)
    turns = found.course.turns(0)
    batch = found.batch(next(turns))
    found.method.step(batch, found.updater, stop=False)
    noise, batch = found.method.tensors(), found.batch(next(turns))

    def loss(model: Classifier) -> Tensor:
        images = torch.cat([batch.images, noise["images"]])
        return task_loss(model(images).logits, torch.cat([batch.labels, noise["labels"]]))

    assert_step_is(found, batch, loss)


class KeepsTheNoise(UNSIR):
    """Wrong: it goes on impairing when it should repair."""

    def step(self, batch, updater, *, stop):
        return super().step(replace(batch, phase="impair"), updater, stop=stop)


@pytest.mark.parametrize(("build", "holds"), [(UNSIR, True), (KeepsTheNoise, False)])
def test_repairing_is_fine_tuning_on_the_retain_set(build, holds):
    found = lab("unsir", build, repair_lr=0.02)
    batch = found.until("repair")
    plain = lab("finetune", lr=0.02)
    plain.model.load_state_dict(found.model.state_dict())
    assert equal(moves(found, batch), moves(plain, batch)) is holds
    assert depends_on_retain(found, batch)


def test_unsir_impairs_and_repairs_at_rates_of_their_own():
    found = lab("unsir", epochs=2, repair_epochs=1, lr=0.02, repair_lr=0.01)
    rates = [found.updater.set_epoch(t.epoch, t.phase.lr) for t in found.course.turns(0)]
    assert rates == [0.02] * 6 + [0.01] * 3
