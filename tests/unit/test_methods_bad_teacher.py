"""Bad Teacher: two teachers that never move, beside wrong versions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dlfd_dist.methods import StepBatch
from dlfd_dist.methods.bad_teacher import BadTeacher
from dlfd_dist.models import Classifier
from tests.fakes.method_lab import (
    FORGET,
    OUTPUTS,
    PLAIN,
    assert_step_is,
    depends_on_forget,
    equal,
    lab,
    original,
    weights,
)
from tests.fakes.small_model import small_classifier


class IgnoresForget(BadTeacher):
    """Wrong: only the competent teacher is heard."""

    def step(self, batch, updater, *, stop):
        none = {
            "forget_images": batch.forget_images[:0], "forget_labels": batch.forget_labels[:0],
            "forget_total": 0,
        }  # fmt: skip
        return super().step(replace(batch, **none), updater, stop=stop)


@pytest.mark.parametrize(("build", "holds"), [(BadTeacher, True), (IgnoresForget, False)])
@pytest.mark.parametrize("task", OUTPUTS)
def test_the_update_of_bad_teacher_depends_on_the_forget_images(task, build, holds):
    assert depends_on_forget(lab("bad_teacher", build, task=task)) is holds


class OneTeacher(BadTeacher):
    """Wrong: the original teaches the forget samples too, so nothing is forgotten."""

    def __init__(self, context):
        super().__init__(context)
        self.incompetent = self.competent


def bad_teacher_loss(start: Classifier, batch: StepBatch, temperature: float):
    """Return KL(teacher || model) by torch.distributions, averaged over the images of both sets."""
    teachers = start.eval(), small_classifier(seed=99).eval()
    parts = [(teachers[0], batch.images), (teachers[1], batch.forget_images)]
    parts = [(teacher, images) for teacher, images in parts if len(images)]

    def loss(model: Classifier) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for teacher, images in parts:
            known, learned = (
                torch.distributions.Categorical(logits=m(images).logits / temperature)
                for m in (teacher, model)
            )
            total = total + torch.distributions.kl_divergence(known, learned).sum()
        return total / (batch.total + batch.forget_total)

    return loss


@pytest.mark.parametrize(("build", "holds"), [(BadTeacher, True), (OneTeacher, False)])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_bad_teacher_lowers_the_divergence_from_two_teachers(temperature, build, holds):
    found = lab("bad_teacher", build, temperature=temperature, **PLAIN)
    steps = 0
    for turn in found.course.turns(0):
        batch = found.batch(turn)
        loss = bad_teacher_loss(original(), batch, temperature)
        if holds:
            assert_step_is(found, batch, loss)
        elif batch.forget_total:
            with pytest.raises(AssertionError):
                assert_step_is(found, batch, loss)
        steps += 1
    assert steps == 3


def test_without_forget_images_bad_teacher_stays_with_the_original():
    found = lab("bad_teacher", **PLAIN)
    batch = found.batch(next(found.course.turns(0)))
    batch = replace(
        batch, forget_ids=batch.forget_ids[:0], forget_images=batch.forget_images[:0],
        forget_labels=batch.forget_labels[:0], forget_total=0,
    )  # fmt: skip
    assert batch.total
    # The original is the model itself: nothing to lower.
    numbers = found.method.step(batch, found.updater, stop=False)
    assert (numbers["loss"], numbers["grad_norm"]) == pytest.approx((0, 0), abs=1e-12)
    with torch.no_grad():
        found.model.module.get_parameter("head.0.bias").add_(torch.arange(3.0))
    assert_step_is(found, batch, bad_teacher_loss(original(), batch, 1.0))


@pytest.mark.parametrize("train_mode", ["frozen", "sync_bn"])
def test_the_teachers_never_move(train_mode):
    found = lab("bad_teacher", train_mode=train_mode, epochs=2, optimizer="adam")
    teachers = [found.method.competent, found.method.incompetent]
    assert equal(weights(teachers[0]), weights(original()))
    assert equal(weights(teachers[1]), weights(small_classifier(seed=99)))
    before = [weights(t) for t in teachers]
    found.run()
    assert all(equal(one, weights(t)) for one, t in zip(before, teachers, strict=True))
    assert not equal(weights(found.model), before[0])


def test_bad_teacher_mixes_its_share_of_the_retain_set_with_all_forget_images():
    found = lab("bad_teacher", retain_fraction=0.3, epochs=2)
    for epoch in range(2):
        seen = [found.batch(t) for t in found.course.turns(0) if t.epoch == epoch]
        assert sorted(torch.cat([b.forget_ids for b in seen]).tolist()) == FORGET.tolist()
        assert len(torch.cat([b.ids for b in seen]).unique()) == 3  # 0.3 of 11
