"""NegGrad and NegGrad+, each beside a wrong version that the test must refuse."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dlfd_dist.methods import StepBatch
from dlfd_dist.methods.neggrad import NegGrad
from dlfd_dist.methods.neggrad_plus import NegGradPlus
from dlfd_dist.models import Classifier, task_loss
from tests.fakes.method_lab import (
    FORGET,
    OUTPUTS,
    PLAIN,
    assert_step_is,
    depends_on_forget,
    forget_loss,
    lab,
)


class Descends(NegGrad):
    """Wrong: it learns the forget set."""

    def step(self, batch, updater, *, stop):
        return updater.classify(
            batch.forget_images, batch.forget_labels, total=batch.forget_total, stop=stop
        )


@pytest.mark.parametrize(("build", "holds"), [(NegGrad, True), (Descends, False)])
@pytest.mark.parametrize("task", OUTPUTS)
def test_neggrad_raises_the_forget_loss(task, build, holds):
    found = lab("neggrad", build, task=task, epochs=3)
    before = forget_loss(found.model, task)
    found.run()
    assert (forget_loss(found.model, task) > before) is holds


def test_neggrad_never_sees_the_retain_set():
    found = lab("neggrad", epochs=2)
    seen = [batch for batch, _ in found.walk()]
    assert all(len(batch.images) == 0 for batch in seen)
    assert sorted(torch.cat([b.forget_ids for b in seen]).tolist()) == sorted([*FORGET, *FORGET])


def test_neggrad_is_ascent_on_the_mean_loss():
    found = lab("neggrad", **PLAIN)
    batch = found.batch(next(found.course.turns(0)))
    loss = assert_step_is(
        found,
        batch,
        lambda model: -F.cross_entropy(model(batch.forget_images).logits, batch.forget_labels),
    )
    assert loss < 0


class ForgetsNobody(NegGradPlus):
    """Wrong: the forget term is lost."""

    def step(self, batch, updater, *, stop):
        self.alpha = 1.0
        return super().step(batch, updater, stop=stop)


@pytest.mark.parametrize("task", OUTPUTS)
def test_neggrad_plus_is_the_weighted_difference_of_two_means(task):
    found = lab("neggrad_plus", task=task, alpha=0.7, **PLAIN)
    for turn in found.course.turns(0):
        batch = found.batch(turn)

        def loss(model: Classifier, batch: StepBatch = batch) -> Tensor:
            retain = task_loss(model(batch.images).logits, batch.labels)
            forget = task_loss(model(batch.forget_images).logits, batch.forget_labels)
            return 0.7 * retain - 0.3 * forget

        assert_step_is(found, batch, loss)


@pytest.mark.parametrize(("build", "holds"), [(NegGradPlus, True), (ForgetsNobody, False)])
def test_neggrad_plus_depends_on_the_forget_images(build, holds):
    assert depends_on_forget(lab("neggrad_plus", build)) is holds
